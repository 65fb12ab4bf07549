//! A message in the making.

use super::entry::Version;
use crate::net::time::Instant;

/// As many entries as the header can count. The kernel does not look, and sends messages that say less than they have.
const MOST: usize = u8::MAX as usize;
const ALIGNMENT: usize = 4;

/// Entries that will leave together.
#[derive(Debug)]
pub struct Batch {
    version: Version,
    sync_id: u8,
    limit: usize,
    since: Instant,
    entries: usize,
    bytes: Vec<u8>,
}

impl Batch {
    /// None yet, for a message of at most `limit` bytes. A first entry that is longer goes alone.
    pub fn new(version: Version, sync_id: u8, limit: usize, now: Instant) -> Self {
        let header = match version {
            Version::V0 => 4,
            Version::V1 => 8,
        };
        Batch { version, sync_id, limit, since: now, entries: 0, bytes: vec![0; header] }
    }

    /// Whether an entry of this version and cluster, of so many bytes, may be added.
    pub fn takes(&self, version: Version, sync_id: u8, length: usize) -> bool {
        let room = self.bytes.len().next_multiple_of(ALIGNMENT) + length <= self.limit;
        self.version == version
            && self.sync_id == sync_id
            && self.entries < MOST
            && (room || self.entries == 0)
    }

    /// Adds an entry's bytes.
    pub fn push(&mut self, entry: &[u8]) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes.extend_from_slice(entry);
        self.entries += 1;
    }

    /// When it was begun.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The message.
    pub fn finish(mut self) -> Vec<u8> {
        let size = (self.bytes.len() as u16).to_be_bytes();
        let count = self.entries as u8;
        self.bytes[2..4].copy_from_slice(&size);
        self.bytes[1] = self.sync_id;
        match self.version {
            Version::V0 => self.bytes[0] = count,
            Version::V1 => self.bytes[4..6].copy_from_slice(&[count, 1]),
        }
        self.bytes
    }
}
