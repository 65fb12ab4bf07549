//! net/icmp.
