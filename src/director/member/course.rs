//! How a member has come along, as one process leaves it to the next.

use serde::{Deserialize, Serialize};

use super::{Hand, Member, Override, State, Terms};
use crate::net::time::Instant;

/// All of a member but what the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    health: State,
    reason: String,
    forced: Override,
    hand: Hand,
    weight: i32,
    is_climbing: bool,
    is_placed: bool,
    state: State,
    since: Instant,
    next_step: Option<Instant>,
}

impl Member {
    /// For another process.
    pub fn course(&self) -> Course {
        Course {
            health: self.health,
            reason: self.reason.clone(),
            forced: self.forced,
            hand: self.hand.clone(),
            weight: self.weight,
            is_climbing: self.is_climbing,
            is_placed: self.is_placed,
            state: self.state,
            since: self.since,
            next_step: self.next_step,
        }
    }

    /// One that goes on where another process has left it. A load that was being read there is read again.
    pub fn going_on(now: Instant, terms: Terms, course: Course) -> Self {
        let Course { health, reason, forced, hand, weight, .. } = course;
        let Course { is_climbing, is_placed, state, since, next_step, .. } = course;
        let mut member = Member {
            terms,
            health,
            reason,
            forced,
            hand,
            weight,
            is_climbing,
            is_reading: false,
            is_placed,
            state,
            since,
            next_step,
        };
        member.plan_step(now);
        member
    }
}
