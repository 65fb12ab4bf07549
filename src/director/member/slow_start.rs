//! A server that enters gets its weight by and by, so that its empty list of connections does not draw all new ones to it
//! (reference/piranha.md 2.6).

use std::time::Duration;

/// Of its weight a server gets this part first.
const PART: i32 = 32;

/// Servers that are checked oftener than this are adjusted about so often, in seconds.
const PACE: u32 = 20;

/// The weight to enter with on the way to `full`: not 0, unless that is all that there is.
pub fn first(full: i32) -> i32 {
    if full <= 0 { full } else { (full / PART).max(1) }
}

/// The weight after `weight` on the way to `full`.
pub fn next(weight: i32, full: i32) -> i32 {
    weight.saturating_mul(2).min(full)
}

/// Time from one adjustment to the next, if checks are `timeout` seconds apart: as many whole checks as fit into [`PACE`], at
/// least one.
pub fn step(timeout: u32) -> Duration {
    let timeout = timeout.max(1);
    let checks = (PACE / timeout).max(1);
    Duration::from_secs(u64::from(checks) * u64::from(timeout))
}
