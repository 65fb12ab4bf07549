//! The running health checks, one task each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::clock::{self, Clock};
use crate::host::descriptors;
use crate::nanny::{self, Check, Facilities, HealthReport, Slots};
use crate::net::time::Instant;

/// Descriptors that are left to the rest of the daemon; half of all if there are fewer than twice as many.
const RESERVE: u64 = 512;

/// From the first check of one server to that of the next one: two thousand begin within a second.
const PACE: Duration = Duration::from_micros(500);

/// Starts and stops checks; their reports go to one channel.
#[derive(Debug)]
pub struct Checks {
    clock: Clock,
    facilities: Arc<Facilities>,
    reports: mpsc::Sender<HealthReport>,
    running: HashMap<Arc<Check>, JoinHandle<()>>,
    /// Descriptors that all running checks have open at most.
    needed: u64,
    /// When the next one may begin.
    next: Instant,
    told_short: bool,
}

impl Checks {
    /// No checks yet.
    pub fn new(clock: Clock, reports: mpsc::Sender<HealthReport>) -> Self {
        let slots = Slots::new(for_checks(descriptors::allow(0)));
        let facilities = Facilities::new(move || clock.now(), clock::wall, slots);
        Checks {
            clock,
            facilities: Arc::new(facilities),
            reports,
            running: HashMap::new(),
            needed: 0,
            next: Instant::START,
            told_short: false,
        }
    }

    /// Starts one.
    pub fn start(&mut self, check: Arc<Check>) {
        self.stop(&check);
        self.needed += u64::from(check.method.descriptors());
        self.make_room();
        let first = self.next.max(self.clock.now());
        self.next = first + PACE;
        let facilities = Arc::clone(&self.facilities);
        let task = tokio::spawn(nanny::run(Arc::clone(&check), facilities, first, self.reports.clone()));
        self.running.insert(check, task);
    }

    /// With a slot for each check none ever waits for another, also when all hang.
    fn make_room(&mut self) {
        let slots = &self.facilities.slots;
        if self.needed <= slots.total() as u64 {
            self.told_short = false;
            return;
        }
        let limit = descriptors::allow(self.needed + self.needed / 2 + RESERVE);
        slots.grow(for_checks(limit));
        let is_short = self.needed > slots.total() as u64;
        if is_short && !self.told_short {
            tracing::warn!(
                "the health checks may need more descriptors than there are: with the limit of {limit} there are {} for \
                 them; when so many checks hang, others wait; raise the hard limit (LimitNOFILE= in the systemd \
                 unit)",
                slots.total(),
            );
        }
        self.told_short = is_short;
    }

    /// Stops one; what it has under way is dropped.
    pub fn stop(&mut self, check: &Arc<Check>) {
        if let Some(task) = self.running.remove(check) {
            self.needed -= u64::from(check.method.descriptors());
            task.abort();
        }
    }

    /// Stops all.
    pub fn stop_all(&mut self) {
        self.needed = 0;
        self.running.drain().for_each(|(_, task)| task.abort());
    }
}

/// How many of `limit` descriptors are for checks.
fn for_checks(limit: u64) -> usize {
    usize::try_from(limit - RESERVE.min(limit / 2)).unwrap_or(usize::MAX)
}
