//! Packets that take several frames, of interfaces with large MTUs.

use std::io::BufRead as _;
use std::net::{TcpListener, UdpSocket};

use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use xlvs::ipvs::steering::Steering;
use xlvs::ipvs::verdict::{DropReason, PacketTotals, Verdict};
use xlvs::net::addr::{PortIndex, Protocol};
use xlvs::net::frame::Frame;
use xlvs::xdp::{AttachSetting, AttachedMode};

use super::daemon::{Daemon, VIP};
use super::fragments::{VIP6, add_ipv6, assert_balanced, bind, exchange};
use super::rig::{self, Decision, PATIENCE, Rig, stop_and_check, wait_until};
use super::traffic::{all_ports, bridge_steering, to};

const SERVER: &str = "10.2.0.2:80";
/// The longest datagram in a packet of 9,000 bytes.
const DATAGRAM: usize = 8972;

fn rig(client: u32, server: u32) -> Rig {
    let rig = Rig::new();
    rig.set_mtu(client, server);
    rig
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn across(frame: &mut Frame<'_>) -> Verdict {
    Verdict::Transmit(PortIndex(1 - frame.port().0))
}

/// As long as some more packets come.
fn slowly_across(frame: &mut Frame<'_>) -> Verdict {
    poll(&mut [], PollTimeout::from(20u8)).unwrap();
    across(frame)
}

fn udp_bridge(rig: &Rig) -> Steering {
    let mut steering = bridge_steering(rig);
    steering.destinations.extend(to("10.2.0.2", Protocol::UDP).destinations);
    steering.servers[0].1.extend(all_ports(Protocol::UDP));
    steering.destinations.dedup_by(|one, other| {
        let same = one.0 == other.0;
        if same {
            other.1.append(&mut one.1);
        }
        same
    });
    steering
}

/// Bulk data in both directions; each packet counts once, whatever frames it takes.
fn transmits_bulk(mode: AttachSetting, expected: AttachedMode, frame_size: u32) {
    let rig = rig(9000, 9000);
    let mut config = rig.config(mode);
    config.frame_size = frame_size;
    let (mut xdp, _handed_over) = rig.start(&config, across).unwrap();
    for status in xdp.port_status() {
        assert_eq!(status.mode, expected, "{status:?}");
    }
    xdp.apply_steering(&bridge_steering(&rig)).unwrap();
    let listener = rig.server.enter(|| TcpListener::bind(SERVER).unwrap());
    rig.exchange(&listener, SERVER, PATIENCE, &bytes(4_000_000));
    let totals = stop_and_check(xdp);
    // Twice 447 segments of 8,948 bytes, and acknowledgments of them.
    assert!((894..2200).contains(&totals.transmitted), "{totals:?}");
    assert!(totals.dropped.is_empty(), "{totals:?}");
}

#[test]
fn native_mode_transmits_long_packets() {
    transmits_bulk(AttachSetting::Native, AttachedMode::Native, 2048);
}

#[test]
fn native_mode_transmits_long_packets_in_large_frames() {
    transmits_bulk(AttachSetting::Auto, AttachedMode::Native, 4096);
}

#[test]
fn skb_mode_transmits_long_packets() {
    transmits_bulk(AttachSetting::Skb, AttachedMode::Skb, 2048);
}

/// Ten of them are in a burst, and a part of the eleventh.
#[test]
fn a_packet_that_a_burst_ends_within_is_whole_with_the_next() {
    let rig = rig(9000, 9000);
    let mut config = rig.config(AttachSetting::Native);
    config.frames = 4096;
    let (mut xdp, _handed_over) = rig.start(&config, slowly_across).unwrap();
    xdp.apply_steering(&udp_bridge(&rig)).unwrap();
    let server = rig.server.enter(|| bind("10.2.0.2:5353"));
    let client = rig.client.enter(|| bind("10.1.0.2:0"));
    setsockopt(&server, sockopt::RcvBufForce, &(4 << 20)).unwrap();
    setsockopt(&client, sockopt::SndBufForce, &(4 << 20)).unwrap();
    let mut sent = bytes(DATAGRAM);
    for number in 0..40 {
        sent[0] = number;
        client.send_to(&sent, "10.2.0.2:5353").unwrap();
    }
    for number in 0..40 {
        let mut received = [0; 9000];
        let (length, _) = rig::receive(&server, &mut received).unwrap();
        sent[0] = number;
        assert!(received[..length] == sent, "number {number} is another one, or changed");
    }
    let totals = stop_and_check(xdp);
    assert_eq!((totals.received, totals.transmitted), (40, 40), "{totals:?}");
}

/// A packet that grows by a frame, so that two of them do not fit a ring of eight frames.
fn slowly_grown(frame: &mut Frame<'_>) -> Verdict {
    let grown = frame.len() + 200;
    if frame.resize(grown) { slowly_across(frame) } else { Verdict::Drop(DropReason::NoRoom) }
}

#[test]
fn a_transmit_ring_takes_no_part_of_a_packet_that_does_not_fit() {
    let rig = rig(7000, 9000);
    let mut config = rig.config(AttachSetting::Native);
    config.frames = 32;
    let (mut xdp, _handed_over) = rig.start(&config, slowly_grown).unwrap();
    xdp.apply_steering(&udp_bridge(&rig)).unwrap();
    let server = rig.server.enter(|| bind("10.2.0.2:5353"));
    let client = rig.client.enter(|| bind("10.1.0.2:0"));
    let sent = bytes(6972);
    let counts = || {
        let mut totals = PacketTotals::default();
        xdp.counters().iter().for_each(|counters| totals.merge(&counters.totals()));
        totals
    };
    wait_until("a packet finds the ring full", || {
        (0..4).for_each(|_| assert_eq!(client.send_to(&sent, "10.2.0.2:5353").unwrap(), sent.len()));
        poll(&mut [], PollTimeout::from(100u8)).unwrap();
        !counts().dropped.is_empty()
    });
    let totals = stop_and_check(xdp);
    let refused = totals.received - totals.transmitted;
    assert_eq!(totals.dropped, [(DropReason::TxRingFull, refused)], "{totals:?}");
    assert!(totals.transmitted > 0, "{totals:?}");
    for _ in 0..totals.transmitted {
        let mut received = [0; 9000];
        let (length, _) = rig::receive(&server, &mut received).unwrap();
        assert!(received[..length] == sent, "changed");
    }
}

/// A tunnel needs it.
#[test]
fn a_packet_that_fills_its_frame_can_grow() {
    let rig = rig(9000, 9000);
    let grow: Decision = |frame| {
        let grown = frame.len() + 200;
        if frame.resize(grown) { Verdict::HandOver } else { Verdict::Drop(DropReason::NoRoom) }
    };
    let (mut xdp, handed_over) = rig.start(&rig.config(AttachSetting::Native), grow).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::UDP)).unwrap();
    let client = rig.client.enter(|| bind("10.1.0.2:0"));
    for packet in [100, 1500, 1600, 1770, 1778, 3000, 9000] {
        client.send_to(&bytes(packet - 28), "10.1.0.1:53").unwrap();
        assert_eq!(handed_over.recv_timeout(PATIENCE).unwrap().len(), packet + 200);
    }
    assert_eq!(stop_and_check(xdp).handed_over, 7);
}

fn passes_to_the_stack(mode: AttachSetting) {
    let rig = rig(9000, 9000);
    rig.router.run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.front.rp_filter=1");
    let (mut xdp, _handed_over) = rig.start(&rig.config(mode), |_| Verdict::Pass).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::TCP)).unwrap();
    let listener = rig.router.enter(|| TcpListener::bind("10.1.0.1:80").unwrap());
    rig.exchange(&listener, "10.1.0.1:80", PATIENCE, &bytes(1_000_000));
    let totals = stop_and_check(xdp);
    assert!((112..1000).contains(&totals.passed), "{totals:?}");
    assert_eq!(totals.passed, totals.received, "{totals:?}");
    // A process that another test is just starting has all that is open until it is replaced by its program.
    wait_until("its devices end with it", || !rig.router.run("ip -brief link show").contains("xlvs-"));
}

#[test]
fn native_mode_passes_long_packets_to_the_stack() {
    passes_to_the_stack(AttachSetting::Native);
}

#[test]
fn skb_mode_passes_long_packets_to_the_stack() {
    passes_to_the_stack(AttachSetting::Skb);
}

#[test]
fn an_mtu_over_the_largest_is_refused() {
    let rig = rig(1500, 9300);
    let error = rig.start(&rig.config(AttachSetting::Auto), across).err().unwrap();
    assert_eq!(
        error.to_string(),
        "back has MTU 9300, but packets over 9216 bytes are not supported: run `ip link set dev back mtu 9216`"
    );
}

fn serve_tcp(daemon: &Daemon) {
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2:8080 -m"));
}

fn serve_udp(daemon: &Daemon) {
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2:5353 -m"));
}

fn sockets(rig: &Rig) -> (UdpSocket, UdpSocket) {
    (rig.client.enter(|| bind("10.1.0.2:0")), rig.server.enter(|| bind("10.2.0.2:5353")))
}

/// Bulk data and datagrams through the daemon; half-made checksums as a veth has them.
fn balances(settings: &str, shortcut: bool) {
    let rig = rig(9000, 9000);
    add_ipv6(&rig);
    rig.offload_checksums();
    if shortcut {
        for peer in [&rig.client, &rig.server] {
            // Half-made checksums do not take the shortcut.
            peer.run("ethtool -K eth0 tx off gro on");
        }
    }
    let daemon = Daemon::start_with(&rig, settings);
    serve_tcp(&daemon);
    serve_udp(&daemon);
    daemon.ipvsadm(&format!("-A -u [{VIP6}]:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u [{VIP6}]:53 -r [fd00:2::2]:5353 -m"));
    let listener = rig.server.enter(|| TcpListener::bind("10.2.0.2:8080").unwrap());
    rig.exchange(&listener, &format!("{VIP}:80"), PATIENCE, &bytes(4_000_000));
    let (client, server) = sockets(&rig);
    (0..20).for_each(|_| exchange(&client, &server, &format!("{VIP}:53"), DATAGRAM));
    let client = rig.client.enter(|| bind("[fd00:1::2]:0"));
    let server = rig.server.enter(|| bind("[fd00:2::2]:5353"));
    exchange(&client, &server, &format!("[{VIP6}]:53"), DATAGRAM - 20);
    // Not for us: through the program, and around it.
    rig.client.run("ping -c 2 -i 0.2 -W 5 -M do -s 8972 10.1.0.1");
    rig.client.run("ping -c 2 -i 0.2 -W 5 -M do -s 8972 10.2.0.2");
    assert_balanced(&daemon);
    assert_eq!(daemon.status().shortcut.packets > 400, shortcut, "{:?}", daemon.status());
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
    assert!((934..2300).contains(&packets.received), "{packets:?}");
}

#[test]
fn long_packets_are_balanced() {
    balances("shortcut = false\n", false);
}

#[test]
fn long_packets_take_the_shortcut() {
    balances("shortcut = true\nshortcut_after = 0\n", true);
}

#[test]
fn long_packets_are_balanced_in_skb_mode() {
    let rig = rig(9000, 9000);
    for interface in ["front", "back"] {
        rig.router.run(&format!("ethtool -K {interface} gro off"));
    }
    let daemon = Daemon::start_with(&rig, "xdp_mode = \"skb\"\nshortcut = true\nshortcut_after = 0\n");
    serve_tcp(&daemon);
    let listener = rig.server.enter(|| TcpListener::bind("10.2.0.2:8080").unwrap());
    rig.exchange(&listener, &format!("{VIP}:80"), PATIENCE, &bytes(4_000_000));
    assert_balanced(&daemon);
    assert!(daemon.status().shortcut.packets > 400, "{:?}", daemon.status());
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn counters_know_long_packets_by_the_shortcut() {
    let rig = rig(9000, 9000);
    for peer in [&rig.client, &rig.server] {
        peer.run("ethtool -K eth0 gro on");
    }
    let daemon = Daemon::start_with(&rig, "shortcut = true\nshortcut_after = 0\n");
    serve_udp(&daemon);
    let (client, server) = sockets(&rig);
    let ask = || exchange(&client, &server, &format!("{VIP}:53"), DATAGRAM);
    let asked = std::cell::Cell::new(0);
    wait_until("both directions take the shortcut", || {
        ask();
        asked.set(asked.get() + 1);
        daemon.status().shortcut.flows == 2
    });
    (0..50).for_each(|_| ask());
    let asked = asked.get() + 50;
    assert!(daemon.status().shortcut.packets >= 98, "{:?}", daemon.status());
    let bytes = 9000 * asked;
    let counted = format!("UDP {VIP}:53 1 {asked} {asked} {bytes} {bytes}");
    let stats = || daemon.listing("-Ln --stats --exact").split_whitespace().collect::<Vec<_>>().join(" ");
    wait_until("the counters are right", || stats().contains(&counted));
    assert_eq!(daemon.packets().imbalance(), 0);
    daemon.stop();
}

#[test]
fn a_datagram_of_full_length_is_put_together_and_cut_again() {
    let rig = rig(9000, 9000);
    let daemon = Daemon::start(&rig, &[]);
    serve_udp(&daemon);
    let (client, server) = sockets(&rig);
    exchange(&client, &server, &format!("{VIP}:53"), 65507);
    assert_balanced(&daemon);
    let packets = daemon.stop();
    // Eight fragments each way, unless the kernel sent the first for want of a neighbour.
    assert_eq!((packets.absorbed + packets.handed_over.min(1)) / 8, 2, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

/// Some of the packets need another frame for what is wrapped around them.
#[test]
fn long_packets_go_through_a_tunnel() {
    let rig = rig(9000, 9000);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2 -i"));
    let client = rig.client.enter(|| bind("10.1.0.2:0"));
    let tunnel = rig.server.enter(|| {
        let ip_in_ip = Some(socket2::Protocol::from(4));
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, ip_in_ip).unwrap()
    });
    tunnel.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tunnel = std::io::BufReader::with_capacity(10_000, tunnel);
    let mut send = |len: usize| {
        client.send_to(&bytes(len), (VIP, 53)).unwrap();
        let packet = tunnel.fill_buf().unwrap().to_vec();
        tunnel.consume(packet.len());
        assert_eq!(packet.len(), 20 + 28 + len, "an IP header around the packet");
        assert!(packet.ends_with(&bytes(len)), "{len}: other bytes");
    };
    while daemon.packets().transmitted == 0 {
        send(100);
    }
    let before = daemon.packets().transmitted;
    let lengths = [1400, 1500, 1600, 1730, 1742, 1760, 3500, 8900];
    lengths.into_iter().for_each(&mut send);
    assert_balanced(&daemon);
    let packets = daemon.stop();
    assert_eq!(packets.transmitted - before, 8, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

/// The client asks in a short datagram; the answer is long.
fn ask_for(client: &UdpSocket, server: &UdpSocket, len: usize) {
    client.send_to(b"question", (VIP, 53)).unwrap();
    let (_, from) = rig::receive(server, &mut [0; 16]).unwrap();
    server.send_to(&bytes(len), from).unwrap();
}

fn receive(client: &UdpSocket, len: usize) {
    let mut answer = [0; 9000];
    let (length, _) = rig::receive(client, &mut answer).unwrap();
    assert!(answer[..length] == bytes(len), "{length} bytes, or others");
}

#[test]
fn what_may_be_fragmented_leaves_by_a_shorter_way_in_fragments() {
    let rig = rig(1500, 9000);
    let daemon = Daemon::start(&rig, &[]);
    serve_udp(&daemon);
    // Datagrams do not ask not to be fragmented.
    rig.server.run("sysctl -qw net.ipv4.ip_no_pmtu_disc=1");
    let (client, server) = sockets(&rig);
    // The kernel sends the first ones, until the daemon has learnt the neighbours.
    wait_until("the daemon cuts them", || {
        ask_for(&client, &server, 8000);
        receive(&client, 8000);
        daemon.packets().made > 0
    });
    assert_balanced(&daemon);
    let packets = daemon.stop();
    assert_eq!((packets.made, packets.absorbed), (6, 1), "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn what_may_not_be_fragmented_is_refused_with_the_mtu_of_the_shorter_way() {
    let rig = rig(1500, 9000);
    let daemon = Daemon::start(&rig, &[]);
    serve_udp(&daemon);
    let (client, server) = sockets(&rig);
    wait_until("the server knows the way's MTU", || {
        ask_for(&client, &server, 8000);
        rig.server.run("ip route get 10.1.0.2").contains("mtu 1500")
    });
    ask_for(&client, &server, 8000);
    receive(&client, 8000);
    assert_balanced(&daemon);
    daemon.stop();
}
