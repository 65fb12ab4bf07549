//! net/checksum.
