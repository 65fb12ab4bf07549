//! The fragments of one datagram, and the datagram once they are all there.

use std::collections::BTreeMap;

use super::Refusal;
use crate::net::addr::PortIndex;
use crate::net::checksum::Sum;
use crate::net::extension::{Piece, field_before};
use crate::net::frame::Frame;
use crate::net::parse::Packet;

const IPV4_CHECKSUM: usize = 10;
const IPV6_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// The ECN field (RFC 3168), as a bit for each of its values.
const CONGESTION: u8 = 1 << 3;
const NOT_CAPABLE: u8 = 1 << 0;
/// Largest IPv4 packet, and largest payload of an IPv6 packet.
const LENGTH_MAX: usize = 65535;

/// A frame as it was received.
#[derive(Clone, Debug)]
pub struct ReceivedFrame {
    /// The frame.
    pub bytes: Box<[u8]>,
    /// Where it came in.
    pub port: PortIndex,
}

/// A datagram that has been put together.
#[derive(Debug)]
pub struct Datagram {
    /// A frame with the whole datagram in it: the first fragment's headers, the payloads of all.
    pub frame: Vec<u8>,
    /// The frames that it came in, in the order of their place in it.
    pub fragments: Vec<ReceivedFrame>,
    /// The lengths of their payloads in bytes.
    pub lengths: Vec<usize>,
    /// Length of the largest of their IP packets in bytes.
    pub largest: usize,
}

#[derive(Debug)]
struct Part {
    frame: ReceivedFrame,
    payload: usize,
    len: usize,
}

/// Parts that came one after the other, without a hole between them.
#[derive(Debug)]
struct Run {
    end: usize,
    parts: Vec<Part>,
}

/// What has come of a datagram. Overlaps are judged as Linux does it (goldens `fragments-duplicate`, `fragments-overlap`):
/// within a run a fragment is a duplicate, anything else that overlaps spoils the datagram.
#[derive(Debug, Default)]
pub(super) struct Collection {
    runs: BTreeMap<usize, Run>,
    /// As far as anything reached; the payload's length once the last fragment is there.
    end: usize,
    has_last: bool,
    gathered: usize,
    largest: usize,
    largest_unfragmentable: usize,
    ecn: u8,
    parts: u32,
}

/// What a fragment does to its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is kept, and others are missing.
    Kept,
    /// It was the one that was missing.
    Complete,
    /// It is dropped alone.
    Dropped(Refusal),
    /// It is dropped, and all of its datagram with it.
    Spoilt(Refusal),
}

impl Collection {
    /// Number of fragments kept.
    pub(super) fn parts(&self) -> u32 {
        self.parts
    }

    /// The fragment that the datagram starts with.
    pub(super) fn first(&self) -> Option<&ReceivedFrame> {
        Some(&self.runs.get(&0)?.parts.first()?.frame)
    }

    /// Adds a fragment. `packet` is what `frame` holds.
    pub(super) fn add(&mut self, frame: &Frame<'_>, packet: &Packet, piece: &Piece) -> Effect {
        let v4 = packet.is_ipv4();
        let payload = if v4 { packet.l4 } else { piece.header + FRAGMENT_HEADER_LEN };
        let mut len = packet.end - payload;
        if v4 && piece.more {
            // What goes beyond a multiple of eight cannot be placed, and comes again (golden `fragments-fields`).
            len &= !7;
        }
        if let Err(refusal) = self.stretch(piece, len) {
            return if v4 { Effect::Spoilt(refusal) } else { Effect::Dropped(refusal) };
        }
        let received = ReceivedFrame { bytes: frame.bytes().into(), port: frame.port() };
        match self.place(piece.offset, Part { frame: received, payload, len }) {
            Ok(()) => {}
            Err(Refusal::Duplicate) => return Effect::Dropped(Refusal::Duplicate),
            Err(refusal) => return Effect::Spoilt(refusal),
        }
        self.note(packet, payload - packet.l3 + len, ecn_of(frame.bytes(), packet));
        if self.has_last && self.gathered == self.end { Effect::Complete } else { Effect::Kept }
    }

    /// Takes in what a fragment says about the datagram's length.
    fn stretch(&mut self, piece: &Piece, len: usize) -> Result<(), Refusal> {
        let end = piece.offset + len;
        let contradicts = if piece.more {
            end > self.end && self.has_last
        } else {
            end < self.end || (self.has_last && end != self.end)
        };
        if contradicts || len == 0 {
            return Err(Refusal::Contradiction);
        }
        self.end = self.end.max(end);
        self.has_last |= !piece.more;
        Ok(())
    }

    fn place(&mut self, offset: usize, part: Part) -> Result<(), Refusal> {
        let (len, end) = (part.len, offset + part.len);
        if let Some(mut last) = self.runs.last_entry()
            && end > last.get().end
        {
            let run = last.get_mut();
            if offset < run.end {
                return Err(Refusal::Overlap);
            }
            if offset == run.end {
                run.end = end;
                run.parts.push(part);
                self.gathered += len;
                return Ok(());
            }
        } else if let Some((start, run)) = self.runs.range(..end).next_back()
            && offset < run.end
        {
            let inside = *start <= offset && end <= run.end;
            return Err(if inside { Refusal::Duplicate } else { Refusal::Overlap });
        }
        self.runs.insert(offset, Run { end, parts: vec![part] });
        self.gathered += len;
        Ok(())
    }

    fn note(&mut self, packet: &Packet, len: usize, ecn: u8) {
        self.parts += 1;
        self.largest = self.largest.max(len);
        if packet.dont_fragment {
            self.largest_unfragmentable = self.largest_unfragmentable.max(len);
        }
        self.ecn |= 1 << ecn;
    }

    /// Puts the datagram together from all of its fragments; `packet` and `piece` are of any of them.
    pub(super) fn assemble(self, v4: bool, first: &Packet, piece: &Piece) -> Result<Datagram, Refusal> {
        let ecn = self.common_ecn()?;
        let dont_fragment = self.largest_unfragmentable == self.largest;
        let parts = self.runs.into_values().flat_map(|run| run.parts);
        let mut datagram =
            Datagram { frame: Vec::new(), fragments: Vec::new(), lengths: Vec::new(), largest: self.largest };
        for part in parts {
            let bytes = &part.frame.bytes;
            if datagram.frame.is_empty() {
                let header_end = if v4 { part.payload } else { piece.header };
                datagram.frame.extend_from_slice(&bytes[..header_end]);
            }
            datagram.frame.extend_from_slice(&bytes[part.payload..part.payload + part.len]);
            datagram.lengths.push(part.len);
            datagram.fragments.push(part.frame);
        }
        if v4 {
            complete_ipv4(&mut datagram.frame, first.l3, first.l4 - first.l3, ecn, dont_fragment)?;
        } else {
            let next = datagram.fragments.first().and_then(|frame| frame.bytes.get(piece.header));
            complete_ipv6(&mut datagram.frame, first.l3, piece.header, *next.unwrap_or(&0), ecn)?;
        }
        Ok(datagram)
    }

    /// RFC 3168 section 5.3: congestion met by one fragment was met by the datagram; fragments that contradict each other
    /// about the sender's capability make none.
    fn common_ecn(&self) -> Result<u8, Refusal> {
        if self.ecn & NOT_CAPABLE != 0 && self.ecn != NOT_CAPABLE {
            return Err(Refusal::Contradiction);
        }
        let met = self.ecn & CONGESTION != 0 && self.ecn != CONGESTION;
        Ok(if met { 3 } else { 0 })
    }
}

fn ecn_of(frame: &[u8], packet: &Packet) -> u8 {
    let at = packet.l3 + 1;
    if packet.is_ipv4() { frame[at] & 3 } else { frame[at] >> 4 & 3 }
}

fn complete_ipv4(
    frame: &mut [u8],
    l3: usize,
    header_len: usize,
    ecn: u8,
    dont_fragment: bool,
) -> Result<(), Refusal> {
    let packet = &mut frame[l3..];
    let total = u16::try_from(packet.len()).map_err(|_| Refusal::TooLong)?;
    packet[1] |= ecn;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(if dont_fragment { &DONT_FRAGMENT } else { &[0, 0] });
    packet[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&[0, 0]);
    let checksum = Sum::default().bytes(&packet[..header_len]).finish();
    packet[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

fn complete_ipv6(frame: &mut [u8], l3: usize, header: usize, next: u8, ecn: u8) -> Result<(), Refusal> {
    let payload = frame.len() - l3 - IPV6_LEN;
    if payload > LENGTH_MAX {
        return Err(Refusal::TooLong);
    }
    let field = field_before(frame, l3, header).ok_or(Refusal::Contradiction)?;
    frame[field] = next;
    frame[l3 + 1] |= ecn << 4;
    frame[l3 + 4..l3 + 6].copy_from_slice(&(payload as u16).to_be_bytes());
    Ok(())
}
