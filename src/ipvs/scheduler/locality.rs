//! What the locality schedulers share: a cache by destination address that forgets (ipvs.md section 5.4).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// Entries idle for as long are forgotten (`lblc_expiration`, `lblcr_expiration`).
pub(super) const EXPIRATION: Duration = Duration::from_secs(86_400);
/// Entries idle for as long may be forgotten when there are too many.
const SPARE_TIME: Duration = Duration::from_secs(360);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
const ENTRIES: usize = 16_384;
/// Past it nothing more is remembered.
const ENTRIES_AT_MOST: usize = ENTRIES + ENTRIES / 2;

/// Values by destination address, with the time of their last use.
pub(super) struct LocalityCache<T> {
    entries: HashMap<IpAddr, (T, Instant), RandomState>,
    next_sweep: Instant,
}

impl<T> Default for LocalityCache<T> {
    fn default() -> Self {
        LocalityCache { entries: HashMap::default(), next_sweep: Instant::START }
    }
}

impl<T> LocalityCache<T> {
    /// The value of an address, which counts as used now.
    pub(super) fn get(&mut self, address: IpAddr, now: Instant) -> Option<&mut T> {
        self.sweep(now);
        let (value, used) = self.entries.get_mut(&address)?;
        *used = now;
        Some(value)
    }

    /// Remembers a value, if there is room.
    pub(super) fn insert(&mut self, address: IpAddr, value: T, now: Instant) {
        if self.entries.len() < ENTRIES_AT_MOST || self.entries.contains_key(&address) {
            self.entries.insert(address, (value, now));
        }
    }

    fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_PERIOD;
        let limit = if self.entries.len() > ENTRIES { SPARE_TIME } else { EXPIRATION };
        self.entries.retain(|_, (_, used)| now.saturating_since(*used) < limit);
    }
}

/// Whether a server has more active connections than its weight while another has less than half of its own.
pub(super) fn is_busy(server: &RealServer, servers: &[Arc<RealServer>]) -> bool {
    let has_room = |other: &Arc<RealServer>| 2 * i64::from(other.active()) < i64::from(other.weight());
    i64::from(server.active()) > i64::from(server.weight()) && servers.iter().any(has_room)
}

/// Whether a remembered server may still be used: an overload does not count here.
pub(super) fn is_alive(server: &RealServer) -> bool {
    server.is_available() && server.weight() > 0
}
