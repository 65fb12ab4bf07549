//! Weighted fail over: the heaviest usable server takes all.

use std::sync::Arc;

use super::{Arrival, Scheduler, first_of_highest, is_usable};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct FailOver;

impl Scheduler for FailOver {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let usable = servers.iter().filter(|server| is_usable(server));
        first_of_highest(usable, RealServer::weight).cloned()
    }
}
