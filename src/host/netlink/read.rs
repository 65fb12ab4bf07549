//! From rtnetlink messages to [`HostNetwork`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::{Stream, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia,
};

use super::{Netlink, NetlinkError};
use crate::net::addr::MacAddr;
use crate::net::route::{HostNetwork, InterfaceAddress, Link, Neighbour, Route, RouteKind};

const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = 254;

impl Netlink {
    /// Reads links, addresses, the routes of the local and main tables, and the neighbours that the kernel would use
    /// without asking first. Everything is in a fixed order, so that two readings of the same state are equal.
    pub async fn read(&self) -> Result<HostNetwork, NetlinkError> {
        let links = dump("read links", self.handle.link().get().execute(), link).await?;
        let addresses =
            dump("read addresses", self.handle.address().get().execute(), interface_address).await?;
        let mut routes = self.routes(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
        routes.extend(self.routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
        let neighbours = dump("read neighbours", self.handle.neighbours().get().execute(), neighbour).await?;
        Ok(ordered(links, addresses, routes, neighbours))
    }

    async fn routes(&self, family: RouteMessage) -> Result<Vec<(u32, Route)>, NetlinkError> {
        dump("read routes", self.handle.route().get(family).execute(), route).await
    }
}

async fn dump<M, T>(
    what: &str,
    messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
    convert: fn(&M) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let converted = messages.try_filter_map(async |message| Ok(convert(&message)));
    converted.try_collect().await.map_err(|error| NetlinkError::request(what, error))
}

fn ordered(
    mut links: Vec<Link>,
    mut addresses: Vec<InterfaceAddress>,
    mut routes: Vec<(u32, Route)>,
    mut neighbours: Vec<Neighbour>,
) -> HostNetwork {
    links.sort_by_key(|link| link.index);
    addresses.sort_by_key(|address| (address.link, address.address, address.prefix_len));
    // The kernel asks the local table first; the stable sort keeps its order among routes that tie.
    routes.sort_by_key(|(table, route)| (route.destination, *table != TABLE_LOCAL, route.metric));
    neighbours.sort_by_key(|neighbour| (neighbour.link, neighbour.address));
    let routes = routes.into_iter().map(|(_, route)| route).collect();
    HostNetwork { links, addresses, routes, neighbours }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: MacAddr::default(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            _ => {}
        }
    }
    Some(link)
}

fn interface_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // On a point-to-point link IFA_ADDRESS is the peer; IPv6 without a peer has no IFA_LOCAL.
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let header = &message.header;
    Some(InterfaceAddress { link: header.index, address, prefix_len: header.prefix_len })
}

/// The route and its table. Routes for one type of service only, cached clones and those through a dead link are left
/// out: the kernel would not use them for an ordinary packet either.
fn route(message: &RouteMessage) -> Option<(u32, Route)> {
    let header = &message.header;
    if header.tos != 0 || header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead) {
        return None;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut gateway, mut link, mut metric) = (u32::from(header.table), None, None, 0);
    let mut destination = any;
    let mut plain = header.source_prefix_length == 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(via) => gateway = via_ip(via),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(_) | RouteAttribute::Encap(_) => plain = false,
            _ => {}
        }
    }
    let kind = match header.kind {
        RouteType::Unicast if plain && link.is_some() => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        _ => RouteKind::Other,
    };
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let route = Route { destination, gateway, link: link.unwrap_or(0), metric, kind };
    [TABLE_LOCAL, TABLE_MAIN].contains(&table).then_some((table, route))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The neighbour, if the kernel would send to it without asking first. Multicast groups map to their hardware address
/// by rule and are nobody's next hop.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let usable = matches!(message.header.state, Reachable | Stale | Delay | Probe | Permanent | Noarp);
    let address = neighbour_address(message)?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    })?;
    let unicast = !address.is_multicast();
    (usable && unicast).then_some(Neighbour { link: message.header.ifindex, address, mac })
}

/// The network address that a neighbour message is about.
pub(super) fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}
