//! The defence against floods where chance has a part in it, so that no recording can show it.

use std::time::Duration;

use serde_json::json;
use xlvs::ipvs::defence;
use xlvs::ipvs::verdict::DropReason;

use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};

const SECOND: Duration = Duration::from_secs(1);

fn run(router: &mut Router, commands: &[&str]) {
    for command in commands {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
}

fn router(commands: &[&str]) -> Router {
    let mut router = Router::new();
    run(&mut router, commands);
    router
}

const TCP: [&str; 2] =
    ["ipvsadm -A -t 10.10.1.30:80 -s rr", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:80 -m"];
const UDP: [&str; 2] =
    ["ipvsadm -A -u 10.10.1.30:53 -s rr", "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:53 -m"];

fn packet(fields: serde_json::Value) -> Vec<u8> {
    let spec: PacketSpec = serde_json::from_value(fields).unwrap();
    build(&spec, None).remove(0)
}

fn client(index: u32) -> String {
    format!("198.51.{}.{}", index / 250, index % 250 + 1)
}

/// A client's TCP segment; whether it came through.
fn request(router: &mut Router, index: u32, flags: &str) -> bool {
    let segment = json!({"src": client(index), "dst": "10.10.1.30", "proto": "tcp", "id": 7, "sport": 1000, "dport": 80,
        "flags": flags});
    !router.send(Side::Client, &packet(segment)).is_empty()
}

/// The server's segment to it.
fn reply(router: &mut Router, index: u32, flags: &str) {
    let segment = json!({"src": "10.8.8.33", "dst": client(index), "proto": "tcp", "id": 7, "sport": 80, "dport": 1000,
        "flags": flags});
    router.send(Side::Server, &packet(segment));
}

fn establish(router: &mut Router, index: u32) {
    request(router, index, "S");
    reply(router, index, "SA");
    request(router, index, "A");
}

/// A client's datagram.
fn datagram(router: &mut Router, index: u32) {
    let datagram = json!({"src": client(index), "dst": "10.10.1.30", "proto": "udp", "id": 7, "sport": 1000, "dport": 53});
    router.send(Side::Client, &packet(datagram));
}

/// How many connections and templates are listed with a word such as a state in their line.
fn listed(router: &mut Router, word: &str) -> usize {
    let listing = router.dump(&["conns".to_owned()]);
    listing.lines().filter(|line| line.split_whitespace().any(|other| other == word)).count()
}

#[test]
fn a_thirty_second_of_the_half_open_connections_goes_every_second() {
    let mut router = router(&TCP);
    (0..256).for_each(|index| _ = request(&mut router, index, "S"));
    (256..264).for_each(|index| establish(&mut router, index));
    run(&mut router, &["sysctl -qw net.ipv4.vs.drop_entry=3"]);
    router.advance(SECOND * 20);
    let left = listed(&mut router, "SYN_RECV");
    // The kernel left 128 of 256 when it was tried; (31/32)^20 of them are 136.
    assert!((106..=166).contains(&left), "{left} of 256 are left");
    assert_eq!(listed(&mut router, "ESTABLISHED"), 8, "what had a packet within a minute stays");
    run(&mut router, &["sysctl -qw net.ipv4.vs.drop_entry=0"]);
    router.advance(SECOND * 20);
    assert_eq!(listed(&mut router, "SYN_RECV"), left, "none goes any more");
}

#[test]
fn idle_connections_of_few_packets_go_by_the_draw() {
    let mut router = router(&UDP);
    for index in 0..64 {
        datagram(&mut router, index);
        (0..9).for_each(|_| datagram(&mut router, 1000 + index));
        (0..8).for_each(|_| datagram(&mut router, 2000 + index));
    }
    run(&mut router, &["sysctl -qw net.ipv4.vs.drop_entry=3"]);
    router.advance(SECOND * 58);
    assert_eq!(listed(&mut router, "UDP"), 192, "within a minute none goes");
    router.advance(SECOND * 200);
    let listing = router.dump(&["conns".to_owned()]);
    let left = |first: u32| {
        (first..first + 64).filter(|index| listing.contains(&format!(" {}:1000 ", client(*index)))).count()
    };
    assert_eq!(left(1000), 64, "of nine packets: never");
    assert!(left(0) < 16, "of one packet: whenever drawn, but {} are left", left(0));
    assert!(
        (16..48).contains(&left(2000)),
        "of eight packets: one draw in eight, but {} are left",
        left(2000)
    );
}

#[test]
fn a_template_that_nothing_confirmed_goes_with_its_connection() {
    let persistent = ["ipvsadm -A -t 10.10.1.30:80 -s rr -p 1000", TCP[1]];
    let mut router = router(&persistent);
    (0..8).for_each(|index| _ = request(&mut router, index, "S"));
    establish(&mut router, 8);
    reply(&mut router, 8, "R");
    request(&mut router, 8, "S");
    router.advance(SECOND * 5);
    run(&mut router, &["sysctl -qw net.ipv4.vs.drop_entry=3"]);
    let (mut half_open, mut unconfirmed) = (9, 8);
    for _ in 0..54 {
        router.advance(SECOND);
        let now = (listed(&mut router, "SYN_RECV"), listed(&mut router, "NONE"));
        assert!(now.0 <= half_open && now.1 <= unconfirmed);
        assert!(now.0 == now.1 || now.0 == now.1 + 1, "{now:?}: a template without its connection");
        (half_open, unconfirmed) = now;
    }
    assert!(unconfirmed < 8, "none was drawn in 54 s");
    assert_eq!(listed(&mut router, "ASSURED"), 1, "a confirmed template stays");
}

#[test]
fn automatic_modes_are_active_while_memory_is_scarce() {
    let mut router = router(&TCP);
    let modes: Vec<String> = ["drop_packet", "secure_tcp", "drop_entry"]
        .map(|name| format!("sysctl -qw net.ipv4.vs.{name}=1"))
        .into();
    run(&mut router, &modes.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = |router: &mut Router, name: &str| router.run(&format!("sysctl net.ipv4.vs.{name}")).stdout;
    assert!((0..8).all(|index| request(&mut router, index, "S")), "nothing is dropped while there is memory");
    router.set_free_memory(1024 - 512);
    router.advance(defence::PERIOD);
    for name in ["drop_packet", "secure_tcp", "drop_entry"] {
        assert_eq!(shown(&mut router, name), format!("net.ipv4.vs.{name} = 2\n"));
    }
    let through: Vec<bool> = (8..14).map(|index| request(&mut router, index, "S")).collect();
    assert_eq!(through, [true, false, true, false, true, false], "threshold / missing = 2");
    reply(&mut router, 8, "SA");
    assert_eq!(listed(&mut router, "SYNACK"), 1, "the secure_tcp tables apply");
    router.set_free_memory(u64::MAX);
    router.advance(defence::PERIOD);
    assert!((14..20).all(|index| request(&mut router, index, "S")), "nothing is dropped any more");
    assert_eq!(shown(&mut router, "drop_packet"), "net.ipv4.vs.drop_packet = 1\n");
}

#[test]
fn under_pressure_established_connections_go_on_and_new_ones_wait() {
    let mut router = router(&TCP);
    establish(&mut router, 1);
    router.set_pressed(true);
    assert!(request(&mut router, 1, "A"), "an established connection's segment goes through");
    assert!(!request(&mut router, 2, "S"), "a new connection is not opened");
    assert_eq!(router.settle().dropped, [(DropReason::Overload, 1)]);
    router.set_pressed(false);
    assert!(request(&mut router, 2, "S"), "the next try goes through");
}
