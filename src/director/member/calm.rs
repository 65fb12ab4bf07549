//! What changes all the time is told now and then, and counted meanwhile.

use std::time::Duration;

use crate::net::time::Instant;

/// Time in which so many changes are told: two failures and recoveries.
pub const WINDOW: Duration = Duration::from_secs(60);
const TOLD: u32 = 4;

/// Changes of one thing since the first one that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    end: Instant,
    told: u32,
    untold: u32,
}

/// Keeps the changes of one thing from being told too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calm {
    window: Option<Window>,
}

impl Calm {
    /// Whether a change is to be told. If not, it is counted.
    pub fn admits(&mut self, now: Instant) -> bool {
        let opened = Window { end: now + WINDOW, told: 0, untold: 0 };
        let window = self.window.get_or_insert(opened);
        let admits = window.told < TOLD;
        *(if admits { &mut window.told } else { &mut window.untold }) += 1;
        admits
    }

    /// When [`Calm::count_untold`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.window.map(|window| window.end)
    }

    /// How many changes were not told, once their time is over: not 0, or `None`.
    pub fn count_untold(&mut self, now: Instant) -> Option<u32> {
        let over = self.window.take_if(|window| window.end <= now)?;
        Some(over.untold).filter(|untold| *untold != 0)
    }
}
