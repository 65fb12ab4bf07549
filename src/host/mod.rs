//! Layer of host.
