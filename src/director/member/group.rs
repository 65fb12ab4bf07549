//! The servers of one virtual server together: whether any of them serves (reference/piranha.md 3.5).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::time::Instant;

/// How long a virtual server waits for the first results of its checks before it counts as one without servers: lvsd looked
/// every five seconds.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// How many of its servers there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Serve, whatever their weight.
    pub up: usize,
    /// Nothing is known of.
    pub unknown: usize,
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupTurn {
    /// No server is left, or there is none from the start.
    Emptied,
    /// There are servers again.
    Filled,
}

/// The servers of a virtual server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Group {
    serves: Option<bool>,
    since: Instant,
}

impl Group {
    /// Of a virtual server that begins now.
    pub fn new(now: Instant) -> Self {
        Group { serves: None, since: now }
    }

    /// Whether it is known to have no server that serves.
    pub fn is_empty(&self) -> bool {
        self.serves == Some(false)
    }

    /// Since when it is as it is.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// When [`Group::judge`] is due even if nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.serves.is_none().then_some(self.since + FIRST_LOOK)
    }

    /// Looks at the servers; returns a change and, unless it is the first state ever, how long the former state lasted.
    pub fn judge(&mut self, now: Instant, count: Count) -> Option<(GroupTurn, Option<Duration>)> {
        let waits = count.unknown != 0 && self.next_deadline().is_some_and(|end| now < end);
        let serves = match count.up {
            0 if waits => return None,
            0 => false,
            _ => true,
        };
        if self.serves == Some(serves) {
            return None;
        }
        let former = self.serves.replace(serves);
        let lasted = now.saturating_since(std::mem::replace(&mut self.since, now));
        match (former, serves) {
            (None, true) => None,
            (former, false) => Some((GroupTurn::Emptied, former.map(|_| lasted))),
            (former, true) => Some((GroupTurn::Filled, former.map(|_| lasted))),
        }
    }
}
