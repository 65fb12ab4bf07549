//! What systemd is told (sd_notify(3)): readiness, reloads, the end, and signs of life.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Daemon;
use crate::net::time::Instant;

/// So many signs of life in the time after which systemd takes the daemon for dead.
const SIGNS: u32 = 3;

/// When a sign of life is due, and whether there is reason to give it.
#[derive(Debug)]
pub struct Watchdog {
    interval: Duration,
    due: Instant,
    ticks: Vec<u64>,
    hang: bool,
}

/// What a look at the packet threads says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// All have moved since the last look.
    Life,
    /// These have not, which is new.
    Hang(Vec<usize>),
    /// Some still have not.
    Silence,
}

impl Watchdog {
    /// For somebody who waits for a sign of life for as long as `limit`; the first one is due at once.
    pub fn new(now: Instant, limit: Duration) -> Self {
        Watchdog { interval: limit / SIGNS, due: now, ticks: Vec::new(), hang: false }
    }

    /// When to look next.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Looks, if it is time: `ticks` says how often each packet thread has looked at the clock.
    pub fn look(&mut self, now: Instant, ticks: Vec<u64>) -> Option<Sign> {
        if now < self.due {
            return None;
        }
        self.due = now + self.interval;
        let before = std::mem::replace(&mut self.ticks, ticks);
        let same = |(thread, (then, now)): (usize, (&u64, &u64))| (then == now).then_some(thread);
        let hanging: Vec<usize> = before.iter().zip(&self.ticks).enumerate().filter_map(same).collect();
        let known = std::mem::replace(&mut self.hang, !hanging.is_empty());
        Some(match (hanging.is_empty(), known) {
            (true, _) => Sign::Life,
            (false, false) => Sign::Hang(hanging),
            (false, true) => Sign::Silence,
        })
    }
}

/// The watchdog that systemd asks for, if it does.
pub fn of_systemd(now: Instant) -> Option<Watchdog> {
    sd_notify::watchdog_enabled().map(|limit| Watchdog::new(now, limit))
}

/// Tells that the files are being read again. systemd wants to know since when.
pub fn notify_reloading() {
    let since = NotifyState::monotonic_usec_now().ok();
    notify(&[Some(NotifyState::Reloading), since].into_iter().flatten().collect::<Vec<_>>());
}

/// Without systemd there is nobody to notify.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd: {error}");
    }
}

impl Daemon {
    /// The director's loop comes by here; a packet thread that hangs is what it would not notice itself.
    pub(super) fn give_sign_of_life(&mut self) {
        let Some(watchdog) = &mut self.watchdog else { return };
        match watchdog.look(self.clock.now(), self.workers.ticks()) {
            Some(Sign::Life) => notify(&[NotifyState::Watchdog]),
            Some(Sign::Hang(threads)) => {
                let threads: Vec<String> = threads.iter().map(|thread| format!("xlvs-q{thread}")).collect();
                tracing::error!(
                    "packet threads hang: {}; systemd gets no sign of life until they go on, and ends xlvs after WatchdogSec",
                    threads.join(", ")
                );
            }
            Some(Sign::Silence) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn signs_are_given_as_long_as_all_threads_move() {
        let mut watchdog = Watchdog::new(at(0), LIMIT);
        assert_eq!(watchdog.look(at(0), vec![0, 0]), Some(Sign::Life), "nothing is known of them yet");
        assert_eq!(watchdog.next_deadline(), at(10));
        assert_eq!(watchdog.look(at(9), vec![1, 1]), None);
        assert_eq!(watchdog.look(at(10), vec![400, 1]), Some(Sign::Life));
        assert_eq!(watchdog.look(at(20), vec![800, 1]), Some(Sign::Hang(vec![1])));
        assert_eq!(watchdog.look(at(30), vec![1200, 1]), Some(Sign::Silence), "it is said once");
        assert_eq!(watchdog.look(at(40), vec![1600, 2]), Some(Sign::Life));
        assert_eq!(watchdog.look(at(50), vec![1600, 3]), Some(Sign::Hang(vec![0])));
    }

    #[test]
    fn without_packet_threads_the_director_alone_counts() {
        let mut watchdog = Watchdog::new(at(0), LIMIT);
        assert_eq!(watchdog.look(at(0), Vec::new()), Some(Sign::Life));
        assert_eq!(watchdog.look(at(10), Vec::new()), Some(Sign::Life));
    }
}
