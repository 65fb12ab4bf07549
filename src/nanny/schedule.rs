//! When a server is checked, and when it goes up or down: no clock, no I/O.

use std::time::Duration;

use crate::nanny::check::Timing;
use crate::net::time::Instant;

/// What happened to a [`Nanny`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The moment of [`Nanny::next_deadline`] has come.
    Due,
    /// The probe has ended; a failed one says why in words.
    ProbeDone(Result<Passed, String>),
}

/// A good check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What an administrator should look at although the server is good.
    pub warning: Option<String>,
}

/// What a [`Nanny`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Probe the server once, and tell with [`Event::ProbeDone`].
    Probe,
    /// Tell the director.
    Report(HealthChange),
    /// Tell the administrator.
    Warn(String),
}

/// A server's health has become known or has changed, or it is down for another reason than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Whether the server is to get traffic.
    pub up: bool,
    /// Why.
    pub reason: String,
}

/// The state of one health check, with the counting of reference/piranha.md 2.3: `fall` failed probes in a row (Piranha's is 1) take
/// the server out, `rise` good ones in a row bring it back, and the very first one, if good, activates at once.
#[derive(Clone, Debug)]
pub struct Nanny {
    timing: Timing,
    successes: u32,
    failures: u32,
    up: Option<bool>,
    /// Why it is down, as it was told last.
    why: String,
    due: Option<Instant>,
    warned: Option<String>,
    /// State of the generator of jitter.
    chance: u64,
    /// A part of the interval, in 2^-64, that the first pause is cut to.
    phase: Option<u64>,
}

impl Nanny {
    /// A check whose first probe is due at `first`.
    pub fn new(first: Instant, timing: Timing) -> Self {
        Nanny {
            timing,
            successes: timing.rise,
            failures: 0,
            up: None,
            why: String::new(),
            due: Some(first),
            warned: None,
            chance: 0,
            phase: None,
        }
    }

    /// The same with jitter by `seed`, and with the first pause cut to a part of the interval by it: checks that begin together do
    /// not go on together. A cut pause can only find a failure sooner.
    pub fn spread(mut self, seed: u64) -> Self {
        self.chance = seed;
        self.phase = Some(self.draw());
        self
    }

    /// Whether the server gets traffic; `None` before that is known.
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
                self.due = Some(now + self.pause());
                let warning = result.as_ref().ok().and_then(|passed| passed.warning.clone());
                let change = self.judge(result.err());
                change.map(Action::Report).into_iter().chain(self.warn(warning)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn judge(&mut self, failure: Option<String>) -> Option<HealthChange> {
        let (up, reason) = match failure {
            None => {
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                if self.successes < self.timing.rise {
                    return None;
                }
                (true, "the check succeeded".to_owned())
            }
            Some(reason) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.failures < self.timing.fall {
                    return None;
                }
                match self.timing.fall {
                    0 | 1 => (false, reason),
                    times => (false, format!("{reason} ({times} times in a row)")),
                }
            }
        };
        let is_news = self.up.replace(up) != Some(up) || (!up && self.why != reason);
        self.why.clone_from(&reason);
        is_news.then_some(HealthChange { up, reason })
    }

    /// A warning is told when it is new or says something else than the last one.
    fn warn(&mut self, warning: Option<String>) -> Option<Action> {
        let is_new = warning.is_some() && warning != self.warned;
        if warning.is_some() {
            self.warned = warning;
        }
        self.warned.clone().filter(|_| is_new).map(Action::Warn)
    }

    fn pause(&mut self) -> Duration {
        let interval = self.timing.interval.as_nanos();
        if let Some(phase) = self.phase.take() {
            return nanos(share(interval, phase));
        }
        let width = interval * u128::from(self.timing.jitter) / 100;
        let earlier = interval - width.min(interval);
        if width == 0 { self.timing.interval } else { nanos(earlier + share(2 * width, self.draw())) }
    }

    /// The next number of a splitmix64 generator.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// `part` of `whole`, in 2^-64.
fn share(whole: u128, part: u64) -> u128 {
    // An interval is at most a day, 2^47 ns.
    (whole.min(1 << 60) * u128::from(part)) >> 64
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
