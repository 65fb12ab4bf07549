//! The last events, for `xlvs events`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Event;

/// So many are kept.
pub const KEPT: usize = 1000;

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number since the daemon's start, from 1.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// The last [`KEPT`] events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Journal {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Journal {
    /// Keeps one that happened at `time`, reckoned from 1970.
    pub fn push(&mut self, time: Duration, event: Event) {
        self.last += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.entries.push_back(Entry { number: self.last, time_ms, event });
    }

    /// The number of the last one; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Those after that of a number, as far as they are kept.
    pub fn after(&self, number: u64) -> Vec<Entry> {
        let first = self.last - self.entries.len() as u64;
        let known = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(known).cloned().collect()
    }
}
