//! ICMP errors of our own (RFC 792, RFC 1812, RFC 4443), made in the frame of the packet that they are about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::addr::Protocol;
use crate::net::checksum::{Sum, pseudo_header};
use crate::net::frame::Frame;
use crate::net::parse::{Fragment, Packet, Transport};
use crate::net::rewrite::write_ethernet;
use crate::net::route::Egress;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
/// RFC 1812 section 4.3.2.3: as much of the original as fits an error of 576 bytes.
const IPV4_ERROR_MAX: usize = 576;
/// RFC 4443 section 2.4 (c): as much as fits the minimum MTU.
const IPV6_ERROR_MAX: usize = 1280;
/// Precedence "internetwork control", as Linux marks its errors (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;
/// What Linux keeps of the packet's type of service besides: delay, throughput, reliability, cost (golden
/// `no-destination-tos`).
const TOS_KEPT: u8 = 0x1e;
const TTL: u8 = 64;

/// An error to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// 3/3; ICMPv6 1/4.
    PortUnreachable,
    /// 3/1; ICMPv6 1/3.
    HostUnreachable,
    /// 3/4, or ICMPv6 "packet too big" 2/0, with the MTU in bytes.
    FragmentationNeeded(u16),
    /// 11/0; ICMPv6 3/0.
    TimeExceeded,
    /// 11/1; ICMPv6 3/1.
    ReassemblyTimeExceeded,
    /// Another's error about a tunnel packet, told on.
    Relayed {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The second word.
        rest: [u8; 4],
    },
}

impl IcmpError {
    fn header(self, v4: bool) -> [u8; ICMP_LEN] {
        let (kind, code, mtu) = match (self, v4) {
            (IcmpError::PortUnreachable, true) => (3, 3, 0),
            (IcmpError::PortUnreachable, false) => (1, 4, 0),
            (IcmpError::HostUnreachable, true) => (3, 1, 0),
            (IcmpError::HostUnreachable, false) => (1, 3, 0),
            (IcmpError::TimeExceeded, true) => (11, 0, 0),
            (IcmpError::TimeExceeded, false) => (3, 0, 0),
            (IcmpError::ReassemblyTimeExceeded, true) => (11, 1, 0),
            (IcmpError::ReassemblyTimeExceeded, false) => (3, 1, 0),
            (IcmpError::FragmentationNeeded(mtu), true) => (3, 4, mtu),
            (IcmpError::FragmentationNeeded(mtu), false) => (2, 0, mtu),
            (IcmpError::Relayed { kind, code, rest: [a, b, c, d] }, _) => {
                return [kind, code, 0, 0, a, b, c, d];
            }
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// Whether a packet is an ICMP error that IPVS relates to its flows: types 3, 4 and 11, and every error of ICMPv6.
pub fn is_flow_error(packet: &Packet) -> bool {
    let Transport::Icmp { kind, .. } = packet.transport else { return false };
    match (packet.is_ipv4(), packet.protocol) {
        (true, Protocol::ICMP) => matches!(kind, 3 | 4 | 11),
        (false, Protocol::ICMPV6) => kind < 128,
        _ => false,
    }
}

/// Whether an error may be sent about this packet at all (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)): not about
/// another error, a later fragment, or a sender that is nobody in particular.
pub fn may_answer(packet: &Packet) -> bool {
    let about_error = match (packet.transport, packet.is_ipv4()) {
        (Transport::Icmp { kind, .. }, true) => !matches!(kind, 0 | 8 | 13 | 14),
        (Transport::Icmp { kind, .. }, false) => kind < 128 || kind == 137,
        _ => false,
    };
    let sender = match packet.source {
        IpAddr::V4(source) => !source.is_multicast() && !source.is_broadcast() && !source.is_unspecified(),
        IpAddr::V6(source) => !source.is_multicast() && !source.is_unspecified(),
    };
    !about_error && packet.fragment != Fragment::Later && sender
}

/// Turns the frame into an error about the packet in it, from `source` to the packet's sender. `id` goes into an IPv4
/// header. Returns false, with the frame unchanged, if the buffer has no room or `source` is of the other family.
#[must_use]
pub fn make_error(
    frame: &mut Frame<'_>,
    packet: &Packet,
    error: IcmpError,
    source: IpAddr,
    id: u16,
    egress: &Egress,
) -> bool {
    if source.is_ipv4() != packet.is_ipv4() {
        return false;
    }
    let (header_len, error_max) = match source {
        IpAddr::V4(_) => (IPV4_LEN, IPV4_ERROR_MAX),
        IpAddr::V6(_) => (IPV6_LEN, IPV6_ERROR_MAX),
    };
    let quoted = packet.ip_len().min(error_max - header_len - ICMP_LEN);
    let ip_len = header_len + ICMP_LEN + quoted;
    let len = frame.len().max(ETHERNET_LEN + ip_len);
    if !frame.resize(len) {
        return false;
    }
    let bytes = frame.bytes_mut();
    let icmp = ETHERNET_LEN + header_len;
    bytes.copy_within(packet.l3..packet.l3 + quoted, icmp + ICMP_LEN);
    bytes[icmp..icmp + ICMP_LEN].copy_from_slice(&error.header(packet.is_ipv4()));
    write_header(&mut bytes[ETHERNET_LEN..ETHERNET_LEN + ip_len], source, packet.source, id);
    write_ethernet(bytes, source, egress.source, egress.destination);
    frame.resize(ETHERNET_LEN + ip_len)
}

/// Writes the IP header of the error that is behind it in `bytes`, and the error's checksum.
fn write_header(bytes: &mut [u8], source: IpAddr, destination: IpAddr, id: u16) {
    let ip_len = bytes.len();
    let icmp = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let tos = TOS | (bytes[IPV4_LEN + ICMP_LEN + 1] & TOS_KEPT);
            let header = ipv4_header(source, destination, tos, ip_len as u16, id);
            bytes[..IPV4_LEN].copy_from_slice(&header);
            IPV4_LEN
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6_header(source, destination, (ip_len - IPV6_LEN) as u16);
            bytes[..IPV6_LEN].copy_from_slice(&header);
            IPV6_LEN
        }
        _ => return,
    };
    let start = match source {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => pseudo_header(source, destination, Protocol::ICMPV6.0, ip_len - icmp),
    };
    let checksum = start.bytes(&bytes[icmp..]).finish();
    bytes[icmp + 2..icmp + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, payload_len: u16) -> [u8; IPV6_LEN] {
    let mut header = [0; IPV6_LEN];
    header[0..4].copy_from_slice(&(6 << 28 | flow_label(source, destination)).to_be_bytes());
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = Protocol::ICMPV6.0;
    header[7] = TTL;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}

/// A label of 20 bits, not 0, that stays the same for a pair of addresses (RFC 6437 section 3).
pub(super) fn flow_label(source: Ipv6Addr, destination: Ipv6Addr) -> u32 {
    let mixed =
        (u128::from(source) ^ u128::from(destination).rotate_left(64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let label = (mixed >> 96) as u32 & 0xf_ffff;
    label.max(1)
}

fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, tos: u8, total_len: u16, id: u16) -> [u8; IPV4_LEN] {
    let mut header = [0; IPV4_LEN];
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
