//! Power of two choices: of two servers drawn by weight, the one with less overhead for its weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Arrival, Scheduler, is_usable};
use crate::ipvs::server::RealServer;

/// The state of the draw.
#[derive(Default)]
pub struct TwoChoices {
    drawn: AtomicU64,
}

/// splitmix64 (Steele et al., OOPSLA 2014): a counter made to look random; good enough for a lottery, and without a lock.
fn mix(counter: u64) -> u64 {
    let mut word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

impl TwoChoices {
    /// A ticket from 0 to the sum of the weights, both included: the first server has one ticket more than its weight.
    fn draw<'a>(&self, usable: &[&'a Arc<RealServer>], total: u64) -> Option<&'a Arc<RealServer>> {
        let counter = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut ticket = (mix(counter) % (total + 1)) as i64;
        let drawn = usable.iter().find(|server| {
            ticket -= i64::from(server.weight());
            ticket <= 0
        });
        // A weight may have been edited since the sum was taken.
        drawn.or(usable.last()).copied()
    }
}

impl Scheduler for TwoChoices {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let usable: Vec<&Arc<RealServer>> = servers.iter().filter(|server| is_usable(server)).collect();
        let total = usable.iter().map(|server| server.weight() as u64).sum();
        let (first, second) = (self.draw(&usable, total)?, self.draw(&usable, total)?);
        let cost = |one: &RealServer, other: &RealServer| one.overhead() * i64::from(other.weight());
        let chosen = if cost(first, second) > cost(second, first) { second } else { first };
        Some(Arc::clone(chosen))
    }
}
