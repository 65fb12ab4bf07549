//! The active end: tells of all there is, and then of what changes, until each batch is acknowledged.
//!
//! What it has told of is in a [`Mirror`]. When changes have been lost for want of room, or the other end has something else, the
//! buckets concerned are told of anew, in a pass through the tables; meanwhile the other end keeps what it has.

use std::collections::VecDeque;
use std::time::Duration;

use super::live::PARTS;
use super::mirror::{BUCKETS, Buckets, Mirror, fingerprint};
use super::record::{Key, Record};
use super::stream::{Acknowledgement, BATCH_HEAD, Item, SUMS_AT_ONCE};
use crate::net::time::Instant;

/// Batches that are on their way at a time.
pub(super) const WINDOW: usize = 64;
/// How long an acknowledgement is waited for before a batch is sent again; twice as long each time, up to the most.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_millis(1600);
/// A pass reads all tables: not more often than this.
const PASS_PERIOD: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Batch {
    number: u64,
    content: Vec<u8>,
    /// When its first item came.
    since: Instant,
    due: Instant,
    pause: Duration,
    arrived: bool,
}

/// A walk through all parts of the tables, to tell of what is in some buckets.
#[derive(Clone, Debug)]
struct Pass {
    buckets: Buckets,
    next_part: usize,
}

/// A batch that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) content: Vec<u8>,
    /// Whether it has been sent before.
    pub(super) again: bool,
}

/// One stream to one generation of the other end.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    stream: u32,
    limit: usize,
    sum_period: Duration,
    mirror: Mirror,
    /// On their way, in order.
    sent: VecDeque<Batch>,
    /// Full, and waiting for room.
    waiting: VecDeque<Batch>,
    /// Being filled.
    open: Option<Batch>,
    next_number: u64,
    dirty: Buckets,
    pass: Option<Pass>,
    next_pass: Instant,
    /// The batch that the first pass ended with, until it is acknowledged.
    first_pass_end: Option<u64>,
    complete: bool,
    round: u32,
    next_sums: Instant,
    /// The last round that was answered, and in how many buckets the ends differed.
    compared: Option<(u32, usize)>,
    /// Batches that were sent again.
    pub(super) repeated: u64,
    /// Buckets that were told of anew.
    pub(super) anew: u64,
}

impl Sender {
    /// A stream that has not begun. A batch has at most `limit` bytes.
    pub(super) fn new(stream: u32, limit: usize, sum_period: Duration, now: Instant) -> Self {
        Sender {
            stream,
            limit,
            sum_period,
            mirror: Mirror::default(),
            sent: VecDeque::new(),
            waiting: VecDeque::new(),
            open: None,
            next_number: 1,
            dirty: Buckets::ALL,
            pass: None,
            next_pass: now,
            first_pass_end: None,
            complete: false,
            round: 0,
            next_sums: now + sum_period,
            compared: None,
            repeated: 0,
            anew: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.sent.len() < WINDOW
    }

    pub(super) fn knows(&self, key: &Key) -> bool {
        self.mirror.knows(fingerprint(key))
    }

    /// Tells of a change.
    pub(super) fn tell(&mut self, now: Instant, record: &Record) {
        if self.mirror.note(record) {
            self.add(now, &Item::Record(record.clone()));
        }
    }

    /// Some changes in these buckets have been lost.
    pub(super) fn lose(&mut self, buckets: &Buckets) {
        self.dirty.add(buckets);
    }

    /// Begins to tell of marked buckets anew, if it is time.
    pub(super) fn begin_pass(&mut self, now: Instant) {
        if self.pass.is_none() && !self.dirty.is_empty() && self.next_pass <= now {
            let buckets = std::mem::take(&mut self.dirty);
            self.mirror.forget(&buckets);
            self.next_pass = now + PASS_PERIOD;
            self.anew += if self.complete { buckets.len() as u64 } else { 0 };
            self.add(now, &Item::PassBegin(Box::new(buckets.clone())));
            self.pass = Some(Pass { buckets, next_part: 0 });
        }
    }

    /// The part of the tables that is to be told of by [`Sender::tell_part`] next.
    pub(super) fn next_part(&self) -> Option<usize> {
        self.pass.as_ref().map(|pass| pass.next_part)
    }

    /// Tells of what is in the part that was asked for.
    pub(super) fn tell_part(&mut self, now: Instant, records: &[Record]) {
        let Some(Pass { buckets, next_part }) = &mut self.pass else { return };
        *next_part += 1;
        let (buckets, over) = (buckets.clone(), *next_part == PARTS);
        for record in records {
            if buckets.contains(super::mirror::bucket_of(fingerprint(&record.key()))) {
                self.tell(now, record);
            }
        }
        if over {
            self.pass = None;
            self.add(now, &Item::PassEnd);
            if !self.complete && self.first_pass_end.is_none() {
                self.first_pass_end = self.open.as_ref().map(|batch| batch.number);
            }
        }
    }

    fn add(&mut self, now: Instant, item: &Item) {
        let mut bytes = Vec::with_capacity(64);
        item.put(&mut bytes);
        if let Some(full) = self.open.take_if(|open| open.content.len() + bytes.len() > self.limit) {
            self.waiting.push_back(full);
        }
        let number = &mut self.next_number;
        let open = self.open.get_or_insert_with(|| {
            let mut content = Vec::with_capacity(self.limit);
            content.extend(self.stream.to_be_bytes());
            content.extend(number.to_be_bytes());
            *number += 1;
            Batch { number: *number - 1, content, since: now, due: now, pause: RETRY, arrived: false }
        });
        debug_assert!(open.content.len() >= BATCH_HEAD, "a batch has its head");
        open.content.extend(bytes);
    }

    /// What is to be sent now, in order: all that is new and fits the window, and what has to be sent again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        self.compare(now);
        self.waiting.extend(self.open.take());
        let mut due = Vec::new();
        for batch in self.sent.iter_mut().filter(|batch| !batch.arrived && batch.due <= now) {
            self.repeated += 1;
            batch.pause = (batch.pause * 2).min(RETRY_MAX);
            batch.due = now + batch.pause;
            due.push(Due { content: batch.content.clone(), again: true });
        }
        while self.sent.len() < WINDOW
            && let Some(mut batch) = self.waiting.pop_front()
        {
            batch.due = now + batch.pause;
            due.push(Due { content: batch.content.clone(), again: false });
            self.sent.push_back(batch);
        }
        due
    }

    /// Adds the sums of all buckets when it is time, one behind the other.
    fn compare(&mut self, now: Instant) {
        if now < self.next_sums || !self.is_level() || !self.has_room() {
            return;
        }
        self.next_sums = now + self.sum_period;
        self.round += 1;
        let sums = self.mirror.sums().to_vec();
        for (number, sums) in sums.chunks(SUMS_AT_ONCE).enumerate() {
            let item = Item::Sums { round: self.round, first: number * SUMS_AT_ONCE, sums: sums.to_vec() };
            self.add(now, &item);
        }
    }

    /// Whether nothing has to be told of anew.
    fn is_level(&self) -> bool {
        self.complete && self.pass.is_none() && self.dirty.is_empty()
    }

    pub(super) fn take_acknowledgement(&mut self, acknowledgement: &Acknowledgement) {
        if acknowledgement.stream != self.stream {
            return;
        }
        while self.sent.front().is_some_and(|batch| batch.number <= acknowledgement.all) {
            self.sent.pop_front();
        }
        for batch in &mut self.sent {
            batch.arrived |= acknowledgement.has(batch.number);
        }
        if self.first_pass_end.is_some_and(|number| number <= acknowledgement.all) {
            self.first_pass_end = None;
            self.complete = true;
        }
        let compared = self.compared.map_or(0, |(round, _)| round);
        if acknowledgement.round > compared && acknowledgement.round <= self.round {
            self.compared = Some((acknowledgement.round, acknowledgement.differing.len()));
            self.dirty.add(&acknowledgement.differing);
        }
    }

    /// When [`Sender::due`] has something that is not new, or a pass may begin.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let again = self.sent.iter().filter(|batch| !batch.arrived).map(|batch| batch.due).min();
        let pass =
            (self.pass.is_none() && !self.dirty.is_empty() && self.has_room()).then_some(self.next_pass);
        let sums = (self.is_level() && self.has_room()).then_some(self.next_sums);
        [again, pass, sums].into_iter().flatten().min()
    }

    /// Whether a full state has been acknowledged, and nothing is told of anew.
    pub(super) fn is_in_sync(&self) -> bool {
        self.is_level()
    }

    /// Whether all that has been told is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.is_level() && self.oldest().is_none()
    }

    fn oldest(&self) -> Option<Instant> {
        let batches = [self.sent.front(), self.waiting.front(), self.open.as_ref()];
        batches.into_iter().flatten().map(|batch| batch.since).min()
    }

    /// How long ago what is not acknowledged yet was told.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        self.oldest().map_or(Duration::ZERO, |since| now.saturating_since(since))
    }

    pub(super) fn told(&self) -> usize {
        self.mirror.len()
    }

    pub(super) fn compared(&self) -> Option<(u32, usize)> {
        self.compared
    }

    /// Share of a pass that is done, in percent.
    pub(super) fn progress(&self) -> Option<usize> {
        self.pass.as_ref().map(|pass| pass.next_part * 100 / PARTS)
    }
}

const _: () = assert!(BUCKETS.is_multiple_of(SUMS_AT_ONCE), "all items of sums are full");
