//! net/flow.
