//! The standby's end: takes batches in order, each once, and knows whether it has all.

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::RandomState;

use super::mirror::{BUCKETS, Buckets, Sums, bucket_of, digest, fingerprint, no_sums};
use super::record::{Key, Record, Refused};
use super::sender::WINDOW;
use super::stream::{Acknowledgement, Batch, Item, items};

/// Where records are installed.
pub trait Store {
    /// Takes one in.
    fn install(&mut self, record: &Record) -> Result<(), Refused>;

    /// Shows all that the partner has told of and that is still there.
    fn visit(&mut self, visit: &mut dyn FnMut(&Record));
}

/// Buckets of which all is told, and what of them has been told so far.
#[derive(Clone, Debug)]
struct Pass {
    buckets: Buckets,
    told: HashSet<u64, RandomState>,
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
    pass: Option<Pass>,
    complete: bool,
    /// The store's own sums as of the round that is being compared.
    own: Option<(u32, Sums)>,
    differs: Buckets,
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
                Ok(Item::PassBegin(buckets)) => {
                    self.pass = Some(Pass { buckets: *buckets, told: HashSet::default() });
                }
                Ok(Item::PassEnd) => self.end_pass(store),
                Ok(Item::Sums { round, first, sums }) => self.compare(round, first, &sums, store),
                Err(_) => self.taken.refused += 1,
            }
        }
    }

    fn take_record(&mut self, record: &Record, store: &mut impl Store) {
        if let Some(pass) = &mut self.pass {
            let fingerprint = fingerprint(&record.key());
            if pass.buckets.contains(bucket_of(fingerprint)) {
                pass.told.insert(fingerprint);
            }
        }
        match store.install(record) {
            Ok(()) => self.taken.records += 1,
            Err(_) => self.taken.refused += 1,
        }
    }

    /// What the pass has not told of is over. Connections go before the templates that they keep.
    fn end_pass(&mut self, store: &mut impl Store) {
        let Some(Pass { buckets, told }) = self.pass.take() else { return };
        let (mut connections, mut templates) = (Vec::new(), Vec::new());
        store.visit(&mut |record| {
            let key = record.key();
            let fingerprint = fingerprint(&key);
            if buckets.contains(bucket_of(fingerprint)) && !told.contains(&fingerprint) {
                match key {
                    Key::Connection(_) => connections.push(key),
                    Key::Template(_) => templates.push(key),
                }
            }
        });
        for key in connections.into_iter().chain(templates) {
            self.taken.swept += 1;
            // An end is never refused.
            let _ = store.install(&Record::End(key));
        }
        self.complete = true;
    }

    fn compare(&mut self, round: u32, first: usize, sums: &[u64], store: &mut impl Store) {
        if first == 0 {
            let mut own = no_sums();
            store.visit(&mut |record| {
                own[bucket_of(fingerprint(&record.key()))] ^= digest(record).unwrap_or(0);
            });
            self.own = Some((round, own));
            self.differs = Buckets::default();
        }
        let Some((_, own)) = self.own.as_ref().filter(|(own, _)| *own == round) else { return };
        for (bucket, sum) in (first..).zip(sums) {
            if own[bucket] != *sum {
                self.differs.insert(bucket);
            }
        }
        if first + sums.len() == BUCKETS {
            self.own = None;
            self.round = round;
            self.differing = std::mem::take(&mut self.differs);
        }
    }
}
