//! Which packets have to come up from the NIC: plain values that the director hands to the XDP program.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ipvs::edit::{Forward, ServerId, ServiceId};
use crate::ipvs::helper::{FtpPorts, PASSIVE_PORTS};
use crate::ipvs::mark::MarkedDestination;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::VirtualService;
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::table::ConnectionTable;
use crate::net::addr::{Family, PortRange, Protocol};
use crate::net::tunnel::Encapsulation;

/// Everything that the XDP program redirects; the rest stays the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Packets to these addresses (one entry a prefix) and ports come up, as do ICMP errors and fragments to them, and
    /// AH and ESP where UDP port 500 does. So do IPv6 packets from there, answers of servers that have the address themselves.
    pub destinations: Vec<(IpNet, Vec<PortRange>)>,
    /// Packets from these real servers and source ports come up unless they are for one of `own` addresses, as do
    /// ICMP errors from anywhere that quote a packet to such a server, fragments from it, and its AH and ESP where UDP
    /// port 500 does.
    pub servers: Vec<(IpAddr, Vec<PortRange>)>,
    /// The machine's own addresses: what a real server sends there answers a health check, not a client.
    pub own: Vec<IpAddr>,
}

impl Steering {
    /// What a router takes that has left the work to its partner. Clients' packets are the kernel's to forward. What a server
    /// still sends by here is translated: with its own address it would reach a client that knows no such connection and resets
    /// it. A server that is this machine itself answers to the partner.
    pub fn of_inactive(mut self) -> Steering {
        self.destinations.clear();
        self.servers.retain(|(server, _)| !self.own.contains(server));
        self
    }
}

/// An address with ports of a protocol.
pub type Endpoint = (IpAddr, PortRange);

/// What a snapshot's services can be reached by, endpoint by endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Virtual addresses and ports.
    pub destinations: HashSet<Endpoint>,
    /// Real servers' addresses and ports.
    pub servers: HashSet<Endpoint>,
}

impl Reach {
    /// What the services of a snapshot need, on a machine with these `own` addresses, sorted: only packets to those are balanced.
    pub fn of(snapshot: &Snapshot, own: &[IpAddr]) -> Reach {
        let mut reach = Reach::default();
        let marked = snapshot.marks.destinations();
        for service in snapshot.services.iter() {
            reach.add_service(snapshot, service, &marked, own);
        }
        reach
    }

    /// What one of them needs.
    pub fn of_service(snapshot: &Snapshot, service: &VirtualService, own: &[IpAddr]) -> Reach {
        let mut reach = Reach::default();
        reach.add_service(snapshot, service, &snapshot.marks.destinations(), own);
        reach
    }

    fn add_service(
        &mut self,
        snapshot: &Snapshot,
        service: &VirtualService,
        marked: &[(Option<u32>, MarkedDestination)],
        own: &[IpAddr],
    ) {
        let destinations: Vec<Endpoint> = match service.spec.id {
            ServiceId::Address { protocol, address, port } => own
                .binary_search(&address)
                .map(|_| (address, PortRange::one(protocol, port)))
                .into_iter()
                .collect(),
            ServiceId::FwMark { mark, family } => marked
                .iter()
                .filter(|(given, _)| given.is_none_or(|given| given == mark))
                .flat_map(|(_, (prefix, range))| covered(own, family, prefix.as_ref(), range))
                .collect(),
        };
        for server in service.all_servers() {
            self.servers.extend(endpoints_of(server, &destinations, own));
        }
        self.add_ftp_data(&snapshot.ftp_ports, service, &destinations);
        self.destinations.extend(destinations);
    }

    /// Where data connections of an FTP service go and come from: any unprivileged port, and the port below the control port.
    fn add_ftp_data(&mut self, ftp: &FtpPorts, service: &VirtualService, destinations: &[Endpoint]) {
        let tcp = |ports| PortRange { protocol: Protocol::TCP, ports };
        let below = |port: u16| port.checked_sub(1).map(|port| tcp(port..=port));
        for (address, range) in destinations {
            let mut controls = ftp.0.iter().filter(|port| range.contains(Protocol::TCP, **port));
            let Some(control) = controls.next() else { continue };
            let data = std::iter::once(tcp(PASSIVE_PORTS)).chain(below(*control));
            self.destinations.extend(data.map(|range| (*address, range)));
            for server in service.all_servers() {
                let ServerId { address, port } = server.id();
                let own = if port == 0 { *control } else { port };
                let data = std::iter::once(tcp(PASSIVE_PORTS)).chain(below(own));
                self.servers.extend(data.map(|range| (address, range)));
            }
        }
    }

    /// What connections to servers of no service need: synchronisation has told of them.
    pub fn of_strangers(connections: &ConnectionTable) -> Reach {
        let mut reach = Reach::default();
        let one = |protocol, place: SocketAddr| (place.ip(), PortRange::one(protocol, place.port()));
        connections.for_each(|connection| {
            if connection.server.is_stranger() {
                let protocol = connection.protocol;
                reach.destinations.insert(one(protocol, connection.virtual_address()));
                let speaker = match connection.forward {
                    Forward::Masquerade => Some(connection.server_address()),
                    Forward::Local => Some(connection.virtual_address()),
                    Forward::Tunnel | Forward::Route => None,
                };
                reach.servers.extend(speaker.map(|speaker| one(protocol, speaker)));
            }
        });
        reach
    }

    /// The endpoints of `former` that are not in `self`.
    pub fn missing_from(&self, former: &Reach) -> Reach {
        Reach {
            destinations: former.destinations.difference(&self.destinations).cloned().collect(),
            servers: former.servers.difference(&self.servers).cloned().collect(),
        }
    }

    /// Adds another's endpoints.
    pub fn extend(&mut self, other: &Reach) {
        self.destinations.extend(other.destinations.iter().cloned());
        self.servers.extend(other.servers.iter().cloned());
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.servers.is_empty()
    }

    /// Keeps only the endpoints that some connection of the table still uses.
    pub fn retain_used(&mut self, connections: &ConnectionTable) {
        let destinations = group(&self.destinations);
        let servers = group(&self.servers);
        let mut used = Reach::default();
        connections.for_each(|connection| {
            let protocol = connection.protocol;
            used.destinations.extend(matching(&destinations, protocol, connection.virtual_address()));
            used.servers.extend(matching(&servers, protocol, connection.reply_key().source()));
            if connection.forward == Forward::Tunnel {
                let ends = tunnel_ends(connection.server_address().ip(), connection.server.tunnel());
                used.servers.extend(ends.filter(|end| self.servers.contains(end)));
            }
        });
        *self = used;
    }

    /// For the XDP program of a machine with these `own` addresses.
    pub fn steering(&self, own: &[IpAddr]) -> Steering {
        let destinations = group(&self.destinations).into_iter();
        Steering {
            destinations: destinations.map(|(address, ranges)| (IpNet::from(address), ranges)).collect(),
            servers: group(&self.servers).into_iter().collect(),
            own: own.to_vec(),
        }
    }
}

/// What a server's packets come from. Without NAT they do not come by here, unless the server is this machine; but there are
/// errors about what was sent to the end of a tunnel.
fn endpoints_of(server: &RealServer, destinations: &[Endpoint], own: &[IpAddr]) -> Vec<Endpoint> {
    let ServerId { address, port } = server.id();
    match server.forward() {
        Forward::Masquerade => {
            let ranges = destinations.iter().flat_map(|(_, range)| ports_at_server(range, port));
            ranges.map(|range| (address, range)).collect()
        }
        _ if address.is_loopback() || own.binary_search(&address).is_ok() => destinations.to_vec(),
        Forward::Local => destinations.to_vec(),
        Forward::Route => Vec::new(),
        Forward::Tunnel => tunnel_ends(address, server.tunnel()).collect(),
    }
}

/// What packets to the other end of a tunnel look like.
fn tunnel_ends(address: IpAddr, tunnel: Encapsulation) -> impl Iterator<Item = Endpoint> {
    let ranges = match tunnel {
        Encapsulation::Ipip => {
            vec![PortRange::one(Protocol::IPIP, 0), PortRange::one(Protocol::IPV6, 0)]
        }
        Encapsulation::Gre { .. } => vec![PortRange::one(Protocol::GRE, 0)],
        Encapsulation::Gue { port, .. } => vec![PortRange::one(Protocol::UDP, port)],
    };
    ranges.into_iter().map(move |range| (address, range))
}

/// The ports at a server that packets to a range go to: the server's own, and the packet's, which persistence keeps.
fn ports_at_server(range: &PortRange, port: u16) -> impl Iterator<Item = PortRange> {
    let own = (port != 0).then(|| PortRange::one(range.protocol, port));
    std::iter::once(range.clone()).chain(own)
}

fn covered<'a>(
    own: &'a [IpAddr],
    family: Family,
    prefix: Option<&'a IpNet>,
    range: &'a PortRange,
) -> impl Iterator<Item = Endpoint> + 'a {
    own.iter()
        .filter(move |address| Family::from(**address) == family)
        .filter(move |address| prefix.is_none_or(|prefix| prefix.contains(*address)))
        .map(move |address| (*address, range.clone()))
}

/// The endpoints that `place` is one of.
fn matching(
    grouped: &BTreeMap<IpAddr, Vec<PortRange>>,
    protocol: Protocol,
    place: SocketAddr,
) -> impl Iterator<Item = Endpoint> {
    let ranges = grouped.get(&place.ip()).into_iter().flatten();
    ranges
        .filter(move |range| range.contains(protocol, place.port()))
        .map(move |range| (place.ip(), range.clone()))
}

/// By address, in a stable order.
fn group(endpoints: &HashSet<Endpoint>) -> BTreeMap<IpAddr, Vec<PortRange>> {
    let mut grouped: BTreeMap<IpAddr, Vec<PortRange>> = BTreeMap::new();
    for (address, range) in endpoints {
        grouped.entry(*address).or_default().push(range.clone());
    }
    for ranges in grouped.values_mut() {
        ranges.sort_by_key(|range| (range.protocol, *range.ports.start(), *range.ports.end()));
    }
    grouped
}
