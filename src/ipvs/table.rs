//! The connection table, found from both directions. No guard leaves it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::mapref::entry::Entry as MapEntry;

use crate::ipvs::connection::Connection;
use crate::ipvs::parted::{Part, PartedMap};
use crate::ipvs::protocol::Direction;
use crate::ipvs::shortcut::Shortcuts;
use crate::net::flow::FlowKey;

/// A connection, and which way the packets of a key go through it.
#[derive(Clone, Debug)]
struct Way {
    connection: Arc<Connection>,
    direction: Direction,
}

#[derive(Debug)]
struct Entry {
    newest: Way,
    /// Older connections with the same key: two services on one server and one client port can collide. The newest one hides
    /// the others, which show again afterwards, as in the kernel's hash chains.
    hidden: Option<Box<Hidden>>,
}

/// Oldest first. One client can make as many as there are ports, and most end in the order in which they were made.
#[derive(Debug, Default)]
struct Hidden {
    ways: VecDeque<Way>,
}

/// All connections, each under what its client's and its server's packets look like.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    entries: PartedMap<FlowKey, Entry>,
    count: AtomicU64,
    /// How many await their client's port.
    awaiting: AtomicU64,
    shortcuts: OnceLock<Arc<Shortcuts>>,
}

impl ConnectionTable {
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
        let found = self.find(&connection.key(direction));
        found.is_some_and(|(found, _)| std::ptr::eq(&*found, connection)) && !connection.is_removed()
    }

    /// Takes a connection back that has been lent.
    pub fn take_back(&self, connection: &Connection) {
        if let Some(shortcuts) = self.shortcuts() {
            shortcuts.take_back(connection);
        }
    }

    /// The connection that a packet belongs to, and which way the packet goes.
    pub fn find(&self, key: &FlowKey) -> Option<(Arc<Connection>, Direction)> {
        let entry = self.entries.of(key).get(key)?;
        Some((Arc::clone(&entry.newest.connection), entry.newest.direction))
    }

    /// The data connection that awaits its client's port and that a client's packet may belong to.
    pub fn find_awaiting(&self, key: &FlowKey) -> Option<Arc<Connection>> {
        if self.awaiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let key = FlowKey { source_port: 0, ..*key };
        let entry = self.entries.of(&key).get(&key)?;
        let awaits = entry.newest.direction == Direction::In && entry.newest.connection.awaits_port();
        awaits.then(|| Arc::clone(&entry.newest.connection))
    }

    /// Puts a connection in.
    pub fn insert(&self, connection: &Arc<Connection>) {
        self.link(connection.request_key(), connection, Direction::In);
        self.link(connection.reply_key(), connection, Direction::Out);
        self.count.fetch_add(1, Ordering::Relaxed);
        if connection.awaits_port() {
            self.awaiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a connection out and unbinds it. Does nothing, and returns false, if that has been done.
    pub fn remove(&self, connection: &Arc<Connection>) -> bool {
        let first = connection.unbind();
        if first {
            self.unlink(&connection.request_key(), connection);
            self.unlink(&connection.reply_key(), connection);
            self.take_back(connection);
            self.count.fetch_sub(1, Ordering::Relaxed);
            if connection.awaits_port() {
                self.awaiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        first
    }

    fn link(&self, key: FlowKey, connection: &Arc<Connection>, direction: Direction) {
        let newest = Way { connection: Arc::clone(connection), direction };
        match self.entries.of(&key).entry(key) {
            MapEntry::Vacant(vacant) => drop(vacant.insert(Entry { newest, hidden: None })),
            MapEntry::Occupied(mut present) => {
                let present = present.get_mut();
                let older = std::mem::replace(&mut present.newest, newest);
                self.take_back(&older.connection);
                present.hidden.get_or_insert_default().ways.push_back(older);
            }
        }
    }

    fn unlink(&self, key: &FlowKey, connection: &Arc<Connection>) {
        let MapEntry::Occupied(mut present) = self.entries.of(key).entry(*key) else { return };
        if !present.get_mut().forget(connection) {
            present.remove();
        }
    }

    /// Shows every connection to `visit`; a little of the table is locked meanwhile, so be quick.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Connection>)) {
        self.walks().for_each(|walk| walk.for_each(&mut visit));
    }

    /// The same in many walks, between which nothing is locked.
    pub fn walks(&self) -> impl ExactSizeIterator<Item = Walk<'_>> {
        self.entries.parts().iter().map(Walk)
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

/// A walk through a small part of the table.
#[derive(Debug)]
pub struct Walk<'a>(&'a Part<FlowKey, Entry>);

impl Walk<'_> {
    /// Shows the part's connections to `visit`.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Connection>)) {
        for entry in self.0 {
            let hidden = entry.hidden.iter().flat_map(|hidden| &hidden.ways);
            let ways = std::iter::once(&entry.newest).chain(hidden);
            ways.filter(|way| way.direction == Direction::In).for_each(|way| visit(&way.connection));
        }
    }
}

impl Entry {
    /// Leaves a connection out; false if it was the only one.
    fn forget(&mut self, connection: &Arc<Connection>) -> bool {
        let hidden = self.hidden.as_mut().map(|hidden| &mut hidden.ways);
        if Arc::ptr_eq(&self.newest.connection, connection) {
            let Some(newest) = hidden.and_then(VecDeque::pop_back) else { return false };
            self.newest = newest;
        } else if let Some(ways) = hidden {
            let position = ways.iter().position(|way| Arc::ptr_eq(&way.connection, connection));
            position.and_then(|position| ways.remove(position));
        }
        self.hidden.take_if(|hidden| hidden.ways.is_empty());
        true
    }
}
