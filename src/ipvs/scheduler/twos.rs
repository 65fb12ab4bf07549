//! Power of two choices: of two servers drawn by weight, the one with less overhead for its weight.

use std::sync::Arc;

use super::{Arrival, Scheduler, is_usable};
use crate::ipvs::lottery::Lottery;
use crate::ipvs::server::RealServer;

/// The state of the draw.
#[derive(Default)]
pub struct TwoChoices {
    lottery: Lottery,
}

impl TwoChoices {
    /// A ticket from 0 to the sum of the weights, both included: the first server has one ticket more than its weight.
    fn draw<'a>(&self, usable: &[&'a Arc<RealServer>], total: u64) -> Option<&'a Arc<RealServer>> {
        let mut ticket = (self.lottery.draw() % (total + 1)) as i64;
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
