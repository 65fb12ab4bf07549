//! How many ICMP errors may be sent: a flood of packets must not become a flood of errors.

use std::time::Duration;

use crate::net::time::Instant;

/// Linux's defaults of `net.ipv4.icmp_msgs_per_sec` and `net.ipv4.icmp_msgs_burst`.
const PER_SECOND: u64 = 1000;
const BURST: u64 = 50;

const COST: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND);

/// A token bucket, kept as the moment at which it was (or will be) empty.
#[derive(Debug)]
pub struct RateLimit {
    empty_at: Instant,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        RateLimit { empty_at: Instant::from_nanos(now.as_nanos().saturating_sub(capacity())) }
    }

    /// Takes a token if there is one.
    pub fn allow(&mut self, now: Instant) -> bool {
        let oldest = Instant::from_nanos(now.as_nanos().saturating_sub(capacity()));
        let empty_at = self.empty_at.max(oldest) + COST;
        let allowed = empty_at <= now;
        if allowed {
            self.empty_at = empty_at;
        }
        allowed
    }
}

fn capacity() -> u64 {
    COST.as_nanos() as u64 * BURST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let now = Instant::START + Duration::from_secs(10);
        let mut limit = RateLimit::new(now);
        assert_eq!((0..100).filter(|_| limit.allow(now)).count(), 50);
        let later = now + Duration::from_millis(10);
        assert_eq!((0..100).filter(|_| limit.allow(later)).count(), 10);
    }
}
