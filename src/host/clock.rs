//! The one place that reads the time.

use std::time::{Duration, SystemTime};

use crate::net::time::Instant;

/// The machine's monotonic clock, counting from the moment the value was made, or on from another process's. Copies share that start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    first: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Self::going_on(Instant::START)
    }

    /// A clock that reads `first` now: moments that another process has noted keep their meaning.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    pub fn going_on(first: Instant) -> Self {
        Clock { start: std::time::Instant::now(), first }
    }

    /// Nanoseconds since the start.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    pub fn now(&self) -> Instant {
        self.first + std::time::Instant::now().saturating_duration_since(self.start)
    }
}

/// The time of day, which may be set back or forth at any time.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The same, reckoned from the beginning of 1970 in UTC.
pub fn time_of_day() -> Duration {
    wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
