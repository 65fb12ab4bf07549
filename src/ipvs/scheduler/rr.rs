//! Round robin: the next usable server after the last one chosen; weights count only as zero or not.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Arrival, Change, Scheduler, is_usable};
use crate::ipvs::server::RealServer;

/// Remembers the last choice; none yet, or one that has gone, means the head of the list.
#[derive(Default)]
pub struct RoundRobin {
    last: Mutex<Weak<RealServer>>,
}

impl Scheduler for RoundRobin {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = |server: &Arc<RealServer>| std::ptr::eq(Arc::as_ptr(server), last.as_ptr());
        let next = servers.iter().position(is_last).map_or(0, |last| last + 1);
        let (before, after) = servers.split_at(next);
        let chosen = after.iter().chain(before).find(|server| is_usable(server))?;
        *last = Arc::downgrade(chosen);
        Some(Arc::clone(chosen))
    }

    /// Without the last choice, the one before it counts as last.
    fn servers_changed(&self, _: &[Arc<RealServer>], change: Change<'_>) {
        let Change::Deleted { server, before } = change else { return };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::ptr::eq(Arc::as_ptr(server), last.as_ptr()) {
            *last = before.map(Arc::downgrade).unwrap_or_default();
        }
    }
}
