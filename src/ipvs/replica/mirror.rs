//! What the other end has, as far as it has been told: a number for each connection and template, and one for each bucket of
//! them, so that two ends know that they have the same by comparing a few numbers.

use std::collections::HashMap;
use std::hash::Hasher as _;

use foldhash::fast::RandomState;
use siphasher::sip::SipHasher13;

use super::bytes::put_own_end;
use super::control::put_control;
use super::record::{Key, Record};

/// Buckets that what there is falls into, at either end into the same ones.
pub const BUCKETS: usize = 1024;
const BUCKET_SHIFT: u32 = u64::BITS - BUCKETS.ilog2();
const WORDS: usize = BUCKETS / 64;
/// A set of buckets takes so many bytes.
pub(super) const SET_LEN: usize = BUCKETS / 8;

/// Both ends must come to the same numbers, whatever versions they are of, so that the standard library's hashes will not do.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(bytes);
    hasher.finish()
}

/// A number for a key; another key has it once in 2^64 times.
pub fn fingerprint(key: &Key) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    key.put(&mut bytes);
    hash(&bytes)
}

/// The bucket of a fingerprint.
pub fn bucket_of(fingerprint: u64) -> usize {
    (fingerprint >> BUCKET_SHIFT) as usize
}

/// A number for what a record says that lasts: where the connection or template leads, its state, and what the FTP helper knows,
/// but no times or counts. `None` of an end.
pub fn digest(record: &Record) -> Option<u64> {
    let mut bytes = Vec::with_capacity(128);
    record.key().put(&mut bytes);
    match record {
        Record::Connection(record) => {
            put_own_end(&mut bytes, record.server);
            bytes.extend([record.forward as u8, record.state]);
            bytes.extend([record.marks.active, record.marks.awaits_port].map(u8::from));
            record.ftp.iter().for_each(|ftp| put_control(&mut bytes, ftp));
        }
        Record::Template(record) => {
            put_own_end(&mut bytes, record.place);
            bytes.push(record.assured.into());
        }
        Record::End(_) => return None,
    }
    // The sum of a bucket must not be that of an empty one because of this one.
    Some(hash(&bytes) | 1)
}

/// Some of the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets([u64; WORDS]);

impl Buckets {
    /// All of them.
    pub const ALL: Buckets = Buckets([u64::MAX; WORDS]);

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Buckets::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether this one is among them.
    pub fn contains(&self, bucket: usize) -> bool {
        self.0[bucket / 64] & 1 << (bucket % 64) != 0
    }

    /// One more.
    pub fn insert(&mut self, bucket: usize) {
        self.0[bucket / 64] |= 1 << (bucket % 64);
    }

    /// More of them.
    pub fn add(&mut self, others: &Buckets) {
        self.0.iter_mut().zip(others.0).for_each(|(word, other)| *word |= other);
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..BUCKETS).filter(|bucket| self.contains(*bucket))
    }

    pub(super) fn words(words: [u64; WORDS]) -> Self {
        Buckets(words)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|word| out.extend(word.to_be_bytes()));
    }

    /// Of [`SET_LEN`] bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: [[u8; 8]; WORDS] = words.try_into().ok()?;
        rest.is_empty().then(|| Buckets(words.map(u64::from_be_bytes)))
    }
}

/// Sums of digests, by bucket.
pub type Sums = Box<[u64]>;

/// Sums of nothing.
pub fn no_sums() -> Sums {
    vec![0; BUCKETS].into()
}

/// What has been told of.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Digests by fingerprint, by bucket.
    told: Box<[HashMap<u64, u64, RandomState>]>,
    sums: Sums,
    count: usize,
}

impl Default for Mirror {
    fn default() -> Self {
        Mirror { told: (0..BUCKETS).map(|_| HashMap::default()).collect(), sums: no_sums(), count: 0 }
    }
}

impl Mirror {
    /// Whether something with this fingerprint has been told of, and not its end.
    pub fn knows(&self, fingerprint: u64) -> bool {
        self.told[bucket_of(fingerprint)].contains_key(&fingerprint)
    }

    /// Notes that a record is told; false if that would be no news.
    pub fn note(&mut self, record: &Record) -> bool {
        let fingerprint = fingerprint(&record.key());
        let bucket = bucket_of(fingerprint);
        let digest = digest(record);
        let former = match digest {
            Some(digest) => self.told[bucket].insert(fingerprint, digest),
            None => self.told[bucket].remove(&fingerprint),
        };
        self.sums[bucket] ^= former.unwrap_or(0) ^ digest.unwrap_or(0);
        self.count = self.count + usize::from(digest.is_some()) - usize::from(former.is_some());
        former != digest
    }

    /// Nothing counts as told of some buckets any more.
    pub fn forget(&mut self, buckets: &Buckets) {
        for bucket in buckets.iter() {
            self.count -= self.told[bucket].len();
            self.told[bucket] = HashMap::default();
            self.sums[bucket] = 0;
        }
    }

    /// The sums.
    pub fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// How many connections and templates.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
