//! From bytes to offsets: where the headers of a frame are, and the fields that decisions need.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use thiserror::Error;

use crate::net::addr::Protocol;
use crate::net::checksum::{Sum, is_right_in};
use crate::net::extension::{self, Piece};
use crate::net::flow::FlowKey;

const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;
const VLAN_MAX: usize = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV4_LEN: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const RESERVED_FLAG: u16 = 0x8000;
const IPV6_LEN: usize = 40;
const PORTS_LEN: usize = 4;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const SCTP_LEN: usize = 12;
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];

/// Why a frame has no [`Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Not an IP packet; the kernel's business.
    #[error("not an IP packet")]
    NotIp,
    /// Shorter than its headers say.
    #[error("truncated")]
    Truncated,
    /// Header fields that contradict each other.
    #[error("malformed")]
    Malformed,
    /// The IPv4 header checksum is wrong.
    #[error("bad IP checksum")]
    BadIpChecksum,
}

/// TCP flags that the state machine looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// What the state machine looks at in an SCTP packet: the first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpChunk {
    /// Its type (RFC 9260 section 3.2).
    pub kind: u8,
    /// Whether the packet aborts the association: by this chunk, or by one bundled behind a COOKIE ECHO or COOKIE ACK.
    pub aborts: bool,
}

impl SctpChunk {
    /// INIT.
    pub const INIT: u8 = 1;
    /// INIT ACK.
    pub const INIT_ACK: u8 = 2;
    /// ABORT.
    pub const ABORT: u8 = 6;
    /// SHUTDOWN.
    pub const SHUTDOWN: u8 = 7;
    /// SHUTDOWN ACK.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// ERROR.
    pub const ERROR: u8 = 9;
    /// COOKIE ECHO.
    pub const COOKIE_ECHO: u8 = 10;
    /// COOKIE ACK.
    pub const COOKIE_ACK: u8 = 11;
    /// SHUTDOWN COMPLETE.
    pub const SHUTDOWN_COMPLETE: u8 = 14;

    /// The first of `chunks`, if it has a whole header. What looks like an ABORT behind a cookie counts only if the
    /// cookie's length says so and the ABORT has a whole header too (golden `sctp-bundled-abort`).
    fn first_of(chunks: &[u8]) -> Option<SctpChunk> {
        let [kind, _, high, low] = *chunks.first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let is_cookie = matches!(kind, Self::COOKIE_ECHO | Self::COOKIE_ACK) && len >= 4;
        let behind = chunks.get(len.next_multiple_of(4)..).and_then(<[u8]>::first_chunk::<4>);
        let bundled = is_cookie && behind.is_some_and(|header| header[0] == Self::ABORT);
        Some(SctpChunk { kind, aborts: kind == Self::ABORT || bundled })
    }
}

/// The transport header of a packet that is not a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with a whole header.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags.
        flags: TcpFlags,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// SCTP with a whole common header.
    Sctp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The first chunk, if its header is there.
        chunk: Option<SctpChunk>,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// TCP, UDP or SCTP that ends within its header, but behind the ports.
    Torn {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// A protocol without ports that matter here.
    Other,
}

/// Whether a packet is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// The fragment that has the transport header.
    First,
    /// Any other.
    Later,
}

/// An IP packet inside a frame. Offsets count from the frame's first byte and are within it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub ttl: u8,
    /// "Don't fragment" of IPv4.
    pub dont_fragment: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Which part of which datagram, if it is a fragment.
    pub piece: Option<Piece>,
    /// The transport header.
    pub transport: Transport,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Offset behind the IP packet's last byte; what follows is Ethernet padding.
    pub end: usize,
}

impl Default for Packet {
    /// Nothing, to be filled by [`parse_frame_into`].
    fn default() -> Self {
        Packet {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            protocol: Protocol::IP,
            ttl: 0,
            dont_fragment: false,
            fragment: Fragment::Whole,
            piece: None,
            transport: Transport::Other,
            l3: 0,
            l4: 0,
            end: 0,
        }
    }
}

impl Packet {
    /// Length of the IP packet in bytes.
    pub fn ip_len(&self) -> usize {
        self.end - self.l3
    }

    /// Whether it is whole, of IPv4, untagged and without options.
    #[inline]
    pub fn is_plain_ipv4(&self) -> bool {
        self.is_ipv4()
            && (self.l3, self.l4) == (ETHERNET_LEN, ETHERNET_LEN + IPV4_LEN)
            && self.fragment == Fragment::Whole
    }

    /// Whether it is an IPv4 packet.
    pub fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The flow of a TCP, UDP or SCTP packet.
    pub fn flow(&self) -> Option<FlowKey> {
        let (source_port, destination_port) = self.ports()?;
        let Packet { source, destination, protocol, .. } = *self;
        Some(FlowKey { source, destination, source_port, destination_port, protocol })
    }

    /// Source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { source, destination, .. }
            | Transport::Udp { source, destination }
            | Transport::Torn { source, destination }
            | Transport::Sctp { source, destination, .. } => Some((source, destination)),
            Transport::Icmp { .. } | Transport::Other => None,
        }
    }
}

/// Finds the IP packet in an Ethernet frame with up to two VLAN tags and checks it as the kernel does on receipt.
pub fn parse_frame(frame: &[u8]) -> Result<Packet, ParseError> {
    let mut packet = Packet::default();
    parse_frame_into(frame, &mut packet)?;
    Ok(packet)
}

/// The same in place: the fields are written once, where they will be read. After an error `packet` means nothing.
#[inline]
pub fn parse_frame_into(frame: &[u8], packet: &mut Packet) -> Result<(), ParseError> {
    if parse_plain_ipv4(frame, packet).is_some() {
        return Ok(());
    }
    let (l3, ethertype) = network_offset(frame)?;
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(frame, l3, packet),
        _ => parse_ipv6(frame, l3, packet),
    }
}

/// What most packets are: TCP or UDP over IPv4 without tags, options or fragments. `None`, and `packet` means nothing, of any
/// other or where anything is wrong.
#[inline]
fn parse_plain_ipv4(frame: &[u8], packet: &mut Packet) -> Option<()> {
    let header = frame.get(ETHERNET_LEN - 2..)?.first_chunk::<{ 2 + IPV4_LEN }>()?;
    let word = |at: usize| u16::from_be_bytes([header[2 + at], header[3 + at]]);
    let fragment = word(6);
    let end = ETHERNET_LEN + usize::from(word(2));
    let plain = header[..3] == [0x08, 0x00, 0x45] && fragment & !DONT_FRAGMENT & !RESERVED_FLAG == 0;
    if !plain || !is_right_in(header.last_chunk()?) {
        return None;
    }
    let l4 = ETHERNET_LEN + IPV4_LEN;
    let protocol = Protocol(header[2 + 9]);
    packet.transport = match protocol {
        Protocol::TCP => tcp(frame.get(l4..end)?)?,
        Protocol::UDP => udp(frame.get(l4..end)?)?,
        _ => return None,
    };
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    packet.source = address(2 + 12).into();
    packet.destination = address(2 + 16).into();
    packet.protocol = protocol;
    packet.ttl = header[2 + 8];
    packet.dont_fragment = fragment & DONT_FRAGMENT != 0;
    packet.fragment = Fragment::Whole;
    packet.piece = None;
    (packet.l3, packet.l4, packet.end) = (ETHERNET_LEN, l4, end);
    Some(())
}

fn parse_ipv4(frame: &[u8], l3: usize, packet: &mut Packet) -> Result<(), ParseError> {
    let header = Ipv4HeaderSlice::from_slice(&frame[l3..]).map_err(|_| ParseError::Malformed)?;
    let header_len = header.slice().len();
    let total_len = usize::from(header.total_len());
    if total_len < header_len {
        return Err(ParseError::Malformed);
    }
    let end = l3 + total_len;
    if end > frame.len() {
        return Err(ParseError::Truncated);
    }
    if Sum::default().bytes(header.slice()).finish() != 0 {
        return Err(ParseError::BadIpChecksum);
    }
    let l4 = l3 + header_len;
    let protocol = Protocol(header.protocol().0);
    let fragment = fragment_of(&header);
    packet.transport = transport(protocol, fragment, &frame[l4..end])?;
    packet.source = header.source_addr().into();
    packet.destination = header.destination_addr().into();
    packet.protocol = protocol;
    packet.ttl = header.ttl();
    packet.dont_fragment = header.dont_fragment();
    packet.fragment = fragment;
    packet.piece = (fragment != Fragment::Whole).then(|| piece_of(&header, l3));
    (packet.l3, packet.l4, packet.end) = (l3, l4, end);
    Ok(())
}

fn parse_ipv6(frame: &[u8], l3: usize, packet: &mut Packet) -> Result<(), ParseError> {
    let header = Ipv6HeaderSlice::from_slice(&frame[l3..]).map_err(|_| ParseError::Malformed)?;
    let end = l3 + IPV6_LEN + usize::from(header.payload_length());
    if end > frame.len() {
        return Err(ParseError::Truncated);
    }
    let chain = extension::walk(&frame[..end], l3 + IPV6_LEN, header.next_header().0);
    let chain = chain.ok_or(ParseError::Malformed)?;
    let fragment = match chain.piece {
        None => Fragment::Whole,
        Some(Piece { offset: 0, .. }) => Fragment::First,
        Some(_) => Fragment::Later,
    };
    packet.transport = transport(chain.protocol, fragment, &frame[chain.l4..end])?;
    packet.source = header.source_addr().into();
    packet.destination = header.destination_addr().into();
    packet.protocol = chain.protocol;
    packet.ttl = header.hop_limit();
    packet.dont_fragment = true;
    packet.fragment = fragment;
    packet.piece = chain.piece;
    (packet.l3, packet.l4, packet.end) = (l3, chain.l4, end);
    Ok(())
}

/// Offset of the IP header, and the EtherType that announced it.
fn network_offset(frame: &[u8]) -> Result<(usize, u16), ParseError> {
    let mut offset = ETHERNET_LEN;
    for _ in 0..=VLAN_MAX {
        let Some(bytes) = frame.get(offset - 2..offset) else { return Err(ParseError::NotIp) };
        let ethertype = u16::from_be_bytes([bytes[0], bytes[1]]);
        if matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            return Ok((offset, ethertype));
        }
        if !ETHERTYPES_VLAN.contains(&ethertype) {
            break;
        }
        offset += VLAN_LEN;
    }
    Err(ParseError::NotIp)
}

fn fragment_of(header: &Ipv4HeaderSlice<'_>) -> Fragment {
    if header.fragments_offset().value() != 0 {
        Fragment::Later
    } else if header.more_fragments() {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

fn piece_of(header: &Ipv4HeaderSlice<'_>, l3: usize) -> Piece {
    Piece {
        id: u32::from(header.identification()),
        offset: usize::from(header.fragments_offset().byte_offset()),
        more: header.more_fragments(),
        header: l3,
    }
}

fn transport(protocol: Protocol, fragment: Fragment, bytes: &[u8]) -> Result<Transport, ParseError> {
    match fragment {
        Fragment::Whole => whole_transport(protocol, bytes),
        // Nothing says that a first fragment has all of the header (golden `fragments-tcp`).
        Fragment::First => match whole_transport(protocol, bytes) {
            Err(_) | Ok(Transport::Torn { .. }) => Ok(Transport::Other),
            whole => whole,
        },
        Fragment::Later => Ok(Transport::Other),
    }
}

fn whole_transport(protocol: Protocol, bytes: &[u8]) -> Result<Transport, ParseError> {
    match protocol {
        Protocol::TCP => tcp(bytes).map_or_else(|| torn(bytes), Ok),
        Protocol::UDP => udp(bytes).map_or_else(|| torn(bytes), Ok),
        Protocol::SCTP => sctp(bytes).map_or_else(|| torn(bytes), Ok),
        Protocol::ICMP | Protocol::ICMPV6 => match bytes {
            [kind, code, ..] if bytes.len() >= 8 => Ok(Transport::Icmp { kind: *kind, code: *code }),
            _ => Err(ParseError::Truncated),
        },
        _ => Ok(Transport::Other),
    }
}

/// The data offset is not looked at: IPVS forwards a segment whose offset makes no sense like any other.
fn tcp(bytes: &[u8]) -> Option<Transport> {
    let header = bytes.first_chunk::<TCP_LEN>()?;
    let flag = |bit: u8| header[13] & bit != 0;
    Some(Transport::Tcp {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        flags: TcpFlags { fin: flag(0x01), syn: flag(0x02), rst: flag(0x04), ack: flag(0x10) },
    })
}

fn udp(bytes: &[u8]) -> Option<Transport> {
    let header = bytes.first_chunk::<UDP_LEN>()?;
    Some(Transport::Udp {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
    })
}

fn sctp(bytes: &[u8]) -> Option<Transport> {
    let (header, chunks) = bytes.split_first_chunk::<SCTP_LEN>()?;
    Some(Transport::Sctp {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        chunk: SctpChunk::first_of(chunks),
    })
}

/// The ports are enough to find a connection by (golden `truncated-known`).
fn torn(bytes: &[u8]) -> Result<Transport, ParseError> {
    let [a, b, c, d] = *bytes.first_chunk::<PORTS_LEN>().ok_or(ParseError::Truncated)?;
    Ok(Transport::Torn { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) })
}

/// The packet quoted by an ICMP error, as far as the quote reaches.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Its flow, in the direction in which the quoted packet travelled; ports 0 if its protocol has none.
    pub flow: FlowKey,
    /// Whether its protocol has ports.
    pub has_ports: bool,
    /// Offset of the quoted IP header in the frame.
    pub l3: usize,
    /// Offset of the quoted transport header.
    pub l4: usize,
}

/// The quote of an ICMP error. `None` when it is no TCP, UDP, SCTP, AH or ESP packet, a later fragment, or too short for
/// its ports: then the error is not about a balanced flow.
pub fn parse_quote(frame: &[u8], packet: &Packet) -> Option<Quote> {
    quote_at(frame.get(..packet.end)?, packet.l4 + 8, packet.protocol)
}

/// The same for the packet at `l3`, of the family that `icmp` (ICMP or ICMPv6) is of.
pub(super) fn quote_at(bytes: &[u8], l3: usize, icmp: Protocol) -> Option<Quote> {
    let (source, destination, protocol, l4) = match icmp {
        Protocol::ICMP => quoted_ipv4(bytes, l3)?,
        _ => quoted_ipv6(bytes, l3)?,
    };
    let has_ports = matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    let (source_port, destination_port) = match protocol {
        Protocol::AH | Protocol::ESP => (0, 0),
        _ if has_ports => {
            let ports = bytes.get(l4..)?.first_chunk::<4>()?;
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        }
        _ => return None,
    };
    let flow = FlowKey { source, destination, source_port, destination_port, protocol };
    Some(Quote { flow, has_ports, l3, l4 })
}

fn quoted_ipv4(bytes: &[u8], l3: usize) -> Option<(IpAddr, IpAddr, Protocol, usize)> {
    let header = Ipv4HeaderSlice::from_slice(bytes.get(l3..)?).ok()?;
    if fragment_of(&header) == Fragment::Later {
        return None;
    }
    let protocol = Protocol(header.protocol().0);
    let l4 = l3 + header.slice().len();
    Some((header.source_addr().into(), header.destination_addr().into(), protocol, l4))
}

fn quoted_ipv6(bytes: &[u8], l3: usize) -> Option<(IpAddr, IpAddr, Protocol, usize)> {
    let header = Ipv6HeaderSlice::from_slice(bytes.get(l3..)?).ok()?;
    let chain = extension::walk(bytes, l3 + IPV6_LEN, header.next_header().0)?;
    if chain.piece.is_some_and(|piece| piece.offset != 0) {
        return None;
    }
    Some((header.source_addr().into(), header.destination_addr().into(), chain.protocol, chain.l4))
}
