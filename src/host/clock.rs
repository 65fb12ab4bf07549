//! The one place that reads the time.

use crate::net::time::Instant;

/// The machine's monotonic clock, counting from the moment the value was made. Copies share that start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    pub fn start() -> Self {
        Clock { start: std::time::Instant::now() }
    }

    /// Nanoseconds since the start.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    pub fn now(&self) -> Instant {
        Instant::START + std::time::Instant::now().saturating_duration_since(self.start)
    }
}

/// The time of day, which may be set back or forth at any time.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
pub fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
