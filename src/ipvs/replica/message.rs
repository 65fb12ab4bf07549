//! Datagrams between two routers: who sent them, that they are new, and that nobody has changed them.
//!
//! | bytes | what (numbers: most significant byte first) |
//! |---|---|
//! | 0–3 | `xlvR` |
//! | 4 | version, 1 |
//! | 5 | the sender's role: 0 primary, 1 backup |
//! | 6 | kind: 0 hello, 1 batch, 2 acknowledgement |
//! | 7 | 1 if the sender is active, else 0 |
//! | 8–15 | the sender's session: a random number of this run |
//! | 16–23 | echo: the receiver's session as the sender knows it, 0 if not |
//! | 24–31 | number of the datagram, from 1 up |
//! | 32–35 | generation: how often the sender has become a standby in this session |
//! | 36–… | what the kind says |
//! | last 32 | HMAC-SHA256 of the bytes before |
//!
//! As with heartbeats no clock is needed: a datagram counts only if it echoes the receiver's session, and each number counts
//! once. The key is not the heartbeats' own but made of it, so that no message of one protocol is any good in the other.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

const MAGIC: [u8; 4] = *b"xlvR";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 36;
const CODE_LEN: usize = 32;
/// What a datagram has besides its content.
pub const OVERHEAD: usize = HEADER_LEN + CODE_LEN;
/// So far behind the highest number one may come and is still known to be new.
const WINDOW: u64 = 128;
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
    /// Wrong length, form or version.
    #[error("malformed")]
    Malformed,
    /// The HMAC is wrong, or it is one of the receiver's own.
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
    pub const ALL: [Refusal; 5] =
        [Refusal::Stranger, Refusal::Malformed, Refusal::Forged, Refusal::Repeated, Refusal::Unfresh];
}

/// A datagram that is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) active: bool,
    pub(super) generation: u32,
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
    active: u8,
    session: u64,
    echo: u64,
    number: u64,
    generation: u32,
}

/// The other end's session, and which of its numbers have come.
#[derive(Clone, Copy, Debug)]
struct Peer {
    session: u64,
    highest: u64,
    /// Bit n: the number that is lower by n.
    seen: u128,
}

impl Peer {
    /// Notes a number, and says whether it is the highest; `None` if it has come before, or may have.
    fn note(&mut self, number: u64) -> Option<bool> {
        if number > self.highest {
            let step = u32::try_from(number - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
            self.highest = number;
            return Some(true);
        }
        let behind = self.highest - number;
        if number == 0 || behind >= WINDOW || self.seen & 1 << behind != 0 {
            return None;
        }
        self.seen |= 1 << behind;
        Some(false)
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
        self.peer.map(|peer| peer.session)
    }

    pub(super) fn make(&mut self, kind: Kind, active: bool, generation: u32, content: &[u8]) -> Vec<u8> {
        self.number += 1;
        let echo = self.peer.map_or(self.stale, |peer| peer.session);
        let mut bytes = Vec::with_capacity(content.len() + OVERHEAD);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.side as u8, kind as u8, active.into()]);
        [self.session, echo, self.number].iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(generation.to_be_bytes());
        bytes.extend(content);
        let code = self.mac.clone().chain_update(&bytes).finalize();
        bytes.extend(code.into_bytes());
        bytes
    }

    /// The answer to a datagram of another run: it tells the sender of this one.
    pub(super) fn answer(&mut self, active: bool, generation: u32, content: &[u8]) -> Vec<u8> {
        let peer = self.peer.take();
        let bytes = self.make(Kind::Hello, active, generation, content);
        self.peer = peer;
        bytes
    }

    fn open<'a>(&self, bytes: &'a [u8]) -> Result<(Head, &'a [u8]), Refusal> {
        let content_len = bytes.len().checked_sub(OVERHEAD).ok_or(Refusal::Malformed)?;
        if bytes[..4] != MAGIC || bytes[4] != VERSION {
            return Err(Refusal::Malformed);
        }
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
            active: signed[7],
            session: number(8),
            echo: number(16),
            number: number(24),
            generation: (number(28) & u64::from(u32::MAX)) as u32,
        };
        Ok((head, &signed[HEADER_LEN..]))
    }

    pub(super) fn receive<'a>(&mut self, bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        let (head, content) = self.open(bytes)?;
        if head.role != self.side.other() as u8 {
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
        let anew = self.peer.is_none_or(|peer| peer.session != head.session);
        if anew {
            self.replaced.extend(self.peer.map(|peer| peer.session));
            self.peer = Some(Peer { session: head.session, highest: 0, seen: 0 });
        }
        let noted = self.peer.as_mut().and_then(|peer| peer.note(head.number));
        let newest = noted.ok_or(Refusal::Repeated)?;
        let (active, generation) = (head.active != 0, head.generation);
        Ok(Message { kind, active, generation, anew, newest, content })
    }
}
