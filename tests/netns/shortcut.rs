//! The shortcut: what the program does with packets of lent flows, and that nothing else is different.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use nix::poll::{PollTimeout, poll};
use xlvs::ipvs::shortcut::{Account, FastPath, NoShortcut, Shortcut, Traffic};
use xlvs::ipvs::verdict::Verdict;
use xlvs::net::addr::{MacAddr, PortIndex, Protocol};
use xlvs::net::flow::FlowKey;
use xlvs::net::frame::Frame;
use xlvs::net::parse::parse_frame;
use xlvs::net::rewrite::{self, End};
use xlvs::net::route::Egress;
use xlvs::xdp::{AttachSetting, ShortcutSetting, Xdp};

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, receive, stop_and_check, wait_until};
use crate::support::packet::{self, PacketSpec};

pub const AT_ONCE: &str = "shortcut = true\nshortcut_after = 0\n";
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const EGRESS: Egress = Egress {
    port: PortIndex(1),
    source: MacAddr([2, 0, 0, 0, 0, 2]),
    destination: MacAddr([2, 0, 0, 0, 0, 3]),
    mtu: 1400,
};

/// A veth takes redirected frames if its other end merges segments.
pub fn open(rig: &Rig) {
    for peer in [&rig.client, &rig.server] {
        peer.run("ethtool -K eth0 gro on");
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A program with one flow, from `client` to `virtual_address`, that goes to `new`.
fn with_flow(rig: &Rig, protocol: Protocol, ends: [&str; 3]) -> (Xdp, Box<dyn FastPath>, FlowKey, Shortcut) {
    open(rig);
    let mut config = rig.config(AttachSetting::Native);
    config.shortcut = ShortcutSetting::On;
    let (mut xdp, _handed_over) = rig.start(&config, |_| Verdict::Pass).unwrap();
    assert_eq!(xdp.shortcut_note(), None);
    let path = xdp.take_fast_path().unwrap();
    let [client, virtual_address, new] = ends.map(address);
    let flow = FlowKey::new(protocol, client, virtual_address);
    let shortcut = Shortcut {
        generation: 7,
        ingress: PortIndex(0),
        addressed: ROUTER_MAC,
        end: End::Destination,
        new,
        egress: EGRESS,
        account: Account(5),
        packets: 40,
    };
    path.install(&flow, &shortcut).unwrap();
    path.set_generation(7);
    (xdp, path, flow, shortcut)
}

fn spec(flow: &FlowKey) -> PacketSpec {
    let name = if flow.protocol == Protocol::TCP { "tcp" } else { "udp" };
    let mut spec = PacketSpec::new(flow.source, flow.destination, name);
    (spec.sport, spec.dport, spec.ttl, spec.len) = (flow.source_port, flow.destination_port, 64, 100);
    spec.flags = "A".into();
    spec
}

fn frame_of(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&ROUTER_MAC.0[..], &[2, 9, 9, 9, 9, 9], &ethertype, packet].concat()
}

fn bytes(spec: &PacketSpec) -> Vec<u8> {
    frame_of(&packet::build(spec, None).remove(0))
}

/// As the engine would send it.
fn translated(frame: &[u8], shortcut: &Shortcut) -> Vec<u8> {
    let packet = parse_frame(frame).unwrap();
    let mut buffer = frame.to_vec();
    let mut frame = Frame::new(&mut buffer, frame.len(), shortcut.ingress);
    rewrite::set_end(frame.bytes_mut(), &packet, shortcut.end, shortcut.new);
    rewrite::decrement_ttl(frame.bytes_mut(), &packet);
    rewrite::set_ethernet(&mut frame, &packet, &shortcut.egress);
    frame.bytes().to_vec()
}

const IPV4: [&str; 3] = ["198.51.100.7:1025", "203.0.113.1:80", "10.2.0.2:8080"];
const IPV6: [&str; 3] = ["[2001:db8::ffff:7]:1025", "[2001:db8::1]:80", "[fd00:2::2]:8080"];

#[test]
fn plain_packets_leave_as_the_engine_would_send_them() {
    for (protocol, ends) in
        [(Protocol::TCP, IPV4), (Protocol::UDP, IPV4), (Protocol::TCP, IPV6), (Protocol::UDP, IPV6)]
    {
        let rig = Rig::new();
        let (mut xdp, path, flow, shortcut) = with_flow(&rig, protocol, ends);
        let mut sent = Traffic::default();
        let shortcuts = [shortcut, Shortcut { end: End::Source, ..shortcut }];
        for shortcut in shortcuts {
            path.install(&flow, &shortcut).unwrap();
            for number in 0..400_u32 {
                let mut spec = spec(&flow);
                // A payload of two bytes goes through all checksums, the ones that come out as zero too.
                spec.hex = Some(packet::Hex((number * 163).to_be_bytes()[2..].to_vec()));
                spec.seq = number * 77_777;
                let mut frame = bytes(&spec);
                sent.packets += 1;
                sent.bytes += frame.len() as u64 - 14;
                if number % 2 == 0 {
                    frame.resize(frame.len() + 4, 0xee);
                }
                let out = rig.router.enter(|| xdp.shorten(PortIndex(0), &frame).unwrap());
                assert_eq!(out, Some(translated(&frame, &shortcut)), "{protocol} {spec:?}");
            }
        }
        let usage = path.usage(&flow).unwrap();
        assert!(usage.last.is_some());
        assert_eq!(usage.packets, 440);
        assert_eq!(path.traffic(Account(5)), sent);
        path.remove(&flow);
        assert_eq!(path.usage(&flow), None);
        assert_eq!(rig.router.enter(|| xdp.shorten(PortIndex(0), &bytes(&spec(&flow))).unwrap()), None);
        stop_and_check(xdp);
    }
}

#[test]
fn packets_in_several_buffers_leave_if_their_headers_lie_in_the_first() {
    for ends in [IPV4, IPV6] {
        let rig = Rig::new();
        rig.set_mtu(9000, 9000);
        let (mut xdp, path, flow, shortcut) = with_flow(&rig, Protocol::TCP, ends);
        let shortcut = Shortcut { egress: Egress { mtu: 9000, ..EGRESS }, ..shortcut };
        path.install(&flow, &shortcut).unwrap();
        let mut shorten = |frame: &[u8], first| {
            rig.router.enter(|| xdp.shorten_in_parts(PortIndex(0), frame, first).unwrap())
        };
        for length in [100_usize, 1000, 5000, 8900] {
            let mut frame = bytes(&PacketSpec { len: length, ..spec(&flow) });
            frame.extend([0xee; 4]);
            let headers = frame.len() - 4 - length;
            let out = Some(translated(&frame, &shortcut));
            for first in [frame.len(), headers, headers + 1] {
                assert!(shorten(&frame, first) == out, "{length} bytes, the first {first} apart");
            }
            assert_eq!(shorten(&frame, headers - 1), None, "without the end of the headers");
            assert_eq!(shorten(&frame, 14), None, "without headers");
        }
        let long = bytes(&PacketSpec { len: 8990, ..spec(&flow) });
        assert_eq!(shorten(&long, 2000), None, "too big");
        stop_and_check(xdp);
    }
}

/// The same packet with something about it.
type Twist = (&'static str, fn(&mut PacketSpec), fn(&mut Vec<u8>));

const TWISTS: [Twist; 13] = [
    ("SYN", |spec| spec.flags = "SA".into(), |_| {}),
    ("FIN", |spec| spec.flags = "FA".into(), |_| {}),
    ("RST", |spec| spec.flags = "RA".into(), |_| {}),
    ("no ACK", |spec| spec.flags = String::new(), |_| {}),
    ("last hop", |spec| spec.ttl = 1, |_| {}),
    ("too big", |spec| spec.len = 1361, |_| {}),
    ("another flow", |spec| spec.sport += 1, |_| {}),
    ("options", |spec| spec.ipopts = packet::Hex(vec![1; 4]), |_| {}),
    ("not to us", |_| {}, |frame| frame[5] ^= 1),
    ("cut off", |_| {}, |frame| frame.truncate(100)),
    ("bad header checksum", |_| {}, |frame| frame[24] ^= 1),
    (
        "fragment",
        |_| {},
        |frame| {
            frame[20] = 0x20;
            mend_header(frame);
        },
    ),
    (
        "half-made checksum",
        |_| {},
        |frame| {
            let packet = parse_frame(frame).unwrap();
            let sum = xlvs::net::checksum::pseudo_header(
                packet.source,
                packet.destination,
                6,
                packet.end - packet.l4,
            );
            frame[packet.l4 + 16..packet.l4 + 18].copy_from_slice(&sum.fold().to_be_bytes());
        },
    ),
];

fn mend_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = xlvs::net::checksum::Sum::default().bytes(&frame[14..34]).finish();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn whatever_is_not_plain_comes_up() {
    let rig = Rig::new();
    let (mut xdp, path, flow, _) = with_flow(&rig, Protocol::TCP, IPV4);
    let mut shorten = |port, frame: &[u8]| rig.router.enter(|| xdp.shorten(PortIndex(port), frame).unwrap());
    let plain = bytes(&spec(&flow));
    assert!(shorten(0, &plain).is_some(), "the plain packet itself");
    for (what, twist, spoil) in TWISTS {
        let mut spec = spec(&flow);
        twist(&mut spec);
        let mut frame = bytes(&spec);
        spoil(&mut frame);
        assert_eq!(shorten(0, &frame), None, "{what}");
    }
    assert_eq!(shorten(1, &plain), None, "by another interface");
    path.set_generation(8);
    assert_eq!(shorten(0, &plain), None, "of an earlier generation");
    path.set_generation(7);
    assert!(shorten(0, &plain).is_some(), "it is as before");
    stop_and_check(xdp);
}

#[test]
fn udp_without_a_checksum_comes_up() {
    let rig = Rig::new();
    let (mut xdp, _path, flow, _) = with_flow(&rig, Protocol::UDP, IPV4);
    let mut spec = spec(&flow);
    spec.nocsum = true;
    assert_eq!(rig.router.enter(|| xdp.shorten(PortIndex(0), &bytes(&spec)).unwrap()), None);
    stop_and_check(xdp);
}

#[test]
fn a_full_table_is_told() {
    let rig = Rig::new();
    let (xdp, path, flow, shortcut) = with_flow(&rig, Protocol::TCP, IPV4);
    let next = |number: u16| FlowKey { source_port: 2000 + number, ..flow };
    let answers: Vec<_> = (0..300).map(|number| path.install(&next(number), &shortcut)).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 127, "64 flows, one was there");
    assert_eq!(answers[299], Err(NoShortcut::Full));
    assert_eq!(path.install(&flow, &shortcut), Ok(()), "what is there may change");
    path.remove(&next(0));
    assert_eq!(path.install(&next(299), &shortcut), Ok(()), "there is room again");
    stop_and_check(xdp);
}

#[test]
fn an_interface_that_takes_no_redirected_frames_gets_none() {
    let rig = Rig::new();
    open(&rig);
    rig.server.run("ethtool -K eth0 gro off");
    let daemon = Daemon::start_with(&rig, AT_ONCE);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2:8080 -m"));
    let listener = rig.server.enter(|| TcpListener::bind("10.2.0.2:8080").unwrap());
    wait_until("the answers take it", || {
        rig.exchange(&listener, &format!("{VIP}:80"), PATIENCE, &vec![3; 300_000]);
        daemon.status().shortcut.packets > 0
    });
    let (_, status) = daemon.xlvs("status");
    assert!(status.contains("shortcut: on; back cannot send what another interface receives"), "{status}");
    assert_eq!(daemon.status().packets.imbalance(), 0, "{status}");
    daemon.stop();
}

#[test]
fn an_interface_that_begins_to_refuse_redirected_frames_gets_none() {
    let rig = Rig::new();
    open(&rig);
    let daemon = Daemon::start_with(&rig, AT_ONCE);
    udp_service(&daemon);
    let (client, server) = sockets(&rig);
    ask_until_lent(&daemon, &client, &server);
    rig.server.run("ethtool -K eth0 gro off");
    wait_until("the daemon notices", || {
        ask(&client, &server);
        daemon.status().shortcut.state == "shortcut: on; back cannot send what another interface receives"
    });
    assert!((0..20).all(|_| ask(&client, &server)), "packets go the long way");
    rig.server.run("ethtool -K eth0 gro on");
    wait_until("they take the shortcut again", || {
        ask(&client, &server);
        daemon.status().shortcut.state == "shortcut: on" && daemon.status().shortcut.flows == 2
    });
    daemon.stop();
}

/// A datagram there and back.
pub fn ask(client: &UdpSocket, server: &UdpSocket) -> bool {
    let mut buffer = [0; 64];
    client.send(b"there").unwrap();
    let Ok((_, from)) = receive(server, &mut buffer) else { return false };
    server.send_to(b"back", from).unwrap();
    receive(client, &mut buffer).is_ok()
}

/// Asks until both directions take the shortcut: at first the daemon may not know the neighbours. Returns how often.
pub fn ask_until_lent(daemon: &Daemon, client: &UdpSocket, server: &UdpSocket) -> u64 {
    let asked = std::cell::Cell::new(0);
    wait_until("both directions take the shortcut", || {
        assert!(ask(client, server));
        asked.set(asked.get() + 1);
        daemon.status().shortcut.flows == 2
    });
    asked.get()
}

pub fn sockets(rig: &Rig) -> (UdpSocket, UdpSocket) {
    let server = rig.server.enter(|| UdpSocket::bind("10.2.0.2:5353").unwrap());
    let client = rig.client.enter(|| UdpSocket::bind("10.1.0.2:4000").unwrap());
    client.connect((VIP.parse::<IpAddr>().unwrap(), 53)).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    }
    (client, server)
}

pub fn udp_service(daemon: &Daemon) {
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2:5353 -m"));
}

#[test]
fn counters_and_listings_know_what_took_the_shortcut() {
    let rig = Rig::new();
    open(&rig);
    let daemon = Daemon::start_with(&rig, AT_ONCE);
    udp_service(&daemon);
    let (client, server) = sockets(&rig);
    let asked = ask_until_lent(&daemon, &client, &server) + 300;
    assert!((0..300).all(|_| ask(&client, &server)));
    let status = daemon.status();
    assert!(status.shortcut.packets > 580, "{status:?}");
    assert_eq!(status.shortcut.flows, 2);
    assert_eq!((status.packets.received, status.packets.imbalance()), (2 * asked, 0), "{status:?}");
    let connections = daemon.listing("-Lnc");
    assert!(connections.contains("UDP 04:59  UDP         10.1.0.2:4000"), "{connections}");
    let counted = format!("UDP {VIP}:53 1 {asked} {asked} {} {}", 33 * asked, 32 * asked);
    let stats = || daemon.listing("-Ln --stats --exact").split_whitespace().collect::<Vec<_>>().join(" ");
    wait_until("the counters are right", || stats().contains(&counted));
    daemon.ipvsadm("-Z");
    assert!(stats().contains(&format!("UDP {VIP}:53 0 0 0 0 0")), "{}", stats());
    assert!(ask(&client, &server));
    wait_until("they go on from zero", || stats().contains(&format!("UDP {VIP}:53 0 1 1 33 32")));
    daemon.stop();
}

#[test]
fn edits_count_from_the_next_packet_on() {
    let rig = Rig::new();
    open(&rig);
    let daemon = Daemon::start_with(&rig, AT_ONCE);
    udp_service(&daemon);
    let (client, server) = sockets(&rig);
    ask_until_lent(&daemon, &client, &server);
    assert!((0..20).all(|_| ask(&client, &server)));
    let before = daemon.status().shortcut.packets;
    assert!(before > 20, "{before}");
    daemon.ipvsadm(&format!("-e -u {VIP}:53 -r 10.2.0.2:5353 -m -w 0"));
    assert!((0..20).all(|_| ask(&client, &server)), "a quiesced server keeps its connections");
    let quiesced = daemon.status().shortcut.packets;
    assert!(quiesced > before, "and they the shortcut: {quiesced} {before}");
    daemon.ipvsadm(&format!("-d -u {VIP}:53 -r 10.2.0.2:5353"));
    assert!(!ask(&client, &server), "a deleted one gets nothing");
    assert_eq!(daemon.status().shortcut.packets, quiesced);
    daemon.stop();
}

#[test]
fn a_connection_lives_by_its_shortcut_and_ends_after_it() {
    let rig = Rig::new();
    open(&rig);
    let daemon = Daemon::start_with(&rig, AT_ONCE);
    udp_service(&daemon);
    daemon.ipvsadm("--set 0 0 1");
    let (client, server) = sockets(&rig);
    ask_until_lent(&daemon, &client, &server);
    // Three times as long as a connection lives after its last packet.
    for _ in 0..60 {
        assert!(ask(&client, &server));
        poll(&mut [], PollTimeout::from(50u8)).unwrap();
    }
    let status = daemon.status();
    // A change of the network may have sent a packet the long way.
    assert!(status.shortcut.packets > 100, "{status:?}");
    let listing = daemon.listing("-Ln --stats --exact");
    assert!(listing.contains("  1  "), "one connection all the time: {listing}");
    wait_until("it has ended", || daemon.status().connections == 0);
    assert_eq!(daemon.status().shortcut.flows, 0, "and its shortcut with it");
    daemon.stop();
}
