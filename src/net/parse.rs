//! From bytes to offsets: where the headers of a frame are, and the fields that decisions need.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use thiserror::Error;

use crate::net::addr::Protocol;
use crate::net::checksum::Sum;
use crate::net::flow::FlowKey;

const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;
const VLAN_MAX: usize = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
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
    /// ICMP.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
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
    /// The transport header.
    pub transport: Transport,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Offset behind the IP packet's last byte; what follows is Ethernet padding.
    pub end: usize,
}

impl Packet {
    /// Length of the IP packet in bytes.
    pub fn ip_len(&self) -> usize {
        self.end - self.l3
    }

    /// The flow of a TCP or UDP packet.
    pub fn flow(&self) -> Option<FlowKey> {
        let (source_port, destination_port) = self.ports()?;
        let Packet { source, destination, protocol, .. } = *self;
        Some(FlowKey { source, destination, source_port, destination_port, protocol })
    }

    /// Source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                Some((source, destination))
            }
            Transport::Icmp { .. } | Transport::Other => None,
        }
    }
}

/// Finds the IP packet in an Ethernet frame with up to two VLAN tags and checks it as the kernel does on receipt.
pub fn parse_frame(frame: &[u8]) -> Result<Packet, ParseError> {
    let l3 = network_offset(frame)?;
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
    Ok(Packet {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol,
        ttl: header.ttl(),
        dont_fragment: header.dont_fragment(),
        fragment,
        transport: transport(protocol, fragment, &frame[l4..end])?,
        l3,
        l4,
        end,
    })
}

fn network_offset(frame: &[u8]) -> Result<usize, ParseError> {
    let mut offset = ETHERNET_LEN;
    for _ in 0..=VLAN_MAX {
        let Some(bytes) = frame.get(offset - 2..offset) else { return Err(ParseError::NotIp) };
        let ethertype = u16::from_be_bytes([bytes[0], bytes[1]]);
        if ethertype == ETHERTYPE_IPV4 {
            return Ok(offset);
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

fn transport(protocol: Protocol, fragment: Fragment, bytes: &[u8]) -> Result<Transport, ParseError> {
    if fragment == Fragment::Later {
        return Ok(Transport::Other);
    }
    match protocol {
        Protocol::TCP => tcp(bytes),
        Protocol::UDP => udp(bytes),
        Protocol::ICMP => match bytes {
            [kind, code, ..] if bytes.len() >= 8 => Ok(Transport::Icmp { kind: *kind, code: *code }),
            _ => Err(ParseError::Truncated),
        },
        _ => Ok(Transport::Other),
    }
}

fn tcp(bytes: &[u8]) -> Result<Transport, ParseError> {
    let header = TcpHeaderSlice::from_slice(bytes).map_err(|_| ParseError::Truncated)?;
    let flags = TcpFlags { syn: header.syn(), ack: header.ack(), fin: header.fin(), rst: header.rst() };
    Ok(Transport::Tcp { source: header.source_port(), destination: header.destination_port(), flags })
}

fn udp(bytes: &[u8]) -> Result<Transport, ParseError> {
    let header = UdpHeaderSlice::from_slice(bytes).map_err(|_| ParseError::Truncated)?;
    Ok(Transport::Udp { source: header.source_port(), destination: header.destination_port() })
}

/// The packet quoted by an ICMP error, as far as the quote reaches.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Its flow, in the direction in which the quoted packet travelled.
    pub flow: FlowKey,
    /// Offset of the quoted IP header in the frame.
    pub l3: usize,
    /// Offset of the quoted transport header.
    pub l4: usize,
}

/// The quote of an ICMP error. `None` when it is no TCP or UDP packet, a later fragment, or too short for its ports:
/// then the error is not about a balanced flow.
pub fn parse_quote(frame: &[u8], packet: &Packet) -> Option<Quote> {
    let l3 = packet.l4 + 8;
    let bytes = frame.get(l3..packet.end)?;
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let protocol = Protocol(header.protocol().0);
    if fragment_of(&header) == Fragment::Later || !matches!(protocol, Protocol::TCP | Protocol::UDP) {
        return None;
    }
    let ports = bytes.get(header.slice().len()..header.slice().len() + 4)?;
    let flow = FlowKey {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        destination_port: u16::from_be_bytes([ports[2], ports[3]]),
        protocol,
    };
    Some(Quote { flow, l3, l4: l3 + header.slice().len() })
}
