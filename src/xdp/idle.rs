//! When a worker without frames goes on looking for them, and when it sleeps. Pure: time is passed in.

use std::time::Duration;

use crate::net::time::Instant;

/// About what a sleep and the wake-up after it cost; to look for longer would not pay.
const LOOK: Duration = Duration::from_micros(5);
/// A NIC that is polled needs no interrupt to wake the worker as long as frames keep coming.
const LOOK_POLLING: Duration = Duration::from_micros(200);
/// So many looks in vain, one after the other, and the next one is left out.
const PATIENCE: u32 = 8;

/// Looks for frames for a short time before it lets the worker sleep, as long as that pays.
#[derive(Debug)]
pub(super) struct Idle {
    look: Duration,
    last_frames: Instant,
    in_vain: u32,
    looking: bool,
}

impl Idle {
    /// For a worker that starts now; `polling` if it polls its NICs.
    pub(super) fn new(now: Instant, polling: bool) -> Self {
        let look = if polling { LOOK_POLLING } else { LOOK };
        Idle { look, last_frames: now, in_vain: PATIENCE, looking: false }
    }

    /// Frames have come. They came soon after the last ones if a look would have found them: then looks pay again.
    pub(super) fn frames(&mut self, now: Instant) {
        if self.looking || now.saturating_since(self.last_frames) <= self.look {
            self.in_vain = 0;
        }
        self.looking = false;
        self.last_frames = now;
    }

    /// No frames have come: whether to sleep.
    pub(super) fn may_sleep(&mut self, now: Instant) -> bool {
        let pays = self.in_vain < PATIENCE;
        if pays && now.saturating_since(self.last_frames) < self.look {
            self.looking = true;
            return false;
        }
        if self.looking {
            self.in_vain += 1;
            self.looking = false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    /// Bursts at these times, each followed by turns without frames, a microsecond apart, until the worker sleeps; how many
    /// of the bursts found it asleep.
    fn asleep_at(bursts: impl IntoIterator<Item = u64>) -> usize {
        let mut idle = Idle::new(at(0), false);
        let (mut sleeps, mut now, mut asleep) = (0, 0, true);
        for burst in bursts {
            while !asleep && now < burst {
                asleep = idle.may_sleep(at(now));
                now += 1;
            }
            sleeps += usize::from(asleep);
            idle.frames(at(burst));
            (now, asleep) = (burst, false);
        }
        sleeps
    }

    #[test]
    fn bursts_in_quick_succession_find_it_awake() {
        let sleeps = asleep_at((0..1000).map(|burst| 100 + burst * 4));
        assert!(sleeps <= 2, "asleep {sleeps} times");
    }

    #[test]
    fn bursts_far_apart_find_it_asleep() {
        assert_eq!(asleep_at((1..1000).map(|burst| burst * 1000)), 999);
    }

    #[test]
    fn looks_in_vain_are_given_up() {
        let mut idle = Idle::new(at(0), false);
        // Two bursts at once make looking pay.
        idle.frames(at(1));
        let mut turns = 0;
        for burst in 1..100 {
            idle.frames(at(burst * 1000));
            let mut now = burst * 1000;
            while !idle.may_sleep(at(now)) {
                (now, turns) = (now + 1, turns + 1);
            }
        }
        assert_eq!(turns, PATIENCE * LOOK.as_micros() as u32, "turns spent looking");
    }
}
