//! Reassembly (RFC 791 section 3.2, RFC 8200 section 4.5), bounded in memory and time.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::quality::RandomState;

use super::Refusal;
use super::collection::{Collection, Datagram, Effect, ReceivedFrame};
use crate::net::addr::Protocol;
use crate::net::extension::Piece;
use crate::net::frame::Frame;
use crate::net::parse::{Fragment, Packet, parse_frame};
use crate::net::time::Instant;

/// Linux's `net.ipv4.ipfrag_time` and `net.netfilter.nf_conntrack_frag6_timeout`.
const IPV4_TIME: Duration = Duration::from_secs(30);
const IPV6_TIME: Duration = Duration::from_secs(60);
/// What a fragment costs besides its frame, so that many small ones are bounded too.
const OVERHEAD: usize = 256;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all fragments together, some overhead for each included.
    pub memory: usize,
    /// So many other IPv4 fragments of the same sender may come between two of a datagram (Linux's `ipfrag_max_dist`):
    /// identifications wrap around, and then pieces of different datagrams would meet.
    pub distance: u32,
}

impl Default for Limits {
    /// Linux's.
    fn default() -> Self {
        Limits { memory: 4 << 20, distance: 64 }
    }
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Outcome {
    /// It is kept until the others come.
    Kept,
    /// It was the last one that was missing.
    Whole(Box<Datagram>),
    /// It is not kept.
    Refused(Refusal),
}

/// What became of a fragment, and of others in consequence.
#[derive(Debug)]
pub struct Admission {
    /// What became of it.
    pub outcome: Outcome,
    /// So many fragments of the same datagram that had been kept are gone for the same reason.
    pub spoilt: u32,
    /// So many fragments of other datagrams had to make room.
    pub evicted: u32,
}

/// Fragments whose time is up.
#[derive(Debug)]
pub struct Lapse {
    /// How many there were.
    pub fragments: u32,
    /// The one that the datagram starts with, if it came.
    pub first: Option<ReceivedFrame>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    /// IPv4 alone counts it to a datagram's identity.
    protocol: Option<Protocol>,
}

#[derive(Debug)]
struct Entry {
    collection: Collection,
    memory: usize,
    /// Tells it from an earlier datagram of the same key.
    serial: u64,
    /// How many fragments of its sender had come when its latest one did.
    seen: u32,
}

/// A sender that has unfinished IPv4 datagrams.
#[derive(Debug, Default)]
struct Sender {
    seen: u32,
    datagrams: u32,
}

/// Unfinished datagrams of both families.
#[derive(Debug, Default)]
pub struct Reassembler {
    limits: Limits,
    entries: HashMap<Key, Entry, RandomState>,
    senders: HashMap<IpAddr, Sender, RandomState>,
    /// In the order of their deadlines, by family.
    ipv4_deadlines: VecDeque<(Instant, Key, u64)>,
    ipv6_deadlines: VecDeque<(Instant, Key, u64)>,
    memory: usize,
    next_serial: u64,
}

impl Reassembler {
    /// Empty.
    pub fn new(limits: Limits) -> Self {
        Reassembler { limits, ..Reassembler::default() }
    }

    /// Bytes kept now; at most the limit.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Unfinished datagrams.
    pub fn datagrams(&self) -> usize {
        self.entries.len()
    }

    /// Takes in the fragment `packet` that `frame` holds.
    pub fn add(&mut self, now: Instant, frame: &Frame<'_>, packet: &Packet) -> Admission {
        let refused = |refusal| Admission { outcome: Outcome::Refused(refusal), spoilt: 0, evicted: 0 };
        let Some(piece) = packet.piece else { return refused(Refusal::Contradiction) };
        let key = key_of(packet, &piece);
        if !packet.is_ipv4() {
            if is_cut_short(packet) {
                return refused(Refusal::Truncated);
            }
            let payload = packet.end - piece.header - 8;
            if piece.offset + payload > 65535 {
                return refused(Refusal::TooLong);
            }
            if piece.more && !payload.is_multiple_of(8) {
                let spoilt = self.remove(&key).map_or(0, |entry| entry.collection.parts());
                return Admission { outcome: Outcome::Refused(Refusal::Unaligned), spoilt, evicted: 0 };
            }
        }
        let evicted = self.make_room(frame.len() + OVERHEAD) + self.forget_distant(&key);
        let Admission { outcome, spoilt, .. } = self.file(now, key, frame, packet, &piece);
        Admission { outcome, spoilt, evicted }
    }

    fn file(
        &mut self,
        now: Instant,
        key: Key,
        frame: &Frame<'_>,
        packet: &Packet,
        piece: &Piece,
    ) -> Admission {
        if !self.entries.contains_key(&key) {
            self.open(now, key);
        }
        let seen = self.senders.get_mut(&key.source).map_or(0, |sender| {
            sender.seen = sender.seen.wrapping_add(1);
            sender.seen
        });
        let done = |outcome, spoilt| Admission { outcome, spoilt, evicted: 0 };
        let Some(entry) = self.entries.get_mut(&key) else { return done(Outcome::Kept, 0) };
        entry.seen = seen;
        let cost = frame.len() + OVERHEAD;
        match entry.collection.add(frame, packet, piece) {
            Effect::Dropped(refusal) => {
                if entry.collection.parts() == 0 {
                    self.remove(&key);
                }
                done(Outcome::Refused(refusal), 0)
            }
            Effect::Spoilt(refusal) => {
                let spoilt = self.remove(&key).map_or(0, |entry| entry.collection.parts());
                done(Outcome::Refused(refusal), spoilt)
            }
            Effect::Kept => {
                entry.memory += cost;
                self.memory += cost;
                done(Outcome::Kept, 0)
            }
            Effect::Complete => {
                let Some(entry) = self.remove(&key) else { return done(Outcome::Kept, 0) };
                let others = entry.collection.parts() - 1;
                match assemble(entry.collection) {
                    Ok(datagram) => done(Outcome::Whole(Box::new(datagram)), 0),
                    Err(refusal) => done(Outcome::Refused(refusal), others),
                }
            }
        }
    }

    /// Begins a datagram.
    fn open(&mut self, now: Instant, key: Key) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let entry = Entry { collection: Collection::default(), memory: 0, serial, seen: 0 };
        self.entries.insert(key, entry);
        if key.protocol.is_some() {
            self.senders.entry(key.source).or_default().datagrams += 1;
            self.ipv4_deadlines.push_back((now + IPV4_TIME, key, serial));
        } else {
            self.ipv6_deadlines.push_back((now + IPV6_TIME, key, serial));
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.memory -= entry.memory;
        if let Some(sender) = self.senders.get_mut(&key.source) {
            sender.datagrams -= 1;
            if sender.datagrams == 0 {
                self.senders.remove(&key.source);
            }
        }
        // Deadlines of datagrams that are gone must not pile up.
        if self.ipv4_deadlines.len() + self.ipv6_deadlines.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            let lives = |key: &Key, serial| entries.get(key).is_some_and(|entry| entry.serial == serial);
            self.ipv4_deadlines.retain(|(_, key, serial)| lives(key, *serial));
            self.ipv6_deadlines.retain(|(_, key, serial)| lives(key, *serial));
        }
        Some(entry)
    }

    /// Gives up the oldest datagrams until `cost` more bytes fit; returns how many fragments are gone. Linux refuses new
    /// fragments instead, so that whoever fills the memory keeps everyone else out for half a minute.
    fn make_room(&mut self, cost: usize) -> u32 {
        let mut gone = 0;
        while self.memory + cost > self.limits.memory {
            let Some(oldest) = self.next_deadline(|_| true) else { break };
            gone += self.remove(&oldest).map_or(0, |entry| entry.collection.parts());
        }
        gone
    }

    /// Starts the datagram anew if too many others of its sender came since its latest fragment.
    fn forget_distant(&mut self, key: &Key) -> u32 {
        let Some((sender, entry)) = self.senders.get(&key.source).zip(self.entries.get(key)) else {
            return 0;
        };
        if sender.seen.wrapping_sub(entry.seen) < self.limits.distance {
            return 0;
        }
        self.remove(key).map_or(0, |entry| entry.collection.parts())
    }

    /// Takes the earliest deadline that satisfies the condition and whose datagram is still there.
    fn next_deadline(&mut self, wanted: impl Fn(Instant) -> bool) -> Option<Key> {
        loop {
            let queue = match (self.ipv4_deadlines.front(), self.ipv6_deadlines.front()) {
                (Some((a, ..)), Some((b, ..))) if b < a => &mut self.ipv6_deadlines,
                (None, _) => &mut self.ipv6_deadlines,
                _ => &mut self.ipv4_deadlines,
            };
            let (deadline, key, serial) = *queue.front()?;
            if !wanted(deadline) {
                return None;
            }
            queue.pop_front();
            if self.entries.get(&key).is_some_and(|entry| entry.serial == serial) {
                return Some(key);
            }
        }
    }

    /// A datagram whose time is up; to be called until there is none.
    pub fn lapse(&mut self, now: Instant) -> Option<Lapse> {
        let key = self.next_deadline(|deadline| deadline <= now)?;
        let Entry { collection, .. } = self.remove(&key)?;
        Some(Lapse { fragments: collection.parts(), first: collection.first().cloned() })
    }
}

fn assemble(collection: Collection) -> Result<Datagram, Refusal> {
    let first = collection.first().map(|frame| parse_frame(&frame.bytes));
    let Some(Ok(packet)) = first else { return Err(Refusal::Contradiction) };
    let Some(piece) = packet.piece else { return Err(Refusal::Contradiction) };
    collection.assemble(packet.is_ipv4(), &packet, &piece)
}

fn key_of(packet: &Packet, piece: &Piece) -> Key {
    let Packet { source, destination, protocol, .. } = *packet;
    Key { source, destination, id: piece.id, protocol: packet.is_ipv4().then_some(protocol) }
}

/// RFC 8200 section 4.5: the first fragment has all headers, the transport header included.
fn is_cut_short(packet: &Packet) -> bool {
    let needed = match packet.protocol {
        Protocol::TCP => 20,
        Protocol::UDP | Protocol::ICMPV6 => 8,
        _ => 1,
    };
    packet.fragment == Fragment::First && packet.end - packet.l4 < needed
}
