//! Rewriting in place: addresses, ports, TTL, Ethernet header; every checksum that covers them follows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::net::addr::{MacAddr, Protocol};
use crate::net::checksum::{Change, Sum, pseudo_header};
use crate::net::frame::Frame;
use crate::net::parse::{Packet, Quote, Transport};
use crate::net::route::Egress;

const IPV4_TOTAL_LEN: usize = 2;
const IPV4_FLAGS: usize = 6;
const DONT_FRAGMENT: u16 = 0x4000;
const IPV4_TTL: usize = 8;
const IPV4_CHECKSUM: usize = 10;
const IPV6_PAYLOAD_LEN: usize = 4;
const IPV6_HOP_LIMIT: usize = 7;
const SCTP_CHECKSUM: usize = 8;
const IPV6_HEADER_LEN: u16 = 40;
const ICMP_CHECKSUM: usize = 2;
const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

impl End {
    fn address_offset(self, address: IpAddr) -> usize {
        match (self, address) {
            (End::Source, IpAddr::V4(_)) => 12,
            (End::Destination, IpAddr::V4(_)) => 16,
            (End::Source, IpAddr::V6(_)) => 8,
            (End::Destination, IpAddr::V6(_)) => 24,
        }
    }

    fn port_offset(self) -> usize {
        match self {
            End::Source => 0,
            End::Destination => 2,
        }
    }
}

#[inline]
fn read_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

#[inline]
fn write_u16(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

/// Puts an address into the header at `l3` in place of one of its family; an IPv4 header's checksum follows.
fn replace_address(bytes: &mut [u8], l3: usize, end: End, old: IpAddr, new: IpAddr) {
    let offset = l3 + end.address_offset(new);
    match new {
        IpAddr::V4(address) => {
            bytes[offset..offset + 4].copy_from_slice(&address.octets());
            let checksum = read_u16(bytes, l3 + IPV4_CHECKSUM);
            write_u16(bytes, l3 + IPV4_CHECKSUM, Change::default().address(old, new).apply(checksum));
        }
        IpAddr::V6(address) => bytes[offset..offset + 16].copy_from_slice(&address.octets()),
    }
}

/// Offset of the checksum within the transport header.
fn checksum_offset(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        _ => None,
    }
}

/// Rewrites one end of a packet; of a protocol without ports only the address. The checksum of TCP and UDP is updated, not
/// recomputed, so that a packet that came corrupt leaves corrupt; a UDP checksum of 0 ("none") becomes a computed one, as
/// IPVS does it. That of SCTP, which does not cover the address, is computed if the port changes, and so comes out right in
/// any case (golden `sctp-bad-checksum`).
#[inline]
pub fn set_end(frame: &mut [u8], packet: &Packet, end: End, new: SocketAddr) {
    let done = match (new, packet.transport) {
        (SocketAddr::V4(new), Transport::Tcp { .. }) => set_ipv4_end::<20, 16>(frame, packet, end, new),
        (SocketAddr::V4(new), Transport::Udp { .. }) => set_ipv4_end::<8, 6>(frame, packet, end, new),
        _ => None,
    };
    if done.is_none() {
        set_any_end(frame, packet, end, new);
    }
}

/// What is done for most packets, in few steps: IPv4, and a transport header of at least `LEN` bytes with its checksum at byte
/// `FIELD`. `None`, and nothing is done, of a UDP packet without a checksum.
#[inline]
fn set_ipv4_end<const LEN: usize, const FIELD: usize>(
    frame: &mut [u8],
    packet: &Packet,
    end: End,
    new: SocketAddrV4,
) -> Option<()> {
    let (address, port) = match end {
        End::Source => (12, 0),
        End::Destination => (16, 2),
    };
    let is_udp = packet.protocol == Protocol::UDP;
    let transport = frame.get_mut(packet.l4..)?.first_chunk_mut::<LEN>()?;
    let former = u16::from_be_bytes([transport[FIELD], transport[FIELD + 1]]);
    if is_udp && former == 0 {
        return None;
    }
    let old_port = u16::from_be_bytes([transport[port], transport[port + 1]]);
    let network = frame.get_mut(packet.l3..)?.first_chunk_mut::<20>()?;
    let old =
        Ipv4Addr::new(network[address], network[address + 1], network[address + 2], network[address + 3]);
    let change = Change::default().ipv4(old, *new.ip());
    network[address..address + 4].copy_from_slice(&new.ip().octets());
    let checksum = change.apply(u16::from_be_bytes([network[IPV4_CHECKSUM], network[IPV4_CHECKSUM + 1]]));
    network[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    let transport = frame.get_mut(packet.l4..)?.first_chunk_mut::<LEN>()?;
    transport[port..port + 2].copy_from_slice(&new.port().to_be_bytes());
    let checksum = change.word(old_port, new.port()).apply(former);
    let checksum = if is_udp && checksum == 0 { 0xffff } else { checksum };
    transport[FIELD..FIELD + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Translates a plain IPv4 packet of TCP or UDP ([`Packet::is_plain_ipv4`]) and sends it one hop further: what [`set_end`],
/// [`decrement_ttl`] and [`set_ethernet`] do, at once. Returns false, and does nothing, if its checksum is half made or absent.
/// The TTL must not be 0.
#[inline(always)]
pub fn forward_plain_ipv4(
    frame: &mut Frame<'_>,
    packet: &Packet,
    end: End,
    new: SocketAddrV4,
    egress: &Egress,
) -> bool {
    let bytes = frame.bytes_mut();
    let done = match packet.protocol {
        Protocol::TCP => forward_plain::<54, 50>(bytes, packet, end, new, egress),
        _ => forward_plain::<42, 40>(bytes, packet, end, new, egress),
    };
    done.is_some() && frame.resize(packet.end)
}

/// The same where the headers are `LEN` bytes long and the transport's checksum is at byte `FIELD`.
#[inline(always)]
fn forward_plain<const LEN: usize, const FIELD: usize>(
    bytes: &mut [u8],
    packet: &Packet,
    end: End,
    new: SocketAddrV4,
    egress: &Egress,
) -> Option<()> {
    const TTL: usize = ETHERNET_LEN + IPV4_TTL;
    const CHECKSUM: usize = ETHERNET_LEN + IPV4_CHECKSUM;
    let headers = bytes.first_chunk_mut::<LEN>()?;
    let word = |headers: &[u8; LEN], at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
    let former = word(headers, FIELD);
    let sum = pseudo_header(packet.source, packet.destination, packet.protocol.0, packet.end - packet.l4);
    let is_udp = packet.protocol == Protocol::UDP;
    if former == sum.fold() || (is_udp && former == 0) {
        return None;
    }
    let (address, port) = match end {
        End::Source => (ETHERNET_LEN + 12, ETHERNET_LEN + 20),
        End::Destination => (ETHERNET_LEN + 16, ETHERNET_LEN + 22),
    };
    let old =
        Ipv4Addr::new(headers[address], headers[address + 1], headers[address + 2], headers[address + 3]);
    let old_ttl = word(headers, TTL);
    let old_port = word(headers, port);
    headers[..6].copy_from_slice(&egress.destination.0);
    headers[6..12].copy_from_slice(&egress.source.0);
    headers[TTL] -= 1;
    headers[address..address + 4].copy_from_slice(&new.ip().octets());
    headers[port..port + 2].copy_from_slice(&new.port().to_be_bytes());
    let change = Change::default().ipv4(old, *new.ip());
    let header_change = change.word(old_ttl, word(headers, TTL));
    let checksum = header_change.apply(word(headers, CHECKSUM));
    headers[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    let checksum = change.word(old_port, new.port()).apply(former);
    let checksum = if is_udp && checksum == 0 { 0xffff } else { checksum };
    headers[FIELD..FIELD + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

fn set_any_end(frame: &mut [u8], packet: &Packet, end: End, new: SocketAddr) {
    let old_address = match end {
        End::Source => packet.source,
        End::Destination => packet.destination,
    };
    replace_address(frame, packet.l3, end, old_address, new.ip());
    if packet.ports().is_none() {
        return;
    }
    let port_offset = packet.l4 + end.port_offset();
    let old_port = read_u16(frame, port_offset);
    write_u16(frame, port_offset, new.port());
    let Some(field) = checksum_offset(packet.protocol) else {
        if old_port != new.port() {
            fill_crc(&mut frame[packet.l4..packet.end]);
        }
        return;
    };
    let field = packet.l4 + field;
    let checksum = read_u16(frame, field);
    if packet.protocol == Protocol::UDP && checksum == 0 {
        return compute_transport_checksum(frame, packet, end, new.ip());
    }
    let change = Change::default().address(old_address, new.ip()).word(old_port, new.port());
    write_transport_checksum(frame, packet, field, change.apply(checksum));
}

/// The CRC32c of an SCTP packet (RFC 9260 appendix A).
fn fill_crc(packet: &mut [u8]) {
    packet[SCTP_CHECKSUM..SCTP_CHECKSUM + 4].fill(0);
    let crc = crc32c::crc32c(packet);
    packet[SCTP_CHECKSUM..SCTP_CHECKSUM + 4].copy_from_slice(&crc.to_le_bytes());
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
#[inline]
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

/// Whether the checksum of a TCP or UDP packet is right.
pub fn transport_checksum_ok(frame: &[u8], packet: &Packet) -> bool {
    let len = packet.end - packet.l4;
    let sum = pseudo_header(packet.source, packet.destination, packet.protocol.0, len);
    sum.bytes(&frame[packet.l4..packet.end]).finish() == 0
}

/// Computes the checksum of a TCP or UDP packet anew.
pub fn compute_checksum(frame: &mut [u8], packet: &Packet) {
    fill_transport_checksum(frame, packet, packet.source, packet.destination);
}

/// Writes the length that the packet has by its offsets into its IP header.
pub fn set_ip_len(frame: &mut [u8], packet: &Packet) {
    let len = packet.ip_len() as u16;
    if !packet.is_ipv4() {
        return write_u16(frame, packet.l3 + IPV6_PAYLOAD_LEN, len.saturating_sub(IPV6_HEADER_LEN));
    }
    set_ipv4_word(frame, packet, IPV4_TOTAL_LEN, len);
}

/// Takes "don't fragment" from an IPv4 packet.
pub fn allow_fragments(frame: &mut [u8], packet: &Packet) {
    let flags = read_u16(frame, packet.l3 + IPV4_FLAGS);
    set_ipv4_word(frame, packet, IPV4_FLAGS, flags & !DONT_FRAGMENT);
}

fn set_ipv4_word(frame: &mut [u8], packet: &Packet, offset: usize, new: u16) {
    let change = Change::default().word(read_u16(frame, packet.l3 + offset), new);
    write_u16(frame, packet.l3 + offset, new);
    let checksum = read_u16(frame, packet.l3 + IPV4_CHECKSUM);
    write_u16(frame, packet.l3 + IPV4_CHECKSUM, change.apply(checksum));
}

/// Takes one from the TTL or hop limit; an IPv4 header's checksum follows. The TTL must not be 0.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], packet: &Packet) {
    if !packet.is_ipv4() {
        frame[packet.l3 + IPV6_HOP_LIMIT] -= 1;
        return;
    }
    let header = &mut frame[packet.l3 + IPV4_TTL..packet.l3 + IPV4_CHECKSUM + 2];
    let old = read_u16(header, 0);
    header[0] -= 1;
    let change = Change::default().word(old, read_u16(header, 0));
    let checksum = change.apply(read_u16(header, 2));
    write_u16(header, 2, checksum);
}

/// The ICMP checksum over what the packet has now; ICMPv6 covers a pseudo header (RFC 4443 section 2.3).
fn icmp_sum(frame: &[u8], packet: &Packet, source: IpAddr, destination: IpAddr) -> u16 {
    let start = match packet.protocol {
        Protocol::ICMPV6 => pseudo_header(source, destination, Protocol::ICMPV6.0, packet.end - packet.l4),
        _ => Sum::default(),
    };
    start.bytes(&frame[packet.l4..packet.end]).finish()
}

/// Whether the checksum of an ICMP message is right.
pub fn icmp_checksum_ok(frame: &[u8], packet: &Packet) -> bool {
    icmp_sum(frame, packet, packet.source, packet.destination) == 0
}

/// Rewrites an ICMP error: `outer` names the end of the error itself that gets `new`'s address; in the quoted packet the
/// opposite end gets address and port, since it travelled the other way. The quoted transport checksum stays as it is
/// (golden `icmp-from-server`); that of the quoted IPv4 header is computed anew, right or wrong as it was (golden
/// `icmp-quote-checksum`), and so is the ICMP checksum.
pub fn set_icmp_end(frame: &mut [u8], packet: &Packet, quote: &Quote, outer: End, new: SocketAddr) {
    let address = new.ip();
    let (inner, old, quoted, source, destination) = match outer {
        End::Source => (End::Destination, packet.source, quote.flow.destination, address, packet.destination),
        End::Destination => (End::Source, packet.destination, quote.flow.source, packet.source, address),
    };
    replace_address(frame, packet.l3, outer, old, address);
    replace_address(frame, quote.l3, inner, quoted, address);
    if packet.is_ipv4() {
        write_u16(frame, quote.l3 + IPV4_CHECKSUM, 0);
        let header_len = usize::from(frame[quote.l3] & 0xf) * 4;
        let checksum = Sum::default().bytes(&frame[quote.l3..quote.l3 + header_len]).finish();
        write_u16(frame, quote.l3 + IPV4_CHECKSUM, checksum);
    }
    if quote.has_ports {
        write_u16(frame, quote.l4 + inner.port_offset(), new.port());
    }
    write_u16(frame, packet.l4 + ICMP_CHECKSUM, 0);
    let checksum = icmp_sum(frame, packet, source, destination);
    write_u16(frame, packet.l4 + ICMP_CHECKSUM, checksum);
}

/// Gives the packet an Ethernet header for its way out; VLAN tags and padding of the way in are dropped. Afterwards the IP
/// header starts at byte 14.
#[inline]
pub fn set_ethernet(frame: &mut Frame<'_>, packet: &Packet, egress: &Egress) {
    let bytes = frame.bytes_mut();
    if packet.l3 != ETHERNET_LEN {
        bytes.copy_within(packet.l3..packet.end, ETHERNET_LEN);
    }
    write_ethernet(bytes, packet.source, egress.source, egress.destination);
    let shorter = frame.resize(ETHERNET_LEN + packet.ip_len());
    debug_assert!(shorter, "a frame without tags and padding is not longer than with them");
}

/// Writes an Ethernet header at the frame's start, for an IP packet of the family of `like`.
#[inline]
pub fn write_ethernet(bytes: &mut [u8], like: IpAddr, source: MacAddr, destination: MacAddr) {
    bytes[0..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    let ethertype = if like.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    bytes[12..14].copy_from_slice(&ethertype);
}
