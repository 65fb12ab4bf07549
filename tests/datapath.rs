//! What the datapath does where no recording can show it: hardware addresses, VLAN tags, checksums left to a NIC, neighbours
//! that are not known.

use std::time::Duration;

use serde_json::json;
use xlvs::ipvs::verdict::{DropReason, Verdict};
use xlvs::net::addr::PortIndex;
use xlvs::net::frame::Frame;
use xlvs::net::route::{HostNetwork, InterfaceAddress};

use crate::support::decode::decode;
use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{self, PacketSpec, build};
use crate::support::text::{Identities, line};

const TO_SERVERS: Verdict = Verdict::Transmit(PortIndex(1));

/// A router with one TCP service and one server.
fn router() -> Router {
    let mut router = Router::new();
    for command in ["ipvsadm -A -t 10.10.1.30:80 -s wlc", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m"]
    {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

/// An IP packet of a client, as scenarios describe them, to the service.
fn request(more: serde_json::Value) -> Vec<u8> {
    let mut spec = json!({"src": "192.0.2.10", "dst": "10.10.1.30", "proto": "tcp", "sport": 1000, "dport": 80,
        "flags": "S", "seq": 1, "id": 7});
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let spec: PacketSpec = serde_json::from_value(spec).unwrap();
    build(&spec, None).remove(0)
}

/// The IP packet in a frame as a line of text.
fn shown(frame: &[u8]) -> String {
    line(&decode(ethernet::packet(frame).unwrap()), &Identities::of(7, 0))
}

const FORWARDED: &str =
    "tcp 192.0.2.10:1000 > 10.8.8.33:8080 S seq=1 ack=0 win=65535 ttl=63 id=in iplen=40 ipsum=ok l4sum=ok";

#[test]
fn a_frame_for_another_machine_is_left_alone() {
    let mut router = router();
    let mut frame = ethernet::frame(Side::Client, &request(json!({})));
    frame[5] ^= 1;
    let (verdict, after) = router.process(Side::Client, &frame);
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(after, frame, "passed frames are as they came");
}

#[test]
fn the_way_out_has_its_own_ethernet_header() {
    let (verdict, frame) =
        router().process(Side::Client, &ethernet::frame(Side::Client, &request(json!({}))));
    assert_eq!(verdict, TO_SERVERS);
    assert_eq!(frame[..6], ethernet::neighbour_mac(Side::Server));
    assert_eq!(frame[6..12], ethernet::router_mac(Side::Server));
    assert_eq!(shown(&frame), FORWARDED);
}

#[test]
fn vlan_tags_and_padding_of_the_way_in_are_dropped() {
    let mut frame = ethernet::frame(Side::Client, &request(json!({})));
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x64]);
    frame.extend([0xee; 6]);
    let (verdict, frame) = router().process(Side::Client, &frame);
    assert_eq!(verdict, TO_SERVERS);
    assert_eq!(frame.len(), 54);
    assert_eq!(shown(&frame), FORWARDED);
}

/// A sender behind a veth leaves the checksum to the NIC: only the pseudo header's sum is there.
#[test]
fn a_checksum_left_to_the_nic_is_completed() {
    let mut bytes = request(json!({"len": 100, "flags": "S"}));
    let (source, destination) = ("192.0.2.10".parse().unwrap(), "10.10.1.30".parse().unwrap());
    let partial = !packet::checksum(&packet::pseudo_header(source, destination, 6, bytes.len() - 20));
    packet::put(&mut bytes, 36, partial);
    let (verdict, frame) = router().process(Side::Client, &ethernet::frame(Side::Client, &bytes));
    assert_eq!(verdict, TO_SERVERS);
    assert!(shown(&frame).contains("l4sum=ok"), "{}", shown(&frame));
}

#[test]
fn an_unknown_neighbour_makes_it_the_kernels_packet() {
    let mut router = router();
    router.change_network(|network| network.neighbours.retain(|known| known.link != 2));
    let (verdict, frame) = router.process(Side::Client, &ethernet::frame(Side::Client, &request(json!({}))));
    assert_eq!(verdict, Verdict::HandOver, "the kernel asks for the neighbour and keeps the packet");
    assert_eq!(shown(&frame), FORWARDED, "rewritten all the same");
}

/// A router with one TCP service and one server that is reached by `method`.
fn router_by(method: &str) -> Router {
    let mut router = Router::new();
    let server = format!("ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33 {method}");
    for command in ["ipvsadm -A -t 10.10.1.30:80 -s wlc", &server] {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

#[test]
fn an_unknown_neighbour_stops_direct_routing_but_not_a_tunnel() {
    let frame = ethernet::frame(Side::Client, &request(json!({})));
    let forget = |network: &mut HostNetwork| network.neighbours.retain(|known| known.link != 2);
    let mut direct = router_by("-g");
    direct.change_network(forget);
    let (verdict, _) = direct.process(Side::Client, &frame);
    assert_eq!(verdict, Verdict::Drop(DropReason::Unresolved), "the kernel would deliver it to itself");
    let mut tunnel = router_by("-i");
    tunnel.change_network(forget);
    let (verdict, frame) = tunnel.process(Side::Client, &frame);
    assert_eq!(verdict, Verdict::HandOver);
    assert!(shown(&frame).starts_with("ipip 10.8.8.1 > 10.8.8.33 "), "{}", shown(&frame));
}

#[test]
fn a_tunnel_starts_at_the_address_nearest_to_its_next_hop() {
    let mut router = router_by("-i --tun-type gre");
    router.change_network(|network| {
        let own = |address: &str, prefix_len| {
            let address = address.parse().unwrap();
            InterfaceAddress { link: 2, address, prefix_len }
        };
        network.addresses.retain(|own| own.link != 2);
        network.addresses.extend([own("203.0.113.1", 24), own("10.8.8.7", 24), own("10.8.8.8", 24)]);
    });
    let (verdict, frame) = router.process(Side::Client, &ethernet::frame(Side::Client, &request(json!({}))));
    assert_eq!(verdict, TO_SERVERS);
    assert!(shown(&frame).starts_with("gre 10.8.8.7 > 10.8.8.33 "), "{}", shown(&frame));
}

#[test]
fn a_tunnel_packet_that_its_buffer_has_no_room_for_is_dropped() {
    let mut router = router_by("-i");
    let mut frame = ethernet::frame(Side::Client, &request(json!({})));
    let length = frame.len();
    let (verdict, _) = router.decide(Frame::new(&mut frame, length, PortIndex(0)));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoom));
}

#[test]
fn a_path_mtu_is_forgotten_after_ten_minutes() {
    let mut router = router_by("-i");
    let big = request(json!({"flags": "PA", "len": 1400, "df": true}));
    router.send(Side::Client, &request(json!({})));
    let sent = router.send(Side::Client, &big);
    let error = json!({"src": "10.8.8.40", "dst": "10.8.8.1", "proto": "icmp", "id": 8,
        "icmp": {"type": 3, "code": 4, "mtu": 1300}});
    let error: PacketSpec = serde_json::from_value(error).unwrap();
    let error = build(&error, Some(&sent[0].1[..100])).remove(0);
    assert_eq!(router.send(Side::Server, &error).len(), 1, "the client is told");
    assert_eq!(router.send(Side::Client, &big)[0].0, Side::Client, "too large now");
    router.advance(Duration::from_secs(599));
    assert_eq!(router.send(Side::Client, &big)[0].0, Side::Client, "and still");
    router.advance(Duration::from_secs(2));
    assert_eq!(router.send(Side::Client, &big)[0].0, Side::Server, "tried again");
}

#[test]
fn no_route_to_the_server_is_told_to_the_client() {
    let mut router = router();
    router
        .change_network(|network| network.routes.retain(|route| route.link != 2 && route.gateway.is_none()));
    router.change_network(|network| network.neighbours.retain(|known| known.link != 1));
    let on_link = request(json!({"src": "10.10.1.200"}));
    let (verdict, frame) = router.process(Side::Client, &ethernet::frame(Side::Client, &on_link));
    assert_eq!(verdict, Verdict::HandOver, "the client is no neighbour yet either");
    assert!(shown(&frame).starts_with("icmp 10.10.1.30 > 10.10.1.200 type=3 code=1"), "{}", shown(&frame));
}

#[test]
fn a_lone_fragment_is_held_and_not_answered() {
    let fragment = request(json!({"frag": 16, "frag_order": [1], "opts": "020405b4"}));
    let (verdict, _) = router().process(Side::Client, &ethernet::frame(Side::Client, &fragment));
    assert_eq!(verdict, Verdict::Hold);
}

#[test]
fn what_is_too_short_for_its_headers_is_dropped() {
    let whole = ethernet::frame(Side::Client, &request(json!({})));
    for len in 0..whole.len() {
        let (verdict, _) = router().process(Side::Client, &whole[..len]);
        let expected = match len {
            0..14 => Verdict::Pass,
            14..34 => Verdict::Drop(DropReason::Malformed),
            _ => Verdict::Drop(DropReason::Truncated),
        };
        assert_eq!(verdict, expected, "a frame of {len} bytes");
    }
}

#[test]
fn a_flood_without_a_server_is_answered_a_thousand_times_a_second_at_most() {
    let mut router = router();
    router.run("ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33:8080 -m -w 0");
    let answered = |router: &mut Router| {
        (0..2000).filter(|_| router.send(Side::Client, &request(json!({}))).len() == 1).count()
    };
    assert_eq!(answered(&mut router), 50, "the burst");
    router.advance(std::time::Duration::from_millis(20));
    assert_eq!(answered(&mut router), 20, "and one a millisecond");
}

#[test]
fn the_ftp_data_port_opens_nothing() {
    let packet = request(json!({"sport": 20}));
    let (verdict, _) = router().process(Side::Client, &ethernet::frame(Side::Client, &packet));
    assert_eq!(verdict, Verdict::Pass);
}
