//! Layer 3: the single writer. Commands in, effects out.

pub mod protocol;
