//! Cutting a packet into fragments (RFC 791 section 3.2, RFC 8200 section 4.5).

use crate::net::checksum::Sum;
use crate::net::extension::unfragmentable_end;

const IPV4_LEN: usize = 20;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
const FRAGMENT_HEADER: u8 = 44;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// Offsets count in units of so many bytes.
const UNIT: usize = 8;

/// Where to cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut<'a> {
    /// So that no fragment, header included, is longer than this many bytes.
    Size(usize),
    /// Into pieces of these lengths in bytes, headers not counted; they make up the whole payload.
    Lengths(&'a [usize]),
}

/// Cuts an IP packet into fragments and gives them to `emit` in order. `id` is the identification of an IPv6 datagram; an
/// IPv4 packet keeps its own. Returns false, having emitted nothing, if the packet is malformed or cannot be cut so.
#[must_use]
pub fn split(packet: &[u8], cut: Cut<'_>, id: u32, emit: &mut dyn FnMut(&[u8])) -> bool {
    let splitter = match packet.first().map(|byte| byte >> 4) {
        Some(4) => Splitter::ipv4(packet),
        Some(6) => Splitter::ipv6(packet, id),
        _ => None,
    };
    splitter.is_some_and(|splitter| splitter.run(cut, emit))
}

struct Splitter<'a> {
    /// What every fragment starts with, room for the fragment's fields included.
    header: Vec<u8>,
    payload: &'a [u8],
    /// Where the payload starts in the datagram, and whether it goes on behind it: a fragment may be cut further.
    offset: usize,
    more: bool,
    v4: bool,
}

impl<'a> Splitter<'a> {
    fn ipv4(packet: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(packet[0] & 0xf) * 4;
        if header_len < IPV4_LEN {
            return None;
        }
        let (header, payload) = packet.split_at_checked(header_len)?;
        let field = u16::from_be_bytes([header[6], header[7]]);
        let offset = usize::from(field & OFFSET_MASK) * UNIT;
        let more = field & MORE_FRAGMENTS != 0;
        Some(Splitter { header: header.to_vec(), payload, offset, more, v4: true })
    }

    fn ipv6(packet: &'a [u8], id: u32) -> Option<Self> {
        let (end, next_field) = unfragmentable_end(packet)?;
        let (kept, payload) = packet.split_at_checked(end)?;
        let mut header = kept.to_vec();
        let next = std::mem::replace(&mut header[next_field], FRAGMENT_HEADER);
        header.extend([next, 0, 0, 0]);
        header.extend(id.to_be_bytes());
        Some(Splitter { header, payload, offset: 0, more: false, v4: false })
    }

    fn run(mut self, cut: Cut<'_>, emit: &mut dyn FnMut(&[u8])) -> bool {
        let whole = self.payload;
        match cut {
            Cut::Size(size) => {
                let room = size.saturating_sub(self.header.len()) / UNIT * UNIT;
                if room == 0 || whole.is_empty() {
                    return false;
                }
                let last = whole.len().saturating_sub(1) / room;
                for (i, piece) in whole.chunks(room).enumerate() {
                    self.emit(piece, i == last, emit);
                }
            }
            Cut::Lengths(lengths) => {
                let [others @ .., _] = lengths else { return false };
                let aligned = others.iter().all(|length| length % UNIT == 0);
                if !aligned || lengths.iter().sum::<usize>() != whole.len() {
                    return false;
                }
                let mut rest = whole;
                for (i, length) in lengths.iter().enumerate() {
                    let (piece, behind) = rest.split_at(*length);
                    self.emit(piece, i == others.len(), emit);
                    rest = behind;
                }
            }
        }
        true
    }

    fn emit(&mut self, piece: &[u8], last: bool, emit: &mut dyn FnMut(&[u8])) {
        let more = !last || self.more;
        if self.v4 {
            self.write_ipv4_fields(piece.len(), more);
        } else {
            self.write_ipv6_fields(piece.len(), more);
        }
        emit(&[&self.header[..], piece].concat());
        if self.v4 && self.offset == 0 {
            self.blank_options();
        }
        self.offset += piece.len();
    }

    fn write_ipv4_fields(&mut self, piece: usize, more: bool) {
        let header = &mut self.header;
        let total = (header.len() + piece) as u16;
        let flags = u16::from_be_bytes([header[6], header[7]]) & !(OFFSET_MASK | MORE_FRAGMENTS);
        let field = flags | (self.offset / UNIT) as u16 | if more { MORE_FRAGMENTS } else { 0 };
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[6..8].copy_from_slice(&field.to_be_bytes());
        header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let checksum = Sum::default().bytes(header).finish();
        header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn write_ipv6_fields(&mut self, piece: usize, more: bool) {
        let len = self.header.len();
        let payload_len = (len - IPV6_LEN + piece) as u16;
        self.header[4..6].copy_from_slice(&payload_len.to_be_bytes());
        let field = self.offset as u16 | u16::from(more);
        let at = len - FRAGMENT_HEADER_LEN + 2;
        self.header[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }

    /// Later fragments have only the options whose "copied" bit is set; no-operations take the place of the others, as Linux
    /// does it, so that the header stays as long (golden `fragments-fields`).
    fn blank_options(&mut self) {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const COPIED: u8 = 0x80;
        let mut at = IPV4_LEN;
        while let Some(&kind) = self.header.get(at).filter(|kind| **kind != END) {
            let len = match self.header.get(at + 1) {
                _ if kind == NO_OPERATION => 1,
                Some(len) if *len >= 2 => usize::from(*len),
                _ => return,
            };
            let Some(option) = self.header.get_mut(at..at + len) else { return };
            if kind & COPIED == 0 {
                option.fill(NO_OPERATION);
            }
            at += len;
        }
    }
}
