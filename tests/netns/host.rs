//! The kernel's network as the host layer reads, watches and changes it.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use xlvs::host::netlink::{Added, Netlink, watch};
use xlvs::net::route::{HostNetwork, NextHop, RouteKind, RouteTable};

use super::namespace::{Namespace, Pair, ROUTER_MAC, SERVER_MAC};

const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than a burst of notifications is gathered.
const SETTLED: Duration = Duration::from_millis(300);

fn json(namespace: &Namespace, arguments: &str) -> Vec<Value> {
    serde_json::from_str(&namespace.ip(&format!("-j {arguments}"))).expect("ip prints JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn link_index(network: &HostNetwork, name: &str) -> u32 {
    network.links.iter().find(|link| link.name == name).expect("the link").index
}

fn link_name(network: &HostNetwork, index: u32) -> &str {
    network.links.iter().find(|link| link.index == index).map_or("", |link| &link.name)
}

async fn eth0(netlink: &Netlink) -> u32 {
    link_index(&netlink.read().await.expect("a reading"), "eth0")
}

/// Waits for a published network that satisfies `wanted`, and tells the last one if none comes.
async fn until(networks: &mut Receiver<Arc<HostNetwork>>, what: &str, wanted: impl Fn(&HostNetwork) -> bool) {
    let found = timeout(PATIENCE, networks.wait_for(|network| wanted(network))).await;
    let found = found.map(|found| found.is_ok());
    assert_eq!(found, Ok(true), "{what} was not published: {:#?}", networks.borrow());
}

fn knows(network: &HostNetwork, address: &str, mac: &str) -> bool {
    let mut neighbours = network.neighbours.iter();
    neighbours.any(|it| it.address.to_string() == address && it.mac.to_string() == mac)
}

#[test]
fn links_and_addresses_are_those_that_ip_shows() {
    let pair = Pair::new();
    pair.router.ip("address add 10.9.0.1 peer 10.9.0.2/32 dev eth0");
    pair.router.ip("link set eth0 mtu 1400");
    let network = pair.router.block_on(async || Netlink::open().expect("rtnetlink").read().await);
    let network = network.expect("a reading");

    let shown = json(&pair.router, "address show");
    let links = network.links.iter().map(|it| {
        format!("{} {} {} {} {}", it.index, it.name, it.mac, it.mtu, if it.up { "up" } else { "down" })
    });
    let expected = shown.iter().map(|it| {
        let up = it["flags"].as_array().is_some_and(|flags| flags.contains(&"UP".into()));
        let up = if up { "up" } else { "down" };
        let [name, mac] = ["ifname", "address"].map(|key| text(it, key));
        format!("{} {name} {mac} {} {up}", it["ifindex"], it["mtu"])
    });
    assert_eq!(sorted(links.collect()), sorted(expected.collect()));

    let addresses = network.addresses.iter();
    let addresses = addresses.map(|it| format!("{} {}/{}", it.link, it.address, it.prefix_len));
    let expected = shown.iter().flat_map(|it| {
        let addresses = it["addr_info"].as_array().expect("addresses").iter();
        addresses
            .map(|address| format!("{} {}/{}", it["ifindex"], text(address, "local"), address["prefixlen"]))
    });
    assert_eq!(sorted(addresses.collect()), sorted(expected.collect()));
}

#[test]
fn routes_are_those_that_ip_shows() {
    let pair = Pair::new();
    for route in [
        "10.1.0.0/16 via 10.0.0.2",
        "10.1.0.0/16 via 10.0.0.3 metric 5",
        "default via 10.0.0.2 metric 7",
        "blackhole 10.2.0.0/16",
        "10.3.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.0.3",
        "10.4.0.0/16 via inet6 fd00::2 dev eth0",
        "10.5.0.0/16 via 10.0.0.2 table 100",
    ] {
        pair.router.ip(&format!("route add {route}"));
    }
    pair.router.ip("-6 route add fd01::/64 via fd00::2");
    let network = pair.router.block_on(async || Netlink::open().expect("rtnetlink").read().await);
    let network = network.expect("a reading");

    let read = network.routes.iter().map(|it| {
        let kind = format!("{:?}", it.kind);
        let gateway = it.gateway.map_or("-".to_owned(), |gateway| gateway.to_string());
        let destination = it.destination;
        format!("{destination} {gateway} {} {} {kind}", link_name(&network, it.link), it.metric)
    });
    let tables = [
        "-4 -d route show",
        "-4 -d route show table local",
        "-6 -d route show",
        "-6 -d route show table local",
    ];
    let shown = tables.iter().flat_map(|table| {
        let v4 = table.starts_with("-4");
        json(&pair.router, table).into_iter().map(move |route| shown_route(&route, v4))
    });
    assert_eq!(sorted(read.collect()), sorted(shown.collect()));
}

/// A route of `ip -j -d route` in the words of the test above.
fn shown_route(route: &Value, v4: bool) -> String {
    let (any, len) = if v4 { ("0.0.0.0/0", "/32") } else { ("::/0", "/128") };
    let destination = match text(route, "dst") {
        "default" => any.to_owned(),
        prefix if prefix.contains('/') => prefix.to_owned(),
        address => format!("{address}{len}"),
    };
    let kind = match text(route, "type") {
        "unicast" if route["nexthops"].is_null() => RouteKind::Unicast,
        "local" => RouteKind::Local,
        _ => RouteKind::Other,
    };
    let via = route["via"]["host"].as_str().or(route["gateway"].as_str()).unwrap_or("-");
    let metric = route["metric"].as_u64().unwrap_or(0);
    format!("{destination} {via} {} {metric} {kind:?}", text(route, "dev"))
}

#[test]
fn neighbours_are_those_that_can_be_used_at_once() {
    let pair = Pair::new();
    for (address, state) in [
        ("10.0.0.11", "reachable"),
        ("10.0.0.12", "stale"),
        ("10.0.0.13", "delay"),
        ("10.0.0.14", "permanent"),
        ("10.0.0.15", "noarp"),
        ("fd00::11", "stale"),
    ] {
        pair.router.ip(&format!("neighbour add {address} lladdr {SERVER_MAC} dev eth0 nud {state}"));
    }
    pair.router.ip("neighbour add 10.0.0.16 dev eth0 nud none");
    pair.router.ip("neighbour add 10.0.0.17 dev eth0 nud incomplete");
    let network = pair.router.block_on(async || Netlink::open().expect("rtnetlink").read().await);
    let network = network.expect("a reading");
    let link = link_index(&network, "eth0");
    let neighbours = network.neighbours.iter().filter(|it| it.link == link);
    let found: Vec<_> = neighbours.map(|it| format!("{} {}", it.address, it.mac)).collect();
    let expected = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14", "10.0.0.15", "fd00::11"];
    assert_eq!(found, expected.map(|address| format!("{address} {SERVER_MAC}")));
}

#[test]
fn what_is_read_routes_packets() {
    let pair = Pair::new();
    pair.router.ip("route add default via 10.0.0.2");
    pair.router.ip(&format!("neighbour add 10.0.0.2 lladdr {SERVER_MAC} dev eth0 nud stale"));
    let network = pair.router.block_on(async || Netlink::open().expect("rtnetlink").read().await);
    let network = network.expect("a reading");
    let table = RouteTable::new(&network, &[link_index(&network, "eth0")]);
    let hop = |address: [u8; 4]| table.next_hop(IpAddr::from(address));
    let NextHop::Port(egress) = hop([192, 0, 2, 1]) else { panic!("{:?}", hop([192, 0, 2, 1])) };
    assert_eq!(egress.source.to_string(), ROUTER_MAC);
    assert_eq!(egress.destination.to_string(), SERVER_MAC);
    assert_eq!(hop([10, 0, 0, 1]), NextHop::Local);
    assert_eq!(hop([10, 0, 0, 9]), NextHop::Kernel, "not resolved");
    assert_eq!(hop([10, 0, 0, 255]), NextHop::Kernel, "broadcast");
}

#[test]
fn changes_are_published_and_nothing_else() {
    let pair = Pair::new();
    let router = &pair.router;
    router.block_on(async || {
        let mut networks = watch().await.expect("a first reading");
        router.ip("address add 10.7.0.1/24 dev eth0");
        until(&mut networks, "the new address", |network| {
            network.addresses.iter().any(|it| it.address.to_string() == "10.7.0.1")
        })
        .await;
        router.ip("route add 10.8.0.0/16 via 10.0.0.2");
        until(&mut networks, "the new route", |network| {
            network.routes.iter().any(|it| it.destination.to_string() == "10.8.0.0/16")
        })
        .await;
        router.ip(&format!("neighbour add 10.0.0.9 lladdr {SERVER_MAC} dev eth0 nud reachable"));
        until(&mut networks, "the neighbour", |it| knows(it, "10.0.0.9", SERVER_MAC)).await;

        sleep(SETTLED).await;
        networks.mark_unchanged();
        for state in ["stale", "reachable", "stale"] {
            router.ip(&format!("neighbour change 10.0.0.9 lladdr {SERVER_MAC} dev eth0 nud {state}"));
        }
        router.ip("neighbour add 10.0.0.10 dev eth0 nud none");
        router.ip("route add 10.8.0.0/16 via 10.0.0.2 table 100");
        sleep(SETTLED).await;
        assert!(!networks.has_changed().expect("watching"), "no change: {:#?}", networks.borrow());

        router.ip("neighbour change 10.0.0.9 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
        until(&mut networks, "the new MAC", |it| knows(it, "10.0.0.9", "02:00:00:00:00:99")).await;
        router.ip("neighbour del 10.0.0.9 dev eth0");
        until(&mut networks, "the lost neighbour", |it| {
            !it.neighbours.iter().any(|it| it.address.to_string() == "10.0.0.9")
        })
        .await;
        router.ip("link set eth0 down");
        until(&mut networks, "the link going down", |it| {
            it.links.iter().any(|link| link.name == "eth0" && !link.up)
        })
        .await;
    });
}

#[test]
fn lost_notifications_do_no_harm() {
    let pair = Pair::new();
    let router = &pair.router;
    let directory = tempfile::tempdir().expect("a directory");
    let batch = directory.path().join("neighbours");
    // Only the last line is a change, and its notification is lost like many before it.
    let flips = ["stale", "reachable"]
        .map(|state| format!("neighbour change 10.0.0.9 lladdr {SERVER_MAC} dev eth0 nud {state}\n"));
    let last = format!("neighbour add 10.0.0.10 lladdr {SERVER_MAC} dev eth0 nud stale\n");
    fs::write(&batch, flips.concat().repeat(2000) + &last).expect("a batch");
    router.block_on(async || {
        let mut networks = watch().await.expect("a first reading");
        router.ip(&format!("neighbour add 10.0.0.9 lladdr {SERVER_MAC} dev eth0 nud reachable"));
        until(&mut networks, "the neighbour", |it| knows(it, "10.0.0.9", SERVER_MAC)).await;
        // The only thread is busy here, so nobody empties the socket.
        router.ip(&format!("-batch {}", batch.display()));
        assert!(lost_notifications() > 0, "the flood was too small to lose any");
        until(&mut networks, "the lost change", |it| knows(it, "10.0.0.10", SERVER_MAC)).await;
        router.ip("neighbour del 10.0.0.10 dev eth0");
        until(&mut networks, "a later change", |it| !knows(it, "10.0.0.10", SERVER_MAC)).await;
    });
}

/// Drops of all netlink sockets of this thread's namespace.
fn lost_notifications() -> u64 {
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").expect("a list of sockets");
    let drops = sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8));
    drops.filter_map(|drops| drops.parse::<u64>().ok()).sum()
}

#[test]
fn neighbours_are_resolved_on_request() {
    let pair = Pair::new();
    let router = &pair.router;
    router.block_on(async || {
        let netlink = Netlink::open().expect("rtnetlink");
        let mut networks = watch().await.expect("a first reading");
        let link = eth0(&netlink).await;
        for address in ["10.0.0.2", "fd00::2"] {
            let wanted = address.parse().expect("an address");
            netlink.resolve(link, wanted).await.expect("a request");
            until(&mut networks, address, |it| knows(it, address, SERVER_MAC)).await;
        }
        // Fresh again after it went stale.
        router.ip(&format!("neighbour replace 10.0.0.2 lladdr {SERVER_MAC} dev eth0 nud stale"));
        netlink.resolve(link, [10, 0, 0, 2].into()).await.expect("a request");
        let state = router.ip("neighbour show 10.0.0.2");
        assert!(!state.contains("STALE"), "{state}");
        // The administrator's own entry stays as it is.
        router.ip("neighbour replace 10.0.0.5 lladdr 02:00:00:00:00:05 dev eth0 nud permanent");
        netlink.resolve(link, [10, 0, 0, 5].into()).await.expect("a request");
        let state = router.ip("neighbour show 10.0.0.5");
        assert!(state.contains("lladdr 02:00:00:00:00:05 PERMANENT"), "{state}");
        let error = netlink.resolve(9999, [10, 0, 0, 5].into()).await.expect_err("no such link");
        assert!(error.to_string().starts_with("cannot resolve neighbour 10.0.0.5 on interface 9999"));
    });
}

#[test]
fn addresses_with_a_label_come_and_go() {
    let pair = Pair::new();
    let router = &pair.router;
    let vip = IpAddr::from([10, 0, 0, 100]);
    router.block_on(async || {
        let netlink = Netlink::open().expect("rtnetlink");
        let link = eth0(&netlink).await;
        let add = async || netlink.add_address(link, vip, 24, Some("eth0:1")).await.expect("added");
        assert_eq!(add().await, Added::New);
        assert_eq!(add().await, Added::Present);
        let shown = router.ip("-4 -o address show dev eth0");
        let line = shown.lines().find(|line| line.contains("10.0.0.100")).expect("the address");
        let wanted = "inet 10.0.0.100/24 brd 10.0.0.255 scope global secondary eth0:1";
        assert!(line.contains(wanted), "{line}");

        netlink.delete_address(link, vip, 24).await.expect("deleted");
        netlink.delete_address(link, vip, 24).await.expect("deleted already");
        let shown = router.ip("-4 -o address show dev eth0");
        assert!(!shown.contains("10.0.0.100") && shown.contains("10.0.0.1/24"), "{shown}");

        let v6 = "fd00::100".parse().expect("an address");
        assert_eq!(netlink.add_address(link, v6, 64, Some("eth0:1")).await.expect("added"), Added::New);
        let shown = router.ip("-6 -o address show dev eth0");
        let line = shown.lines().find(|line| line.contains("fd00::100")).expect("the address");
        assert!(line.contains("nodad") && !line.contains("tentative"), "{line}");
        netlink.delete_address(link, v6, 64).await.expect("deleted");
        let error = netlink.add_address(9999, vip, 24, None).await.expect_err("no such link");
        let text = "cannot add address 10.0.0.100/24 to interface 9999: No such device (os error 19)";
        assert_eq!(error.to_string(), text);
    });
}
