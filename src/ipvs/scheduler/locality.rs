//! What the locality schedulers share: a cache by destination address that forgets (ipvs.md section 5.4).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// Entries idle for as long may be forgotten when there are too many.
const SPARE_TIME: Duration = Duration::from_secs(360);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Of so many sweeps one forgets whatever has expired; the others only make room.
const SWEEPS_TO_FULL: u32 = 30;
const ENTRIES: usize = 16_384;
/// Past it nothing more is remembered.
const ENTRIES_AT_MOST: usize = ENTRIES + ENTRIES / 2;

/// Values by destination address, with the time of their last use.
pub(super) struct LocalityCache<T> {
    entries: HashMap<IpAddr, (T, Instant), RandomState>,
    next_sweep: Option<Instant>,
    sweeps: u32,
}

impl<T> Default for LocalityCache<T> {
    fn default() -> Self {
        LocalityCache { entries: HashMap::default(), next_sweep: None, sweeps: 1 }
    }
}

impl<T> LocalityCache<T> {
    /// The value of an address, which counts as used now. Entries idle for `expiration` are forgotten by the sweeps only, so
    /// that one may be found up to half an hour later.
    pub(super) fn get(&mut self, address: IpAddr, now: Instant, expiration: Duration) -> Option<&mut T> {
        self.catch_up(now, expiration);
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

    /// Makes up for the sweeps that were due since the last packet. After a full round of them nothing is left to forget.
    fn catch_up(&mut self, now: Instant, expiration: Duration) {
        let mut due = self.next_sweep.unwrap_or(now + SWEEP_PERIOD);
        while due <= now && !self.entries.is_empty() {
            self.sweep(due, expiration);
            due = due + SWEEP_PERIOD;
        }
        self.next_sweep = Some(if due <= now { now + SWEEP_PERIOD } else { due });
    }

    fn sweep(&mut self, due: Instant, expiration: Duration) {
        let idle = |used: Instant| due.saturating_since(used);
        if self.sweeps.is_multiple_of(SWEEPS_TO_FULL) {
            self.entries.retain(|_, (_, used)| idle(*used) < expiration);
            self.sweeps = 1;
            return;
        }
        let Some(surplus) = self.entries.len().checked_sub(ENTRIES).filter(|surplus| *surplus != 0) else {
            self.sweeps += 1;
            return;
        };
        let mut goal = (surplus * 4 / 3).min(ENTRIES / 2);
        self.entries.retain(|_, (_, used)| {
            let goes = goal != 0 && idle(*used) >= SPARE_TIME;
            goal -= usize::from(goes);
            !goes
        });
    }
}

/// A setting in seconds as a time; a negative one has always passed.
pub(super) fn time(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
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
