//! net/parse.
