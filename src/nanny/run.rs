//! The loop that drives one check.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::nanny::{Action, Check, Event, HealthChange, Nanny};
use crate::net::time::Instant;

/// What one check has found out.
#[derive(Clone, Debug)]
pub struct HealthReport {
    /// The check that was given to [`run`]; `Arc::ptr_eq` tells a report of a check that has been replaced.
    pub check: Arc<Check>,
    /// The first result ever, and every change after it.
    pub change: HealthChange,
}

/// Checks a server for ever; dropping the future stops it, a running program included. Ends by itself when nobody
/// listens to the reports, or after one report if the check cannot be made. `now` is the clock.
pub async fn run(check: Arc<Check>, now: impl Fn() -> Instant + Send, reports: mpsc::Sender<HealthReport>) {
    let report = |change| reports.send(HealthReport { check: check.clone(), change });
    let probe = match check.prepare() {
        Ok(probe) => probe,
        Err(error) => {
            // Nobody listening means nobody to tell.
            let _ = report(HealthChange { up: false, reason: error.to_string() }).await;
            return;
        }
    };
    let mut nanny = Nanny::new(now(), check.timeout, check.reentry);
    let mut event = Event::Due;
    loop {
        let mut next = Event::Due;
        for action in nanny.handle(now(), event) {
            match action {
                Action::Probe => {
                    let result = probe.run().await.map_err(|failure| failure.to_string());
                    next = Event::ProbeDone(result);
                }
                Action::Report(change) => {
                    if report(change).await.is_err() {
                        return;
                    }
                }
            }
        }
        if let Some(due) = nanny.next_deadline() {
            sleep(due.saturating_since(now())).await;
        }
        event = next;
    }
}
