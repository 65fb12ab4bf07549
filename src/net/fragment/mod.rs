//! Fragments of both families.

mod split;

pub use split::{Cut, split};
