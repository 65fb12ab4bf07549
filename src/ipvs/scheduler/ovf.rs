//! Weighted overflow: the heaviest server until it has more active connections than its weight, then the next.

use std::sync::Arc;

use super::{Arrival, Scheduler, first_of_highest, is_usable};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct Overflow;

impl Scheduler for Overflow {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let has_room = |server: &RealServer| i64::from(server.active()) <= i64::from(server.weight());
        let open = servers.iter().filter(|server| is_usable(server) && has_room(server));
        first_of_highest(open, RealServer::weight).cloned()
    }
}
