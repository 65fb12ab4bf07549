//! Never queue: an idle server at once, whatever its weight; else as the shortest expected delay.

use std::sync::Arc;

use super::sed::shortest_delay;
use super::{Arrival, Scheduler, is_usable};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let idle = servers.iter().find(|server| is_usable(server) && server.active() == 0);
        idle.or_else(|| shortest_delay(servers)).cloned()
    }
}
