//! Weighted round robin: rounds over the list at falling weight levels (ipvs.md section 5.1).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Arrival, Change, Scheduler, common_divisor, is_usable};
use crate::ipvs::server::RealServer;

/// Where the round stands.
#[derive(Default)]
pub struct WeightedRoundRobin {
    round: Mutex<Round>,
}

#[derive(Default)]
struct Round {
    last: Weak<RealServer>,
    /// Servers of at least this weight are taken now.
    level: i64,
    /// The level a round starts at.
    top: i64,
    /// How far the level falls at the end of the list: the greatest common divisor of the weights.
    step: i64,
}

impl Round {
    /// After a change of the list: from its head on, at a level of the new scale.
    fn recompute(&mut self, servers: &[Arc<RealServer>]) {
        let weights = || servers.iter().map(|server| i64::from(server.weight())).filter(|weight| *weight > 0);
        let heaviest = weights().max().unwrap_or(0);
        self.step = common_divisor(weights());
        self.top = heaviest - (self.step - 1);
        self.last = Weak::new();
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    fn next(&mut self, servers: &[Arc<RealServer>]) -> Option<Arc<RealServer>> {
        let is_last = |server: &Arc<RealServer>| std::ptr::eq(Arc::as_ptr(server), self.last.as_ptr());
        let mut from = servers.iter().position(is_last).map_or(0, |last| last + 1);
        // The second pass finds one, unless other workers overload it meanwhile.
        for _ in 0..=servers.len() {
            let usable = || servers.iter().filter(|server| is_usable(server));
            let Some(heaviest) = usable().map(|server| i64::from(server.weight())).max() else {
                self.refuse(from == 0);
                return None;
            };
            let reaches =
                |server: &&Arc<RealServer>| is_usable(server) && i64::from(server.weight()) >= self.level;
            if let Some(chosen) = servers[from..].iter().find(reaches) {
                self.last = Arc::downgrade(chosen);
                return Some(Arc::clone(chosen));
            }
            from = 0;
            self.fall(heaviest);
        }
        None
    }

    /// Where a search that finds nobody leaves the round. It ends after a whole pass at the lowest level: at the list's end, so the
    /// next begins at the head and at the top. A search that began in the midst of that level ends where it began (golden
    /// `sched-wrr-refused`).
    fn refuse(&mut self, from_the_head: bool) {
        if from_the_head || self.level > self.step {
            self.level = self.top;
            self.last = Weak::new();
        }
    }

    /// At the end of the list: to the next level that the `heaviest` usable server reaches. Weights may be as large as an
    /// `i32`, so that the levels between cannot be tried one by one.
    fn fall(&mut self, heaviest: i64) {
        self.level -= self.step;
        if self.level <= 0 {
            self.level = self.top;
        }
        if self.level > heaviest {
            self.level -= (self.level - heaviest + self.step - 1) / self.step * self.step;
        }
    }
}

impl Scheduler for WeightedRoundRobin {
    fn schedule(&self, servers: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner).next(servers)
    }

    fn servers_changed(&self, servers: &[Arc<RealServer>], _: Change<'_>) {
        self.round.lock().unwrap_or_else(PoisonError::into_inner).recompute(servers);
    }
}
