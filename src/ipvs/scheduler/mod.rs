//! Schedulers: who takes the next new connection. One file each; [`by_name`] is the list.

mod rr;
mod wlc;

use std::sync::Arc;

use crate::ipvs::server::RealServer;
use crate::net::flow::FlowKey;

/// Picks servers. State lives inside and is shared by all workers.
pub trait Scheduler: Send + Sync {
    /// The server for a new flow (client to virtual address), from `servers` in list order (newest first); `None` when no
    /// server may take it.
    fn schedule(&self, servers: &[Arc<RealServer>], flow: &FlowKey) -> Option<Arc<RealServer>>;

    /// `deleted` is about to leave `servers`. Called before the list without it is published.
    fn server_deleted(&self, servers: &[Arc<RealServer>], deleted: &Arc<RealServer>) {
        let _ = (servers, deleted);
    }
}

/// A new scheduler by the name that `ipvsadm -s` takes; `None` if there is none of that name.
pub fn by_name(name: &str) -> Option<Arc<dyn Scheduler>> {
    Some(match name {
        "rr" => Arc::new(rr::RoundRobin::default()),
        "wlc" => Arc::new(wlc::WeightedLeastConnection),
        "none" => Arc::new(NoScheduler),
        _ => return None,
    })
}

/// The kernel's `none`: a service without a scheduler has no destination for anybody.
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn schedule(&self, _: &[Arc<RealServer>], _: &FlowKey) -> Option<Arc<RealServer>> {
        None
    }
}

/// Whether a server may be given a new connection.
fn is_usable(server: &RealServer) -> bool {
    server.weight() > 0 && !server.is_overloaded()
}
