//! AH and ESP: they have no ports and no connections of their own, but follow the key exchange of the same two addresses
//! (UDP 500 to 500) to its server and back (ipvs.md section 2.3; goldens `ipsec-ipv4`, `ipsec-ipv6`).

use std::net::IpAddr;

use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;
use crate::net::parse::{Packet, Quote};

/// Port of the key exchange at both ends (RFC 7296 section 2).
const IKE: u16 = 500;

/// The flow whose connection a packet goes with: its own, or that of its key exchange.
pub fn flow_of(packet: &Packet) -> Option<FlowKey> {
    packet.flow().or_else(|| exchange(packet.protocol, packet.source, packet.destination))
}

/// The same for a quoted packet.
pub fn quoted_flow(quote: &Quote) -> FlowKey {
    let FlowKey { protocol, source, destination, .. } = quote.flow;
    exchange(protocol, source, destination).unwrap_or(quote.flow)
}

fn exchange(protocol: Protocol, source: IpAddr, destination: IpAddr) -> Option<FlowKey> {
    matches!(protocol, Protocol::AH | Protocol::ESP).then_some(FlowKey {
        source,
        destination,
        source_port: IKE,
        destination_port: IKE,
        protocol: Protocol::UDP,
    })
}
