//! Weighted least-connection: the least overhead for its weight; on a tie the earlier in the list.

use std::sync::Arc;

use super::{Arrival, Scheduler, is_usable, least_by_weight};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct WeightedLeastConnection;

/// The choice, which the locality schedulers make too.
pub(super) fn least_loaded(servers: &[Arc<RealServer>]) -> Option<&Arc<RealServer>> {
    least_by_weight(servers.iter().filter(|server| is_usable(server)), RealServer::overhead)
}

impl Scheduler for WeightedLeastConnection {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        least_loaded(servers).cloned()
    }
}
