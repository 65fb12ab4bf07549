//! Tunnels: a whole IP packet inside another, as IPIP (RFC 2003, RFC 2473), GRE (RFC 2784) or GUE
//! (draft-ietf-intarea-gue).

use std::net::IpAddr;

use etherparse::Ipv4HeaderSlice;
use serde::{Deserialize, Serialize};

use crate::net::addr::Protocol;
use crate::net::checksum::{Sum, pseudo_header};
use crate::net::flow::FlowKey;
use crate::net::frame::Frame;
use crate::net::parse::{self, Fragment, Packet, Quote, Transport};
use crate::net::rewrite::write_ethernet;
use crate::net::route::Egress;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const GUE_LEN: usize = 4;
const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
const GRE_HAS_CHECKSUM: u8 = 0x80;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const DONT_FRAGMENT: u16 = 0x4000;
/// RFC 3168 section 9.1.1: congestion seen before the tunnel is not to be mistaken for congestion in it.
const ECN: u8 = 3;
const ECN_CAPABLE: u8 = 2;
/// GUE's source ports are of the range that hosts take ports from; which one tells flows apart, not hosts.
const FIRST_SOURCE_PORT: u16 = 32768;
const SOURCE_PORTS: u16 = 28232;

/// How a tunnel wraps packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encapsulation {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// UDP port that the server listens on.
        port: u16,
        /// What protects the packet.
        checksum: GueChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Whether the header has a checksum.
        checksum: bool,
    },
}

/// The checksum of a GUE packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GueChecksum {
    /// None.
    #[default]
    None,
    /// UDP's.
    Udp,
    /// UDP's, and the packet inside may leave its own to the server. Ours never do, so that nothing differs on the wire
    /// (golden `tun-gue-remcsum`).
    Remote,
}

/// What the outer header says besides what it takes over from the packet inside.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// This end of the tunnel.
    pub source: IpAddr,
    /// The other end, of the same family.
    pub destination: IpAddr,
    /// Identification of an IPv4 packet.
    pub id: u16,
    /// "Don't fragment" of an IPv4 packet.
    pub dont_fragment: bool,
}

impl Encapsulation {
    /// How many bytes it adds to a packet for `destination`.
    pub fn overhead(self, destination: IpAddr) -> usize {
        let ip = if destination.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        ip + self.header_len()
    }

    fn header_len(self) -> usize {
        match self {
            Encapsulation::Ipip => 0,
            Encapsulation::Gue { .. } => UDP_LEN + GUE_LEN,
            Encapsulation::Gre { checksum: false } => GRE_LEN,
            Encapsulation::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
        }
    }

    /// The protocol that the outer header names.
    pub fn protocol(self, packet: &Packet) -> Protocol {
        match self {
            Encapsulation::Ipip => inner_protocol(packet),
            Encapsulation::Gue { .. } => Protocol::UDP,
            Encapsulation::Gre { .. } => Protocol::GRE,
        }
    }
}

fn inner_protocol(packet: &Packet) -> Protocol {
    if packet.is_ipv4() { Protocol::IPIP } else { Protocol::IPV6 }
}

/// Wraps the packet in the frame. The outer header takes over its traffic class and TTL. Afterwards the outer header starts at
/// byte 14. Returns false, with the frame unchanged, if the buffer has no room or the ends are of different families.
#[must_use]
pub fn encapsulate(
    frame: &mut Frame<'_>,
    packet: &Packet,
    encapsulation: Encapsulation,
    outer: &Outer,
    egress: &Egress,
) -> bool {
    let overhead = encapsulation.overhead(outer.destination);
    let ip_len = overhead + packet.ip_len();
    let len = ETHERNET_LEN + ip_len;
    let same_family = outer.source.is_ipv4() == outer.destination.is_ipv4();
    if !same_family || ip_len > usize::from(u16::MAX) || !frame.resize(len.max(frame.len())) {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(packet.l3..packet.end, ETHERNET_LEN + overhead);
    let tunnel = &mut bytes[ETHERNET_LEN..len];
    let header_len = encapsulation.header_len();
    write_outer(&mut tunnel[..], overhead, outer, encapsulation.protocol(packet));
    write_tunnel_header(&mut tunnel[overhead - header_len..], encapsulation, outer, packet);
    write_ethernet(bytes, outer.destination, egress.source, egress.destination);
    frame.resize(len)
}

fn write_outer(bytes: &mut [u8], overhead: usize, outer: &Outer, protocol: Protocol) {
    let inner = &bytes[overhead..];
    let (class, ttl) = match inner[0] >> 4 {
        4 => (inner[1], inner[8]),
        _ => (inner[0] << 4 | inner[1] >> 4, inner[7]),
    };
    let class = if class & ECN == ECN { class & !ECN | ECN_CAPABLE } else { class };
    match (outer.source, outer.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fragment = if outer.dont_fragment { DONT_FRAGMENT } else { 0 };
            let total = bytes.len() as u16;
            let header = &mut bytes[..IPV4_LEN];
            header[0] = 0x45;
            header[1] = class;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[4..6].copy_from_slice(&outer.id.to_be_bytes());
            header[6..8].copy_from_slice(&fragment.to_be_bytes());
            header[8] = ttl;
            header[9] = protocol.0;
            header[10..12].fill(0);
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let checksum = Sum::default().bytes(header).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload = (bytes.len() - IPV6_LEN) as u16;
            let header = &mut bytes[..IPV6_LEN];
            header[0..4].copy_from_slice(&(6 << 28 | u32::from(class) << 20).to_be_bytes());
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            header[6] = protocol.0;
            header[7] = ttl;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        _ => {}
    }
}

/// Writes what stands between the outer IP header and the packet inside; `bytes` begin there and end with the packet.
fn write_tunnel_header(bytes: &mut [u8], encapsulation: Encapsulation, outer: &Outer, packet: &Packet) {
    match encapsulation {
        Encapsulation::Ipip => {}
        Encapsulation::Gue { port, checksum } => {
            let len = bytes.len();
            bytes[0..2].copy_from_slice(&source_port(packet).to_be_bytes());
            bytes[2..4].copy_from_slice(&port.to_be_bytes());
            bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            bytes[6..8].fill(0);
            bytes[8..12].copy_from_slice(&[0, inner_protocol(packet).0, 0, 0]);
            if checksum != GueChecksum::None {
                let sum = pseudo_header(outer.source, outer.destination, Protocol::UDP.0, len);
                let checksum = match sum.bytes(bytes).finish() {
                    0 => u16::MAX,
                    checksum => checksum,
                };
                bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        Encapsulation::Gre { checksum } => {
            let ethertype = if packet.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
            bytes[0..2].copy_from_slice(&[if checksum { GRE_HAS_CHECKSUM } else { 0 }, 0]);
            bytes[2..4].copy_from_slice(&ethertype.to_be_bytes());
            if checksum {
                bytes[4..8].fill(0);
                let checksum = Sum::default().bytes(bytes).finish();
                bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }
}

/// The same port for all packets of a flow, so that routers on the way keep their order.
fn source_port(packet: &Packet) -> u16 {
    let (source, destination) = packet.ports().unwrap_or_default();
    let sum = Sum::default().address(packet.source).address(packet.destination);
    let sum = u32::from(sum.fold()) << 16 ^ u32::from(source) << 16 ^ u32::from(destination);
    let hash = sum.wrapping_mul(0x9e37_79b1) >> 16;
    FIRST_SOURCE_PORT + (hash % u32::from(SOURCE_PORTS)) as u16
}

/// A tunnel packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct TunnelQuote {
    /// This end of the tunnel, which sent it.
    pub source: IpAddr,
    /// The other end.
    pub destination: IpAddr,
    /// Its "don't fragment".
    pub dont_fragment: bool,
    /// How it was wrapped, as far as that shows.
    pub wrap: Wrap,
    /// The packet inside.
    pub inner: Quote,
}

/// How a quoted packet was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// IP in IP.
    Ipip,
    /// UDP to this port, and a GUE header.
    Gue(u16),
    /// GRE.
    Gre,
}

impl Wrap {
    /// Whether a tunnel wraps so.
    pub fn fits(self, encapsulation: Encapsulation) -> bool {
        match (self, encapsulation) {
            (Wrap::Ipip, Encapsulation::Ipip) | (Wrap::Gre, Encapsulation::Gre { .. }) => true,
            (Wrap::Gue(port), Encapsulation::Gue { port: known, .. }) => port == known,
            _ => false,
        }
    }
}

/// The tunnel packet that an ICMP error (not ICMPv6: the kernel tells clients nothing then) is about, if it is about one whose
/// quote reaches as far as the ports of an IPv4 packet inside.
pub fn parse_tunnel_quote(frame: &[u8], packet: &Packet) -> Option<TunnelQuote> {
    if packet.protocol != Protocol::ICMP {
        return None;
    }
    let l3 = packet.l4 + 8;
    let bytes = frame.get(..packet.end)?;
    let header = Ipv4HeaderSlice::from_slice(bytes.get(l3..)?).ok()?;
    if header.fragments_offset().value() != 0 {
        return None;
    }
    let (wrap, inner) = unwrap_quoted(bytes, l3 + header.slice().len(), Protocol(header.protocol().0))?;
    Some(TunnelQuote {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        dont_fragment: header.dont_fragment(),
        wrap,
        inner: parse::quote_at(bytes, inner, Protocol::ICMP)?,
    })
}

/// How the packet whose IP header ends at `at` was wrapped, and where the packet inside starts.
fn unwrap_quoted(bytes: &[u8], at: usize, protocol: Protocol) -> Option<(Wrap, usize)> {
    let header = bytes.get(at..)?;
    match protocol {
        Protocol::IPIP => Some((Wrap::Ipip, at)),
        Protocol::GRE => {
            let [flags, version, high, low] = *header.first_chunk()?;
            let plain = flags & !GRE_HAS_CHECKSUM == 0 && version == 0;
            let is_ipv4 = u16::from_be_bytes([high, low]) == ETHERTYPE_IPV4;
            let checksum = if flags & GRE_HAS_CHECKSUM == 0 { 0 } else { GRE_CHECKSUM_LEN };
            (plain && is_ipv4).then_some((Wrap::Gre, at + GRE_LEN + checksum))
        }
        Protocol::UDP => {
            let port = u16::from_be_bytes([*header.get(2)?, *header.get(3)?]);
            let gue = header.get(UDP_LEN..)?.first_chunk::<GUE_LEN>()?;
            let is_plain = *gue == [0, Protocol::IPIP.0, 0, 0];
            is_plain.then_some((Wrap::Gue(port), at + UDP_LEN + GUE_LEN))
        }
        _ => None,
    }
}

/// The packet inside as an ICMP error to its sender quotes it: as much as there is of it.
pub fn quoted_packet(quote: &Quote, end: usize) -> Packet {
    let FlowKey { source, destination, protocol, .. } = quote.flow;
    Packet {
        source,
        destination,
        protocol,
        ttl: 0,
        dont_fragment: true,
        fragment: Fragment::Whole,
        piece: None,
        transport: Transport::Other,
        l3: quote.l3,
        l4: quote.l4,
        end,
    }
}
