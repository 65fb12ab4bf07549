//! AH and ESP: they have no ports and no connections of their own, but follow the key exchange of the same two addresses
//! (UDP 500 to 500) to its server and back (ipvs.md section 2.3; goldens `ipsec-ipv4`, `ipsec-ipv6`).

use std::net::IpAddr;

use crate::net::addr::Protocol;
use crate::net::flow::{FlowKey, FlowWords};
use crate::net::parse::{Packet, Quote};

/// Port of the key exchange at both ends (RFC 7296 section 2).
const IKE: u16 = 500;
/// Where a header has its addresses.
const IPV4_ADDRESSES: usize = 12;
const IPV6_ADDRESSES: usize = 8;

/// The flow whose connection a packet goes with: its own, or that of its key exchange.
pub fn flow_of(packet: &Packet) -> Option<FlowKey> {
    packet.flow().or_else(|| exchange(packet.protocol, packet.source, packet.destination))
}

/// The same as words, read from the frame that the packet is in.
#[inline(always)]
pub fn words_of(frame: &[u8], packet: &Packet) -> Option<FlowWords> {
    let addresses = match packet.is_ipv4() {
        true => frame.get(packet.l3 + IPV4_ADDRESSES..packet.l3 + IPV4_ADDRESSES + 8),
        false => frame.get(packet.l3 + IPV6_ADDRESSES..packet.l3 + IPV6_ADDRESSES + 32),
    };
    let (protocol, source_port, destination_port) = match packet.ports() {
        Some((source, destination)) => (packet.protocol, source, destination),
        None if is_ipsec(packet.protocol) => (Protocol::UDP, IKE, IKE),
        None => return None,
    };
    FlowWords::of_bytes(addresses?, protocol, source_port, destination_port)
}

fn is_ipsec(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::AH | Protocol::ESP)
}

/// The flow that a quoted packet's connection is of.
pub fn quoted_flow(quote: &Quote) -> FlowKey {
    let FlowKey { protocol, source, destination, .. } = quote.flow;
    exchange(protocol, source, destination).unwrap_or(quote.flow)
}

fn exchange(protocol: Protocol, source: IpAddr, destination: IpAddr) -> Option<FlowKey> {
    is_ipsec(protocol).then_some(FlowKey {
        source,
        destination,
        source_port: IKE,
        destination_port: IKE,
        protocol: Protocol::UDP,
    })
}
