//! Looks through all that the other end has told of: to compare it, and to end what is not there any more. They take a part of the
//! tables at a time, since in a large table what comes meanwhile must not wait for the end.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::live::PARTS;
use super::mirror::{BUCKETS, Buckets, Sums, bucket_of, digest, fingerprint, no_sums};
use super::receiver::Store;
use super::record::{Key, Record};

/// The store's own sums as of the place in the stream where a round of the other end's begins, and these.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) round: u32,
    own: Sums,
    theirs: Vec<u64>,
    next_part: usize,
    /// What has changed since that place and was counted as it was there.
    counted: HashSet<u64, RandomState>,
}

impl Comparison {
    pub(super) fn begin(round: u32) -> Self {
        Comparison { round, own: no_sums(), theirs: Vec::new(), next_part: 0, counted: HashSet::default() }
    }

    /// Takes the sums of some buckets, which come in order.
    pub(super) fn hear(&mut self, first: usize, sums: &[u64]) {
        if first == self.theirs.len() {
            self.theirs.extend(sums);
        }
    }

    /// Something is about to change: if it has not been looked at, it counts as it is now.
    pub(super) fn expect_change(&mut self, key: &Key, fingerprint: u64, store: &mut impl Store) {
        if store.part_of(key) < self.next_part || !self.counted.insert(fingerprint) {
            return;
        }
        if let Some(digest) = store.told(key).as_ref().and_then(digest) {
            self.own[bucket_of(fingerprint)] ^= digest;
        }
    }

    /// Looks at the next part. Returns the buckets that differ, when it was the last one.
    pub(super) fn look(&mut self, store: &mut impl Store) -> Option<Buckets> {
        if self.next_part < PARTS {
            store.visit(self.next_part, &mut |record| {
                let fingerprint = fingerprint(&record.key());
                if !self.counted.contains(&fingerprint) {
                    self.own[bucket_of(fingerprint)] ^= digest(record).unwrap_or(0);
                }
            });
            self.next_part += 1;
        }
        (self.next_part == PARTS && self.theirs.len() == BUCKETS).then(|| {
            let mut differing = Buckets::default();
            let pairs = self.own.iter().zip(&self.theirs).enumerate();
            pairs.filter(|(_, (own, theirs))| own != theirs).for_each(|(bucket, _)| differing.insert(bucket));
            differing
        })
    }

    /// Whether there is a part to look at.
    pub(super) fn has_work(&self) -> bool {
        self.next_part < PARTS
    }
}

/// Buckets of which all has been told, and what of them has been told. Connections go before the templates that they keep.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) buckets: Buckets,
    pub(super) told: HashSet<u64, RandomState>,
    next_part: usize,
    templates: Vec<Key>,
}

impl Sweep {
    pub(super) fn new(buckets: Buckets, told: HashSet<u64, RandomState>) -> Self {
        Sweep { buckets, told, next_part: 0, templates: Vec::new() }
    }

    /// Notes that something has been told of.
    pub(super) fn note(&mut self, fingerprint: u64) {
        if self.buckets.contains(bucket_of(fingerprint)) {
            self.told.insert(fingerprint);
        }
    }

    /// Ends what has not been told of in the next part. Returns how many that were.
    pub(super) fn look(&mut self, store: &mut impl Store) -> u64 {
        let mut over = Vec::new();
        store.visit(self.next_part, &mut |record| {
            let key = record.key();
            let fingerprint = fingerprint(&key);
            if self.buckets.contains(bucket_of(fingerprint)) && !self.told.contains(&fingerprint) {
                match key {
                    Key::Connection(_) => over.push(key),
                    Key::Template(_) => self.templates.push(key),
                }
            }
        });
        self.next_part += 1;
        if self.is_over() {
            let told = &self.told;
            over.extend(self.templates.drain(..).filter(|key| !told.contains(&fingerprint(key))));
        }
        let count = over.len() as u64;
        for key in over {
            // An end is never refused.
            let _ = store.install(&Record::End(key));
        }
        count
    }

    pub(super) fn is_over(&self) -> bool {
        self.next_part == PARTS
    }
}
