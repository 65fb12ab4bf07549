//! Draws that look random and can be repeated: the engine has no other source of chance.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of draws, shared by all workers without a lock.
#[derive(Debug, Default)]
pub struct Lottery {
    drawn: AtomicU64,
}

impl Lottery {
    /// The next number.
    pub fn draw(&self) -> u64 {
        mix(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

/// splitmix64 (Steele et al., OOPSLA 2014): a counter made to look random.
pub fn mix(counter: u64) -> u64 {
    let mut word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
