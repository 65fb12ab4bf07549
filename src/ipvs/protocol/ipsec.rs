//! AH and ESP: they have no ports and no connections of their own, but follow the key exchange of the same two addresses
//! (UDP 500 to 500) to its server and back (ipvs.md section 2.3; goldens `ipsec-ipv4`, `ipsec-ipv6`).

use std::net::IpAddr;

use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;

/// Port of the key exchange at both ends (RFC 7296 section 2).
const IKE: u16 = 500;

/// The flow of the key exchange that a packet of `protocol` goes with; `None` if that is neither AH nor ESP.
pub fn exchange(protocol: Protocol, source: IpAddr, destination: IpAddr) -> Option<FlowKey> {
    matches!(protocol, Protocol::AH | Protocol::ESP).then_some(FlowKey {
        source,
        destination,
        source_port: IKE,
        destination_port: IKE,
        protocol: Protocol::UDP,
    })
}
