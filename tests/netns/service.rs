//! Services of the daemon, with real sockets at both ends.

use std::net::TcpListener;
use std::time::Duration;

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, wait_until};

/// Less than the second after which TCP sends a lost SYN again (RFC 6298, 2.1).
const BEFORE_RETRANSMISSION: Duration = Duration::from_millis(900);

/// A megabyte in segments of 1448 bytes.
const SEGMENTS: u64 = 690;

fn megabyte() -> Vec<u8> {
    (0..1_000_000u32).map(|i| (i % 251) as u8).collect()
}

fn at(port: u16) -> String {
    format!("{VIP}:{port}")
}

#[test]
fn half_made_checksums_are_completed() {
    let rig = Rig::new();
    rig.offload_checksums();
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2:8080 -m"));
    for peer in [&rig.client, &rig.server] {
        let features = peer.run("ethtool -k eth0");
        assert!(features.contains("tx-checksumming: on"), "{features}");
    }
    let listener = rig.server.enter(|| TcpListener::bind("10.2.0.2:8080").unwrap());
    rig.exchange(&listener, &at(80), PATIENCE, &megabyte());
    let packets = daemon.stop();
    // Until the daemon has learnt a neighbour, the kernel sends for it.
    assert!(packets.transmitted + packets.handed_over > 2 * SEGMENTS, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn the_first_packet_to_an_unresolved_server_is_not_lost() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2 -m"));
    let listener = rig.server.enter(|| TcpListener::bind("10.2.0.2:80").unwrap());
    // The daemon has the kernel resolve a server that is added, and learns a moment later when it is forgotten.
    wait_until("a first packet needs the kernel", || {
        rig.router.try_run("ip neighbour flush dev back");
        rig.exchange(&listener, &at(80), BEFORE_RETRANSMISSION, b"hello");
        daemon.packets().handed_over > 0
    });
    let packets = daemon.stop();
    assert!(packets.handed_over > 0, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn what_comes_up_and_is_not_balanced_reaches_the_router_itself() {
    let rig = Rig::new();
    rig.offload_checksums();
    let everything = format!("-d {VIP}/32 -j MARK --set-mark 1");
    let but_ssh = format!("-d {VIP}/32 -p tcp -m tcp --dport 22 -j MARK --set-mark 2");
    let daemon = Daemon::start(&rig, &[&everything, &but_ssh]);
    daemon.ipvsadm("-A -f 1 -s rr");
    daemon.ipvsadm("-a -f 1 -r 10.2.0.2 -m");
    let router = rig.router.enter(|| TcpListener::bind(at(22)).unwrap());
    let server = rig.server.enter(|| TcpListener::bind("10.2.0.2:80").unwrap());
    rig.exchange(&router, &at(22), PATIENCE, &megabyte());
    // The last acknowledgments may be on their way still.
    wait_until("all that came up has been passed", || {
        let packets = daemon.packets();
        packets.passed > SEGMENTS && packets.passed == packets.received
    });
    rig.exchange(&server, &at(80), PATIENCE, b"balanced");
    let packets = daemon.stop();
    assert!(packets.transmitted + packets.handed_over > 0, "{packets:?}");
}

const VIP6: &str = "fd00:1::30";
const SAVED6: &str = "*mangle\n:PREROUTING ACCEPT [0:0]\n\
    -A PREROUTING -d fd00:1::30/128 -p tcp -m multiport --dports 80,443 -j MARK --set-xmark 0x50/0xffffffff\nCOMMIT\n";

fn add_ipv6(rig: &Rig) {
    for (namespace, device, address) in [
        (&rig.client, "eth0", "fd00:1::2/64"),
        (&rig.router, "front", "fd00:1::1/64"),
        (&rig.router, "front", "fd00:1::30/128"),
        (&rig.router, "back", "fd00:2::1/64"),
        (&rig.server, "eth0", "fd00:2::2/64"),
    ] {
        namespace.ip(&format!("address add {address} dev {device} nodad"));
    }
    rig.server.ip("route add default via fd00:2::1");
    // Nobody is solicited from an address that may be a duplicate.
    wait_until("the link-local addresses can be used", || {
        [&rig.client, &rig.router, &rig.server]
            .iter()
            .all(|it| !it.ip("-6 address show").contains("tentative"))
    });
}

#[test]
fn the_rules_of_ip6tables_mark_and_a_reload_reads_them_again() {
    let rig = Rig::new();
    add_ipv6(&rig);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm("-A -f 80 -6 -s rr");
    daemon.ipvsadm("-a -f 80 -6 -r [fd00:2::2]:0 -m");
    let router = rig.router.enter(|| TcpListener::bind((VIP6, 80)).unwrap());
    rig.exchange(&router, &format!("[{VIP6}]:80"), PATIENCE, b"unmarked, and so the router's own");
    daemon.mark_ipv6(SAVED6);
    let server = rig.server.enter(|| TcpListener::bind("[fd00:2::2]:80").unwrap());
    rig.exchange(&server, &format!("[{VIP6}]:80"), PATIENCE, &megabyte());
    let packets = daemon.stop();
    assert!(packets.transmitted > SEGMENTS, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn the_first_ipv6_packet_to_an_unresolved_server_is_not_lost() {
    let rig = Rig::new();
    add_ipv6(&rig);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t [{VIP6}]:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t [{VIP6}]:80 -r [fd00:2::2]:8080 -m"));
    let listener = rig.server.enter(|| TcpListener::bind("[fd00:2::2]:8080").unwrap());
    wait_until("a first packet needs the kernel", || {
        rig.router.try_run("ip -6 neighbour flush dev back");
        rig.exchange(&listener, &format!("[{VIP6}]:80"), BEFORE_RETRANSMISSION, b"hello");
        daemon.packets().handed_over > 0
    });
    wait_until("the daemon sends by itself again", || {
        let before = daemon.packets().transmitted;
        rig.exchange(&listener, &format!("[{VIP6}]:80"), PATIENCE, b"hello");
        daemon.packets().transmitted > before
    });
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}
