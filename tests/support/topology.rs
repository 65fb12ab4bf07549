//! The network around the router of the scenarios, as its kernel knows it.

use std::net::IpAddr;

use xlvs::net::addr::MacAddr;
use xlvs::net::route::{HostNetwork, InterfaceAddress, Link, Neighbour, Route, RouteKind};

use crate::support::device::Side;
use crate::support::ethernet::{self, Neighbours};

/// The topology of the scenarios: every server and the clients' gateway are resolved.
pub fn network(neighbours: Neighbours) -> HostNetwork {
    let link = |index, name: &str, side| Link {
        index,
        name: name.into(),
        mac: MacAddr(ethernet::router_mac(side)),
        mtu: 1500,
        up: true,
    };
    let own = |link, address: &str, prefix_len| InterfaceAddress { link, address: ip(address), prefix_len };
    let route = |prefix: &str, gateway: Option<&str>, link| Route {
        destination: prefix.parse().expect("a prefix"),
        gateway: gateway.map(ip),
        link,
        metric: 0,
        kind: RouteKind::Unicast,
    };
    let neighbour =
        |link, address, side| Neighbour { link, address, mac: MacAddr(neighbours.mac(side, address)) };
    let servers = ethernet::servers().map(|address| neighbour(2, address, Side::Server));
    HostNetwork {
        links: vec![link(1, "eth0", Side::Client), link(2, "eth1", Side::Server)],
        addresses: vec![
            own(1, "10.10.1.1", 24),
            own(1, "10.10.1.30", 32),
            own(2, "10.8.8.1", 24),
            own(1, "fd00:10::1", 64),
            own(1, "fd00:10::30", 128),
            own(2, "fd00:8::1", 64),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("10.10.1.254"), 1),
            route("10.10.1.0/24", None, 1),
            route("10.8.8.0/24", None, 2),
            route("::/0", Some("fd00:10::fe"), 1),
            route("fd00:10::/64", None, 1),
            route("fd00:8::/64", None, 2),
        ],
        neighbours: servers
            .chain(["10.10.1.254", "fd00:10::fe"].map(|gateway| neighbour(1, ip(gateway), Side::Client)))
            .collect(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
