//! Weighted least-connection: the least overhead for its weight; on a tie the earlier in the list.

use std::sync::Arc;

use super::{Scheduler, is_usable};
use crate::ipvs::server::RealServer;
use crate::net::flow::FlowKey;

/// Has no state of its own.
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &FlowKey) -> Option<Arc<RealServer>> {
        let mut usable = servers.iter().filter(|server| is_usable(server));
        let first = usable.next()?;
        let (least, _, _) =
            usable.fold((first, first.overhead(), i64::from(first.weight())), |least, server| {
                let (overhead, weight) = (server.overhead(), i64::from(server.weight()));
                if least.1 * weight > overhead * least.2 { (server, overhead, weight) } else { least }
            });
        Some(Arc::clone(least))
    }
}
