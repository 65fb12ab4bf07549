//! The router's own IP stack, answering as Linux does with no service listening: what a packet meets that the load
//! balancer lets pass. Pure. It never fragments, and every address that is not the router's has a
//! neighbour.

use std::net::IpAddr;

use crate::support::decode::{Judgement, Packet, TcpHeader, Transport, decode};
use crate::support::device::Side;
use crate::support::packet::{Hex, IcmpSpec, PacketSpec, build, checksum, put};
use crate::support::reassembly::Reassembly;
use crate::support::text::flag_letters;

/// The router's addresses; the first of each family and side are those of the interfaces.
const OWN_ADDRESSES: [&str; 6] =
    ["10.10.1.1", "10.10.1.30", "10.8.8.1", "fd00:10::1", "fd00:10::30", "fd00:8::1"];
/// An ICMP error is at most 576 bytes long (RFC 1812, 4.3.2.3).
const ICMP_QUOTE: usize = 576 - 28;
/// An ICMPv6 error is at most the minimum MTU long (RFC 4443, 2.4).
const ICMPV6_QUOTE: usize = 1280 - 48;
/// Precedence "internetwork control" of ICMP errors (RFC 1812, 4.3.2.5), and the TOS bits taken over.
const ERROR_PRECEDENCE: u8 = 0xc0;
const TOS_BITS: u8 = 0x1e;
/// Made-up ids and flow labels, apart from those of the scenarios.
const FIRST_ID: u32 = 40000;
const FLOW_LABEL: u32 = 0x9abcd;

const MTU: usize = 1500;
const UDP_LEN: usize = 8;

/// The stack; it remembers which IP ids it has used, and fragments.
#[derive(Clone, Debug)]
pub struct HostModel {
    next_id: u32,
    client_mtu: usize,
    server_mtu: usize,
    reassembly: Reassembly,
}

impl Default for HostModel {
    fn default() -> Self {
        HostModel { next_id: FIRST_ID, client_mtu: MTU, server_mtu: MTU, reassembly: Reassembly::default() }
    }
}

impl HostModel {
    /// The interface of `side` takes packets of up to `mtu` bytes from now on.
    pub fn set_mtu(&mut self, side: Side, mtu: usize) {
        *match side {
            Side::Client => &mut self.client_mtu,
            Side::Server => &mut self.server_mtu,
        } = mtu;
    }

    /// What the next link takes, if the packet is longer and may not be fragmented.
    fn exceeded_mtu(&self, header: &Packet) -> Option<usize> {
        let mtu = match side_of(header.destination) {
            Side::Client => self.client_mtu,
            Side::Server => self.server_mtu,
        };
        let may_be_fragmented = header.source.is_ipv4() && !header.dont_fragment;
        (header.ip_len > mtu && !may_be_fragmented).then_some(mtu)
    }

    /// A packet that came in on `side`: answered if it is for the router itself, else forwarded.
    pub fn receive(&mut self, side: Side, packet: &[u8]) -> Vec<(Side, Vec<u8>)> {
        let decoded = decode(packet);
        let Some(header) = decoded.packet() else { return Vec::new() };
        if !is_acceptable(header, packet) {
            return Vec::new();
        }
        let out = if is_own(header.destination) {
            self.reassembly.take(packet).and_then(|whole| self.answer(&whole))
        } else if header.ttl <= 1 {
            let (kind, code) = if header.source.is_ipv4() { (11, 0) } else { (3, 0) };
            self.error(interface_address(side, header.source), packet, kind, code, 0)
        } else if let Some(mtu) = self.exceeded_mtu(header) {
            let (kind, code) = if header.source.is_ipv4() { (3, 4) } else { (2, 0) };
            self.error(interface_address(side, header.source), packet, kind, code, mtu as u32)
        } else {
            Some(hop(packet))
        };
        out.and_then(|packet| self.route(&packet)).into_iter().collect()
    }

    /// Sends a packet as if the router had made it: no TTL is taken. `None` if it is for the router itself, or for no
    /// single machine.
    pub fn route(&self, packet: &[u8]) -> Option<(Side, Vec<u8>)> {
        let decoded = decode(packet);
        let destination = decoded.packet()?.destination;
        let leaves = !is_own(destination) && is_single_machine(destination);
        leaves.then(|| (side_of(destination), packet.to_vec()))
    }

    /// What the stack answers to a packet for the router itself, whatever its destination address; not routed yet.
    pub fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let decoded = decode(packet);
        let header = decoded.packet()?;
        let v4 = header.source.is_ipv4();
        if header.offset != 0 || header.more_fragments {
            return None;
        }
        match &header.transport {
            Transport::Tcp { seq, header: Some(segment) } if header.checksum == Some(Judgement::Ok) => {
                reset(header, *seq, segment)
            }
            Transport::Tcp { .. } => None,
            Transport::Udp if has_impossible_length(header, packet) => None,
            Transport::Udp if header.checksum == Some(Judgement::Ok) || is_unsummed_v4(header) => {
                let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
                self.error(header.destination, packet, kind, code, 0)
            }
            Transport::Udp => None,
            Transport::Icmp { kind, .. } => {
                let echo = *kind == if v4 { 8 } else { 128 } && header.checksum == Some(Judgement::Ok);
                if echo { self.echo_reply(header) } else { None }
            }
            Transport::Sctp { .. } => self.protocol_unreachable(header, packet),
            Transport::Opaque if is_known(&header.protocol) => None,
            Transport::Opaque => self.protocol_unreachable(header, packet),
        }
    }

    /// An ICMP error of the router's about `packet`, from `source`, with `rest` as second word; `None` about an ICMP
    /// error or a later fragment.
    pub fn error(&mut self, source: IpAddr, packet: &[u8], kind: u8, code: u8, rest: u32) -> Option<Vec<u8>> {
        let decoded = decode(packet);
        let header = decoded.packet()?;
        if header.offset != 0 || is_icmp_error(header) {
            return None;
        }
        let v4 = source.is_ipv4();
        let mut error = PacketSpec::new(source, header.source, if v4 { "icmp" } else { "icmp6" });
        error.icmp = Some(IcmpSpec { kind, code, mtu: rest, ..IcmpSpec::default() });
        if v4 {
            error.tos = header.tos & TOS_BITS | ERROR_PRECEDENCE;
        }
        self.identify(&mut error);
        let quote = if v4 { ICMP_QUOTE } else { ICMPV6_QUOTE };
        Some(single(&error, &packet[..packet.len().min(quote)]))
    }

    fn protocol_unreachable(&mut self, header: &Packet, packet: &[u8]) -> Option<Vec<u8>> {
        if header.source.is_ipv4() {
            self.error(header.destination, packet, 3, 2, 0)
        } else {
            // Parameter problem: the pointer is the offset of the next-header field.
            self.error(header.destination, packet, 4, 1, 6)
        }
    }

    fn echo_reply(&mut self, header: &Packet) -> Option<Vec<u8>> {
        let Transport::Icmp { rest, .. } = header.transport else { return None };
        let v4 = header.source.is_ipv4();
        let name = if v4 { "icmp" } else { "icmp6" };
        let mut reply = PacketSpec::new(header.destination, header.source, name);
        reply.icmp = Some(IcmpSpec {
            kind: if v4 { 0 } else { 129 },
            rest: Some(Hex(rest.to_vec())),
            ..IcmpSpec::default()
        });
        reply.tos = header.tos;
        self.identify(&mut reply);
        Some(single(&reply, &header.payload))
    }

    fn identify(&mut self, spec: &mut PacketSpec) {
        if spec.src.is_ipv4() {
            spec.id = self.next_id;
            self.next_id = if self.next_id == 0xffff { FIRST_ID } else { self.next_id + 1 };
        } else {
            spec.fl = FLOW_LABEL;
        }
    }
}

/// The answer of a closed port (RFC 9293, 3.5.2, group 1).
fn reset(header: &Packet, seq: u32, segment: &TcpHeader) -> Option<Vec<u8>> {
    let flags = flag_letters(segment.flags);
    if flags.contains('R') {
        return None;
    }
    let (source, destination) = header.ports?;
    let mut reset = PacketSpec::new(header.destination, header.source, "tcp");
    (reset.sport, reset.dport) = (destination, source);
    (reset.win, reset.df) = (0, true);
    reset.tos = header.tos & !3;
    reset.fl = if header.source.is_ipv4() { 0 } else { FLOW_LABEL };
    if flags.contains('A') {
        reset.flags = "R".to_owned();
        reset.seq = segment.ack;
    } else {
        let flag = |letter| u32::from(flags.contains(letter));
        reset.flags = "RA".to_owned();
        reset.ack = seq.wrapping_add(header.payload.len() as u32 + flag('S') + flag('F'));
    }
    Some(single(&reset, &[]))
}

fn single(spec: &PacketSpec, carried: &[u8]) -> Vec<u8> {
    build(spec, Some(carried)).remove(0)
}

/// One hop further: the TTL is one less. The header checksum was right.
fn hop(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[8] -= 1;
    put(&mut packet, 10, 0);
    let sum = checksum(&packet[..header_len]);
    put(&mut packet, 10, sum);
    packet
}

fn is_acceptable(header: &Packet, packet: &[u8]) -> bool {
    header.ip_checksum != Some(Judgement::Bad)
        && packet.len() >= header.ip_len
        && is_single_machine(header.source)
        && !is_refused_own(header.source)
        && is_single_machine(header.destination)
}

/// Another's packet from one of the router's own addresses: only IPv4 minds (golden `ipv6-direct-replies`).
fn is_refused_own(source: IpAddr) -> bool {
    source.is_ipv4() && is_own(source)
}

/// A datagram that claims to be shorter than its header or longer than its packet is dropped without a word.
fn has_impossible_length(header: &Packet, packet: &[u8]) -> bool {
    let there = UDP_LEN + header.payload.len();
    let Some(start) = header.ip_len.checked_sub(there) else { return true };
    let told = usize::from(u16::from_be_bytes([packet[start + 4], packet[start + 5]]));
    header.inner.is_none() && !(UDP_LEN..=there).contains(&told)
}

fn is_unsummed_v4(header: &Packet) -> bool {
    header.source.is_ipv4() && header.checksum == Some(Judgement::None)
}

/// Protocols whose handler is there, so that a packet too short for it is dropped without a word.
fn is_known(protocol: &str) -> bool {
    matches!(protocol, "tcp" | "udp" | "icmp" | "icmp6" | "2" | "59")
}

fn is_icmp_error(header: &Packet) -> bool {
    match (&header.transport, header.source.is_ipv4()) {
        (Transport::Icmp { kind, .. }, true) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (Transport::Icmp { kind, .. }, false) => *kind < 128,
        _ => false,
    }
}

fn is_own(address: IpAddr) -> bool {
    OWN_ADDRESSES.iter().any(|own| own.parse() == Ok(address))
}

fn is_single_machine(address: IpAddr) -> bool {
    let broadcast = ["255.255.255.255", "10.10.1.255", "10.8.8.255"];
    !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
        && !broadcast.iter().any(|broadcast| broadcast.parse() == Ok(address))
}

/// The way to `address`: 10.8.8.0/24 and fd00:8::/64 lie on the server side, the default routes on the client side.
fn side_of(address: IpAddr) -> Side {
    let servers = match address {
        IpAddr::V4(address) => address.octets()[..3] == [10, 8, 8],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 8, 0, 0],
    };
    if servers { Side::Server } else { Side::Client }
}

/// The router's address on the interface of `side`, in the family of `like`.
fn interface_address(side: Side, like: IpAddr) -> IpAddr {
    let text = match (side, like.is_ipv4()) {
        (Side::Client, true) => "10.10.1.1",
        (Side::Server, true) => "10.8.8.1",
        (Side::Client, false) => "fd00:10::1",
        (Side::Server, false) => "fd00:8::1",
    };
    text.parse().expect("an address written here")
}
