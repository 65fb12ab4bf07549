//! The connection table, found from both directions. The one file that knows how it is stored; no guard leaves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::fast::RandomState;

use crate::ipvs::connection::Connection;
use crate::ipvs::protocol::Direction;
use crate::net::flow::FlowKey;

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    direction: Direction,
    /// An older connection with the same key: two services on one server and one client port can collide. The newer one
    /// hides the older, which shows again afterwards, as in the kernel's hash chains.
    hidden: Option<Box<Entry>>,
}

/// All connections, each under what its client's and its server's packets look like.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    entries: DashMap<FlowKey, Entry, RandomState>,
    count: AtomicU64,
    /// How many await their client's port.
    awaiting: AtomicU64,
}

impl ConnectionTable {
    /// The connection that a packet belongs to, and which way the packet goes.
    pub fn find(&self, key: &FlowKey) -> Option<(Arc<Connection>, Direction)> {
        let entry = self.entries.get(key)?;
        Some((Arc::clone(&entry.connection), entry.direction))
    }

    /// The data connection that awaits its client's port and that a client's packet may belong to.
    pub fn find_awaiting(&self, key: &FlowKey) -> Option<Arc<Connection>> {
        if self.awaiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let entry = self.entries.get(&FlowKey { source_port: 0, ..*key })?;
        let awaits = entry.direction == Direction::In && entry.connection.awaits_port();
        awaits.then(|| Arc::clone(&entry.connection))
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
            self.count.fetch_sub(1, Ordering::Relaxed);
            if connection.awaits_port() {
                self.awaiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        first
    }

    fn link(&self, key: FlowKey, connection: &Arc<Connection>, direction: Direction) {
        let mut entry = Entry { connection: Arc::clone(connection), direction, hidden: None };
        match self.entries.entry(key) {
            MapEntry::Vacant(vacant) => drop(vacant.insert(entry)),
            MapEntry::Occupied(mut present) => {
                std::mem::swap(present.get_mut(), &mut entry);
                present.get_mut().hidden = Some(Box::new(entry));
            }
        }
    }

    fn unlink(&self, key: &FlowKey, connection: &Arc<Connection>) {
        let MapEntry::Occupied(mut present) = self.entries.entry(*key) else { return };
        if !Arc::ptr_eq(&present.get().connection, connection) {
            return unhide(present.get_mut(), connection);
        }
        match present.get_mut().hidden.take() {
            Some(older) => drop(present.insert(*older)),
            None => drop(present.remove()),
        }
    }

    /// Shows every connection to `visit`; a part of the table is locked meanwhile, so be quick.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Connection>)) {
        for entry in &self.entries {
            let chain = std::iter::successors(Some(entry.value()), |entry| entry.hidden.as_deref());
            chain.filter(|entry| entry.direction == Direction::In).for_each(|entry| visit(&entry.connection));
        }
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

fn unhide(mut entry: &mut Entry, connection: &Arc<Connection>) {
    while let Some(mut hidden) = entry.hidden.take() {
        if Arc::ptr_eq(&hidden.connection, connection) {
            entry.hidden = hidden.hidden.take();
            return;
        }
        entry = entry.hidden.insert(hidden);
    }
}
