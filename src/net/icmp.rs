//! ICMP errors of our own (RFC 792, RFC 1812), made in the frame of the packet that they are about.

use std::net::{IpAddr, Ipv4Addr};

use crate::net::addr::Protocol;
use crate::net::checksum::Sum;
use crate::net::frame::Frame;
use crate::net::parse::{Fragment, Packet, Transport};
use crate::net::rewrite::write_ethernet;
use crate::net::route::Egress;

const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
/// RFC 1812 section 4.3.2.3: as much of the original as fits an error of 576 bytes.
const QUOTE_MAX: usize = 576 - IP_LEN - ICMP_LEN;
/// Precedence "internetwork control", as Linux marks its errors (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;
/// What Linux keeps of the packet's type of service besides: delay, throughput, reliability, cost (golden
/// `no-destination-tos`).
const TOS_KEPT: u8 = 0x1e;
const TTL: u8 = 64;

/// Types 3, 4 and 11: errors about a packet, the only ones that IPVS relates to its flows.
pub const FLOW_ERRORS: [u8; 3] = [3, 4, 11];

/// An error to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// 3/3.
    PortUnreachable,
    /// 3/1.
    HostUnreachable,
    /// 3/4 with the MTU in bytes.
    FragmentationNeeded(u16),
    /// 11/0.
    TimeExceeded,
}

impl IcmpError {
    fn header(self) -> [u8; 8] {
        match self {
            IcmpError::PortUnreachable => [3, 3, 0, 0, 0, 0, 0, 0],
            IcmpError::HostUnreachable => [3, 1, 0, 0, 0, 0, 0, 0],
            IcmpError::TimeExceeded => [11, 0, 0, 0, 0, 0, 0, 0],
            IcmpError::FragmentationNeeded(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                [3, 4, 0, 0, 0, 0, high, low]
            }
        }
    }
}

/// Whether an error may be sent about this packet at all (RFC 1122 section 3.2.2): not about another error, a later
/// fragment, or a sender that is nobody in particular.
pub fn may_answer(packet: &Packet) -> bool {
    let about_error =
        matches!(packet.transport, Transport::Icmp { kind, .. } if !matches!(kind, 0 | 8 | 13 | 14));
    let sender = match packet.source {
        IpAddr::V4(source) => !source.is_multicast() && !source.is_broadcast() && !source.is_unspecified(),
        IpAddr::V6(source) => !source.is_multicast() && !source.is_unspecified(),
    };
    !about_error && packet.fragment != Fragment::Later && sender
}

/// Turns the frame into an error about the packet in it, from `source` to the packet's sender. `id` goes into the IP
/// header. Returns false, with the frame unchanged, if the buffer has no room or the packet is not IPv4.
#[must_use]
pub fn make_error(
    frame: &mut Frame<'_>,
    packet: &Packet,
    error: IcmpError,
    source: IpAddr,
    id: u16,
    egress: &Egress,
) -> bool {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, packet.source) else { return false };
    let quoted = packet.ip_len().min(QUOTE_MAX);
    let ip_len = IP_LEN + ICMP_LEN + quoted;
    let len = frame.len().max(ETHERNET_LEN + ip_len);
    if !frame.resize(len) {
        return false;
    }
    let bytes = frame.bytes_mut();
    let icmp = ETHERNET_LEN + IP_LEN;
    bytes.copy_within(packet.l3..packet.l3 + quoted, icmp + ICMP_LEN);
    bytes[icmp..icmp + ICMP_LEN].copy_from_slice(&error.header());
    let checksum = Sum::default().bytes(&bytes[icmp..icmp + ICMP_LEN + quoted]).finish();
    bytes[icmp + 2..icmp + 4].copy_from_slice(&checksum.to_be_bytes());
    let tos = TOS | (bytes[icmp + ICMP_LEN + 1] & TOS_KEPT);
    let header = ip_header(source, destination, tos, ip_len as u16, id);
    bytes[ETHERNET_LEN..icmp].copy_from_slice(&header);
    write_ethernet(bytes, egress.source, egress.destination);
    frame.resize(ETHERNET_LEN + ip_len)
}

fn ip_header(source: Ipv4Addr, destination: Ipv4Addr, tos: u8, total_len: u16, id: u16) -> [u8; IP_LEN] {
    let mut header = [0; IP_LEN];
    header[0] = 0x45;
    header[1] = tos;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[8] = TTL;
    header[9] = Protocol::ICMP.0;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = Sum::default().bytes(&header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}
