//! The standby's end: takes batches in order, each once, and knows whether it has all.

use std::collections::{BTreeMap, HashSet};

use super::look::{Comparison, Sweep};
use super::mirror::{Buckets, fingerprint};
use super::record::{Key, Record, Refused};
use super::sender::WINDOW;
use super::stream::{Acknowledgement, Batch, Item, items};

/// Where records are installed.
pub trait Store {
    /// Takes one in.
    fn install(&mut self, record: &Record) -> Result<(), Refused>;

    /// What the partner has told of and that is still there, by its key.
    fn told(&mut self, key: &Key) -> Option<Record>;

    /// Shows all of that in a part, with a number below [`PARTS`](super::PARTS).
    fn visit(&mut self, part: usize, visit: &mut dyn FnMut(&Record));

    /// The part that it would be in.
    fn part_of(&mut self, key: &Key) -> usize;
}

/// What has been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) batches: u64,
    pub(super) records: u64,
    /// Records that were refused.
    pub(super) refused: u64,
    /// What had to be ended because a pass did not tell of it.
    pub(super) swept: u64,
}

/// The end of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    stream: u32,
    all: u64,
    early: BTreeMap<u64, Vec<u8>>,
    /// Of which all is being told, and what of them has been told so far; and the same when that is over.
    pass: Option<Sweep>,
    sweep: Option<Sweep>,
    complete: bool,
    comparison: Option<Comparison>,
    round: u32,
    differing: Buckets,
    pub(super) taken: Taken,
}

impl Receiver {
    /// Nothing of what came before counts any more.
    pub(super) fn reset(&mut self) {
        *self = Receiver { taken: self.taken, ..Receiver::default() };
    }

    /// Whether a stream is being received.
    pub(super) fn has_begun(&self) -> bool {
        self.all > 0
    }

    /// Whether all that there is has been told of once.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The last round of sums that was compared, and in how many buckets the ends differed.
    pub(super) fn compared(&self) -> Option<(u32, usize)> {
        (self.round != 0).then(|| (self.round, self.differing.len()))
    }

    pub(super) fn acknowledgement(&self) -> Acknowledgement {
        let places = self.early.keys().filter_map(|number| number.checked_sub(self.all + 2));
        let beyond = places.filter(|place| *place < 64).fold(0, |bits, place| bits | 1 << place);
        let differing = self.differing.clone();
        Acknowledgement { stream: self.stream, all: self.all, beyond, round: self.round, differing }
    }

    /// Takes a batch, and says whether it was new; one that comes too early is kept.
    pub(super) fn take(&mut self, batch: &Batch<'_>, store: &mut impl Store) -> bool {
        if batch.stream < self.stream {
            return false;
        }
        if batch.stream > self.stream {
            self.reset();
            self.stream = batch.stream;
        }
        if batch.number <= self.all || batch.number > self.all + WINDOW as u64 + 1 {
            return false;
        }
        if batch.number != self.all + 1 {
            return self.early.insert(batch.number, batch.items.to_vec()).is_none();
        }
        self.take_items(batch.items, store);
        while let Some(items) = self.early.remove(&(self.all + 1)) {
            self.take_items(&items, store);
        }
        true
    }

    fn take_items(&mut self, bytes: &[u8], store: &mut impl Store) {
        self.all += 1;
        self.taken.batches += 1;
        for item in items(bytes) {
            match item {
                Ok(Item::Record(record)) => self.take_record(&record, store),
                Ok(Item::PassBegin(buckets)) => self.begin_pass(*buckets, store),
                Ok(Item::PassEnd) => self.end_pass(),
                Ok(Item::Sums { round, first, sums }) => self.hear_sums(round, first, &sums),
                Err(_) => self.taken.refused += 1,
            }
        }
    }

    fn take_record(&mut self, record: &Record, store: &mut impl Store) {
        let key = record.key();
        let fingerprint = fingerprint(&key);
        self.pass.iter_mut().chain(&mut self.sweep).for_each(|pass| pass.note(fingerprint));
        if let Some(comparison) = &mut self.comparison {
            comparison.expect_change(&key, fingerprint, store);
        }
        match store.install(record) {
            Ok(()) => self.taken.records += 1,
            Err(_) => self.taken.refused += 1,
        }
    }

    fn begin_pass(&mut self, buckets: Buckets, store: &mut impl Store) {
        // It may tell of what the one before has not swept yet.
        self.finish_sweep(store);
        self.pass = Some(Sweep::new(buckets, HashSet::default()));
    }

    /// What the pass has not told of is over.
    fn end_pass(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        self.sweep = Some(pass);
        self.complete = true;
    }

    /// A round that begins before the one before has been compared is left out.
    fn hear_sums(&mut self, round: u32, first: usize, sums: &[u64]) {
        if first == 0 && self.comparison.is_none() {
            self.comparison = Some(Comparison::begin(round));
        }
        if let Some(comparison) = self.comparison.as_mut().filter(|comparison| comparison.round == round) {
            comparison.hear(first, sums);
        }
    }

    /// Whether there is something to look through still.
    pub(super) fn has_work(&self) -> bool {
        self.sweep.is_some() || self.comparison.as_ref().is_some_and(Comparison::has_work)
    }

    /// Looks through a part. Returns whether there is news for the other end.
    pub(super) fn work(&mut self, store: &mut impl Store) -> bool {
        if let Some(sweep) = &mut self.sweep {
            self.taken.swept += sweep.look(store);
            self.sweep.take_if(|sweep| sweep.is_over());
            return false;
        }
        let Some(comparison) = &mut self.comparison else { return false };
        let Some(differing) = comparison.look(store) else { return false };
        (self.round, self.differing) = (comparison.round, differing);
        self.comparison = None;
        true
    }

    /// Ends at once what is over.
    pub(super) fn finish_sweep(&mut self, store: &mut impl Store) {
        while let Some(sweep) = &mut self.sweep {
            self.taken.swept += sweep.look(store);
            self.sweep.take_if(|sweep| sweep.is_over());
        }
    }
}
