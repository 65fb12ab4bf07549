//! Rewriting in place: addresses, ports, TTL, Ethernet header; every checksum that covers them follows.

use std::net::{IpAddr, SocketAddr};

use crate::net::addr::{MacAddr, Protocol};
use crate::net::checksum::{Change, Sum, pseudo_header};
use crate::net::frame::Frame;
use crate::net::parse::{Packet, Quote, Transport};
use crate::net::route::Egress;

const IP_TTL: usize = 8;
const IP_CHECKSUM: usize = 10;
const IP_SOURCE: usize = 12;
const IP_DESTINATION: usize = 16;
const ICMP_CHECKSUM: usize = 2;
const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

impl End {
    fn address_offset(self) -> usize {
        match self {
            End::Source => IP_SOURCE,
            End::Destination => IP_DESTINATION,
        }
    }

    fn port_offset(self) -> usize {
        match self {
            End::Source => 0,
            End::Destination => 2,
        }
    }
}

fn read_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn write_u16(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

fn read_address(bytes: &[u8], offset: usize) -> [u8; 4] {
    [bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]]
}

/// Puts an IPv4 address into the header at `l3` and mends that header's checksum. Returns the address replaced.
fn replace_address(bytes: &mut [u8], l3: usize, end: End, new: IpAddr) -> IpAddr {
    let offset = l3 + end.address_offset();
    let old = IpAddr::from(read_address(bytes, offset));
    if let IpAddr::V4(new) = new {
        bytes[offset..offset + 4].copy_from_slice(&new.octets());
    }
    let checksum = read_u16(bytes, l3 + IP_CHECKSUM);
    write_u16(bytes, l3 + IP_CHECKSUM, Change::default().address(old, new).apply(checksum));
    old
}

/// Offset of the checksum within the transport header.
fn checksum_offset(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        _ => None,
    }
}

/// Rewrites one end of a TCP or UDP packet. The transport checksum is updated, not recomputed, so that a packet that
/// came corrupt leaves corrupt; a UDP checksum of 0 ("none") becomes a computed one, as IPVS does it.
pub fn set_end(frame: &mut [u8], packet: &Packet, end: End, new: SocketAddr) {
    let old_address = replace_address(frame, packet.l3, end, new.ip());
    let port_offset = packet.l4 + end.port_offset();
    let old_port = read_u16(frame, port_offset);
    write_u16(frame, port_offset, new.port());
    let Some(field) = checksum_offset(packet.protocol) else { return };
    let field = packet.l4 + field;
    let checksum = read_u16(frame, field);
    if packet.protocol == Protocol::UDP && checksum == 0 {
        return compute_transport_checksum(frame, packet, end, new.ip());
    }
    let change = Change::default().address(old_address, new.ip()).word(old_port, new.port());
    write_transport_checksum(frame, packet, field, change.apply(checksum));
}

fn write_transport_checksum(frame: &mut [u8], packet: &Packet, field: usize, checksum: u16) {
    let udp_zero = packet.protocol == Protocol::UDP && checksum == 0;
    write_u16(frame, field, if udp_zero { 0xffff } else { checksum });
}

fn compute_transport_checksum(frame: &mut [u8], packet: &Packet, end: End, new: IpAddr) {
    let (source, destination) = match end {
        End::Source => (new, packet.destination),
        End::Destination => (packet.source, new),
    };
    fill_transport_checksum(frame, packet, source, destination);
}

fn fill_transport_checksum(frame: &mut [u8], packet: &Packet, source: IpAddr, destination: IpAddr) {
    let Some(field) = checksum_offset(packet.protocol) else { return };
    let field = packet.l4 + field;
    write_u16(frame, field, 0);
    let sum = pseudo_header(source, destination, packet.protocol.0, packet.end - packet.l4);
    let checksum = sum.bytes(&frame[packet.l4..packet.end]).finish();
    write_transport_checksum(frame, packet, field, checksum);
}

/// Completes the checksum of a packet whose sender left that to its NIC: such a packet, coming over a veth, carries only
/// the pseudo header's sum. Returns whether it was such a packet.
pub fn complete_checksum(frame: &mut [u8], packet: &Packet) -> bool {
    if !matches!(packet.transport, Transport::Tcp { .. } | Transport::Udp { .. }) {
        return false;
    }
    let Some(field) = checksum_offset(packet.protocol) else { return false };
    let partial =
        pseudo_header(packet.source, packet.destination, packet.protocol.0, packet.end - packet.l4).fold();
    let half_made = read_u16(frame, packet.l4 + field) == partial;
    if half_made {
        fill_transport_checksum(frame, packet, packet.source, packet.destination);
    }
    half_made
}

/// Takes one from the TTL and mends the header checksum. The TTL must not be 0.
pub fn decrement_ttl(frame: &mut [u8], packet: &Packet) {
    let offset = packet.l3 + IP_TTL;
    let old = read_u16(frame, offset);
    frame[offset] -= 1;
    let new = read_u16(frame, offset);
    let checksum = read_u16(frame, packet.l3 + IP_CHECKSUM);
    write_u16(frame, packet.l3 + IP_CHECKSUM, Change::default().word(old, new).apply(checksum));
}

/// Whether the checksum of an ICMP message is right.
pub fn icmp_checksum_ok(frame: &[u8], packet: &Packet) -> bool {
    Sum::default().bytes(&frame[packet.l4..packet.end]).finish() == 0
}

/// Rewrites an ICMP error: `outer` names the end of the error itself that gets `new`'s address; in the quoted packet the
/// opposite end gets address and port, since it travelled the other way. The quoted transport checksum stays as it is
/// (golden `icmp-from-server`); that of the quoted IP header is computed anew, right or wrong as it was (golden
/// `icmp-quote-checksum`), and so is the ICMP checksum.
pub fn set_icmp_end(frame: &mut [u8], packet: &Packet, quote: &Quote, outer: End, new: SocketAddr) {
    let inner = match outer {
        End::Source => End::Destination,
        End::Destination => End::Source,
    };
    replace_address(frame, packet.l3, outer, new.ip());
    replace_address(frame, quote.l3, inner, new.ip());
    write_u16(frame, quote.l3 + IP_CHECKSUM, 0);
    let checksum = Sum::default().bytes(&frame[quote.l3..quote.l4]).finish();
    write_u16(frame, quote.l3 + IP_CHECKSUM, checksum);
    write_u16(frame, quote.l4 + inner.port_offset(), new.port());
    write_u16(frame, packet.l4 + ICMP_CHECKSUM, 0);
    let checksum = Sum::default().bytes(&frame[packet.l4..packet.end]).finish();
    write_u16(frame, packet.l4 + ICMP_CHECKSUM, checksum);
}

/// Gives the packet an Ethernet header for its way out; VLAN tags and padding of the way in are dropped. Afterwards the IP
/// header starts at byte 14.
pub fn set_ethernet(frame: &mut Frame<'_>, packet: &Packet, egress: &Egress) {
    let bytes = frame.bytes_mut();
    if packet.l3 != ETHERNET_LEN {
        bytes.copy_within(packet.l3..packet.end, ETHERNET_LEN);
    }
    write_ethernet(bytes, egress.source, egress.destination);
    let shorter = frame.resize(ETHERNET_LEN + packet.ip_len());
    debug_assert!(shorter, "a frame without tags and padding is not longer than with them");
}

/// Writes an Ethernet header for IPv4 at the frame's start.
pub fn write_ethernet(bytes: &mut [u8], source: MacAddr, destination: MacAddr) {
    bytes[0..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4);
}
