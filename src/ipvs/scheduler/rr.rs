//! Round robin: the next usable server after the last one chosen; weights count only as zero or not.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Scheduler, is_usable};
use crate::ipvs::server::RealServer;
use crate::net::flow::FlowKey;

/// Remembers the last choice; none yet, or one that has gone, means the head of the list.
#[derive(Default)]
pub struct RoundRobin {
    last: Mutex<Weak<RealServer>>,
}

fn position(servers: &[Arc<RealServer>], server: &Weak<RealServer>) -> Option<usize> {
    servers.iter().position(|candidate| std::ptr::eq(Arc::as_ptr(candidate), server.as_ptr()))
}

impl Scheduler for RoundRobin {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &FlowKey) -> Option<Arc<RealServer>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = position(servers, &last).map_or(0, |last| last + 1);
        let (before, after) = servers.split_at(next.min(servers.len()));
        let chosen = after.iter().chain(before).find(|server| is_usable(server))?;
        *last = Arc::downgrade(chosen);
        Some(Arc::clone(chosen))
    }

    fn server_deleted(&self, servers: &[Arc<RealServer>], deleted: &Arc<RealServer>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = position(servers, &last) else { return };
        if Arc::ptr_eq(&servers[index], deleted) {
            *last = index.checked_sub(1).map(|before| Arc::downgrade(&servers[before])).unwrap_or_default();
        }
    }
}
