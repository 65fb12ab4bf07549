//! Next hops: the kernel's links, addresses, routes and neighbours as one immutable table.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use serde::{Deserialize, Serialize};

use crate::net::addr::{MacAddr, PortIndex};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The kernel's interface index.
    pub index: u32,
    /// Interface name, such as `eth0`.
    pub name: String,
    /// Hardware address; zero for interfaces that have none.
    pub mac: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// An address of the machine itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Interface index.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length of its subnet.
    pub prefix_len: u8,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteKind {
    /// Forward through `link`, to `gateway` or directly.
    Unicast,
    /// Deliver to this machine.
    Local,
    /// Anything that the datapath does not do itself: blackhole, prohibit, broadcast, multipath, …
    Other,
}

/// One route of the kernel's local and main tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination prefix; 0.0.0.0/0 for the default route.
    pub destination: IpNet,
    /// Next router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface index.
    pub link: u32,
    /// Lower wins among routes of the same prefix.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
}

/// A resolved neighbour (any state in which the kernel would use the address without asking first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Interface index.
    pub link: u32,
    /// Network address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// What the kernel knows about the network, as read over netlink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses of the machine.
    pub addresses: Vec<InterfaceAddress>,
    /// All routes.
    pub routes: Vec<Route>,
    /// All resolved neighbours.
    pub neighbours: Vec<Neighbour>,
}

impl HostNetwork {
    /// The interface of this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Out of a port of ours.
    Port(Egress),
    /// This machine itself is the destination.
    Local,
    /// There is a route, but only the kernel can take it now: the neighbour is not resolved yet, or the
    /// interface is not one of our ports.
    Kernel,
    /// No route.
    Unreachable,
}

/// The way out of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port.
    pub port: PortIndex,
    /// Our hardware address on it.
    pub source: MacAddr,
    /// The neighbour's hardware address.
    pub destination: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u32,
}

impl Egress {
    /// Stands in for a port when the kernel sends the packet: only the IP packet counts then.
    pub const NONE: Egress =
        Egress { port: PortIndex(0), source: MacAddr([0; 6]), destination: MacAddr([0; 6]), mtu: u32::MAX };
}

#[derive(Clone, Copy, Debug)]
struct Hop {
    gateway: Option<IpAddr>,
    link: u32,
    metric: u32,
    kind: RouteKind,
    /// Where the gateway is, if there is one.
    next: Option<NextHop>,
}

#[derive(Clone, Copy, Debug)]
struct PortLink {
    port: PortIndex,
    mac: MacAddr,
    mtu: u32,
}

/// What the kernel calls itself on a port.
#[derive(Clone, Copy, Debug, Default)]
struct PortAddresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl PortAddresses {
    fn of(network: &HostNetwork, link: u32) -> Self {
        let own = || network.addresses.iter().filter(move |own| own.link == link).map(|own| own.address);
        PortAddresses {
            v4: own().find(IpAddr::is_ipv4),
            v6: own().find(|address| address.is_ipv6() && !is_link_local(*address)),
        }
    }
}

/// Whether an address is an IPv6 link-local one, which means nothing off its link.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Next hops by address, by what costs least to hash.
#[derive(Debug, Default)]
struct Known {
    v4: HashMap<u32, NextHop, RandomState>,
    v6: HashMap<u128, NextHop, RandomState>,
}

impl Known {
    fn insert(&mut self, address: IpAddr, next: NextHop) {
        match address {
            IpAddr::V4(address) => self.v4.insert(address.into(), next),
            IpAddr::V6(address) => self.v6.insert(address.into(), next),
        };
    }

    #[inline(always)]
    fn get(&self, address: IpAddr) -> Option<&NextHop> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address.into()),
            IpAddr::V6(address) => self.v6.get(&address.into()),
        }
    }
}

/// Longest-prefix routes, resolved neighbours and the machine's own addresses, ready for per-packet lookups.
#[derive(Debug, Default)]
pub struct RouteTable {
    v4: PrefixMap<Ipv4Net, Hop>,
    v6: PrefixMap<Ipv6Net, Hop>,
    /// The next hops of all neighbours and of the machine itself, so that most packets need one lookup.
    known: Known,
    neighbours: HashMap<(u32, IpAddr), MacAddr, RandomState>,
    local: HashSet<IpAddr, RandomState>,
    ports: HashMap<u32, PortLink, RandomState>,
    port_macs: Vec<Option<MacAddr>>,
    port_addresses: Vec<PortAddresses>,
    link_addresses: HashMap<u32, Vec<IpNet>, RandomState>,
    broadcasts: HashSet<IpAddr, RandomState>,
}

impl RouteTable {
    /// Builds the table. `ports[i]` is the interface index that [`PortIndex`] `i` is attached to.
    pub fn new(network: &HostNetwork, ports: &[u32]) -> Self {
        let mut table = RouteTable::default();
        for route in &network.routes {
            table.add_route(route);
        }
        for neighbour in &network.neighbours {
            table.neighbours.insert((neighbour.link, neighbour.address), neighbour.mac);
        }
        for own in &network.addresses {
            if let Ok(subnet) = IpNet::new(own.address, own.prefix_len) {
                table.link_addresses.entry(own.link).or_default().push(subnet);
                table.broadcasts.extend(broadcast(subnet));
            }
        }
        table.local.extend(network.addresses.iter().map(|address| address.address));
        for (port, index) in (0..).map(PortIndex).zip(ports) {
            let link = network.links.iter().find(|link| link.index == *index);
            table.port_macs.push(link.map(|link| link.mac));
            table.port_addresses.push(PortAddresses::of(network, *index));
            if let Some(link) = link {
                table.ports.insert(*index, PortLink { port, mac: link.mac, mtu: link.mtu });
            }
        }
        table.find_gateways();
        let neighbours = network.neighbours.iter().map(|neighbour| neighbour.address);
        let ends = neighbours.chain(network.addresses.iter().map(|own| own.address));
        let mut known = Known::default();
        ends.for_each(|address| known.insert(address, table.look_up(address)));
        table.known = known;
        table
    }

    fn find_gateways(&mut self) {
        let RouteTable { v4, v6, ports, neighbours, .. } = self;
        for hop in v4.values_mut().chain(v6.values_mut()) {
            hop.next = hop.gateway.map(|gateway| way(ports, neighbours, hop.link, gateway));
        }
    }

    fn add_route(&mut self, route: &Route) {
        let Route { gateway, link, metric, kind, .. } = *route;
        let hop = Hop { gateway, link, metric, kind, next: None };
        match route.destination {
            IpNet::V4(prefix) => insert_better(&mut self.v4, prefix, hop),
            IpNet::V6(prefix) => insert_better(&mut self.v6, prefix, hop),
        }
    }

    /// Our hardware address on a port; `None` if its interface has gone.
    pub fn port_mac(&self, port: PortIndex) -> Option<MacAddr> {
        self.port_macs.get(usize::from(port.0)).copied().flatten()
    }

    /// Our first address of the family of `like` on a port, which the kernel speaks from there.
    pub fn port_address(&self, port: PortIndex, like: IpAddr) -> Option<IpAddr> {
        let addresses = self.port_addresses.get(usize::from(port.0))?;
        if like.is_ipv4() { addresses.v4 } else { addresses.v6 }
    }

    /// Whether `address` is this machine's own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&address) || self.longest(address).is_some_and(|hop| hop.kind == RouteKind::Local)
    }

    /// Whether `address` is that of all machines of a subnet of ours.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.broadcasts.contains(&address)
    }

    /// The next hop towards `destination`.
    pub fn next_hop(&self, destination: IpAddr) -> NextHop {
        self.known.get(destination).copied().unwrap_or_else(|| self.look_up(destination))
    }

    /// The way out towards `destination`, where it is kept ready: to a neighbour or by a gateway. Elsewhere ask for the next hop.
    #[inline]
    pub fn ready_way(&self, destination: IpAddr) -> Option<&Egress> {
        let next = match self.known.get(destination) {
            Some(next) => next,
            None => self.longest(destination).filter(|hop| hop.kind == RouteKind::Unicast)?.next.as_ref()?,
        };
        match next {
            NextHop::Port(egress) => Some(egress),
            NextHop::Local | NextHop::Kernel | NextHop::Unreachable => None,
        }
    }

    fn look_up(&self, destination: IpAddr) -> NextHop {
        if self.local.contains(&destination) {
            return NextHop::Local;
        }
        let Some(hop) = self.longest(destination) else { return NextHop::Unreachable };
        match hop.kind {
            RouteKind::Local => NextHop::Local,
            RouteKind::Other => NextHop::Kernel,
            RouteKind::Unicast => {
                hop.next.unwrap_or_else(|| way(&self.ports, &self.neighbours, hop.link, destination))
            }
        }
    }

    /// The link and the neighbour that packets to `destination` leave by, resolved or not; `None` if it is this machine or
    /// unreachable.
    pub fn neighbour(&self, destination: IpAddr) -> Option<(u32, IpAddr)> {
        if self.local.contains(&destination) {
            return None;
        }
        let hop = self.longest(destination).filter(|hop| hop.kind == RouteKind::Unicast)?;
        Some((hop.link, hop.gateway.unwrap_or(destination)))
    }

    /// Whether the hardware address of what [`RouteTable::neighbour`] gave is known.
    pub fn is_resolved(&self, neighbour: &(u32, IpAddr)) -> bool {
        self.neighbours.contains_key(neighbour)
    }

    /// Our address that packets to `destination` come from: the one in the next hop's subnet, or else the first on the way out.
    pub fn source_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        let (link, neighbour) = self.neighbour(destination)?;
        let own = || {
            let on_link = self.link_addresses.get(&link).into_iter().flatten();
            on_link.filter(|own| own.addr().is_ipv4() == destination.is_ipv4())
        };
        let near = own().find(|own| own.contains(&neighbour) && !is_link_local(own.addr()));
        let chosen = near.or_else(|| own().find(|own| !is_link_local(own.addr())))?;
        Some(chosen.addr())
    }

    fn longest(&self, address: IpAddr) -> Option<&Hop> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, hop)| hop),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, hop)| hop),
        }
    }
}

/// The way to a neighbour on a link.
fn way(
    ports: &HashMap<u32, PortLink, RandomState>,
    neighbours: &HashMap<(u32, IpAddr), MacAddr, RandomState>,
    link: u32,
    neighbour: IpAddr,
) -> NextHop {
    match (ports.get(&link), neighbours.get(&(link, neighbour))) {
        (Some(port), Some(&destination)) => {
            NextHop::Port(Egress { port: port.port, source: port.mac, destination, mtu: port.mtu })
        }
        _ => NextHop::Kernel,
    }
}

/// The last address of an IPv4 subnet, unless it is too small to have one for all.
fn broadcast(subnet: IpNet) -> Option<IpAddr> {
    (subnet.addr().is_ipv4() && subnet.prefix_len() < 31).then(|| subnet.broadcast())
}

fn insert_better<P: prefix_trie::Prefix>(map: &mut PrefixMap<P, Hop>, prefix: P, hop: Hop) {
    if map.get(&prefix).is_none_or(|present| hop.metric < present.metric) {
        map.insert(prefix, hop);
    }
}
