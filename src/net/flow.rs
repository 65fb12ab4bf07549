//! What identifies a flow: protocol, and both ends as the packet shows them.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::net::addr::Protocol;

/// Protocol, source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Hash for FlowKey {
    /// Two 64-bit words for IPv4: the derived form would feed the hasher field by field.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                state.write_u64(u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination)));
            }
            (source, destination) => {
                source.hash(state);
                destination.hash(state);
            }
        }
        let ports = u64::from(self.source_port) << 16 | u64::from(self.destination_port);
        state.write_u64(u64::from(self.protocol.0) << 32 | ports);
    }
}
