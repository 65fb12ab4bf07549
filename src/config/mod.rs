//! Layer of config.
