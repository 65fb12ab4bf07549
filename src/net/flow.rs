//! What identifies a flow: protocol, and both ends as the packet shows them.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net::addr::Protocol;

/// Protocol, source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl FlowKey {
    /// The flow from `source` to `destination`.
    pub fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        FlowKey {
            source: source.ip(),
            destination: destination.ip(),
            source_port: source.port(),
            destination_port: destination.port(),
            protocol,
        }
    }

    /// The flow of the answers.
    pub fn reversed(self) -> Self {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// Source address and port.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.source_port)
    }

    /// Destination address and port.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.destination_port)
    }
}

/// A flow's key as the words that a table hashes and compares. Of IPv4, which is most of the traffic, these are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowWords {
    addresses: AddressWords,
    /// Families where they differ, protocol, source port, destination port.
    rest: u64,
}

/// Source and destination, first bytes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AddressWords {
    V4(u64),
    V6([u64; 4]),
}

const PROTOCOL_SHIFT: u32 = 32;
const SOURCE_PORT_SHIFT: u32 = 16;
const IPV4_SOURCE: u64 = 1 << 40;
const IPV4_DESTINATION: u64 = 1 << 41;

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    [(bits >> 64) as u64, bits as u64]
}

impl FlowWords {
    /// The words of a flow from `source` to `destination`.
    #[inline]
    pub fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        let words = FlowWords::rest(protocol, source.port(), destination.port());
        match (source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                let [source, destination] = [source, destination].map(|end| u64::from(u32::from(*end.ip())));
                FlowWords { addresses: AddressWords::V4(source << 32 | destination), rest: words }
            }
            _ => {
                let ([a, b], [c, d]) = (halves(source.ip()), halves(destination.ip()));
                let source = if source.is_ipv4() { IPV4_SOURCE } else { 0 };
                let destination = if destination.is_ipv4() { IPV4_DESTINATION } else { 0 };
                let rest = words | source | destination;
                FlowWords { addresses: AddressWords::V6([a, b, c, d]), rest }
            }
        }
    }

    #[inline]
    fn rest(protocol: Protocol, source_port: u16, destination_port: u16) -> u64 {
        u64::from(protocol.0) << PROTOCOL_SHIFT
            | u64::from(source_port) << SOURCE_PORT_SHIFT
            | u64::from(destination_port)
    }

    /// The words of a flow whose addresses, the source's before the destination's, are `addresses` as a packet has them: 8 bytes
    /// of IPv4, 32 of IPv6. `None` of any other length.
    #[inline(always)]
    pub fn of_bytes(
        addresses: &[u8],
        protocol: Protocol,
        source_port: u16,
        destination_port: u16,
    ) -> Option<Self> {
        let addresses = match addresses.len() {
            8 => AddressWords::V4(u64::from_be_bytes(*addresses.first_chunk()?)),
            32 => {
                let (words, _) = addresses.as_chunks::<8>();
                AddressWords::V6(std::array::from_fn(|word| u64::from_be_bytes(words[word])))
            }
            _ => return None,
        };
        Some(FlowWords { addresses, rest: FlowWords::rest(protocol, source_port, destination_port) })
    }

    /// Whether they are those of an IPv4 flow, given as its ends; in one comparison of each word.
    #[inline(always)]
    pub fn are_of_ipv4(
        &self,
        protocol: Protocol,
        (source, source_port): (Ipv4Addr, u16),
        (destination, destination_port): (Ipv4Addr, u16),
    ) -> bool {
        let addresses = u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination));
        self.rest == FlowWords::rest(protocol, source_port, destination_port)
            && matches!(self.addresses, AddressWords::V4(words) if words == addresses)
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        (self.rest >> SOURCE_PORT_SHIFT) as u16
    }

    /// The same flow from another source port.
    pub fn with_source_port(self, port: u16) -> Self {
        let others = self.rest & !(0xffff << SOURCE_PORT_SHIFT);
        FlowWords { rest: others | u64::from(port) << SOURCE_PORT_SHIFT, ..self }
    }

    /// Feeds a hasher.
    #[inline(always)]
    pub fn hash_with(&self, mut hasher: impl Hasher) -> u64 {
        match self.addresses {
            AddressWords::V4(addresses) => hasher.write_u64(addresses),
            AddressWords::V6(words) => words.iter().for_each(|word| hasher.write_u64(*word)),
        }
        hasher.write_u64(self.rest);
        hasher.finish()
    }
}

impl From<&FlowKey> for FlowWords {
    fn from(key: &FlowKey) -> Self {
        FlowWords::new(key.protocol, key.source(), key.destination())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_bytes_are_those_of_the_key() {
        let ends = [("192.0.2.7:1000", "10.0.0.1:80"), ("[2001:db8::7]:65535", "[fd00::1]:1")];
        for (source, destination) in ends {
            let [source, destination]: [SocketAddr; 2] =
                [source, destination].map(|end| end.parse().unwrap());
            let bytes = match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    [source.octets(), destination.octets()].concat()
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    [source.octets(), destination.octets()].concat()
                }
                _ => unreachable!(),
            };
            let key = FlowWords::from(&FlowKey::new(Protocol::TCP, source, destination));
            let ports = (source.port(), destination.port());
            assert_eq!(FlowWords::of_bytes(&bytes, Protocol::TCP, ports.0, ports.1), Some(key));
            assert_eq!(key.source_port(), source.port());
            assert_ne!(FlowWords::of_bytes(&bytes, Protocol::UDP, ports.0, ports.1), Some(key));
            assert_eq!(key.with_source_port(0).with_source_port(source.port()), key);
        }
    }

    #[test]
    fn families_are_told_apart() {
        let words = |source: &str| {
            FlowWords::new(Protocol::TCP, source.parse().unwrap(), "[fd00::1]:80".parse().unwrap())
        };
        assert_ne!(words("1.2.3.4:5"), words("[::1.2.3.4]:5"));
    }
}
