//! What goes beyond IPVS: each switch, and what happens without it.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use xlvs::admin::client::Transport as _;
use xlvs::config::settings;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{ServerId, ServiceId};
use xlvs::net::addr::Protocol;

use crate::support::decode::decode;
use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};
use crate::support::text::{Identities, line};

const SERVER: ServerId =
    ServerId { address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 8, 33)), port: 8080 };

/// A router with these commands done.
fn router(settings: &str, commands: &[&str]) -> Router {
    let mut router = Router::with_beyond(settings::parse("xlvs.toml", settings).unwrap().beyond());
    for command in commands {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

const SERVICE: [&str; 2] =
    ["ipvsadm -A -t 10.10.1.30:80 -s wlc", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m"];

/// Sends a packet as scenarios describe it; what comes out, a line each.
fn send(router: &mut Router, side: Side, mut fields: serde_json::Value) -> Vec<String> {
    let from_client = json!({"src": "192.0.2.10", "dst": "10.10.1.30", "proto": "tcp", "sport": 1000, "dport": 80,
        "flags": "S", "seq": 1, "id": 7});
    let from_server = json!({"src": "10.8.8.33", "dst": "192.0.2.10", "proto": "tcp", "sport": 8080, "dport": 1000,
        "flags": "A", "seq": 5000, "ack": 2, "id": 7});
    let mut spec = if side == Side::Client { from_client } else { from_server };
    spec.as_object_mut().unwrap().append(fields.as_object_mut().unwrap());
    let spec: PacketSpec = serde_json::from_value(spec).unwrap();
    let out = router.send(side, &build(&spec, None).remove(0));
    out.iter()
        .map(|(side, packet)| format!("{side} {}", line(&decode(packet), &Identities::of(7, 0))))
        .collect()
}

/// A handshake through the service.
fn establish(router: &mut Router) {
    for (side, fields) in [
        (Side::Client, json!({"seq": 1})),
        (Side::Server, json!({"flags": "SA", "seq": 5000, "ack": 2})),
        (Side::Client, json!({"flags": "A", "seq": 2, "ack": 5001})),
    ] {
        assert_eq!(send(router, side, fields.clone()).len(), 1, "{fields}");
    }
}

fn set(router: &mut Router, name: &str, value: &str) -> Reply {
    router.call(Request::Sysctl { name: name.into(), value: Some(value.into()) }).unwrap()
}

fn connections(router: &mut Router) -> String {
    router.dump(&["conns".to_owned()])
}

#[test]
fn a_segment_without_destination_is_reset_where_asked() {
    let mut router = router("", &["ipvsadm -A -t 10.10.1.30:80 -s wlc"]);
    let unreachable = send(&mut router, Side::Client, json!({}));
    assert!(unreachable[0].starts_with("c icmp 10.10.1.30 > 192.0.2.10 type=3 code=3"), "{unreachable:?}");
    set(&mut router, "xlvs.tcp_reset_no_destination", "1");
    let reset =
        send(&mut router, Side::Client, json!({"seq": 1000, "len": 10, "opts": "020405b4", "tos": 0x13}));
    assert_eq!(
        reset,
        [
            "c tcp 10.10.1.30:80 > 192.0.2.10:1000 RA seq=0 ack=1011 win=0 ttl=64 tos=16 DF id=0 iplen=40 ipsum=ok l4sum=ok"
        ]
    );
    let to_syn_ack = send(&mut router, Side::Client, json!({"flags": "SA", "seq": 7, "ack": 77}));
    assert_eq!(
        to_syn_ack,
        [
            "c tcp 10.10.1.30:80 > 192.0.2.10:1000 R seq=77 ack=0 win=0 ttl=64 DF id=0 iplen=40 ipsum=ok l4sum=ok"
        ]
    );
    assert!(
        send(&mut router, Side::Client, json!({"bad": ["l4"]})).is_empty(),
        "a corrupt segment proves nothing"
    );
    let udp = ["ipvsadm -A -u 10.10.1.30:53 -s rr"].map(|command| router.run(command).code);
    assert_eq!(udp, [0]);
    let unreachable = send(&mut router, Side::Client, json!({"proto": "udp", "dport": 53, "flags": ""}));
    assert!(unreachable[0].starts_with("c icmp"), "UDP has no resets: {unreachable:?}");
}

#[test]
fn resets_in_both_families_and_for_one_service_alone() {
    let settings = "[[service]]\nmatch = 'tcp [fd00:10::30]:80'\ntcp_reset_no_destination = true\n";
    let mut router =
        router(settings, &["ipvsadm -A -t [fd00:10::30]:80 -s rr", "ipvsadm -A -t 10.10.1.30:80 -s rr"]);
    let v6 = json!({"src": "2001:db8::10", "dst": "fd00:10::30", "seq": 9});
    let reset = send(&mut router, Side::Client, v6);
    assert!(
        reset[0].starts_with("c tcp [fd00:10::30]:80 > [2001:db8::10]:1000 RA seq=0 ack=10 win=0 ttl=64")
            && reset[0].ends_with("iplen=60 l4sum=ok"),
        "{reset:?}"
    );
    let other = send(&mut router, Side::Client, json!({}));
    assert!(other[0].starts_with("c icmp"), "{other:?}");
}

#[test]
fn an_untranslated_reply_is_dropped_where_asked() {
    let mut router = router("", &SERVICE);
    let leaked = send(&mut router, Side::Server, json!({}));
    assert!(leaked[0].starts_with("c tcp 10.8.8.33:8080 > 192.0.2.10:1000 A"), "{leaked:?}");
    set(&mut router, "xlvs.drop_untranslated", "1");
    assert!(send(&mut router, Side::Server, json!({})).is_empty());
    let to_router = send(&mut router, Side::Server, json!({"dst": "10.8.8.1"}));
    assert_eq!(to_router.len(), 1, "a health check's answer reaches the router: {to_router:?}");
    let other_port = send(&mut router, Side::Server, json!({"sport": 22}));
    assert_eq!(other_port.len(), 1, "the server's other traffic goes on: {other_port:?}");
    establish(&mut router);
}

#[test]
fn a_service_has_timeouts_of_its_own() {
    let settings = "[[service]]\nmatch = 'tcp 10.10.1.30:80'\ntcp = 30\ntcp_fin = 7\n\
                    [[service]]\nmatch = 'fwmark 7'\nudp = 5\n";
    let mut router = router(settings, &SERVICE);
    for command in [
        "iptables -t mangle -A PREROUTING -d 10.10.1.30/32 -p udp -m udp --dport 53 -j MARK --set-mark 7",
        "ipvsadm -A -f 7 -s rr",
        "ipvsadm -a -f 7 -r 10.8.8.34 -m",
        "ipvsadm -A -u 10.10.1.30:54 -s rr",
        "ipvsadm -a -u 10.10.1.30:54 -r 10.8.8.34 -m",
    ] {
        assert_eq!(router.run(command).code, 0, "{command}");
    }
    establish(&mut router);
    for port in [53, 54] {
        assert_eq!(
            send(&mut router, Side::Client, json!({"proto": "udp", "dport": port, "flags": ""})).len(),
            1
        );
    }
    let listed = connections(&mut router);
    assert!(listed.contains("00:30  ESTABLISHED"), "{listed}");
    assert!(listed.contains("00:05  UDP         192.0.2.10:1000    10.10.1.30:53"), "{listed}");
    assert!(listed.contains("05:00  UDP         192.0.2.10:1000    10.10.1.30:54"), "{listed}");
    send(&mut router, Side::Server, json!({"flags": "FA"}));
    let listed = connections(&mut router);
    assert!(listed.contains("00:07  FIN_WAIT"), "{listed}");
}

/// What leaves while time passes, a line each.
fn pass(router: &mut Router, seconds: u64) -> Vec<String> {
    let departures = router.pass(Duration::from_secs(seconds), Duration::from_millis(100));
    let shown = |packet: &[u8]| line(&decode(packet), &Identities::of(7, 0));
    departures.iter().map(|departure| format!("{} {}", departure.side, shown(&departure.packet))).collect()
}

const IDLE_FOR_LONG: u64 = 901;

#[test]
fn both_ends_of_an_idle_connection_are_reset_where_asked() {
    let mut plain = router("", &SERVICE);
    establish(&mut plain);
    assert!(pass(&mut plain, IDLE_FOR_LONG).is_empty(), "IPVS says nothing");
    let mut router = router("[beyond_ipvs]\nreset_on_expiry = true\n", &SERVICE);
    establish(&mut router);
    send(&mut router, Side::Server, json!({"seq": 5001, "ack": 2, "len": 100}));
    send(&mut router, Side::Client, json!({"flags": "A", "seq": 2, "ack": 5101}));
    assert_eq!(
        pass(&mut router, IDLE_FOR_LONG),
        [
            "c tcp 10.10.1.30:80 > 192.0.2.10:1000 RA seq=5101 ack=2 win=0 ttl=64 DF id=0 iplen=40 ipsum=ok l4sum=ok",
            "s tcp 192.0.2.10:1000 > 10.8.8.33:8080 RA seq=2 ack=5101 win=0 ttl=64 DF id=0 iplen=40 ipsum=ok l4sum=ok",
        ]
    );
    assert!(pass(&mut router, IDLE_FOR_LONG).is_empty(), "once");
}

#[test]
fn only_established_connections_that_expire_are_reset() {
    let mut router = router("[beyond_ipvs]\nreset_on_expiry = true\n", &SERVICE);
    send(&mut router, Side::Client, json!({}));
    assert!(pass(&mut router, IDLE_FOR_LONG).is_empty(), "half open");
    establish(&mut router);
    send(&mut router, Side::Client, json!({"flags": "FA", "seq": 2, "ack": 5001}));
    send(&mut router, Side::Server, json!({"flags": "FA", "seq": 5001, "ack": 3}));
    assert!(pass(&mut router, IDLE_FOR_LONG).is_empty(), "closed");
    let udp = ["ipvsadm -A -u 10.10.1.30:53 -s rr", "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33 -m"];
    udp.into_iter().for_each(|command| assert_eq!(router.run(command).code, 0));
    send(&mut router, Side::Client, json!({"proto": "udp", "dport": 53, "flags": ""}));
    assert!(pass(&mut router, IDLE_FOR_LONG).is_empty(), "UDP");
}

#[test]
fn a_packet_that_comes_just_too_late_finds_both_ends_reset() {
    let settings = "[[service]]\nmatch = 'tcp 10.10.1.30:80'\ntcp = 10\nreset_on_expiry = true\n";
    let mut router = router(settings, &SERVICE);
    establish(&mut router);
    // One step, so that the packet is there before the timer.
    router.pass(Duration::from_millis(9_990), Duration::from_secs(1));
    router.skip(Duration::from_millis(20));
    let out = send(&mut router, Side::Server, json!({"len": 5}));
    let resets = out.iter().filter(|line| line.contains(" RA ")).count();
    assert_eq!(resets, 2, "{out:?}");
}

const PERSISTENT: [&str; 3] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr -p 300",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.34:8080 -m",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
];

fn service() -> ServiceId {
    let address = "10.10.1.30".parse().unwrap();
    ServiceId::Address { protocol: Protocol::TCP, address, port: 80 }
}

/// Where a new connection from the client's port goes.
fn served_by(router: &mut Router, port: u16) -> String {
    let out = send(router, Side::Client, json!({"sport": port}));
    out[0].split(" > ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_drained_server_loses_its_templates_and_at_the_deadline_its_connections() {
    let mut router = router("", &PERSISTENT);
    establish(&mut router);
    assert_eq!(served_by(&mut router, 1001), "10.8.8.33:8080");
    let reply =
        router.call(Request::Drain { service: service(), server: SERVER, deadline: Some(60) }).unwrap();
    let text = "draining 10.8.8.33:8080 of TCP 10.10.1.30:80: 2 connections, which end after 60 s";
    assert_eq!(reply, Reply::Text(text.into()));
    assert_eq!(served_by(&mut router, 1002), "10.8.8.34:8080", "the same client, but a new connection");
    router.advance(Duration::from_secs(59));
    assert_eq!(send(&mut router, Side::Client, json!({"flags": "A", "ack": 5001})).len(), 1);
    assert!(connections(&mut router).contains("10.8.8.33:8080"), "old ones go on");
    router.advance(Duration::from_secs(1));
    let listed = connections(&mut router);
    assert!(!listed.contains("10.8.8.33:8080"), "{listed}");
    assert!(listed.contains("10.8.8.34:8080"), "{listed}");
}

#[test]
fn a_server_that_gets_a_weight_again_is_not_drained() {
    let mut router = router("", &PERSISTENT);
    establish(&mut router);
    router.call(Request::Drain { service: service(), server: SERVER, deadline: Some(60) }).unwrap();
    router.run("ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33:8080 -m -w 1");
    router.advance(Duration::from_secs(61));
    let listed = connections(&mut router);
    assert!(listed.contains("10.8.8.33:8080"), "{listed}");
}

#[test]
fn weight_0_drains_where_asked() {
    let quiesce = "ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33:8080 -m -w 0";
    let mut plain = router("", &PERSISTENT);
    establish(&mut plain);
    plain.run(quiesce);
    assert_eq!(served_by(&mut plain, 1001), "10.8.8.33:8080", "IPVS keeps the client where it is");
    let mut router = router("[beyond_ipvs]\ndrain_quiesced = true\ndrain_deadline = 10\n", &PERSISTENT);
    establish(&mut router);
    router.run(quiesce);
    assert_eq!(served_by(&mut router, 1001), "10.8.8.34:8080");
    router.advance(Duration::from_secs(10));
    let listed = connections(&mut router);
    assert!(!listed.contains("10.8.8.33:8080"), "{listed}");
}

#[test]
fn draining_what_is_not_there_is_refused() {
    let mut router = router("", &SERVICE);
    let server = ServerId { port: 1, ..SERVER };
    let reply = router.call(Request::Drain { service: service(), server, deadline: None }).unwrap();
    assert_eq!(reply, Reply::Failed("TCP 10.10.1.30:80 has no server 10.8.8.33:1".into()));
}

#[test]
fn switches_say_what_they_take() {
    let mut router = router("", &SERVICE);
    for (name, value, answer) in [
        ("xlvs.drop_untranslated", "1", Ok("xlvs.drop_untranslated = 1")),
        ("xlvs.drain_deadline", "90", Ok("xlvs.drain_deadline = 90")),
        ("xlvs.drop_untranslated", "2", Err("xlvs.drop_untranslated: `2' is neither 0 nor 1")),
        ("xlvs.drain_deadline", "-1", Err("xlvs.drain_deadline: `-1' is not a number of seconds")),
    ] {
        let expected = match answer {
            Ok(text) => Reply::Text(text.into()),
            Err(text) => Reply::Failed(text.into()),
        };
        assert_eq!(set(&mut router, name, value), expected);
    }
    let unknown = set(&mut router, "xlvs.nonsense", "1");
    assert!(matches!(&unknown, Reply::Failed(text) if text.contains("known are xlvs.")), "{unknown:?}");
}

#[test]
fn a_wrong_command_line_says_which_option_it_was() {
    let words = ["drain", "fwmark", "80", "10.8.8.33", "--deadline", "soon"];
    let output = Command::new(env!("CARGO_BIN_EXE_xlvs")).args(words).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "xlvs: --deadline takes a time such as 90, 90s or 5m, not `soon'\nSee `xlvs help'.\n");
    assert_eq!(output.status.code(), Some(2));
}
