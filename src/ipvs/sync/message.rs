//! Messages as they come: which entries they have, and what is wrong with them (ipvs.md sections 7.2 and 7.3).

use super::entry::{Entry, Version, flags};

/// Why a message or an entry of it is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The message is shorter than a header, or not as long as it says.
    Length,
    /// It is another cluster's.
    SyncId,
    /// An entry is longer than what is left of the message.
    CutOff,
    /// An entry of unknown type or version.
    Layout,
    /// Options that are cut off, double or of a wrong length.
    Options,
    /// An option that must not be ignored is not known.
    UnknownOption,
    /// A protocol that is not balanced.
    Protocol,
    /// A state that the protocol does not have.
    State,
    /// A persistence engine that is not there.
    Engine,
    /// A connection of one packet, which is over.
    OnePacket,
    /// The connection table is full.
    NoRoom,
    /// No backup daemon runs any more.
    NoDaemon,
}

impl Refused {
    /// All of them, in order.
    pub const ALL: [Refused; 12] = [
        Refused::Length,
        Refused::SyncId,
        Refused::CutOff,
        Refused::Layout,
        Refused::Options,
        Refused::UnknownOption,
        Refused::Protocol,
        Refused::State,
        Refused::Engine,
        Refused::OnePacket,
        Refused::NoRoom,
        Refused::NoDaemon,
    ];

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Length => "wrong length",
            Refused::SyncId => "other syncid",
            Refused::CutOff => "cut off",
            Refused::Layout => "unknown type",
            Refused::Options => "bad options",
            Refused::UnknownOption => "unknown option",
            Refused::Protocol => "unknown protocol",
            Refused::State => "unknown state",
            Refused::Engine => "unknown engine",
            Refused::OnePacket => "one packet",
            Refused::NoRoom => "no room",
            Refused::NoDaemon => "no daemon",
        }
    }

    /// Whether what follows in the message cannot be read either.
    fn ends_message(self) -> bool {
        matches!(self, Refused::CutOff | Refused::Layout | Refused::Options)
    }
}

const V0_HEADER: usize = 4;
const V1_HEADER: usize = 8;
const V1: u8 = 1;

/// A message that is as long as it says.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The cluster's number.
    pub sync_id: u8,
    /// The version it is of.
    pub version: Version,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message that a datagram is.
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, Refused> {
        let [first, sync_id, high, low, ..] = *bytes else { return Err(Refused::Length) };
        let size = u16::from_be_bytes([high, low]);
        if usize::from(size) != bytes.len() {
            return Err(Refused::Length);
        }
        Ok(match bytes.get(V0_HEADER..V1_HEADER) {
            Some([count, V1, 0, 0]) if first == 0 => {
                Message { sync_id, version: Version::V1, count: usize::from(*count), bytes }
            }
            _ => Message { sync_id, version: Version::V0, count: usize::from(first), bytes },
        })
    }

    /// Its entries, each as it is or why it is not taken in.
    pub fn entries(&self) -> Entries<'a> {
        let place = match self.version {
            Version::V0 => V0_HEADER,
            Version::V1 => V1_HEADER,
        };
        Entries { version: self.version, bytes: self.bytes, place, left: self.count }
    }
}

/// What is left of a message.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    version: Version,
    bytes: &'a [u8],
    place: usize,
    left: usize,
}

impl Entries<'_> {
    fn read(&mut self) -> Result<Entry, Refused> {
        let bytes = self.bytes.get(self.place..).ok_or(Refused::CutOff)?;
        let entry = match self.version {
            Version::V0 => {
                let (entry, length) = Entry::read_v0(bytes)?;
                self.place += length;
                if entry.flags & flags::ONE_PACKET != 0 {
                    return Err(Refused::OnePacket);
                }
                Entry { flags: entry.flags & flags::TAKEN, ..entry }
            }
            Version::V1 => {
                let length = Entry::length_v1(bytes)?;
                self.place += length.next_multiple_of(4);
                Entry::read_v1(&bytes[..length])?
            }
        };
        entry.check().map(|()| entry)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.read();
        if entry.as_ref().is_err_and(|refused| refused.ends_message()) {
            self.left = 0;
        }
        Some(entry)
    }
}
