//! Frames and packets that the host layer sends, as the peer receives them, and what it may do.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use xlvs::host::announce::announce;
use xlvs::host::privilege::{ForwardingSettings, require};
use xlvs::host::raw::RawSender;
use xlvs::net::addr::MacAddr;
use xlvs::net::announce::{gratuitous_arp, unsolicited_advertisement};

use super::namespace::{Namespace, Pair};

const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that arrive in a namespace: everything on its eth0.
struct Capture {
    socket: socket2::Socket,
}

impl Capture {
    fn start(namespace: &Namespace) -> Self {
        let protocol = socket2::Protocol::from(i32::from(0x0003_u16.to_be()));
        let open = || socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(protocol));
        let socket = namespace.block_on(async || open()).expect("a packet socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Capture { socket }
    }

    /// The next frame that satisfies `wanted`.
    fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut buffer = [0; 2048];
        loop {
            let len = self.socket.read(&mut buffer).expect("a frame in time");
            if wanted(&buffer[..len]) {
                return buffer[..len].to_vec();
            }
        }
    }
}

#[test]
fn gratuitous_arp_reaches_the_peer_byte_for_byte() {
    let pair = Pair::new();
    let mut capture = Capture::start(&pair.server);
    let vip = Ipv4Addr::new(10, 0, 0, 100);
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    pair.router.block_on(async || {
        let link = nix::net::if_::if_nametoindex("eth0").expect("an interface");
        announce(link, mac, vip.into(), 2, Duration::from_millis(1)).await.expect("announced");
        let error = announce(9999, mac, vip.into(), 1, Duration::ZERO).await.expect_err("no such link");
        assert_eq!(error.to_string(), "cannot announce 10.0.0.100: there is no interface with index 9999");
    });
    let mut expected = [&[0xff; 6][..], &mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    expected.extend([&mac.0[..], &[10, 0, 0, 100], &mac.0, &[10, 0, 0, 100], &[0; 18]].concat());
    for round in 0..2 {
        let frame = capture.next(|frame| frame[12..14] == [8, 6]);
        assert_eq!(frame, expected, "announcement {round}");
    }
    assert_eq!(gratuitous_arp(mac, vip).as_slice(), expected);
}

#[test]
fn an_unsolicited_advertisement_changes_what_the_peer_knows() {
    let pair = Pair::new();
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let vip: Ipv6Addr = "fd00::100".parse().expect("an address");
    pair.server.ip("neighbour replace fd00::100 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
    let mut capture = Capture::start(&pair.server);
    pair.router.block_on(async || {
        let link = nix::net::if_::if_nametoindex("eth0").expect("an interface");
        announce(link, mac, vip.into(), 1, Duration::ZERO).await.expect("announced");
    });
    let frame = capture.next(|frame| frame[12..14] == [0x86, 0xdd] && frame[20] == 58);
    assert_eq!(frame, unsolicited_advertisement(mac, vip));
    let known = pair.server.ip("neighbour show fd00::100");
    assert!(known.contains("lladdr 02:00:00:00:00:01 router"), "{known}");
}

/// A UDP packet from a client that is not ours, with a header checksum that is wrong.
fn foreign_packet(destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0x12, 0x34, 0x40, 0, 61, 17, 0xde, 0xad, 192, 0, 2, 7];
    packet.extend(destination.octets());
    packet.extend([0x30, 0x39, 0, 80, 0, 12, 0, 0]);
    packet.extend(b"xlvs");
    packet
}

#[test]
fn a_raw_packet_waits_for_its_neighbour() {
    let pair = Pair::new();
    let mut capture = Capture::start(&pair.server);
    let server = Ipv4Addr::new(10, 0, 0, 2);
    let packet = foreign_packet(server);
    let before = pair.router.ip("-4 neighbour show");
    assert!(!before.contains("10.0.0.2 "), "resolved already: {before}");
    pair.router.block_on(async || RawSender::open().expect("a raw socket").send(&packet)).expect("sent");
    capture.next(|frame| frame[12..14] == [8, 6]);
    let frame = capture.next(|frame| frame[12..14] == [8, 0]);
    assert_eq!(frame[14..24], packet[..10], "the header as it was");
    assert_ne!(frame[24..26], packet[10..12], "the kernel corrects the checksum");
    assert_eq!(frame[26..], packet[12..], "addresses and payload as they were");
    assert_eq!(frame[..6], [2, 0, 0, 0, 0, 2]);
}

#[test]
fn a_large_raw_packet_is_fragmented_if_it_may() {
    const HEADER: usize = 20;
    let pair = Pair::new();
    pair.router.ip("neighbour replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0");
    pair.router.ip("route add 10.9.0.0/16 via 10.0.0.2 mtu 1000");
    for (destination, mtu) in [(Ipv4Addr::new(10, 0, 0, 2), 1500), (Ipv4Addr::new(10, 9, 0, 1), 996)] {
        let mut capture = Capture::start(&pair.server);
        let mut packet = foreign_packet(destination);
        packet.extend((0..3000u16).map(|i| i as u8));
        // May be fragmented, and has no identification yet.
        packet[4..8].copy_from_slice(&[0; 4]);
        pair.router.block_on(async || RawSender::open().expect("a raw socket").send(&packet)).expect("sent");
        let (mut payload, mut ids) = (Vec::<u8>::new(), Vec::new());
        while payload.len() < packet.len() - HEADER {
            let frame = capture.next(|frame| frame[12..14] == [8, 0] && frame[23] == 17);
            let fragment = &frame[14..];
            assert!(fragment.len() <= mtu, "{} bytes to {destination}", fragment.len());
            let offset = usize::from(u16::from_be_bytes([fragment[6] & 0x1f, fragment[7]])) * 8;
            assert_eq!(offset, payload.len(), "the fragments come in order");
            payload.extend(&fragment[HEADER..]);
            ids.push([fragment[4], fragment[5]]);
        }
        assert!(payload == packet[HEADER..], "{payload:02x?}");
        ids.dedup();
        assert!(ids.len() == 1 && ids[0] != [0, 0], "one identification for all: {ids:?}");
    }
}

/// A UDP packet from a client that is not ours, behind an extension header.
fn foreign_packet6(destination: &str) -> Vec<u8> {
    let [source, destination] =
        ["2001:db8::7", destination].map(|text| text.parse::<Ipv6Addr>().expect("an address"));
    let mut packet = vec![0x60, 0x01, 0x23, 0x45, 0, 20, 60, 61];
    packet.extend([source.octets(), destination.octets()].concat());
    packet.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([0x30, 0x39, 0, 80, 0, 12, 0x12, 0x34]);
    packet.extend(b"xlvs");
    packet
}

#[test]
fn a_raw_ipv6_packet_waits_for_its_neighbour() {
    let pair = Pair::new();
    let mut capture = Capture::start(&pair.server);
    let packet = foreign_packet6("fd00::2");
    let before = pair.router.ip("-6 neighbour show");
    assert!(!before.contains("fd00::2 "), "resolved already: {before}");
    pair.router.block_on(async || RawSender::open().expect("a raw socket").send(&packet)).expect("sent");
    let is_solicitation = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135;
    capture.next(is_solicitation);
    let frame = capture.next(|frame| frame[12..14] == [0x86, 0xdd] && frame[20] == 60);
    assert_eq!(frame[14..], packet, "every byte as it was");
    assert_eq!(frame[..6], [2, 0, 0, 0, 0, 2]);
}

#[test]
fn raw_sending_refuses_what_it_cannot_send() {
    let pair = Pair::new();
    pair.router.block_on(async || {
        let sender = RawSender::open().expect("a raw socket");
        let link_local = foreign_packet6("fe80::2");
        for nonsense in [&[][..], &[0x45; 19], &[0x60; 39], &[0x70; 40], &link_local] {
            let error = sender.send(nonsense).expect_err("not a packet to an address");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let mut large = foreign_packet(Ipv4Addr::new(10, 0, 0, 2));
        large.resize(1600, 0);
        let error = sender.send(&large).expect_err("larger than the MTU");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32));
        let mut large = foreign_packet6("fd00::2");
        large.resize(1600, 0);
        let error = sender.send(&large).expect_err("larger than the MTU");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32));
        for unreachable in [foreign_packet(Ipv4Addr::new(172, 16, 0, 1)), foreign_packet6("2001:db8::1")] {
            let error = sender.send(&unreachable).expect_err("no route");
            assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        }
    });
}

#[test]
fn forwarding_settings_are_those_of_the_namespace() {
    let pair = Pair::new();
    pair.router.block_on(async || {
        require().expect("these tests run with all privileges");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("to set a sysctl");
        assert_eq!(ForwardingSettings::read(&["eth0"]).ip_forward, Some(0));
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("to set a sysctl");
        assert_eq!(ForwardingSettings::read(&["eth0"]).ip_forward, Some(1));
    });
}
