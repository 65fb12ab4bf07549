//! UDP: one state, which every packet of either direction refreshes; never counted as active.

/// Seconds.
pub const TIMEOUT: u32 = 300;
