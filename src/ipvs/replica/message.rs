//! Datagrams between two routers: who sent them, that they are new, and that nobody has changed them.
//!
//! | bytes | what (numbers: most significant byte first) |
//! |---|---|
//! | 0–3 | `xlvR` |
//! | 4 | version, 2 |
//! | 5 | the sender's role: 0 primary, 1 backup |
//! | 6 | kind: 0 hello, 1 batch, 2 acknowledgement |
//! | 7 | bits: 0 the sender is active; 1 sent by the public path; 2, 3 what it sends by the private, the public path does not arrive |
//! | 8–15 | the sender's session: a random number of this run |
//! | 16–23 | echo: the receiver's session as the sender knows it, 0 if not |
//! | 24–31 | number of the datagram, from 1 up, whichever path it takes |
//! | 32–35 | generation: how often the sender has become a standby in this session |
//! | 36–51 | the highest number of the receiver's that has come by the private path, and by the public one; 0 if none |
//! | 52–… | what the kind says |
//! | last 32 | HMAC-SHA256 of the bytes before |
//!
//! As with heartbeats no clock is needed: a datagram counts only if it echoes the receiver's session and comes by the path that it
//! names, and each number counts once. Which have come is kept for each path by itself, since the slower one's may be overtaken by
//! any number of the other one's. The key is not the heartbeats' own but made of it, so that no message of one protocol is any good in the other.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use super::paths::Path;

const MAGIC: [u8; 4] = *b"xlvR";
const VERSION: u8 = 2;
const HEADER_LEN: usize = 52;
const CODE_LEN: usize = 32;
/// What a datagram has besides its content.
pub const OVERHEAD: usize = HEADER_LEN + CODE_LEN;
const ACTIVE: u8 = 1 << 0;
const PUBLIC: u8 = 1 << 1;
const BROKEN: [u8; 2] = [1 << 2, 1 << 3];
/// Of so many words of 64 numbers it is known which have come.
const WORDS: usize = 16;
/// So far behind the highest number one may come and is still known to be new.
const REACH: u64 = (WORDS as u64 - 1) * 64;
const PURPOSE: &[u8] = b"xlvs replica 1";

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello,
    Batch,
    Acknowledgement,
}

/// Which of the two routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The primary.
    Primary,
    /// The backup.
    Backup,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Primary => Side::Backup,
            Side::Backup => Side::Primary,
        }
    }
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    /// It comes from an address that is not the partner's.
    #[error("stranger")]
    Stranger,
    /// Wrong length or form.
    #[error("malformed")]
    Malformed,
    /// The sender's xlvs is older or newer than any that this one understands.
    #[error("of another version of the protocol")]
    Version,
    /// The HMAC is wrong, it is one of the receiver's own, or it was sent by the other path.
    #[error("forged")]
    Forged,
    /// Genuine, and has been received before, or is older than what has been.
    #[error("repeated")]
    Repeated,
    /// Genuine, but not made for this run of the receiver.
    #[error("of another run")]
    Unfresh,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Refusal; 6] = [
        Refusal::Stranger,
        Refusal::Malformed,
        Refusal::Version,
        Refusal::Forged,
        Refusal::Repeated,
        Refusal::Unfresh,
    ];
}

/// What every datagram says of its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) active: bool,
    pub(super) generation: u32,
    /// Whether what it sends by each path does not arrive.
    pub(super) broken: [bool; 2],
}

/// A datagram that is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) sender: Standing,
    /// The highest number of the receiver's that has come by each path.
    pub(super) arrived: [u64; 2],
    /// Whether the session is not the one of the message before.
    pub(super) anew: bool,
    /// Whether none that was sent later has come before.
    pub(super) newest: bool,
    pub(super) content: &'a [u8],
}

/// What the head of a genuine datagram says.
struct Head {
    kind: u8,
    role: u8,
    bits: u8,
    session: u64,
    echo: u64,
    number: u64,
    generation: u32,
    arrived: [u64; 2],
}

/// Which numbers have come by one path.
#[derive(Clone, Debug, Default)]
struct Window {
    highest: u64,
    /// A bit for each number, in a ring.
    seen: [u64; WORDS],
}

impl Window {
    /// Notes a number; false if it has come before, or may have.
    fn note(&mut self, number: u64) -> bool {
        let place = |word: u64| (word % WORDS as u64) as usize;
        let word = number / 64;
        if number > self.highest {
            let fresh = self.highest / 64 + 1..=word;
            fresh.take(WORDS).for_each(|word| self.seen[place(word)] = 0);
            self.highest = number;
        } else if number == 0 || self.highest - number >= REACH {
            return false;
        }
        let (seen, bit) = (&mut self.seen[place(word)], 1 << (number % 64));
        let new = *seen & bit == 0;
        *seen |= bit;
        new
    }
}

/// The other end's session, and which of its numbers have come by each path.
#[derive(Clone, Debug)]
struct Peer {
    session: u64,
    windows: [Window; 2],
}

impl Peer {
    fn new(session: u64) -> Peer {
        Peer { session, windows: Default::default() }
    }

    fn arrived(&self) -> [u64; 2] {
        [0, 1].map(|path: usize| self.windows[path].highest)
    }

    /// Notes a number, and says whether it is the highest of all; `None` if it has come before, or may have.
    fn note(&mut self, path: Path, number: u64) -> Option<bool> {
        let newest = self.arrived().iter().all(|highest| number > *highest);
        self.windows[path as usize].note(number).then_some(newest)
    }
}

/// Makes datagrams and judges those that come.
#[derive(Clone)]
pub(super) struct Wire {
    mac: Hmac<Sha256>,
    side: Side,
    session: u64,
    number: u64,
    peer: Option<Peer>,
    /// Sessions that others have replaced.
    replaced: Vec<u64>,
    /// The session of the last genuine datagram that was not made for this run.
    stale: u64,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("session", &self.session)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length (RFC 2104 section 2).
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC refuses a key"))
}

impl Wire {
    pub(super) fn new(side: Side, key: &[u8], session: u64) -> Wire {
        let own = keyed(key).chain_update(PURPOSE).finalize().into_bytes();
        Wire { mac: keyed(&own), side, session, number: 0, peer: None, replaced: Vec::new(), stale: 0 }
    }

    /// The other end's session, once it is known to be its present one.
    pub(super) fn peer(&self) -> Option<u64> {
        self.peer.as_ref().map(|peer| peer.session)
    }

    /// The number of the datagram that was made last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn make(&mut self, path: Path, kind: Kind, sender: &Standing, content: &[u8]) -> Vec<u8> {
        self.number += 1;
        let echo = self.peer.as_ref().map_or(self.stale, |peer| peer.session);
        let arrived = self.peer.as_ref().map_or([0; 2], Peer::arrived);
        let [private, public] = sender.broken;
        let said = [
            (sender.active, ACTIVE),
            (path == Path::Public, PUBLIC),
            (private, BROKEN[0]),
            (public, BROKEN[1]),
        ];
        let bits = said.iter().filter(|(is, _)| *is).fold(0, |bits, (_, bit)| bits | bit);
        let mut bytes = Vec::with_capacity(content.len() + OVERHEAD);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.side as u8, kind as u8, bits]);
        [self.session, echo, self.number].iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(sender.generation.to_be_bytes());
        arrived.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(content);
        let code = self.mac.clone().chain_update(&bytes).finalize();
        bytes.extend(code.into_bytes());
        bytes
    }

    /// The answer to a datagram of another run: it tells the sender of this one.
    pub(super) fn answer(&mut self, path: Path, sender: &Standing, content: &[u8]) -> Vec<u8> {
        let peer = self.peer.take();
        let bytes = self.make(path, Kind::Hello, sender, content);
        self.peer = peer;
        bytes
    }

    fn open<'a>(&self, bytes: &'a [u8]) -> Result<(Head, &'a [u8]), Refusal> {
        if bytes.len() <= MAGIC.len() || !bytes.starts_with(&MAGIC) {
            return Err(Refusal::Malformed);
        }
        if bytes[MAGIC.len()] != VERSION {
            return Err(Refusal::Version);
        }
        let content_len = bytes.len().checked_sub(OVERHEAD).ok_or(Refusal::Malformed)?;
        let (signed, code) = bytes.split_at(HEADER_LEN + content_len);
        self.mac.clone().chain_update(signed).verify_slice(code).map_err(|_| Refusal::Forged)?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&signed[at..at + 8]);
            u64::from_be_bytes(number)
        };
        let head = Head {
            role: signed[5],
            kind: signed[6],
            bits: signed[7],
            session: number(8),
            echo: number(16),
            number: number(24),
            generation: (number(28) & u64::from(u32::MAX)) as u32,
            arrived: [number(36), number(44)],
        };
        Ok((head, &signed[HEADER_LEN..]))
    }

    pub(super) fn receive<'a>(&mut self, path: Path, bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        let (head, content) = self.open(bytes)?;
        let said = |bit: u8| head.bits & bit != 0;
        if head.role != self.side.other() as u8 || said(PUBLIC) != (path == Path::Public) {
            return Err(Refusal::Forged);
        }
        let kind = match head.kind {
            0 => Kind::Hello,
            1 => Kind::Batch,
            2 => Kind::Acknowledgement,
            _ => return Err(Refusal::Malformed),
        };
        if head.echo != self.session {
            self.stale = head.session;
            return Err(Refusal::Unfresh);
        }
        if self.replaced.contains(&head.session) {
            return Err(Refusal::Repeated);
        }
        let anew = self.peer.as_ref().is_none_or(|peer| peer.session != head.session);
        if anew {
            self.replaced.extend(self.peer.as_ref().map(|peer| peer.session));
        }
        let peer = self.peer.take_if(|_| !anew).unwrap_or_else(|| Peer::new(head.session));
        let noted = self.peer.insert(peer).note(path, head.number);
        let newest = noted.ok_or(Refusal::Repeated)?;
        let sender = Standing { active: said(ACTIVE), generation: head.generation, broken: BROKEN.map(said) };
        Ok(Message { kind, sender, arrived: head.arrived, anew, newest, content })
    }
}
