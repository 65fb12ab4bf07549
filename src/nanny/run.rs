//! The loop that drives one check.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::nanny::tls::TlsGround;
use crate::nanny::{Action, Check, Event, HealthChange, Nanny, Probe, Slots};
use crate::net::time::Instant;

/// What one check has found out.
#[derive(Clone, Debug)]
pub struct HealthReport {
    /// The check that was given to [`run`]; `Arc::ptr_eq` tells a report of a check that has been replaced.
    pub check: Arc<Check>,
    /// The first result ever, and every change after it, also of why a server is down.
    pub change: HealthChange,
}

/// What all checks share: clocks, descriptors, certificates of authorities.
pub struct Facilities {
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Descriptors.
    pub slots: Slots,
    pub(super) tls: Arc<TlsGround>,
}

impl fmt::Debug for Facilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facilities").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Facilities {
    /// `now` is the clock of the checks, `wall` tells the time of day, by which certificates are judged.
    pub fn new(
        now: impl Fn() -> Instant + Send + Sync + 'static,
        wall: fn() -> SystemTime,
        slots: Slots,
    ) -> Self {
        Facilities { now: Box::new(now), slots, tls: Arc::new(TlsGround::new(wall)) }
    }
}

/// Checks a server for ever, first at `first`; dropping the future stops it, a running program included. Ends by itself when nobody
/// listens to the reports. A check has its descriptors only while it is made.
pub async fn run(
    check: Arc<Check>,
    facilities: Arc<Facilities>,
    first: Instant,
    reports: mpsc::Sender<HealthReport>,
) {
    let now = || (facilities.now)();
    let probe = Probe::new(Arc::clone(&check), &facilities);
    let mut nanny = Nanny::new(first, check.timing).spread(seed(&check));
    let mut event = Event::Due;
    loop {
        if let Some(due) = nanny.next_deadline() {
            sleep(due.saturating_since(now())).await;
        }
        let mut next = Event::Due;
        for action in nanny.handle(now(), event) {
            match action {
                Action::Probe => {
                    let slots = facilities.slots.take(check.method.descriptors()).await;
                    let result = probe.run().await.map_err(|failure| failure.to_string());
                    drop(slots);
                    next = Event::ProbeDone(result);
                }
                Action::Report(change) => {
                    let report = HealthReport { check: Arc::clone(&check), change };
                    if reports.send(report).await.is_err() {
                        return;
                    }
                }
                Action::Warn(text) => tracing::warn!("{text}"),
            }
        }
        event = next;
    }
}

/// By which checks go apart: another for each, the same after a restart.
fn seed(check: &Check) -> u64 {
    let mut hasher = DefaultHasher::new();
    check.hash(&mut hasher);
    hasher.finish()
}

/// A number that others cannot guess.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
