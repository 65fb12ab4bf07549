//! A map that many threads share, in so many parts that a walk through it locks only little at a time, and can be broken off
//! between two parts. The one file that names dashmap.

use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;
use foldhash::fast::RandomState;

/// Among a million entries a part has four thousand, and each of its locks half of these.
const PARTS: usize = 256;
const LOCKS_OF_PART: usize = 2;

/// A part. Its guards must not leave the file that asks for them.
pub type Part<K, V> = DashMap<K, V, RandomState>;

/// The map.
#[derive(Debug)]
pub struct PartedMap<K: Eq + Hash, V> {
    parts: Box<[Part<K, V>]>,
    choice: RandomState,
}

impl<K: Eq + Hash, V> Default for PartedMap<K, V> {
    fn default() -> Self {
        let part = |_| DashMap::with_hasher_and_shard_amount(RandomState::default(), LOCKS_OF_PART);
        PartedMap { parts: (0..PARTS).map(part).collect(), choice: RandomState::default() }
    }
}

impl<K: Eq + Hash, V> PartedMap<K, V> {
    /// The part that has a key, if any has.
    pub fn of(&self, key: &K) -> &Part<K, V> {
        &self.parts[self.number_of(key)]
    }

    /// The place of that part among all.
    pub fn number_of(&self, key: &K) -> usize {
        self.choice.hash_one(key) as usize % PARTS
    }

    /// All parts, always in the same order.
    pub fn parts(&self) -> &[Part<K, V>] {
        &self.parts
    }
}
