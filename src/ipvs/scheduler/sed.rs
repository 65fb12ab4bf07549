//! Shortest expected delay: the least (active + 1) for its weight.

use std::sync::Arc;

use super::{Arrival, Scheduler, is_usable, least_by_weight};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct ShortestExpectedDelay;

/// The choice, which never queue falls back to.
pub(super) fn shortest_delay(servers: &[Arc<RealServer>]) -> Option<&Arc<RealServer>> {
    let usable = servers.iter().filter(|server| is_usable(server));
    least_by_weight(usable, |server| i64::from(server.active()) + 1)
}

impl Scheduler for ShortestExpectedDelay {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        shortest_delay(servers).cloned()
    }
}
