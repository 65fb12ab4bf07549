//! What tables and workers hand the one who tells another process of changes, and the other way round.
//!
//! A change is noted by its key alone: whoever tells of it looks up what has become of it meanwhile. So neither order nor
//! repetition of notes matters. Where one finds no room, it says that some has been lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::queue::{ArrayQueue, SegQueue};
use once_cell::race::OnceBox;
use sdd::Shared;

use super::mirror::{BUCKETS, Buckets, bucket_of, fingerprint};
use super::record::Key;
use crate::ipvs::connection::{Connection, Told};
use crate::ipvs::persistence::PersistenceTemplate;
use crate::net::time::Instant;

/// Notes that may wait.
const WAITING: usize = 1 << 16;

const NEVER: u64 = 0;
const HOLDING: u64 = u64::MAX;

/// Shared by tables, workers and the ones who replicate.
#[derive(Debug, Default)]
pub struct Replication {
    watched: AtomicBool,
    /// Made when it is needed first: most routers never need it.
    notes: OnceBox<ArrayQueue<Key>>,
    lost: [AtomicU64; BUCKETS / 64],
    held_until: AtomicU64,
    connections: SegQueue<Shared<Connection>>,
    templates: SegQueue<Arc<PersistenceTemplate>>,
}

impl Replication {
    /// From now on changes are noted, or no longer.
    pub fn watch(&self, watched: bool) {
        if watched {
            self.notes();
        }
        self.watched.store(watched, Ordering::SeqCst);
        if !watched {
            while self.next().is_some() {}
        }
    }

    fn notes(&self) -> &ArrayQueue<Key> {
        self.notes.get_or_init(|| Box::new(ArrayQueue::new(WAITING)))
    }

    /// Whether changes are noted.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Notes a change of what has this key, if changes are noted.
    #[inline]
    pub fn note(&self, key: impl FnOnce() -> Key) {
        if self.is_watched() {
            self.put(key());
        }
    }

    #[cold]
    fn put(&self, key: Key) {
        if let Err(key) = self.notes().push(key) {
            let bucket = bucket_of(fingerprint(&key));
            self.lost[bucket / 64].fetch_or(1 << (bucket % 64), Ordering::SeqCst);
        }
    }

    /// The next key of which something has changed.
    pub fn next(&self) -> Option<Key> {
        self.notes.get()?.pop()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.notes.get().map_or(0, ArrayQueue::len)
    }

    /// The buckets in which changes have not been noted for want of room since this was asked last.
    pub fn lost(&self) -> Buckets {
        Buckets::words(std::array::from_fn(|word| self.lost[word].swap(0, Ordering::SeqCst)))
    }

    /// What another process told of does not end by itself from now on: it says when something ends.
    pub fn hold(&self) {
        self.held_until.store(HOLDING, Ordering::Relaxed);
    }

    /// It ends by itself again, but not before its whole time after `now`: nobody knows when its last packet came.
    pub fn release(&self, now: Instant) {
        let released = |held: u64| (held == HOLDING).then_some(now.as_nanos());
        // Where nothing is held there is nothing to do.
        let _ = self.held_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, released);
    }

    /// Whether what another process told of does not end by itself.
    pub fn is_holding(&self) -> bool {
        self.held_until.load(Ordering::Relaxed) == HOLDING
    }

    /// The end of something that another process told of and whose time of `timeout` seconds is up at `now`, if it is not yet
    /// to end.
    pub fn postponed(&self, told: Told, timeout: u32, now: Instant) -> Option<Instant> {
        let from = match self.held_until.load(Ordering::Relaxed) {
            HOLDING if told.borrowed => now,
            until if told.synced && until != NEVER && until != HOLDING => Instant::from_nanos(until),
            _ => return None,
        };
        let end = from + Duration::from_secs(u64::from(timeout.max(1)));
        (end > now).then_some(end)
    }

    /// Has a worker look after the end of a connection.
    pub(super) fn file_connection(&self, connection: Shared<Connection>) {
        self.connections.push(connection);
    }

    /// Has a worker look after the end of a template.
    pub(super) fn file_template(&self, template: Arc<PersistenceTemplate>) {
        self.templates.push(template);
    }

    /// The next connection that a worker is to look after.
    #[inline]
    pub fn unfiled_connection(&self) -> Option<Shared<Connection>> {
        self.connections.pop()
    }

    /// The next template that a worker is to look after.
    #[inline]
    pub fn unfiled_template(&self) -> Option<Arc<PersistenceTemplate>> {
        self.templates.pop()
    }
}
