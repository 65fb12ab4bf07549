//! When there is more to do than a worker can: a queue that does not become short, as opposed to one that is long for a moment
//! (a standing queue, RFC 8289 section 3).

use std::time::Duration;

use crate::net::time::Instant;

/// As many frames make a queue long.
const LONG: u32 = 64;
/// For so long may a queue be long: whoever connects all at once, after a failure, still gets through.
const STANDING: Duration = Duration::from_millis(5);
/// So long after the last long queue it is over: until then each long queue counts at once.
const CALM: Duration = Duration::from_millis(100);

/// How one receive ring has fared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressure {
    long_since: Option<Instant>,
    until: Option<Instant>,
}

impl Pressure {
    /// Takes note of so many frames that wait on a ring of that size. Returns whether that is more than can be worked off soon.
    pub(super) fn note(&mut self, now: Instant, waiting: u32, ring: u32) -> bool {
        if waiting < LONG.min(ring / 2) {
            self.long_since = None;
            return false;
        }
        let since = *self.long_since.get_or_insert(now);
        let lasts = self.until.is_some_and(|until| now < until);
        let pressed = lasts || waiting > ring / 2 || now.saturating_since(since) >= STANDING;
        if pressed {
            self.until = Some(now + CALM);
        }
        pressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u32 = 2048;

    fn at(microseconds: u64) -> Instant {
        Instant::from_nanos(microseconds * 1000)
    }

    #[test]
    fn a_burst_gets_through_and_a_queue_that_stays_does_not() {
        let mut pressure = Pressure::default();
        let mut note = |time, waiting| pressure.note(at(time), waiting, RING);
        assert!(!note(0, 900), "long for the first time");
        assert!(!note(4_900, 300));
        assert!(!note(4_950, 10), "short again");
        assert!(!note(9_000, 900), "another burst");
        assert!(note(14_000, 100), "it stays");
        assert!(!note(14_100, 10));
        assert!(note(14_300, 100), "it is back at once");
        assert!(!note(15_100, 10));
        assert!(!note(120_000, 100), "a new one, after a time of calm");
    }

    #[test]
    fn a_ring_that_is_half_full_waits_for_nothing() {
        assert!(Pressure::default().note(at(0), RING / 2 + 1, RING));
        assert!(Pressure::default().note(at(0), 5, 8), "a small ring");
    }
}
