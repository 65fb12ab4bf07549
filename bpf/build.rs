//! Builds nothing yet.
fn main() {}
