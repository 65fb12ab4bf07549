//! Layer of admin.
