//! The synchronisation of a pair as an administrator sees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Refusal;
use super::paths::{Path, Paths};
use super::receiver::Taken;
use crate::net::time::Instant;

/// What an end does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The other end is not heard.
    #[default]
    Alone,
    /// Both ends are there, and neither tells the other: none is active, or both are.
    Idle,
    /// This end is active and tells the other one.
    Telling,
    /// The other end is active and tells this one.
    Told,
}

impl State {
    /// In a few words.
    pub const fn name(self) -> &'static str {
        match self {
            State::Alone => "partner not heard",
            State::Idle => "nothing to tell",
            State::Telling => "telling the partner",
            State::Told => "told by the partner",
        }
    }
}

/// What the other end has shown of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Partner {
    pub(super) last: Instant,
    pub(super) active: bool,
    pub(super) generation: u32,
    pub(super) in_sync: bool,
    pub(super) informed: bool,
}

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) repeated: u64,
    pub(super) anew: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
}

/// A path that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDown {
    /// Which one.
    pub path: Path,
    /// Milliseconds for which nothing has arrived by it, in one direction or both.
    pub since_ms: u64,
}

/// The synchronisation as one end sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What this end does.
    pub state: State,
    /// Whether the standby, this end or the other one, has been told of all, and of nothing anew.
    pub in_sync: bool,
    /// Milliseconds for which the oldest change that is not acknowledged has been on its way; 0 if none is. Of the active end.
    pub lag_ms: u64,
    /// Connections and templates that the other end has been told of. Of the active end.
    pub told: u64,
    /// How much of a walk through the tables is done, in percent, while there is one. Of the active end.
    pub progress: Option<u8>,
    /// In how many of 1,024 parts the ends differed when they were compared last; those are told of anew.
    pub differing: Option<u64>,
    /// The path by which this end sends; `None` if none is known.
    pub path: Option<Path>,
    /// The paths by which nothing arrives, though something does by the other one.
    pub paths_down: Vec<PathDown>,
    /// Milliseconds since the other end was heard; `None` before that.
    pub heard_ms: Option<u64>,
    /// Whether the other end says that it is active.
    pub partner_active: bool,
    /// Whether the other end says that it has been told of all.
    pub partner_in_sync: bool,
    /// Datagrams sent.
    pub sent: u64,
    /// Batches that were sent again.
    pub repeated: u64,
    /// Parts of 1,024 that were told of anew, because changes were lost or the ends differed.
    pub anew: u64,
    /// Datagrams received.
    pub received: u64,
    /// Records taken in.
    pub records: u64,
    /// Records that were not taken in.
    pub records_refused: u64,
    /// Connections and templates that were ended because the other end did not tell of them any more.
    pub swept: u64,
    /// Datagrams that were refused, by reason.
    pub refused: Vec<(String, u64)>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    pub(super) fn new(state: State, in_sync: bool, counts: &Counts, taken: &Taken) -> Self {
        let refused = Refusal::ALL.iter().zip(counts.refused).filter(|(_, count)| *count != 0);
        Report {
            state,
            in_sync,
            sent: counts.sent,
            repeated: counts.repeated,
            anew: counts.anew,
            received: counts.received,
            records: taken.records,
            records_refused: taken.refused,
            swept: taken.swept,
            refused: refused.map(|(refusal, count)| (refusal.to_string(), count)).collect(),
            ..Report::default()
        }
    }

    pub(super) fn with_sender(
        self,
        sender: Option<(usize, Duration, Option<usize>)>,
        differing: Option<usize>,
    ) -> Self {
        let (told, lag, progress) = sender.unwrap_or_default();
        Report {
            told: told as u64,
            lag_ms: millis(lag),
            progress: progress.map(|percent| percent as u8),
            differing: differing.map(|buckets| buckets as u64),
            ..self
        }
    }

    pub(super) fn with_paths(self, paths: &Paths, now: Instant) -> Self {
        let down = paths.faults().map(|(path, since)| {
            let since_ms = millis(now.saturating_since(since));
            PathDown { path, since_ms }
        });
        Report { path: Some(paths.current()), paths_down: down.collect(), ..self }
    }

    pub(super) fn with_partner(self, partner: Option<&Partner>, now: Instant) -> Self {
        let Some(partner) = partner else { return self };
        Report {
            heard_ms: Some(millis(now.saturating_since(partner.last))),
            partner_active: partner.active,
            partner_in_sync: partner.in_sync,
            ..self
        }
    }
}
