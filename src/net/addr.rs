//! Addresses and protocol numbers.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether the group bit is set (broadcast included).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An IP protocol number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// 0: the "any protocol" of a fwmark template.
    pub const IP: Protocol = Protocol(0);
    /// 1.
    pub const ICMP: Protocol = Protocol(1);
    /// 4: an IPv4 packet inside.
    pub const IPIP: Protocol = Protocol(4);
    /// 6.
    pub const TCP: Protocol = Protocol(6);
    /// 17.
    pub const UDP: Protocol = Protocol(17);
    /// 41: an IPv6 packet inside.
    pub const IPV6: Protocol = Protocol(41);
    /// 47.
    pub const GRE: Protocol = Protocol(47);
    /// 50.
    pub const ESP: Protocol = Protocol(50);
    /// 51.
    pub const AH: Protocol = Protocol(51);
    /// 58.
    pub const ICMPV6: Protocol = Protocol(58);
    /// 132.
    pub const SCTP: Protocol = Protocol(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Protocol::IP => "IP",
            Protocol::ICMP => "ICMP",
            Protocol::TCP => "TCP",
            Protocol::UDP => "UDP",
            Protocol::SCTP => "SCTP",
            Protocol(number) => return write!(f, "{number}"),
        })
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Index of an attached NIC ("port") among those that the workers serve, in the order of attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortIndex(pub u8);

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// Protocol; [`Protocol::IP`] means any.
    pub protocol: Protocol,
    /// Ports, both ends included; 0..=65535 means any.
    pub ports: RangeInclusive<u16>,
}

impl PortRange {
    /// One port, or all if it is 0.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        PortRange { protocol, ports: if port == 0 { 0..=u16::MAX } else { port..=port } }
    }

    /// Whether the range has this port of this protocol.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        (self.protocol == Protocol::IP || self.protocol == protocol) && self.ports.contains(&port)
    }
}
