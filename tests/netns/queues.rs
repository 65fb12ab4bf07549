//! Two queues, two workers: a connection's packets meet the right state whichever queue they come by.

use std::net::TcpListener;
use std::process::Command;

use super::daemon::{Daemon, VIP};
use super::namespace::Namespace;
use super::rig::{PATIENCE, Rig};

const SERVER: &str = "10.2.0.2:80";

/// Half a megabyte.
fn bulk() -> Vec<u8> {
    (0..500_000u32).map(|i| (i % 251) as u8).collect()
}

/// A router of two queues with a web service.
fn serving() -> (Rig, Daemon, TcpListener) {
    let rig = Rig::with_queues(2);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s wlc"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r {SERVER} -m"));
    let listener = rig.server.enter(|| TcpListener::bind(SERVER).unwrap());
    (rig, daemon, listener)
}

fn exchange(rig: &Rig, listener: &TcpListener, data: &[u8]) {
    rig.exchange(listener, &format!("{VIP}:80"), PATIENCE, data);
}

/// How many connections there are in the table.
fn connections(daemon: &Daemon) -> usize {
    daemon.listing("-Lnc").lines().filter(|line| line.starts_with("TCP ")).count()
}

/// How many packets each receive queue of a router's interface has brought up.
fn brought_up(rig: &Rig, interface: &str) -> [u64; 2] {
    let statistics = rig.router.run(&format!("ethtool -S {interface}"));
    [0, 1].map(|queue| {
        let name = format!("rx_queue_{queue}_xdp_redirect:");
        let line = statistics.lines().find_map(|line| line.trim().strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {statistics}")).trim().parse().unwrap()
    })
}

/// Sends everything of a namespace by this transmit queue, which is the other end's receive queue.
fn send_by(namespace: &Namespace, queue: u32) {
    let (queues, other) = ("/sys/class/net/eth0/queues", 1 - queue);
    let script = format!(
        "mount -t sysfs sysfs /sys && all=$(printf %x $(( (1 << $(nproc --all)) - 1 ))) && \
         echo 0 >{queues}/tx-{other}/xps_cpus && echo $all >{queues}/tx-{queue}/xps_cpus"
    );
    let shell = ["--mount", "sh", "-c", script.as_str()];
    let output = namespace.enter(|| Command::new("unshare").args(shell).output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn requests_come_by_one_queue_and_replies_by_the_other() {
    let (rig, daemon, listener) = serving();
    send_by(&rig.client, 0);
    send_by(&rig.server, 1);
    exchange(&rig, &listener, b"the neighbours are known now");
    let [before, after] = [0, 1].map(|round| {
        if round == 1 {
            (0..4).for_each(|_| exchange(&rig, &listener, &bulk()));
        }
        ["front", "back"].map(|interface| brought_up(&rig, interface))
    });
    let came = |port: usize, queue: usize| after[port][queue] - before[port][queue];
    assert!(came(0, 0) > 500 && came(0, 1) == 0, "requests: {before:?} {after:?}");
    assert!(came(1, 1) > 500 && came(1, 0) == 0, "replies: {before:?} {after:?}");
    assert_eq!(connections(&daemon), 5);
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn connections_go_by_both_queues_as_they_are_hashed() {
    let (rig, daemon, listener) = serving();
    (0..64).for_each(|_| exchange(&rig, &listener, b"one of many connections"));
    exchange(&rig, &listener, &bulk());
    for interface in ["front", "back"] {
        let came = brought_up(&rig, interface);
        assert!(came[0] > 0 && came[1] > 0, "{interface}: {came:?}");
    }
    assert_eq!(connections(&daemon), 65, "each once, whichever worker opened it");
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}
