//! The buckets of a part of the connection table: what is where, and nothing of what it means.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use sdd::{AtomicShared, Guard, Shared, Tag};

use crate::ipvs::connection::Connection;
use crate::ipvs::protocol::Direction;
use crate::ipvs::table::{Found, direction_of, tag_of};
use crate::net::flow::FlowWords;

/// Entries of a bucket: with their marks they fill a cache line of 64 bytes.
const WAYS: usize = 7;
/// Buckets of the first table.
const BUCKETS_MIN: usize = 2;
/// A mark is never 0, which says that there is no entry.
const PRESENT: u64 = 0x80;
/// One byte a way, and on top the number of entries that are further on because there was no room here. Once there are too many
/// to count, they are no longer counted.
const OVERFLOW: u32 = 56;
const OVERFLOW_MAX: u64 = 0xff;
const MARKS: u64 = (1 << OVERFLOW) - 1;
const EACH: u64 = 0x0001_0101_0101_0101;

/// A bucket. Readers see each of its words change by itself: an entry counts only if its connection has the key.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    marks: AtomicU64,
    ways: [AtomicShared<Connection>; WAYS],
}

/// Where an entry is, and what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'g> {
    bucket: usize,
    way: usize,
    pub(super) found: Found<'g>,
    pub(super) direction: Direction,
}

/// What a search is for.
pub(super) trait Sought {
    /// Whether an entry is it.
    fn is(&self, connection: &Connection, direction: Direction) -> bool;
}

impl Sought for FlowWords {
    #[inline(always)]
    fn is(&self, connection: &Connection, direction: Direction) -> bool {
        connection.has(self, direction)
    }
}

/// This very connection, whichever way.
impl Sought for Connection {
    fn is(&self, connection: &Connection, _: Direction) -> bool {
        ptr::eq(self, connection)
    }
}

/// Buckets, as many as it takes.
#[derive(Debug)]
pub(super) struct Buckets {
    list: Box<[Bucket]>,
}

fn mark_of(hash: u64) -> u64 {
    PRESENT | (hash >> 40) & 0x7f
}

/// The ways whose marks equal `mark`, as the top bits of their bytes. Some more may be among them.
fn equal(marks: u64, mark: u64) -> u64 {
    let difference = (marks & MARKS) ^ (mark * EACH);
    difference.wrapping_sub(EACH) & !difference & (EACH << 7)
}

impl Bucket {
    fn marks(&self) -> u64 {
        self.marks.load(Ordering::Acquire)
    }

    fn set_mark(&self, way: usize, mark: u64) {
        let others = self.marks() & !(0xff << (8 * way));
        self.marks.store(others | mark << (8 * way), Ordering::Release);
    }

    fn add_overflow(&self, change: i64) {
        let marks = self.marks();
        let overflow = marks >> OVERFLOW;
        if overflow != OVERFLOW_MAX {
            let overflow = overflow.wrapping_add_signed(change);
            self.marks.store(marks & MARKS | overflow << OVERFLOW, Ordering::Release);
        }
    }

    fn free_way(&self) -> Option<usize> {
        let free = !self.marks() & (EACH << 7);
        (free != 0).then(|| free.trailing_zeros() as usize / 8)
    }

    /// The entry at `way`, if there is one.
    #[inline]
    fn entry<'g>(&self, way: usize, guard: &'g Guard) -> Option<(Found<'g>, Direction)> {
        let pointer = self.ways[way].load(Ordering::Acquire, guard);
        Some((Found::new(pointer.without_tag())?, direction_of(pointer.tag())))
    }
}

impl Buckets {
    /// More buckets than these, or the first ones; empty.
    pub(super) fn larger(former: Option<&Buckets>) -> Self {
        let count = former.map_or(BUCKETS_MIN, |former| former.list.len() * 3 / 2 + 1);
        Buckets { list: (0..count).map(|_| Bucket::default()).collect() }
    }

    /// Moves all entries, whose hashes are as `hash` says, to `larger`. They are moved and not copied, because that would write to
    /// every connection. The hashes of a bucket are computed together, so that their memory accesses overlap.
    pub(super) fn move_to(
        &self,
        larger: &Buckets,
        hash: impl Fn(&Connection, Direction) -> u64,
        guard: &Guard,
    ) {
        for bucket in &self.list {
            let hashes: [u64; WAYS] = std::array::from_fn(|way| {
                bucket.entry(way, guard).map_or(0, |(found, direction)| hash(&found, direction))
            });
            for (way, hash) in bucket.ways.iter().zip(hashes) {
                let (connection, tag) = way.swap((None, Tag::None), Ordering::AcqRel);
                if let Some(connection) = connection {
                    larger.put(hash, connection, direction_of(tag));
                }
            }
        }
    }

    /// Whether one entry more is too many for `used`.
    pub(super) fn are_full(&self, used: usize) -> bool {
        (used + 1) * 4 > self.list.len() * WAYS * 3
    }

    /// The bucket where a key's entry is, unless it has overflowed.
    pub(super) fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.list.len() as u64) >> 32) as usize
    }

    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.list.len() { 0 } else { bucket + 1 }
    }

    /// The first word that a search reads.
    pub(super) fn first_marks(&self, hash: u64) -> u64 {
        self.list[self.home(hash)].marks()
    }

    /// What a search most probably ends with.
    pub(super) fn candidate<'g>(&self, hash: u64, guard: &'g Guard) -> Option<Found<'g>> {
        let bucket = &self.list[self.home(hash)];
        let candidates = equal(bucket.marks(), mark_of(hash));
        if candidates == 0 {
            return None;
        }
        Some(bucket.entry(candidates.trailing_zeros() as usize / 8, guard)?.0)
    }

    /// The entry with this hash that is `sought`.
    #[inline(always)]
    pub(super) fn find<'g>(&self, hash: u64, guard: &'g Guard, sought: &impl Sought) -> Option<Place<'g>> {
        let mark = mark_of(hash);
        let mut bucket = self.home(hash);
        for _ in 0..self.list.len() {
            let marks = self.list[bucket].marks();
            let mut candidates = equal(marks, mark);
            while candidates != 0 {
                let way = candidates.trailing_zeros() as usize / 8;
                candidates &= candidates - 1;
                if let Some((found, direction)) = self.list[bucket].entry(way, guard)
                    && sought.is(&found, direction)
                {
                    return Some(Place { bucket, way, found, direction });
                }
            }
            if marks >> OVERFLOW == 0 {
                return None;
            }
            bucket = self.next(bucket);
        }
        None
    }

    /// Puts an entry into the first free way. There must be one.
    pub(super) fn put(&self, hash: u64, connection: Shared<Connection>, direction: Direction) {
        let mut bucket = self.home(hash);
        let way = loop {
            match self.list[bucket].free_way() {
                Some(way) => break way,
                None => self.list[bucket].add_overflow(1),
            }
            bucket = self.next(bucket);
        };
        self.store(bucket, way, Some(connection), direction);
        self.list[bucket].set_mark(way, mark_of(hash));
    }

    /// Replaces an entry by one of the same key; returns what was there.
    pub(super) fn replace(
        &self,
        place: Place<'_>,
        connection: Shared<Connection>,
        direction: Direction,
    ) -> Option<Shared<Connection>> {
        self.store(place.bucket, place.way, Some(connection), direction)
    }

    /// Takes an entry out.
    pub(super) fn clear(&self, hash: u64, place: Place<'_>) {
        self.list[place.bucket].set_mark(place.way, 0);
        drop(self.store(place.bucket, place.way, None, place.direction));
        let mut bucket = self.home(hash);
        while bucket != place.bucket {
            self.list[bucket].add_overflow(-1);
            bucket = self.next(bucket);
        }
    }

    fn store(
        &self,
        bucket: usize,
        way: usize,
        connection: Option<Shared<Connection>>,
        direction: Direction,
    ) -> Option<Shared<Connection>> {
        let tag = if connection.is_some() { tag_of(direction) } else { Tag::None };
        self.list[bucket].ways[way].swap((connection, tag), Ordering::AcqRel).0
    }

    /// How many buckets.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is anything in one bucket.
    pub(super) fn has_entries(&self, bucket: usize) -> bool {
        self.list[bucket].marks() & MARKS != 0
    }

    /// The connections of one bucket; one whose entries are both there comes twice.
    pub(super) fn connections<'g>(
        &'g self,
        bucket: usize,
        guard: &'g Guard,
    ) -> impl Iterator<Item = Found<'g>> {
        self.list[bucket].ways.iter().filter_map(move |way| {
            let pointer = way.load(Ordering::Acquire, guard);
            Found::new(pointer.without_tag())
        })
    }

    /// All entries.
    pub(super) fn places<'g>(&self, guard: &'g Guard) -> impl Iterator<Item = Place<'g>> {
        let ways = (0..self.list.len()).flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        ways.filter_map(move |(bucket, way)| {
            let (found, direction) = self.list[bucket].entry(way, guard)?;
            Some(Place { bucket, way, found, direction })
        })
    }
}
