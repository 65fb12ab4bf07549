//! TCP resets (RFC 9293): the answer to a segment that nobody awaits, and the end of a connection. And the question that an end of
//! one answers with the numbers that a reset needs.

use std::net::{IpAddr, SocketAddr};

use crate::net::addr::Protocol;
use crate::net::checksum::{Sum, pseudo_header};
use crate::net::frame::Frame;
use crate::net::icmp::flow_label;
use crate::net::parse::{Packet, Transport};
use crate::net::route::Egress;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
/// As the kernel's own resets have it.
const TTL: u8 = 64;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The two low bits of TOS and traffic class are for congestion (RFC 3168), of which a reset knows nothing.
const CONGESTION: u8 = 0x03;

/// Length of the longest Ethernet frame with a reset in it, in bytes.
pub const MAX_FRAME_LEN: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN;

/// A reset that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// From.
    pub source: SocketAddr,
    /// To; of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, if it has one.
    pub ack: Option<u32>,
    /// TOS or traffic class.
    pub tos: u8,
}

/// A segment that says nothing and does not fit: its receiver answers by an acknowledgment with the sequence number that it
/// awaits and the one that it sends next (RFC 9293 section 3.10.7.4). So do keep-alives ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// From.
    pub source: SocketAddr,
    /// To; of the same family.
    pub destination: SocketAddr,
    /// Sequence number: any but those that the receiver takes now. Of all there are, these are one in some ten thousand.
    pub seq: u32,
    /// What the receiver has sent so far, as far as that is known.
    pub ack: u32,
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The acknowledgment number of a TCP packet with the ACK flag.
pub fn acknowledgment(frame: &[u8], packet: &Packet) -> Option<u32> {
    let acknowledges = matches!(packet.transport, Transport::Tcp { flags, .. } if flags.ack);
    acknowledges.then(|| read_u32(frame, packet.l4 + 8)).flatten()
}

impl Reset {
    /// The answer to a segment that belongs to no connection (RFC 9293 section 3.10.7.1). `None` to a reset, to one whose
    /// checksum is wrong, and to what is not TCP.
    pub fn answering(frame: &[u8], packet: &Packet) -> Option<Reset> {
        let Transport::Tcp { flags, .. } = packet.transport else { return None };
        let flow = packet.flow()?;
        let segment = frame.get(packet.l4..packet.end)?;
        let sum = pseudo_header(packet.source, packet.destination, Protocol::TCP.0, segment.len());
        if flags.rst || sum.bytes(segment).finish() != 0 {
            return None;
        }
        let data = segment.len().saturating_sub(usize::from(segment.get(12)? >> 4) * 4);
        let length = data as u32 + u32::from(flags.syn) + u32::from(flags.fin);
        let (seq, ack) = match acknowledgment(frame, packet) {
            Some(expected) => (expected, None),
            None => (0, Some(read_u32(segment, 4)?.wrapping_add(length))),
        };
        let tos = match packet.source {
            IpAddr::V4(_) => *frame.get(packet.l3 + 1)?,
            IpAddr::V6(_) => frame.get(packet.l3)? << 4 | frame.get(packet.l3 + 1)? >> 4,
        };
        let (source, destination) = (flow.destination(), flow.source());
        Some(Reset { source, destination, seq, ack, tos: tos & !CONGESTION })
    }

    /// Puts it into the frame in place of what is there. Returns false, with the frame unchanged, if the buffer has no
    /// room or the addresses are of two families.
    #[must_use]
    pub fn write(&self, frame: &mut Frame<'_>, egress: &Egress) -> bool {
        let flags = if self.ack.is_some() { RST | ACK } else { RST };
        let ack = self.ack.unwrap_or(0);
        Segment {
            source: self.source,
            destination: self.destination,
            seq: self.seq,
            ack,
            tos: self.tos,
            flags,
        }
        .write(frame, egress)
    }
}

impl Question {
    /// Puts it into the frame, as [`Reset::write`] does.
    #[must_use]
    pub fn write(&self, frame: &mut Frame<'_>, egress: &Egress) -> bool {
        let Question { source, destination, seq, ack } = *self;
        Segment { source, destination, seq, ack, tos: 0, flags: ACK }.write(frame, egress)
    }
}

/// A segment without data and options, with a window of 0.
struct Segment {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
    tos: u8,
    flags: u8,
}

impl Segment {
    fn write(&self, frame: &mut Frame<'_>, egress: &Egress) -> bool {
        let (ethertype, header) = match self.header() {
            Some(Header::V4(header)) => ([0x08, 0x00], header.to_vec()),
            Some(Header::V6(header)) => ([0x86, 0xdd], header.to_vec()),
            None => return false,
        };
        let length = ETHERNET_LEN + header.len() + TCP_LEN;
        if !frame.resize(length) {
            return false;
        }
        let bytes = frame.bytes_mut();
        bytes[0..6].copy_from_slice(&egress.destination.0);
        bytes[6..12].copy_from_slice(&egress.source.0);
        bytes[12..14].copy_from_slice(&ethertype);
        bytes[14..14 + header.len()].copy_from_slice(&header);
        bytes[14 + header.len()..].copy_from_slice(&self.tcp());
        true
    }

    fn header(&self) -> Option<Header> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = [0; IPV4_LEN];
                header[..4].copy_from_slice(&[0x45, self.tos, 0, (IPV4_LEN + TCP_LEN) as u8]);
                // Don't fragment, so that no identification is needed (RFC 6864).
                header[6] = 0x40;
                header[8..10].copy_from_slice(&[TTL, Protocol::TCP.0]);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let checksum = Sum::default().bytes(&header).finish();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                Some(Header::V4(header))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = [0; IPV6_LEN];
                let first = 6 << 28 | u32::from(self.tos) << 20 | flow_label(source, destination);
                header[..4].copy_from_slice(&first.to_be_bytes());
                header[5..8].copy_from_slice(&[TCP_LEN as u8, Protocol::TCP.0, TTL]);
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
                Some(Header::V6(header))
            }
            _ => None,
        }
    }

    fn tcp(&self) -> [u8; TCP_LEN] {
        let mut segment = [0; TCP_LEN];
        segment[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = (TCP_LEN as u8 / 4) << 4;
        segment[13] = self.flags;
        let sum = pseudo_header(self.source.ip(), self.destination.ip(), Protocol::TCP.0, TCP_LEN);
        let checksum = sum.bytes(&segment).finish();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }
}

enum Header {
    V4([u8; IPV4_LEN]),
    V6([u8; IPV6_LEN]),
}
