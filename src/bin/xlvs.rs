//! xlvs.
fn main() {}
