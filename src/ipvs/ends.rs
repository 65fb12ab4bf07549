//! Both ends of a connection and the virtual address between them, in as little memory as their family needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::addr::Protocol;
use crate::net::flow::{FlowKey, FlowWords};

/// Client, virtual address and server. Client and virtual address are of one family; the server may be of the other.
#[derive(Debug)]
pub enum Ends {
    /// All of IPv4.
    V4(Ipv4Ends),
    /// Anything else.
    V6(Box<Ipv6Ends>),
}

/// Ends of IPv4.
#[derive(Debug)]
pub struct Ipv4Ends {
    client: Ipv4Addr,
    virtual_address: Ipv4Addr,
    server: Ipv4Addr,
    ports: Ports,
}

/// Ends of which one is not of IPv4.
#[derive(Debug)]
pub struct Ipv6Ends {
    client: Ipv6Addr,
    virtual_address: Ipv6Addr,
    server: IpAddr,
    ports: Ports,
    ipv4_client: bool,
}

impl Ipv6Ends {
    /// Client or virtual address as it came.
    fn near(&self, address: Ipv6Addr) -> IpAddr {
        match address.to_ipv4_mapped() {
            Some(address) if self.ipv4_client => address.into(),
            _ => address.into(),
        }
    }
}

#[derive(Debug)]
struct Ports {
    client: u16,
    virtual_address: u16,
    server: u16,
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

impl Ends {
    /// Those of a client's flow whose server is at `server`.
    pub fn new(flow: &FlowKey, server: SocketAddr) -> Self {
        let ports =
            Ports { client: flow.source_port, virtual_address: flow.destination_port, server: server.port() };
        match (flow.source, flow.destination, server.ip()) {
            (IpAddr::V4(client), IpAddr::V4(virtual_address), IpAddr::V4(server)) => {
                Ends::V4(Ipv4Ends { client, virtual_address, server, ports })
            }
            (client, virtual_address, server) => Ends::V6(Box::new(Ipv6Ends {
                client: v6(client),
                virtual_address: v6(virtual_address),
                server,
                ports,
                ipv4_client: client.is_ipv4(),
            })),
        }
    }

    fn ports(&self) -> &Ports {
        match self {
            Ends::V4(ends) => &ends.ports,
            Ends::V6(ends) => &ends.ports,
        }
    }

    /// The client.
    #[inline]
    pub fn client(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.client.into(),
            Ends::V6(ends) => ends.near(ends.client),
        };
        SocketAddr::new(address, self.ports().client)
    }

    /// The virtual address.
    #[inline]
    pub fn virtual_address(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.virtual_address.into(),
            Ends::V6(ends) => ends.near(ends.virtual_address),
        };
        SocketAddr::new(address, self.ports().virtual_address)
    }

    /// The server.
    #[inline]
    pub fn server_address(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.server.into(),
            Ends::V6(ends) => ends.server,
        };
        SocketAddr::new(address, self.ports().server)
    }

    /// What the client's packets look like.
    #[inline]
    pub fn request(&self, protocol: Protocol) -> FlowWords {
        FlowWords::new(protocol, self.client(), self.virtual_address())
    }

    /// Whether that is what a packet looks like.
    #[inline]
    pub fn are_of_request(&self, protocol: Protocol, words: &FlowWords) -> bool {
        match self {
            Ends::V4(ends) => {
                let (client, virtual_address) = (ends.client, ends.virtual_address);
                let Ports { client: from, virtual_address: to, .. } = ends.ports;
                words.are_of_ipv4(protocol, (client, from), (virtual_address, to))
            }
            Ends::V6(_) => self.request(protocol) == *words,
        }
    }

    /// What packets to the client look like, from the server (`from_server`) or else the virtual address.
    #[inline]
    pub fn reply(&self, protocol: Protocol, from_server: bool) -> FlowWords {
        let source = if from_server { self.server_address() } else { self.virtual_address() };
        FlowWords::new(protocol, source, self.client())
    }

    /// Whether that is what a packet looks like.
    #[inline]
    pub fn are_of_reply(&self, protocol: Protocol, from_server: bool, words: &FlowWords) -> bool {
        match self {
            Ends::V4(ends) if from_server => {
                let Ports { client: to, server: from, .. } = ends.ports;
                words.are_of_ipv4(protocol, (ends.server, from), (ends.client, to))
            }
            _ => self.reply(protocol, from_server) == *words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_take_little_memory() {
        assert_eq!((size_of::<Ends>(), size_of::<Ipv6Ends>()), (24, 56));
    }

    #[test]
    fn ends_show_what_they_were_made_of_and_what_their_packets_look_like() {
        let ends = [
            ("192.0.2.7:1000", "10.0.0.1:80", "10.8.8.33:8080"),
            ("192.0.2.7:1000", "10.0.0.1:80", "[fd00::33]:8080"),
            ("[2001:db8::7]:1000", "[fd00::1]:80", "[fd00::33]:8080"),
            ("[2001:db8::7]:1000", "[fd00::1]:80", "10.8.8.33:8080"),
            ("[::ffff:192.0.2.7]:1000", "[fd00::1]:80", "[fd00::33]:80"),
        ];
        for (client, virtual_address, server) in ends {
            let [client, virtual_address, server]: [SocketAddr; 3] =
                [client, virtual_address, server].map(|end| end.parse().unwrap());
            let request = FlowKey::new(Protocol::TCP, client, virtual_address);
            let ends = Ends::new(&request, server);
            let shown = (ends.client(), ends.virtual_address(), ends.server_address());
            assert_eq!(shown, (client, virtual_address, server));
            let answers = [(request.reversed(), false), (FlowKey::new(Protocol::TCP, server, client), true)];
            assert_eq!(ends.request(Protocol::TCP), FlowWords::from(&request));
            assert!(ends.are_of_request(Protocol::TCP, &FlowWords::from(&request)));
            assert!(!ends.are_of_request(Protocol::UDP, &FlowWords::from(&request)));
            for (answer, from_server) in answers {
                assert!(ends.are_of_reply(Protocol::TCP, from_server, &FlowWords::from(&answer)));
                assert!(!ends.are_of_reply(Protocol::TCP, !from_server, &FlowWords::from(&answer)));
                assert!(!ends.are_of_request(Protocol::TCP, &FlowWords::from(&answer)));
            }
            assert_eq!(ends.reply(Protocol::TCP, false), FlowWords::from(&request.reversed()));
            assert_eq!(ends.reply(Protocol::TCP, true), FlowWords::new(Protocol::TCP, server, client));
        }
    }
}
