//! Real traffic through the rings.

use std::net::{IpAddr, TcpListener, UdpSocket};

use nix::poll::{PollTimeout, poll};
use xlvs::ipvs::steering::Steering;
use xlvs::ipvs::verdict::{DropReason, Verdict};
use xlvs::net::addr::{PortIndex, PortRange, Protocol};
use xlvs::xdp::{AttachSetting, AttachedMode, RingLosses, Xdp};

use super::rig::{Decision, PATIENCE, Rig, stop_and_check, wait_until};

const SERVER: &str = "10.2.0.2:80";

pub fn all_ports(protocol: Protocol) -> Vec<PortRange> {
    vec![PortRange { protocol, ports: 0..=65535 }]
}

pub fn to(address: &str, protocol: Protocol) -> Steering {
    let address: IpAddr = address.parse().unwrap();
    Steering { destinations: vec![(address.into(), all_ports(protocol))], ..Steering::default() }
}

/// Makes the router a wire for IP: each side takes the other for its neighbour.
pub fn bridge_steering(rig: &Rig) -> Steering {
    let server_mac = Rig::mac(&rig.server, "eth0");
    let client_mac = Rig::mac(&rig.client, "eth0");
    rig.client.run(&format!("ip neigh replace 10.1.0.1 lladdr {server_mac} dev eth0 nud permanent"));
    rig.server.run(&format!("ip neigh replace 10.2.0.1 lladdr {client_mac} dev eth0 nud permanent"));
    Steering {
        servers: vec![("10.2.0.2".parse().unwrap(), all_ports(Protocol::TCP))],
        ..to("10.2.0.2", Protocol::TCP)
    }
}

fn other_port(frame: &mut xlvs::net::frame::Frame<'_>) -> Verdict {
    Verdict::Transmit(PortIndex(1 - frame.port().0))
}

fn transmits_between_ports(mode: AttachSetting, expected: AttachedMode) {
    let rig = Rig::new();
    let (mut xdp, _handed_over) = rig.start(&rig.config(mode), other_port).unwrap();
    for status in xdp.port_status() {
        assert_eq!(status.mode, expected, "{status:?}");
    }
    xdp.apply_steering(&bridge_steering(&rig)).unwrap();
    let listener = rig.server.enter(|| TcpListener::bind(SERVER).unwrap());
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    rig.exchange(&listener, SERVER, PATIENCE, &data);
    let totals = stop_and_check(xdp);
    assert!(totals.transmitted > 1000, "{totals:?}");
    assert_eq!(totals.passed, 0, "{totals:?}");
}

#[test]
fn native_mode_transmits_between_ports() {
    transmits_between_ports(AttachSetting::Native, AttachedMode::Native);
}

#[test]
fn skb_mode_transmits_between_ports() {
    transmits_between_ports(AttachSetting::Skb, AttachedMode::Skb);
}

/// The router's own socket answers, though every packet came up first; `iptables -i` would see its interface, as
/// rp_filter does here.
fn passes_to_the_stack(mode: AttachSetting) {
    let rig = Rig::new();
    rig.router.run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.front.rp_filter=1");
    let (mut xdp, _handed_over) = rig.start(&rig.config(mode), |_| Verdict::Pass).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::TCP)).unwrap();
    let listener = rig.router.enter(|| TcpListener::bind("10.1.0.1:80").unwrap());
    rig.exchange(&listener, "10.1.0.1:80", PATIENCE, &vec![7; 200_000]);
    let totals = stop_and_check(xdp);
    assert!(totals.passed > 10, "{totals:?}");
    assert_eq!(totals.transmitted, 0, "{totals:?}");
}

#[test]
fn native_mode_passes_to_the_stack() {
    passes_to_the_stack(AttachSetting::Native);
}

#[test]
fn skb_mode_passes_to_the_stack() {
    passes_to_the_stack(AttachSetting::Skb);
}

fn received(xdp: &Xdp) -> u64 {
    xdp.counters().iter().map(|counters| counters.totals().received).sum()
}

fn send_datagram(rig: &Rig, port: u16) {
    rig.client.enter(|| {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.send_to(b"datagram", ("10.1.0.1", port)).unwrap();
    });
}

#[test]
fn hands_over_ip_packets() {
    let rig = Rig::new();
    let config = rig.config(AttachSetting::Auto);
    let (mut xdp, handed_over) = rig.start(&config, |_| Verdict::HandOver).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::UDP)).unwrap();
    send_datagram(&rig, 53);
    let packet = handed_over.recv_timeout(PATIENCE).unwrap();
    assert_eq!(packet[0], 0x45, "an IPv4 header: {packet:02x?}");
    assert_eq!(&packet[12..20], [10, 1, 0, 2, 10, 1, 0, 1]);
    assert!(packet.ends_with(b"datagram"));
    assert_eq!(stop_and_check(xdp).handed_over, 1);
}

#[test]
fn a_full_hand_over_channel_is_counted() {
    let rig = Rig::new();
    let config = rig.config(AttachSetting::Auto);
    let (mut xdp, handed_over) = rig.start(&config, |_| Verdict::HandOver).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::UDP)).unwrap();
    (0..70).for_each(|_| send_datagram(&rig, 53));
    wait_until("all have come up", || received(&xdp) == 70);
    let totals = stop_and_check(xdp);
    assert_eq!(handed_over.len(), 64, "{totals:?}");
    assert_eq!(totals.handed_over, 64, "{totals:?}");
    assert_eq!(totals.dropped, [(DropReason::KernelQueueFull, 6)]);
}

#[test]
fn a_frame_may_grow_into_its_room() {
    let rig = Rig::new();
    let grow: Decision = |frame| {
        let capacity = frame.capacity();
        assert!(capacity >= 1536, "{capacity}");
        if frame.resize(capacity) && !frame.resize(capacity + 1) {
            Verdict::HandOver
        } else {
            Verdict::Drop(DropReason::NoRoom)
        }
    };
    let (mut xdp, handed_over) = rig.start(&rig.config(AttachSetting::Auto), grow).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::UDP)).unwrap();
    send_datagram(&rig, 53);
    let packet = handed_over.recv_timeout(PATIENCE).unwrap();
    assert!(packet.len() > 1500, "{}", packet.len());
    stop_and_check(xdp);
}

#[test]
fn two_queues_share_the_work() {
    let rig = Rig::with_queues(2);
    let (mut xdp, _handed_over) = rig.start(&rig.config(AttachSetting::Native), other_port).unwrap();
    assert_eq!(xdp.port_status()[0].queues, 2);
    xdp.apply_steering(&bridge_steering(&rig)).unwrap();
    let listener = rig.server.enter(|| TcpListener::bind(SERVER).unwrap());
    (0..32).for_each(|_| rig.exchange(&listener, SERVER, PATIENCE, b"one of many flows"));
    for (queue, counters) in xdp.counters().iter().enumerate() {
        assert!(counters.totals().received > 0, "nothing on queue {queue}");
    }
    stop_and_check(xdp);
}

#[test]
fn what_no_ring_takes_is_told() {
    let rig = Rig::new();
    let slow: Decision = |_| {
        poll(&mut [], PollTimeout::from(20u8)).unwrap();
        Verdict::Drop(DropReason::NoDestination)
    };
    let mut config = rig.config(AttachSetting::Auto);
    config.frames = 32;
    let (mut xdp, _handed_over) = rig.start(&config, slow).unwrap();
    xdp.apply_steering(&to("10.1.0.1", Protocol::UDP)).unwrap();
    (0..100).for_each(|_| send_datagram(&rig, 53));
    wait_until("packets are lost", || xdp.ring_losses() != RingLosses::default());
    let totals = stop_and_check(xdp);
    assert!(totals.received < 100, "{totals:?}");
    assert_eq!(totals.dropped, [(DropReason::NoDestination, totals.received)]);
}
