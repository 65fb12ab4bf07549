//! net/rewrite.
