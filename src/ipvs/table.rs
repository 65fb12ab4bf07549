//! The connection table, found from both directions. Looking up locks nothing and writes nothing: workers on many CPUs share the
//! table, and most packets belong to a connection that they know. The file that knows how connections are shared and freed.
//!
//! An entry is a pointer to a connection, in a bucket of one cache line with seven of them and a few bits of each one's hash;
//! the key is the connection's own. What overflows a bucket is in the next ones. Changes lock one of many shards. A shard that
//! fills up moves to more buckets; who finds nothing there meanwhile waits for the end of that. What readers have found is freed
//! only after they have let go of their [`Guard`].

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam::utils::CachePadded;
use foldhash::fast::RandomState;
use sdd::{AtomicShared, Guard, Ptr, Shared, Tag};

use crate::ipvs::bucket::{Buckets, Place};
use crate::ipvs::connection::Connection;
use crate::ipvs::protocol::{Direction, State};
use crate::ipvs::replica::{Key, Replication};
use crate::ipvs::shortcut::Shortcuts;
use crate::net::flow::{FlowKey, FlowWords};

/// Among a million connections a shard has eight thousand entries.
const SHARDS: usize = 256;

/// Buckets with connections that a sample of the table looks at.
const SAMPLE: usize = 64;
/// The same with those that are empty, which most are once a table that was large has few connections.
const SAMPLE_EMPTY: usize = 1024;

fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize % SHARDS
}

/// A connection that has been looked up; it stays where it is while the guard lasts.
#[derive(Clone, Copy, Debug)]
pub struct Found<'g> {
    connection: &'g Connection,
    pointer: Ptr<'g, Connection>,
}

impl<'g> Found<'g> {
    pub(super) fn new(pointer: Ptr<'g, Connection>) -> Option<Self> {
        Some(Found { connection: pointer.as_ref()?, pointer })
    }

    /// The same of a connection that somebody holds.
    pub fn of(connection: &Shared<Connection>, guard: &'g Guard) -> Self {
        Found { connection: connection.get_guarded_ref(guard), pointer: connection.get_guarded_ptr(guard) }
    }

    /// To be kept for longer. `None` if nobody else holds the connection any more.
    pub fn share(self) -> Option<Shared<Connection>> {
        self.pointer.get_shared()
    }

    /// The connection.
    pub fn get(self) -> &'g Connection {
        self.connection
    }
}

impl Deref for Found<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// Which way the packets of an entry go through their connection, as its pointer is tagged.
pub(super) fn tag_of(direction: Direction) -> Tag {
    match direction {
        Direction::In => Tag::None,
        Direction::Out => Tag::First,
    }
}

pub(super) fn direction_of(tag: Tag) -> Direction {
    if tag == Tag::None { Direction::In } else { Direction::Out }
}

/// A connection, and which way the packets of a key go through it.
#[derive(Debug)]
struct Way {
    connection: Shared<Connection>,
    direction: Direction,
}

/// What readers look at.
#[derive(Debug, Default)]
struct Shard {
    buckets: AtomicShared<Buckets>,
    /// Whether the entries are on their way to more buckets.
    moving: AtomicBool,
}

/// What who changes a shard has to lock.
#[derive(Debug, Default)]
struct Writer {
    used: usize,
    /// Older connections with the key of one that is in a bucket, oldest first: two services on one server and one client port
    /// can collide. The newest one hides the others, which show again afterwards, as in the kernel's hash chains.
    hidden: HashMap<FlowWords, VecDeque<Way>, RandomState>,
}

/// All connections, each under what its client's and its server's packets look like.
#[derive(Debug)]
pub struct ConnectionTable {
    /// The shards, for readers.
    shards: Box<[Shard]>,
    writers: Box<[CachePadded<Mutex<Writer>>]>,
    hasher: RandomState,
    count: AtomicU64,
    /// How many await their client's port.
    awaiting: AtomicU64,
    shortcuts: OnceLock<Arc<Shortcuts>>,
    replication: Arc<Replication>,
}

impl Default for ConnectionTable {
    fn default() -> Self {
        ConnectionTable {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            writers: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::default(),
            count: AtomicU64::new(0),
            awaiting: AtomicU64::new(0),
            shortcuts: OnceLock::new(),
            replication: Arc::default(),
        }
    }
}

/// The key of a packet with its hash, so that it is computed once.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey {
    key: FlowWords,
    hash: u64,
}

impl HashedKey {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        self.key.source_port()
    }
}

impl ConnectionTable {
    /// With its changes noted where `replication` says.
    pub fn replicated_by(self, replication: Arc<Replication>) -> Self {
        ConnectionTable { replication, ..self }
    }

    /// To look a key up by.
    #[inline(always)]
    pub fn hashed(&self, key: FlowWords) -> HashedKey {
        HashedKey { hash: key.hash_with(self.hasher.build_hasher()), key }
    }

    fn buckets<'g>(&self, hash: u64, guard: &'g Guard) -> Option<&'g Buckets> {
        self.shards[shard_of(hash)].buckets.load(Ordering::Acquire, guard).as_ref()
    }

    fn writer(&self, shard: usize) -> MutexGuard<'_, Writer> {
        self.writers[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to fetch what [`ConnectionTable::find`] will read, for all keys of a burst at once: their memory accesses overlap,
    /// because none waits for another. Returns a sum of no meaning that the caller must not leave unused.
    pub fn fetch(&self, keys: impl Iterator<Item = HashedKey> + Clone, guard: &Guard) -> u64 {
        let marks = |key: HashedKey| Some(self.buckets(key.hash, guard)?.first_marks(key.hash));
        let glance =
            |key: HashedKey| Some(self.buckets(key.hash, guard)?.candidate(key.hash, guard)?.glance());
        let first = keys.clone().filter_map(marks).fold(0, u64::wrapping_add);
        keys.filter_map(glance).fold(first, u64::wrapping_add)
    }

    /// Has what leaves the table taken back from there. Only the first call counts.
    pub fn lend_to(&self, shortcuts: Arc<Shortcuts>) {
        // A second one would be told of what the first one has.
        let _ = self.shortcuts.set(shortcuts);
    }

    /// What connections are lent to, if anything.
    pub fn shortcuts(&self) -> Option<&Arc<Shortcuts>> {
        self.shortcuts.get()
    }

    /// Takes note of what a lent connection's packets have done meanwhile.
    pub fn refresh(&self, connection: &Connection) {
        if let Some(shortcuts) = self.shortcuts() {
            shortcuts.refresh(connection);
        }
    }

    /// Whether packets of this direction of the connection find it.
    pub fn has(&self, connection: &Connection, direction: Direction) -> bool {
        let guard = Guard::new();
        let found = self.find(&self.hashed(connection.words(direction)), &guard);
        found.is_some_and(|(found, _)| ptr::eq(found.get(), connection)) && !connection.is_removed()
    }

    /// Whether there is a connection whose client's packets look so.
    pub fn has_key(&self, flow: &FlowKey) -> bool {
        let guard = Guard::new();
        let found = self.find(&self.hashed(flow.into()), &guard);
        found.is_some_and(|(found, direction)| direction == Direction::In && !found.is_removed())
    }

    /// Takes a connection back that has been lent.
    pub fn take_back(&self, connection: &Connection) {
        if let Some(shortcuts) = self.shortcuts() {
            shortcuts.take_back(connection);
        }
    }

    /// The connection that a packet belongs to, and which way the packet goes.
    #[inline(always)]
    pub fn find<'g>(&self, key: &HashedKey, guard: &'g Guard) -> Option<(Found<'g>, Direction)> {
        loop {
            let buckets = self.buckets(key.hash, guard)?;
            if let Some(Place { found, direction, .. }) = buckets.find(key.hash, guard, &key.key) {
                return Some((found, direction));
            }
            if !self.has_moved(key.hash, buckets, guard) {
                return None;
            }
        }
    }

    /// Whether entries may have been moved out of `buckets`. If they are being moved, waits until they have been.
    #[cold]
    fn has_moved(&self, hash: u64, buckets: &Buckets, guard: &Guard) -> bool {
        if self.shards[shard_of(hash)].moving.load(Ordering::Acquire) {
            drop(self.writer(shard_of(hash)));
        }
        !self.buckets(hash, guard).is_some_and(|present| ptr::eq(present, buckets))
    }

    /// The data connection that awaits its client's port and that a client's packet may belong to.
    pub fn find_awaiting<'g>(&self, key: &HashedKey, guard: &'g Guard) -> Option<Found<'g>> {
        if self.awaiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let key = self.hashed(key.key.with_source_port(0));
        let (found, direction) = self.find(&key, guard)?;
        (direction == Direction::In && found.awaits_port()).then_some(found)
    }

    /// Puts a connection in.
    pub fn insert(&self, connection: &Shared<Connection>) {
        let guard = Guard::new();
        self.link(connection, Direction::In, &guard);
        self.link(connection, Direction::Out, &guard);
        self.count.fetch_add(1, Ordering::Relaxed);
        if connection.awaits_port() {
            self.awaiting.fetch_add(1, Ordering::Relaxed);
        }
        // Others are of no use to anybody else before their handshake is over.
        if connection.state() == State::Udp || connection.parent().is_some() {
            self.note(connection);
        }
    }

    /// Something of a connection has changed that another process would have to know.
    #[inline]
    pub fn note(&self, connection: &Connection) {
        self.replication.note(|| Key::Connection(connection.request_key()));
    }

    /// Takes a connection out and unbinds it. Does nothing, and returns false, if that has been done.
    pub fn remove(&self, connection: &Connection) -> bool {
        let first = connection.unbind();
        if first {
            self.take_out(connection);
        }
        first
    }

    /// The same, but only of one that is half open at that very moment.
    pub fn remove_half_open(&self, connection: &Connection) -> bool {
        let first = connection.unbind_half_open();
        if first {
            self.take_out(connection);
        }
        first
    }

    fn take_out(&self, connection: &Connection) {
        let guard = Guard::new();
        self.unlink(connection, Direction::In, &guard);
        self.unlink(connection, Direction::Out, &guard);
        self.take_back(connection);
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.note(connection);
        if connection.awaits_port() {
            self.awaiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Some connections, from a place on that the number drawn names. They are as good as picked at random, since the places
    /// of a table are; neighbouring places are fetched from memory faster. Locks nothing.
    pub fn sample<'g>(&self, drawn: u64, guard: &'g Guard) -> impl Iterator<Item = Found<'g>> {
        let first = shard_of(drawn);
        let shards = (0..SHARDS).map(move |step| (first + step) % SHARDS);
        let places = shards.flat_map(move |shard| {
            let buckets = self.shards[shard].buckets.load(Ordering::Acquire, guard).as_ref();
            let start = move |buckets: &Buckets| if shard == first { buckets.home(drawn) } else { 0 };
            buckets
                .into_iter()
                .flat_map(move |buckets| (start(buckets)..buckets.len()).map(move |bucket| (buckets, bucket)))
        });
        let places = places.take(SAMPLE_EMPTY).filter(|(buckets, bucket)| buckets.has_entries(*bucket));
        places.take(SAMPLE).flat_map(move |(buckets, bucket)| buckets.connections(bucket, guard))
    }

    /// The buckets of a shard whose writer is locked; more of them if these are full.
    fn with_room<'g>(&self, shard: usize, used: usize, guard: &'g Guard) -> &'g Buckets {
        let Shard { buckets, moving } = &self.shards[shard];
        let present = buckets.load(Ordering::Acquire, guard).as_ref();
        if let Some(buckets) = present.filter(|buckets| !buckets.are_full(used)) {
            return buckets;
        }
        let larger = Shared::new(Buckets::larger(present));
        let room = larger.get_guarded_ref(guard);
        moving.store(true, Ordering::SeqCst);
        if let Some(present) = present {
            present.move_to(
                room,
                |connection, direction| self.hashed(connection.words(direction)).hash,
                guard,
            );
        }
        drop(buckets.swap((Some(larger), Tag::None), Ordering::AcqRel));
        moving.store(false, Ordering::Release);
        room
    }

    fn link(&self, connection: &Shared<Connection>, direction: Direction, guard: &Guard) {
        let HashedKey { key, hash } = self.hashed(connection.words(direction));
        let shard = shard_of(hash);
        let mut writer = self.writer(shard);
        let buckets = self.with_room(shard, writer.used, guard);
        let way = Way { connection: connection.clone(), direction };
        match buckets.find(hash, guard, &key) {
            None => {
                buckets.put(hash, way.connection, direction);
                writer.used += 1;
            }
            Some(place) => {
                if let Some(older) = buckets.replace(place, way.connection, direction) {
                    self.take_back(&older);
                    let older = Way { connection: older, direction: place.direction };
                    writer.hidden.entry(key).or_default().push_back(older);
                }
            }
        }
    }

    fn unlink(&self, connection: &Connection, direction: Direction, guard: &Guard) {
        let HashedKey { key, hash } = self.hashed(connection.words(direction));
        let mut writer = self.writer(shard_of(hash));
        let Some(buckets) = self.buckets(hash, guard) else { return };
        match buckets.find(hash, guard, connection) {
            Some(place) => match writer.take_newest_hidden(&key) {
                Some(way) => drop(buckets.replace(place, way.connection, way.direction)),
                None => {
                    buckets.clear(hash, place);
                    writer.used -= 1;
                }
            },
            None => writer.forget_hidden(&key, connection),
        }
    }

    /// Shows every connection to `visit`; a little of the table is locked meanwhile.
    pub fn for_each(&self, mut visit: impl FnMut(Found<'_>)) {
        self.walks().for_each(|walk| walk.for_each(&mut visit));
    }

    /// The same in many walks, between which nothing is locked.
    pub fn walks(&self) -> impl ExactSizeIterator<Item = Walk<'_>> {
        (0..SHARDS).map(|shard| Walk { table: self, shard })
    }

    /// The number of the walk that shows the connection with this key.
    pub fn part_of(&self, key: FlowWords) -> usize {
        shard_of(self.hashed(key).hash)
    }

    /// How many connections.
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Writer {
    fn take_newest_hidden(&mut self, key: &FlowWords) -> Option<Way> {
        let ways = self.hidden.get_mut(key)?;
        let newest = ways.pop_back();
        if ways.is_empty() {
            self.hidden.remove(key);
        }
        newest
    }

    fn forget_hidden(&mut self, key: &FlowWords, connection: &Connection) {
        let Some(ways) = self.hidden.get_mut(key) else { return };
        let position = ways.iter().position(|way| ptr::eq(way.connection.as_ptr(), connection));
        position.and_then(|position| ways.remove(position));
        if ways.is_empty() {
            self.hidden.remove(key);
        }
    }
}

/// A walk through a small part of the table.
#[derive(Debug)]
pub struct Walk<'a> {
    table: &'a ConnectionTable,
    shard: usize,
}

impl Walk<'_> {
    /// Shows the part's connections to `visit`, and locks it meanwhile: be quick, and change nothing.
    pub fn for_each(&self, mut visit: impl FnMut(Found<'_>)) {
        let guard = Guard::new();
        let writer = self.table.writer(self.shard);
        let buckets = self.table.shards[self.shard].buckets.load(Ordering::Acquire, &guard).as_ref();
        let places = buckets.into_iter().flat_map(|buckets| buckets.places(&guard));
        places.filter(|place| place.direction == Direction::In).for_each(|place| visit(place.found));
        let hidden = writer.hidden.values().flatten().filter(|way| way.direction == Direction::In);
        hidden.for_each(|way| visit(Found::of(&way.connection, &guard)));
    }
}
