//! Which flows are lent to the shortcut, until when, and that whatever can be seen is the same with it and without.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use xlvs::config::settings;
use xlvs::ipvs::verdict::Verdict;

use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{PacketSpec, build};

const SECOND: Duration = Duration::from_secs(1);
const TCP: [&str; 2] =
    ["ipvsadm -A -t 10.10.1.30:80 -s rr", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m"];
const UDP: [&str; 2] =
    ["ipvsadm -A -u 10.10.1.30:53 -s rr", "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:5353 -m"];

fn run(router: &mut Router, command: &str) {
    let output = router.run(command);
    assert_eq!(output.code, 0, "{command}: {}", output.stderr);
}

/// A TCP and a UDP service.
fn with_services(mut router: Router) -> Router {
    TCP.iter().chain(&UDP).for_each(|command| run(&mut router, command));
    router
}

fn router(after: u32) -> Router {
    with_services(Router::new().with_shortcut(after, usize::MAX))
}

fn frame(side: Side, client: u32, udp: bool, flags: &str) -> Vec<u8> {
    let (proto, virtual_port, port) = if udp { ("udp", 53, 5353) } else { ("tcp", 80, 8080) };
    let client = format!("198.51.100.{}", client + 1);
    let ends = match side {
        Side::Client => json!({"src": client, "sport": 1000, "dst": "10.10.1.30", "dport": virtual_port}),
        Side::Server => json!({"src": "10.8.8.33", "sport": port, "dst": client, "dport": 1000}),
    };
    let mut spec = json!({"proto": proto, "flags": flags, "id": 7, "len": 30});
    spec.as_object_mut().unwrap().extend(ends.as_object().unwrap().clone());
    let spec: PacketSpec = serde_json::from_value(spec).unwrap();
    ethernet::frame(side, &build(&spec, None).remove(0))
}

fn segment(router: &mut Router, side: Side, client: u32, flags: &str) -> Verdict {
    router.process(side, &frame(side, client, false, flags)).0
}

fn establish(router: &mut Router, client: u32) {
    segment(router, Side::Client, client, "S");
    segment(router, Side::Server, client, "SA");
    segment(router, Side::Client, client, "A");
}

#[test]
fn an_established_connection_is_lent_until_it_closes() {
    let mut router = router(0);
    establish(&mut router, 0);
    assert_eq!(router.fast_path().len(), 1, "the direction that has been seen in this state");
    segment(&mut router, Side::Server, 0, "A");
    assert_eq!(router.fast_path().len(), 2);
    assert_eq!(router.fast_path().taken(), 0);
    for side in [Side::Client, Side::Server] {
        segment(&mut router, side, 0, "A");
    }
    assert_eq!(router.fast_path().taken(), 2);
    segment(&mut router, Side::Client, 0, "FA");
    assert_eq!(router.fast_path().len(), 0);
    segment(&mut router, Side::Server, 0, "A");
    assert_eq!(router.fast_path().len(), 0);
    assert_eq!(router.connections()[0].state, "CLOSE_WAIT");
}

#[test]
fn a_connection_has_to_last_a_while_first() {
    let mut router = router(4);
    establish(&mut router, 0);
    for sent in 2..=4 {
        assert_eq!(router.fast_path().len(), 0, "after {sent} packets");
        segment(&mut router, Side::Client, 0, "A");
    }
    assert_eq!(router.fast_path().len(), 1, "with the fifth");
}

#[test]
fn a_lent_connection_ends_its_timeout_after_the_last_packet() {
    let mut router = router(0);
    run(&mut router, "ipvsadm --set 10 10 10");
    establish(&mut router, 0);
    for _ in 0..5 {
        router.pass(9 * SECOND, SECOND);
        segment(&mut router, Side::Client, 0, "A");
    }
    assert_eq!(router.fast_path().taken(), 5);
    assert_eq!(router.connections()[0].expires, 10);
    router.pass(9 * SECOND, SECOND);
    assert_eq!(router.connections()[0].expires, 1);
    router.pass(2 * SECOND, SECOND);
    assert!(router.connections().is_empty());
    assert_eq!(router.fast_path().len(), 0, "and the shortcut with it");
}

#[test]
fn a_change_sends_all_flows_the_long_way_once() {
    let mut router = router(0);
    establish(&mut router, 0);
    let is_taken = |router: &mut Router| {
        let before = router.fast_path().taken();
        segment(router, Side::Client, 0, "A");
        router.fast_path().taken() > before
    };
    assert!(is_taken(&mut router));
    for command in
        ["ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33:8080 -m -w 0", "ipvsadm --set 100 0 0", "ipvsadm -Z"]
    {
        run(&mut router, command);
        assert!(!is_taken(&mut router), "{command}");
        assert!(is_taken(&mut router), "{command}");
    }
    assert_ne!(router.run("ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m").code, 0);
    assert!(is_taken(&mut router), "a refused command changes nothing");
    router.change_network(|network| network.links[1].mtu = 1400);
    assert!(!is_taken(&mut router), "another MTU");
    run(&mut router, "ipvsadm -d -t 10.10.1.30:80 -r 10.8.8.33:8080");
    assert!(matches!(segment(&mut router, Side::Client, 0, "A"), Verdict::Drop(_)));
}

#[test]
fn a_connection_that_ends_while_it_is_lent_leaves_nothing() {
    let mut router = router(0);
    let tables = Arc::clone(router.tables());
    router.fast_path().interrupt(move || {
        let mut all = Vec::new();
        tables.connections.for_each(|connection| all.extend(connection.share()));
        all.iter().for_each(|connection| tables.drop_connection(connection));
    });
    establish(&mut router, 0);
    assert!(router.connections().is_empty());
    assert_eq!(router.fast_path().len(), 0);
    assert!(matches!(segment(&mut router, Side::Client, 0, "A"), Verdict::Pass));
    establish(&mut router, 0);
    assert_eq!(router.fast_path().len(), 1, "the next one is lent");
}

#[test]
fn servers_past_the_last_account_go_the_long_way() {
    let mut router = router(0);
    // Two accounts a server, and the first two are nobody's.
    for port in 1000..1040 {
        run(&mut router, &format!("ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:{port} -m"));
    }
    run(&mut router, "ipvsadm -d -t 10.10.1.30:80 -r 10.8.8.33:8080");
    for client in 0..40 {
        segment(&mut router, Side::Client, client, "S");
    }
    let servers: Vec<u16> = router.connections().iter().map(|connection| connection.server.port()).collect();
    assert_eq!(servers.len(), 40, "{servers:?}");
    let shortcuts = Arc::clone(router.tables().connections.shortcuts().unwrap());
    let establish = |router: &mut Router| {
        for connection in router.connections() {
            let client = u32::from(
                connection.client.to_string().split(['.', ':']).nth(3).unwrap().parse::<u8>().unwrap(),
            ) - 1;
            let answer = json!({"src": "10.8.8.33", "sport": connection.server.port(), "dst": connection.client.ip(),
                "dport": 1000, "proto": "tcp", "flags": "SA", "id": 7});
            let answer: PacketSpec = serde_json::from_value(answer).unwrap();
            router.process(Side::Server, &ethernet::frame(Side::Server, &build(&answer, None).remove(0)));
            segment(router, Side::Client, client, "A");
        }
    };
    establish(&mut router);
    assert_eq!(router.fast_path().len(), 31);
    assert_eq!(shortcuts.refused(), 9);
    for client in 0..40 {
        segment(&mut router, Side::Client, client, "A");
    }
    assert_eq!(shortcuts.refused(), 9, "nobody asks for each packet anew");
    assert_eq!(shortcuts.flows(), 31);
}

#[test]
fn a_full_table_makes_the_others_wait() {
    let mut router = with_services(Router::new().with_shortcut(0, 2));
    for client in 0..4 {
        establish(&mut router, client);
    }
    assert_eq!(router.fast_path().len(), 2);
    segment(&mut router, Side::Client, 0, "FA");
    segment(&mut router, Side::Client, 3, "A");
    assert_eq!(router.fast_path().len(), 1, "nothing is tried for a second");
    router.pass(2 * SECOND, SECOND);
    segment(&mut router, Side::Client, 3, "A");
    assert_eq!(router.fast_path().len(), 2);
}

#[test]
fn what_somebody_has_to_read_is_not_lent() {
    let text = "[beyond_ipvs]\nreset_on_expiry = true\n";
    let beyond = settings::parse("xlvs.toml", text).unwrap().beyond();
    let mut router = with_services(Router::with_beyond(beyond).with_shortcut(0, usize::MAX));
    establish(&mut router, 0);
    assert_eq!(router.fast_path().len(), 0, "acknowledgment numbers count");
    run(&mut router, "sysctl -qw xlvs.reset_on_expiry=0");
    segment(&mut router, Side::Client, 0, "A");
    assert_eq!(router.fast_path().len(), 1);
}

#[derive(Clone, Debug)]
enum Event {
    Packet(Side, u32, bool, &'static str),
    Wait(u64),
    Weight(u32),
    Zero,
}

fn event() -> impl Strategy<Value = Event> {
    let side = prop::bool::ANY.prop_map(|client| if client { Side::Client } else { Side::Server });
    let flags = prop::sample::select(vec!["S", "SA", "A", "A", "A", "A", "A", "FA", "R"]);
    prop_oneof![
        40 => (side, 0..4_u32, any::<bool>(), flags).prop_map(|(side, client, udp, flags)| Event::Packet(side, client, udp, flags)),
        6 => (100..40_000_u64).prop_map(Event::Wait),
        1 => (0..3_u32).prop_map(Event::Weight),
        1 => Just(Event::Zero),
    ]
}

/// All that the event shows, and all that listings show afterwards.
fn happen(router: &mut Router, event: &Event) -> String {
    let shown = match event {
        Event::Packet(side, client, udp, flags) => {
            format!("{:?}", router.process(*side, &frame(*side, *client, *udp, flags)))
        }
        Event::Wait(time) => format!("{:?}", router.advance(Duration::from_millis(*time)).len()),
        Event::Weight(weight) => {
            run(router, &format!("ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33:8080 -m -w {weight}"));
            String::new()
        }
        Event::Zero => {
            run(router, "ipvsadm -Z");
            String::new()
        }
    };
    let sections = ["conns", "Ln", "stats"].map(str::to_owned);
    let rates = router.run("ipvsadm -Ln --rate").stdout;
    // Connections are listed in no order.
    let mut lines: Vec<_> = router.dump(&sections).lines().map(str::to_owned).collect();
    lines.sort();
    format!("{shown}\n{}\n{rates}", lines.join("\n"))
}

#[test]
fn whatever_can_be_seen_is_the_same_without() {
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[9; 16]));
    let taken = std::cell::Cell::new(0);
    let outcome = runner.run(&(prop::collection::vec(event(), 1..80), 0..3_u32), |(events, after)| {
        let (mut with, mut without) = (router(after), with_services(Router::new()));
        for event in &events {
            prop_assert_eq!(happen(&mut with, event), happen(&mut without, event), "{:?}", event);
        }
        taken.set(taken.get() + with.fast_path().taken());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(taken.get() > 500, "hardly a packet took the shortcut: {}", taken.get());
}
