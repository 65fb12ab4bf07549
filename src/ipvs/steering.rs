//! Which packets have to come up from the NIC: plain values that the director hands to the XDP program.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::net::addr::Protocol;

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Protocol; [`Protocol::IP`] means any.
    pub protocol: Protocol,
    /// Ports, both ends included; 0..=65535 means any.
    pub ports: RangeInclusive<u16>,
}

/// Everything that the XDP program redirects; the rest stays the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Packets to these addresses (one entry a prefix) and ports come up, as do ICMP errors and fragments to them.
    pub destinations: Vec<(IpNet, Vec<PortRange>)>,
    /// Packets from these real servers and source ports come up unless they are for one of `own` addresses, as do
    /// ICMP errors from anywhere that quote a packet to such a server, and fragments from it.
    pub servers: Vec<(IpAddr, Vec<PortRange>)>,
    /// The machine's own addresses: what a real server sends there answers a health check, not a client.
    pub own: Vec<IpAddr>,
}
