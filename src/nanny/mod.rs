//! Layer of nanny.
