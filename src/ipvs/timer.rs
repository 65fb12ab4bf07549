//! A lazy timer wheel: a packet only stores its connection's new deadline; the wheel looks again when the old one comes.

use std::ops::{Index as _, IndexMut as _, RangeInclusive};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::net::time::Instant;

/// A tick is 2^26 ns, about 67 ms. Expiry is exact for packets all the same: they compare deadlines.
const TICK_SHIFT: u32 = 26;
const SLOTS: u64 = 4096;
/// Ticks of nine years.
const UNFILED: u32 = u32::MAX;
/// Items in a block.
const BLOCK: usize = 60;
/// Blocks that are kept for later: one in this many, and some.
const SPARE_SHARE: usize = 8;
const SPARE_MIN: usize = 16;
/// Items that are looked at in one go of weeding, and slots.
const WEEDED: usize = 4;
const WEEDED_SLOTS: usize = 64;

fn tick_of(instant: Instant) -> u64 {
    instant.as_nanos() >> TICK_SHIFT
}

/// When something ends, and when a wheel will look at it.
#[derive(Debug)]
pub struct Life {
    deadline: AtomicU64,
    filed: AtomicU32,
}

impl Default for Life {
    fn default() -> Self {
        Life { deadline: AtomicU64::new(0), filed: AtomicU32::new(UNFILED) }
    }
}

impl Life {
    /// The end.
    pub fn deadline(&self) -> Instant {
        Instant::from_nanos(self.deadline.load(Ordering::Relaxed))
    }

    /// Whether the end has come.
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline() <= now
    }

    /// Moves the end.
    pub fn set_deadline(&self, deadline: Instant) {
        self.deadline.store(deadline.as_nanos(), Ordering::Relaxed);
    }

    /// Moves the end to `deadline`, unless that is earlier.
    pub fn postpone(&self, deadline: Instant) {
        self.deadline.fetch_max(deadline.as_nanos(), Ordering::Relaxed);
    }

    /// Moves the end by as many `steps` as it takes to come after `now`, however late that was noticed.
    pub fn prolong(&self, steps: Duration, now: Instant) {
        let late = now.saturating_since(self.deadline()).as_nanos() / steps.as_nanos();
        let late = u32::try_from(late).unwrap_or(u32::MAX - 1);
        self.set_deadline(self.deadline() + steps * (late + 1));
    }

    /// Whether no wheel would look in time: nobody filed it, or the end has moved nearer.
    pub fn needs_filing(&self) -> bool {
        tick_of(self.deadline()) + 1 < u64::from(self.filed.load(Ordering::Relaxed))
    }
}

/// Something with an end.
pub trait Timed {
    /// Its life.
    fn life(&self) -> &Life;
}

/// What becomes of something whose end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Gone,
    /// It has been given a new deadline.
    Again,
}

/// What is filed for one tick, in blocks: what is filed again for another tick, as all of a large table is after a while,
/// takes the blocks that it leaves, not memory beside them.
#[derive(Debug)]
struct Slot<T> {
    /// The last block, the only one with room.
    open: Vec<T>,
    full: Vec<Vec<T>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { open: Vec::new(), full: Vec::new() }
    }
}

impl<T> Slot<T> {
    fn len(&self) -> usize {
        self.full.len() * BLOCK + self.open.len()
    }

    fn get(&self, place: usize) -> &T {
        self.full.get(place / BLOCK).unwrap_or(&self.open).index(place % BLOCK)
    }

    fn push(&mut self, item: T, blocks: &mut Blocks<T>) {
        if self.open.len() == self.open.capacity() {
            let full = std::mem::replace(&mut self.open, blocks.take());
            if !full.is_empty() {
                self.full.push(full);
            }
        }
        self.open.push(item);
    }

    fn pop(&mut self, blocks: &mut Blocks<T>) -> Option<T> {
        let item = self.open.pop()?;
        if self.open.is_empty() {
            let next = self.full.pop().unwrap_or_default();
            blocks.give(std::mem::replace(&mut self.open, next));
        }
        Some(item)
    }

    /// Takes out an item; the last one comes in its place.
    fn swap_remove(&mut self, place: usize, blocks: &mut Blocks<T>) {
        let Some(last) = self.pop(blocks) else { return };
        if place < self.len() {
            *self.full.get_mut(place / BLOCK).unwrap_or(&mut self.open).index_mut(place % BLOCK) = last;
        }
    }
}

/// Blocks without items, kept so that slots can have them.
#[derive(Debug)]
struct Blocks<T> {
    spare: Vec<Vec<T>>,
    used: usize,
}

impl<T> Blocks<T> {
    fn take(&mut self) -> Vec<T> {
        self.used += 1;
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK))
    }

    fn give(&mut self, block: Vec<T>) {
        self.used -= 1;
        if self.spare.len() < self.used / SPARE_SHARE + SPARE_MIN {
            self.spare.push(block);
        }
    }
}

/// One worker's wheel. An entry counts only if it is where the item was last filed, so that filing again, here or in
/// another worker's wheel, makes earlier entries stale.
#[derive(Debug)]
pub struct Wheel<T> {
    /// What is filed for tick `t` is in slot `t % SLOTS`, and no other tick's.
    slots: Vec<Slot<T>>,
    blocks: Blocks<T>,
    tick: u64,
    /// Slot and place in it where weeding goes on.
    weeded: (usize, usize),
}

impl<T: Timed> Wheel<T> {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Instant) -> Self {
        Wheel {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            blocks: Blocks { spare: Vec::new(), used: 0 },
            tick: tick_of(now),
            weeded: (0, 0),
        }
    }

    /// Files an item under its deadline, or as far ahead as the wheel reaches.
    pub fn file(&mut self, item: T) {
        let wanted = tick_of(item.life().deadline()) + 1;
        let tick = wanted.clamp(self.tick + 1, self.tick + SLOTS - 1);
        item.life().filed.store(tick as u32, Ordering::Relaxed);
        self.slots[(tick % SLOTS) as usize].push(item, &mut self.blocks);
    }

    /// Takes out what has ended among a few items, each time of the next few. Called whenever an item ends long before its time,
    /// it keeps those that have ended to a third of the others.
    pub fn weed(&mut self, has_ended: impl Fn(&T) -> bool) {
        let (mut slot, mut place) = self.weeded;
        let mut left = WEEDED;
        for _ in 0..WEEDED_SLOTS {
            let items = &mut self.slots[slot];
            while left > 0 && place < items.len() {
                left -= 1;
                if has_ended(items.get(place)) {
                    items.swap_remove(place, &mut self.blocks);
                } else {
                    place += 1;
                }
            }
            if left == 0 {
                break;
            }
            (slot, place) = ((slot + 1) % SLOTS as usize, 0);
        }
        self.weeded = (slot, place);
    }

    /// The ticks to turn through so that the wheel stands at `now`: nothing is filed for those between that are left out.
    pub fn due(&self, now: Instant) -> RangeInclusive<u64> {
        let target = tick_of(now);
        let first = self.tick + 1;
        first..=target.min(first + SLOTS - 1)
    }

    /// Turns to the next of the ticks that are [`Wheel::due`] at `now`. `expire` is called for each item whose deadline has come.
    pub fn turn(&mut self, tick: u64, now: Instant, mut expire: impl FnMut(&T) -> Fate) {
        self.tick = self.tick.max(tick_of(now));
        let mut turned = std::mem::take(&mut self.slots[(tick % SLOTS) as usize]);
        while let Some(item) = turned.pop(&mut self.blocks) {
            let filed = u64::from(item.life().filed.load(Ordering::Relaxed));
            if filed > tick && filed % SLOTS == tick % SLOTS {
                // Filed again by this turn of the whole wheel.
                self.slots[(tick % SLOTS) as usize].push(item, &mut self.blocks);
                continue;
            }
            if filed != tick {
                continue;
            }
            if !item.life().is_over(now) || expire(&item) == Fate::Again {
                self.file(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    struct Item(Life);

    impl Timed for Rc<Item> {
        fn life(&self) -> &Life {
            &self.0
        }
    }

    impl<T> Wheel<T> {
        /// For so many items there is memory.
        fn room(&self) -> usize {
            let used = self.slots.iter().map(|slot| slot.full.len() * BLOCK + slot.open.capacity());
            used.sum::<usize>() + self.blocks.spare.len() * BLOCK
        }
    }

    #[test]
    fn what_is_filed_again_takes_no_memory_beside() {
        const HELD: u64 = 300_000;
        let mut wheel = Wheel::new(Instant::START);
        for number in 0..HELD {
            let item = Rc::new(Item(Life::default()));
            item.0.set_deadline(seconds(60) + Duration::from_micros(200 * number));
            wheel.file(Rc::clone(&item));
            item.0.set_deadline(seconds(100_000));
        }
        let filed = wheel.room();
        assert!(filed < HELD as usize * 11 / 10, "room for {filed}");
        for second in 1..600 {
            assert_eq!(expired(&mut wheel, seconds(second)), 0);
            assert!(wheel.room() <= filed + SLOTS as usize * 2, "room for {} at {second}", wheel.room());
        }
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn expired(wheel: &mut Wheel<Rc<Item>>, now: Instant) -> usize {
        let mut count = 0;
        for tick in wheel.due(now) {
            wheel.turn(tick, now, |_| {
                count += 1;
                Fate::Gone
            });
        }
        count
    }

    #[test]
    fn refreshed_items_live_on_and_hastened_ones_end_early() {
        let mut wheel = Wheel::new(Instant::START);
        let item = Rc::new(Item(Life::default()));
        item.0.set_deadline(seconds(60));
        assert!(item.0.needs_filing());
        wheel.file(Rc::clone(&item));
        item.0.set_deadline(seconds(900));
        assert!(!item.0.needs_filing());
        assert_eq!(expired(&mut wheel, seconds(700)), 0);
        item.0.set_deadline(seconds(710));
        assert!(item.0.needs_filing());
        wheel.file(Rc::clone(&item));
        assert_eq!(expired(&mut wheel, seconds(711)), 1);
        assert_eq!(expired(&mut wheel, seconds(5000)), 0, "stale entries are not expired again");
    }

    #[test]
    fn prolonged_lives_end_at_a_whole_step_after_now() {
        let life = Life::default();
        let minute = Duration::from_secs(60);
        for (deadline, now, expected) in [(30, 30, 90), (30, 89, 90), (30, 90, 150), (30, 6_000, 6_030)] {
            life.set_deadline(seconds(deadline));
            life.prolong(minute, seconds(now));
            assert_eq!(life.deadline(), seconds(expected), "{deadline} at {now}");
        }
    }

    #[test]
    fn what_has_ended_is_weeded_out_and_the_rest_stays() {
        let mut wheel = Wheel::new(Instant::START);
        let filed = |wheel: &Wheel<_>| wheel.slots.iter().map(Slot::len).sum::<usize>();
        // One ends for each that comes, as in a table that is full.
        let mut alive = std::collections::VecDeque::new();
        for number in 0..10_000 {
            let item = Rc::new(Item(Life::default()));
            item.0.set_deadline(seconds(60) + Duration::from_millis(number));
            wheel.file(Rc::clone(&item));
            alive.push_back(item);
            if alive.len() > 1000 {
                alive.pop_front();
                wheel.weed(|item| Rc::strong_count(item) == 1);
                assert!(filed(&wheel) <= 2 * alive.len(), "{} filed after {number}", filed(&wheel));
            }
        }
        assert_eq!(alive.iter().filter(|item| Rc::strong_count(item) == 2).count(), 1000);
        assert!(wheel.room() <= 8 * alive.len(), "room for {}", wheel.room());
    }

    #[test]
    fn a_jump_past_the_horizon_finds_everything() {
        let mut wheel = Wheel::new(Instant::START);
        for second in [1, 100, 1000] {
            let item = Rc::new(Item(Life::default()));
            item.0.set_deadline(seconds(second));
            wheel.file(item);
        }
        assert_eq!(expired(&mut wheel, seconds(100_000)), 3);
    }
}
