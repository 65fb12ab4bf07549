//! Layer of xdp.
