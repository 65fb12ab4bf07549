//! Least-connection: the least overhead; weights count only as zero or not.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Arrival, Scheduler, first_of_highest, is_usable};
use crate::ipvs::server::RealServer;

/// Has no state of its own.
pub struct LeastConnection;

impl Scheduler for LeastConnection {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let usable = servers.iter().filter(|server| is_usable(server));
        first_of_highest(usable, |server| Reverse(server.overhead())).cloned()
    }
}
