//! How many ICMP errors may be sent: a flood of packets must not become a flood of errors.

use std::time::Duration;

use crate::net::time::Instant;

/// Linux's defaults of `net.ipv4.icmp_msgs_per_sec` and `net.ipv4.icmp_msgs_burst`.
const PER_SECOND: u64 = 1000;
const BURST: u32 = 50;

const COST: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND);

/// A token bucket, kept as the time that its tokens took to gather.
#[derive(Debug)]
pub struct RateLimit {
    gathered: Duration,
    since: Instant,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        RateLimit { gathered: COST * BURST, since: now }
    }

    /// Takes a token if there is one.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.gathered = (self.gathered + now.saturating_since(self.since)).min(COST * BURST);
        self.since = now;
        let allowed = self.gathered >= COST;
        if allowed {
            self.gathered -= COST;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let now = Instant::START;
        let mut limit = RateLimit::new(now);
        assert_eq!((0..100).filter(|_| limit.allow(now)).count(), 50);
        let later = now + Duration::from_millis(10);
        assert_eq!((0..100).filter(|_| limit.allow(later)).count(), 10);
    }
}
