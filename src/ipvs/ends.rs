//! Both ends of a connection and the virtual address between them, in as little memory as their family needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::flow::FlowKey;

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
    pub fn client(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.client.into(),
            Ends::V6(ends) => ends.near(ends.client),
        };
        SocketAddr::new(address, self.ports().client)
    }

    /// The virtual address.
    pub fn virtual_address(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.virtual_address.into(),
            Ends::V6(ends) => ends.near(ends.virtual_address),
        };
        SocketAddr::new(address, self.ports().virtual_address)
    }

    /// The server.
    pub fn server_address(&self) -> SocketAddr {
        let address = match self {
            Ends::V4(ends) => ends.server.into(),
            Ends::V6(ends) => ends.server,
        };
        SocketAddr::new(address, self.ports().server)
    }

    /// Whether a packet goes from the client to the virtual address.
    pub fn are_of_request(&self, key: &FlowKey) -> bool {
        let Ports { client, virtual_address, .. } = *self.ports();
        client == key.source_port
            && virtual_address == key.destination_port
            && match self {
                Ends::V4(ends) => ends.client == key.source && ends.virtual_address == key.destination,
                Ends::V6(ends) => {
                    ends.near(ends.client) == key.source && ends.near(ends.virtual_address) == key.destination
                }
            }
    }

    /// Whether a packet goes from the server (`from_server`) or else the virtual address to the client.
    pub fn are_of_reply(&self, key: &FlowKey, from_server: bool) -> bool {
        let Ports { client, virtual_address, server } = *self.ports();
        let source_port = if from_server { server } else { virtual_address };
        client == key.destination_port
            && source_port == key.source_port
            && match self {
                Ends::V4(ends) => {
                    let source = if from_server { ends.server } else { ends.virtual_address };
                    ends.client == key.destination && source == key.source
                }
                Ends::V6(ends) => {
                    let source = if from_server { ends.server } else { ends.near(ends.virtual_address) };
                    ends.near(ends.client) == key.destination && source == key.source
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::Protocol;

    #[test]
    fn ends_take_little_memory() {
        assert_eq!((size_of::<Ends>(), size_of::<Ipv6Ends>()), (24, 56));
    }

    #[test]
    fn ends_show_what_they_were_made_of_and_know_their_packets() {
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
            let translated = FlowKey::new(Protocol::TCP, server, client);
            let direct = request.reversed();
            for (key, expected) in [
                (request, [true, false, false]),
                (direct, [false, false, true]),
                (translated, [false, true, false]),
            ] {
                let known = [
                    ends.are_of_request(&key),
                    ends.are_of_reply(&key, true),
                    ends.are_of_reply(&key, false),
                ];
                assert_eq!(known, expected, "{key:?} of {ends:?}");
            }
        }
    }
}
