//! ipvsadm.
fn main() {}
