//! Both ends of a connection and the virtual address between them, in as little memory as they can be told by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::ipvs::edit::ServiceId;
use crate::ipvs::protocol::Direction;
use crate::ipvs::server::RealServer;
use crate::net::addr::Protocol;
use crate::net::flow::{FlowKey, FlowWords};

/// Client, virtual address and server. Client and virtual address are of one family; the server may be of the other.
#[derive(Debug)]
pub enum Ends {
    /// All of IPv4.
    V4(Ipv4Ends),
    /// Of IPv6 only the client is the connection's own: the virtual address is its service's, and the server's address its server's.
    V6 {
        /// The client.
        client: Box<Ipv6Addr>,
        /// The ports.
        ports: Ports,
    },
    /// Anything else, such as an IPv6 connection of a mark's.
    Other(Box<OtherEnds>),
}

/// Ends of IPv4.
#[derive(Debug)]
pub struct Ipv4Ends {
    client: Ipv4Addr,
    virtual_address: Ipv4Addr,
    server: Ipv4Addr,
    ports: Ports,
}

/// Ends that say all themselves.
#[derive(Debug)]
pub struct OtherEnds {
    client: IpAddr,
    virtual_address: IpAddr,
    server: IpAddr,
    ports: Ports,
}

/// The ports of the ends.
#[derive(Debug)]
pub struct Ports {
    client: u16,
    virtual_address: u16,
    server: u16,
}

/// The virtual address that a server's service has; a mark's has none.
fn service_address(server: &RealServer) -> Option<IpAddr> {
    match *server.service() {
        ServiceId::Address { address, .. } => Some(address),
        ServiceId::FwMark { .. } => None,
    }
}

impl Ends {
    /// Those of a client's flow, whose place at `server` is `place`.
    pub fn new(flow: &FlowKey, server: &RealServer, place: SocketAddr) -> Self {
        let ports =
            Ports { client: flow.source_port, virtual_address: flow.destination_port, server: place.port() };
        let told = service_address(server) == Some(flow.destination) && server.id().address == place.ip();
        match (flow.source, flow.destination, place.ip()) {
            (IpAddr::V4(client), IpAddr::V4(virtual_address), IpAddr::V4(server)) => {
                Ends::V4(Ipv4Ends { client, virtual_address, server, ports })
            }
            (IpAddr::V6(client), ..) if told => Ends::V6 { client: Box::new(client), ports },
            (client, virtual_address, server) => {
                Ends::Other(Box::new(OtherEnds { client, virtual_address, server, ports }))
            }
        }
    }

    #[inline(always)]
    fn ports(&self) -> &Ports {
        match self {
            Ends::V4(ends) => &ends.ports,
            Ends::V6 { ports, .. } => ports,
            Ends::Other(ends) => &ends.ports,
        }
    }

    /// Reads a word of them.
    #[inline(always)]
    pub fn glance(&self) -> u16 {
        self.ports().client
    }

    /// The client.
    #[inline]
    pub fn client(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.client.into(),
            Ends::V6 { client, .. } => IpAddr::V6(**client),
            Ends::Other(ends) => ends.client,
        };
        SocketAddr::new(address, self.ports().client)
    }

    /// The virtual address, of a connection to `server`.
    #[inline]
    pub fn virtual_address(&self, server: &RealServer) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.virtual_address.into(),
            // The second cannot be: that is what makes it a V6.
            Ends::V6 { .. } => service_address(server).unwrap_or(Ipv6Addr::UNSPECIFIED.into()),
            Ends::Other(ends) => ends.virtual_address,
        };
        SocketAddr::new(address, self.ports().virtual_address)
    }

    /// The place at `server`.
    #[inline]
    pub fn server_address(&self, server: &RealServer) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.server.into(),
            Ends::V6 { .. } => server.id().address,
            Ends::Other(ends) => ends.server,
        };
        SocketAddr::new(address, self.ports().server)
    }

    /// What takes the place of an end in packets of this direction, the server or the virtual address, if all is IPv4.
    #[inline(always)]
    pub fn replacement_v4(&self, direction: Direction) -> Option<SocketAddrV4> {
        let Ends::V4(ends) = self else { return None };
        Some(match direction {
            Direction::In => SocketAddrV4::new(ends.server, ends.ports.server),
            Direction::Out => SocketAddrV4::new(ends.virtual_address, ends.ports.virtual_address),
        })
    }

    /// What the client's packets look like.
    #[inline]
    pub fn request(&self, protocol: Protocol, server: &RealServer) -> FlowWords {
        FlowWords::new(protocol, self.client(), self.virtual_address(server))
    }

    /// Whether that is what a packet looks like.
    #[inline(always)]
    pub fn are_of_request(&self, protocol: Protocol, server: &RealServer, words: &FlowWords) -> bool {
        match self {
            Ends::V4(ends) => {
                let (client, virtual_address) = (ends.client, ends.virtual_address);
                let Ports { client: from, virtual_address: to, .. } = ends.ports;
                words.are_of_ipv4(protocol, (client, from), (virtual_address, to))
            }
            _ => self.request(protocol, server) == *words,
        }
    }

    /// What packets to the client look like, from the server (`translated`) or else the virtual address.
    #[inline]
    pub fn reply(&self, protocol: Protocol, server: &RealServer, translated: bool) -> FlowWords {
        let source = if translated { self.server_address(server) } else { self.virtual_address(server) };
        FlowWords::new(protocol, source, self.client())
    }

    /// Whether that is what a packet looks like.
    #[inline(always)]
    pub fn are_of_reply(
        &self,
        protocol: Protocol,
        server: &RealServer,
        translated: bool,
        words: &FlowWords,
    ) -> bool {
        match self {
            Ends::V4(ends) if translated => {
                let Ports { client: to, server: from, .. } = ends.ports;
                words.are_of_ipv4(protocol, (ends.server, from), (ends.client, to))
            }
            _ => self.reply(protocol, server, translated) == *words,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ipvs::edit::{Forward, ServerId, ServerSpec};
    use crate::ipvs::stats::Stats;
    use crate::net::tunnel::Encapsulation;

    fn server(service: &str, id: &str) -> RealServer {
        let [service, id]: [SocketAddr; 2] = [service, id].map(|end| end.parse().unwrap());
        let (address, port) = (service.ip(), service.port());
        let spec = ServerSpec {
            id: ServerId { address: id.ip(), port: id.port() },
            forward: Forward::Masquerade,
            tunnel: Encapsulation::Ipip,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let service = ServiceId::Address { protocol: Protocol::TCP, address, port };
        RealServer::new(&spec, service, 1, Arc::new(Stats::new(1)))
    }

    #[test]
    fn ends_take_little_memory() {
        assert_eq!(size_of::<Ends>(), 24);
    }

    #[test]
    fn ends_show_what_they_were_made_of_and_what_their_packets_look_like() {
        let ends = [
            ("192.0.2.7:1000", "10.0.0.1:80", "10.8.8.33:8080"),
            ("192.0.2.7:1000", "10.0.0.1:80", "[fd00::33]:8080"),
            ("[2001:db8::7]:1000", "[fd00::1]:80", "[fd00::33]:8080"),
            ("[2001:db8::7]:1000", "[fd00::1]:80", "10.8.8.33:8080"),
            ("[::ffff:192.0.2.7]:1000", "[fd00::1]:80", "[fd00::33]:80"),
            ("[2001:db8::7]:1000", "[fd00::2]:80", "[fd00::33]:8080"),
            ("[2001:db8::7]:1000", "[fd00::1]:80", "[fd00::34]:8080"),
        ];
        for (client, virtual_address, place) in ends {
            let real = server("[fd00::1]:80", "[fd00::33]:8080");
            let [client, virtual_address, place]: [SocketAddr; 3] =
                [client, virtual_address, place].map(|end| end.parse().unwrap());
            let request = FlowKey::new(Protocol::TCP, client, virtual_address);
            let ends = Ends::new(&request, &real, place);
            let shown = (ends.client(), ends.virtual_address(&real), ends.server_address(&real));
            assert_eq!(shown, (client, virtual_address, place));
            for (direction, new) in [(Direction::In, place), (Direction::Out, virtual_address)] {
                let replacement = ends.replacement_v4(direction).map(SocketAddr::V4);
                assert_eq!(replacement, (client.is_ipv4() && place.is_ipv4()).then_some(new));
            }
            let answers = [(request.reversed(), false), (FlowKey::new(Protocol::TCP, place, client), true)];
            let words = FlowWords::from(&request);
            assert_eq!(ends.request(Protocol::TCP, &real), words);
            assert!(ends.are_of_request(Protocol::TCP, &real, &words));
            assert!(!ends.are_of_request(Protocol::UDP, &real, &words));
            for (answer, translated) in answers {
                let words = FlowWords::from(&answer);
                assert_eq!(ends.reply(Protocol::TCP, &real, translated), words);
                assert!(ends.are_of_reply(Protocol::TCP, &real, translated, &words));
                assert!(!ends.are_of_reply(Protocol::TCP, &real, !translated, &words));
                assert!(!ends.are_of_request(Protocol::TCP, &real, &words));
            }
        }
    }
}
