//! Layer 2: one health check of one real server, as Piranha's nanny does it (reference/piranha.md 2).
//!
//! [`Nanny`] decides and knows neither clock nor socket, [`Probe`] does the I/O of one check, [`run`] joins the two.

mod check;
mod expect;
mod failure;
mod probe;
mod program;
mod run;

use std::time::Duration;

pub use check::{Check, CheckError};
pub use expect::{Expect, Judgement, decode};
pub use failure::ProbeFailure;
pub use probe::Probe;
pub use program::run_program;
pub use run::{HealthReport, run};

use crate::net::time::Instant;

/// What happened to a [`Nanny`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The moment of [`Nanny::next_deadline`] has come.
    Due,
    /// The probe has ended; a failed one says why in words.
    ProbeDone(Result<(), String>),
}

/// What a [`Nanny`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Probe the server once, and tell with [`Event::ProbeDone`].
    Probe,
    /// Tell the director.
    Report(HealthChange),
}

/// A server's health has become known or has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Whether the server is to get traffic.
    pub up: bool,
    /// Why.
    pub reason: String,
}

/// The state of one health check, with the counting of reference/piranha.md 2.3: one failed probe takes the server out,
/// `reentry / timeout` good ones in a row bring it back, and the very first good one activates at once.
#[derive(Clone, Debug)]
pub struct Nanny {
    pause: Duration,
    required: u32,
    successes: u32,
    up: Option<bool>,
    due: Option<Instant>,
}

impl Nanny {
    /// A check whose first probe is due `now`. `timeout` and `reentry` are in seconds, as in lvs.cf; a `timeout` of 0
    /// counts as 1, a `reentry` of 0 as 180.
    pub fn new(now: Instant, timeout: u32, reentry: u32) -> Self {
        const DEFAULT_REENTRY: u32 = 180;
        let timeout = timeout.max(1);
        let reentry = if reentry == 0 { DEFAULT_REENTRY } else { reentry };
        let required = reentry / timeout;
        let pause = Duration::from_secs(timeout.into());
        Nanny { pause, required, successes: required, up: None, due: Some(now) }
    }

    /// Whether the server gets traffic; `None` before the first probe has ended.
    pub fn health(&self) -> Option<bool> {
        self.up
    }

    /// When [`Event::Due`] is wanted; `None` while a probe is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes an event. An early or unexpected one has no effect.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match (event, self.due) {
            (Event::Due, Some(due)) if due <= now => {
                self.due = None;
                vec![Action::Probe]
            }
            (Event::ProbeDone(result), None) => {
                self.due = Some(now + self.pause);
                self.judge(result).map(Action::Report).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn judge(&mut self, result: Result<(), String>) -> Option<HealthChange> {
        let (up, reason) = match result {
            Ok(()) => {
                self.successes = self.successes.saturating_add(1);
                (self.successes >= self.required, "the check succeeded".to_owned())
            }
            Err(reason) => {
                self.successes = 0;
                (false, reason)
            }
        };
        let changed = self.up.replace(up) != Some(up);
        changed.then_some(HealthChange { up, reason })
    }
}
