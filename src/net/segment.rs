//! TCP segments (RFC 9293 section 3.1): sequence numbers, SACK blocks and payload, read and rewritten in place.

use std::ops::Range;

use crate::net::frame::Frame;
use crate::net::parse::{Packet, TcpFlags, Transport};
use crate::net::rewrite;

const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const FIN: u8 = 1;
const HEADER_LEN: usize = 20;
/// Option kinds (RFC 9293 section 3.2, RFC 2018 section 3).
const OPTION_END: u8 = 0;
const OPTION_PAD: u8 = 1;
const OPTION_SACK: u8 = 5;

/// The sequence number of the segment's first byte.
pub fn sequence(frame: &[u8], packet: &Packet) -> u32 {
    read(frame, packet.l4 + SEQUENCE)
}

/// Where the payload is; empty where there is none.
pub fn payload(frame: &[u8], packet: &Packet) -> Range<usize> {
    let header_len = usize::from(frame[packet.l4 + DATA_OFFSET] >> 4) * 4;
    (packet.l4 + header_len.max(HEADER_LEN)).min(packet.end)..packet.end
}

/// Numbers the segment anew. The checksum is left to [`rewrite::compute_checksum`].
pub fn set_sequence(frame: &mut [u8], packet: &Packet, sequence: u32) {
    write(frame, packet.l4 + SEQUENCE, sequence);
}

/// Passes the acknowledgement number, if it counts, and the edges of all SACK blocks through `map`. Returns whether any has
/// changed; then the checksum is left to [`rewrite::compute_checksum`].
pub fn map_acknowledgements(frame: &mut [u8], packet: &Packet, map: impl Fn(u32) -> u32) -> bool {
    if !matches!(packet.transport, Transport::Tcp { flags: TcpFlags { ack: true, .. }, .. }) {
        return false;
    }
    let options = packet.l4 + HEADER_LEN..payload(frame, packet).start;
    let places = std::iter::once(packet.l4 + ACKNOWLEDGEMENT).chain(sack_edges(frame, options));
    let mut changed = false;
    for place in places.collect::<Vec<_>>() {
        let number = read(frame, place);
        let mapped = map(number);
        changed |= mapped != number;
        write(frame, place, mapped);
    }
    changed
}

/// Offsets of the edges of all SACK blocks among the options.
fn sack_edges(frame: &[u8], options: Range<usize>) -> Vec<usize> {
    let mut edges = Vec::new();
    let mut place = options.start;
    while place < options.end {
        let len = match (frame[place], frame.get(place + 1)) {
            (OPTION_END, _) | (_, None) => break,
            (OPTION_PAD, _) => 1,
            (_, Some(len)) => usize::from(*len).max(2),
        };
        if frame[place] == OPTION_SACK && place + len <= options.end {
            edges.extend((place + 2..place + len).step_by(4).filter(|edge| edge + 4 <= place + len));
        }
        place += len;
    }
    edges
}

/// Gives the segment another payload, cut off where the packet would become longer than `limit` bytes of IP or the frame's
/// room: the sender will send again what is not acknowledged, and a FIN behind it too. Lengths and the IP header's checksum
/// follow; the transport checksum is left to [`rewrite::compute_checksum`].
pub fn set_payload(frame: &mut Frame<'_>, packet: &mut Packet, payload: &[u8], limit: usize) {
    let start = self::payload(frame.bytes(), packet).start;
    let room = (packet.l3 + limit).min(frame.capacity()).saturating_sub(start);
    let len = payload.len().min(room);
    let end = start + len;
    if !frame.resize(end) {
        return;
    }
    let bytes = frame.bytes_mut();
    bytes[start..end].copy_from_slice(&payload[..len]);
    packet.end = end;
    rewrite::set_ip_len(bytes, packet);
    if len < payload.len()
        && let Transport::Tcp { flags, .. } = &mut packet.transport
    {
        flags.fin = false;
        bytes[packet.l4 + FLAGS] &= !FIN;
    }
}

fn read(frame: &[u8], offset: usize) -> u32 {
    frame[offset..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn write(frame: &mut [u8], offset: usize, value: u32) {
    frame[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}
