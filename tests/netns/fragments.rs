//! Datagrams that need fragments, through the daemon.

use std::net::UdpSocket;

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, receive, wait_until};

pub const VIP6: &str = "fd00:1::30";
const ADDRESSES6: [(&str, &str); 2] = [("front", "fd00:1::1/64"), ("back", "fd00:2::1/64")];

pub fn bind(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// So many bytes, each telling where it belongs.
fn datagram(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// The client sends a datagram; whoever has the other socket sends it back.
pub fn exchange(client: &UdpSocket, server: &UdpSocket, address: &str, len: usize) {
    let sent = datagram(len);
    let mut buffer = vec![0; 65535];
    client.send_to(&sent, address).unwrap();
    let (received, sender) = receive(server, &mut buffer).unwrap_or_else(|error| panic!("{len}: {error}"));
    assert!(buffer[..received] == sent, "{received} of {len} bytes arrived, or others");
    server.send_to(&sent, sender).unwrap();
    let (received, sender) = receive(client, &mut buffer).unwrap_or_else(|error| panic!("{len}: {error}"));
    assert!(buffer[..received] == sent, "{received} of {len} bytes came back, or others");
    assert_eq!(sender.to_string(), address, "the answer comes from the service");
}

pub fn add_ipv6(rig: &Rig) {
    for (interface, address) in ADDRESSES6 {
        rig.router.run(&format!("ip address add {address} dev {interface} nodad"));
    }
    rig.router.run(&format!("ip address add {VIP6}/128 dev front nodad"));
    for (peer, near, far) in
        [(&rig.client, "fd00:1::1", "fd00:1::2"), (&rig.server, "fd00:2::1", "fd00:2::2")]
    {
        peer.run(&format!("ip address add {far}/64 dev eth0 nodad"));
        peer.run(&format!("ip -6 route add default via {near}"));
    }
}

/// All that came up has gone somewhere.
pub fn assert_balanced(daemon: &Daemon) {
    wait_until("the books are balanced and nothing is held", || {
        let packets = daemon.packets();
        packets.imbalance() == 0 && packets.held == 0
    });
}

#[test]
fn datagrams_in_fragments_pass_both_ways() {
    let rig = Rig::new();
    add_ipv6(&rig);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2:5353 -m"));
    daemon.ipvsadm(&format!("-A -u [{VIP6}]:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u [{VIP6}]:53 -r [fd00:2::2]:5353 -m"));
    for (own, server, service) in [
        ("10.1.0.2:4000", "10.2.0.2:5353", format!("{VIP}:53")),
        ("[fd00:1::2]:4000", "[fd00:2::2]:5353", format!("[{VIP6}]:53")),
    ] {
        let client = rig.client.enter(|| bind(own));
        let server = rig.server.enter(|| bind(server));
        [10, 1500, 5000, 40_000, 65_000]
            .into_iter()
            .for_each(|len| exchange(&client, &server, &service, len));
    }
    assert_balanced(&daemon);
    let packets = daemon.stop();
    assert!(packets.absorbed > 300 && packets.made >= packets.absorbed, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn fragments_that_no_service_concerns_reach_the_router_itself() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2:5353 -m"));
    let client = rig.client.enter(|| bind("10.1.0.2:4000"));
    let router = rig.router.enter(|| bind(&format!("{VIP}:99")));
    exchange(&client, &router, &format!("{VIP}:99"), 5000);
    assert_balanced(&daemon);
    let packets = daemon.stop();
    assert_eq!((packets.passed, packets.absorbed), (4, 4), "{packets:?}");
}
