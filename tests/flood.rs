//! What goes beyond IPVS against floods of new connections: `conn_max`, `source_rate` and what is seen of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use xlvs::admin::client::Transport as _;
use xlvs::config::settings;
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Director, Effect};
use xlvs::ipvs::admission::AdmissionCounts;
use xlvs::ipvs::snapshot::Tables;
use xlvs::ipvs::verdict::{DropReason, Verdict};
use xlvs::net::addr::PortIndex;
use xlvs::net::time::Instant;

use crate::support::audit::miscounts;
use crate::support::decode::decode;
use crate::support::device::{Device as _, Side};
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{PacketSpec, build};
use crate::support::text::{Identities, line};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const TO_SERVER: Verdict = Verdict::Transmit(PortIndex(1));
const TO_CLIENT: Verdict = Verdict::Transmit(PortIndex(0));
const TABLE_FULL: Verdict = Verdict::Drop(DropReason::TableFull);
const SOURCE_RATE: Verdict = Verdict::Drop(DropReason::SourceRate);

const TCP: [&str; 2] =
    ["ipvsadm -A -t 10.10.1.30:80 -s rr", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:80 -m"];
const UDP: [&str; 2] =
    ["ipvsadm -A -u 10.10.1.30:53 -s rr", "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:53 -m"];

fn router(beyond: &str, commands: &[&str]) -> Router {
    let settings = format!("[beyond_ipvs]\n{beyond}\n");
    let mut router = Router::with_beyond(settings::parse("xlvs.toml", &settings).unwrap().beyond());
    for command in commands {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

fn client(index: u32) -> String {
    format!("198.{}.{}.{}", 18 + index / 62_500, index / 250 % 250, index % 250 + 1)
}

fn send(router: &mut Router, side: Side, fields: serde_json::Value) -> Verdict {
    let spec: PacketSpec = serde_json::from_value(fields).unwrap();
    let packet = build(&spec, None).remove(0);
    router.process(side, &ethernet::frame(side, &packet)).0
}

/// A client's segment.
fn request_from(router: &mut Router, source: &str, port: u16, flags: &str) -> Verdict {
    let segment = json!({"src": source, "dst": "10.10.1.30", "proto": "tcp", "id": 7, "sport": port, "dport": 80,
        "flags": flags});
    send(router, Side::Client, segment)
}

fn request(router: &mut Router, index: u32, flags: &str) -> Verdict {
    request_from(router, &client(index), 1000, flags)
}

/// The server's segment to it.
fn reply(router: &mut Router, index: u32, flags: &str) -> Verdict {
    let segment = json!({"src": "10.8.8.33", "dst": client(index), "proto": "tcp", "id": 7, "sport": 80, "dport": 1000,
        "flags": flags});
    send(router, Side::Server, segment)
}

fn establish(router: &mut Router, index: u32) {
    assert_eq!(request(router, index, "S"), TO_SERVER, "SYN of client {index}");
    assert_eq!(reply(router, index, "SA"), TO_CLIENT, "SYN/ACK to client {index}");
    assert_eq!(request(router, index, "A"), TO_SERVER, "ACK of client {index}");
}

/// The clients of connections, without templates, whose state is one of these.
fn clients_in(router: &mut Router, states: &[&str]) -> BTreeSet<String> {
    let connections = router.connections().into_iter();
    connections
        .filter(|connection| states.contains(&connection.state.as_str()))
        .map(|connection| connection.client.to_string())
        .collect()
}

fn counts(router: &Router) -> AdmissionCounts {
    router.tables().admission.counters.counts()
}

const FLOODING: u32 = 100_000;

#[test]
fn a_flood_takes_nothing_from_who_is_there_and_lets_in_who_is_honest() {
    let mut router = router("conn_max = 1000", &TCP);
    (0..500).for_each(|index| establish(&mut router, index));
    let mut honest = Vec::new();
    for packet in 0..4000 {
        router.skip(MILLISECOND);
        assert_eq!(request(&mut router, FLOODING + packet, "S"), TO_SERVER, "the flood's packet {packet}");
        let connections = router.tables().connections.len();
        assert!(connections <= 1000, "{connections} after the flood's packet {packet}");
        // A honest client every 20 ms; its server answers 10 ms later, and it 10 ms after that.
        let number = 1000 + packet / 20;
        match packet % 20 {
            0 => assert_eq!(request(&mut router, number, "S"), TO_SERVER, "{number}"),
            9 => assert_eq!(reply(&mut router, number, "SA"), TO_CLIENT, "the one of {number} was evicted"),
            19 => {
                assert_eq!(request(&mut router, number, "A"), TO_SERVER, "the one of {number} was evicted");
                honest.push(number);
            }
            _ => {}
        }
    }
    assert_eq!(honest.len(), 200);
    assert_eq!(clients_in(&mut router, &["ESTABLISHED"]).len(), 500 + 200);
    for index in (0..500).chain(honest) {
        assert_eq!(request(&mut router, index, "PA"), TO_SERVER, "client {index}");
        assert_eq!(reply(&mut router, index, "A"), TO_CLIENT, "client {index}");
    }
    let AdmissionCounts { evicted, table_full, source_refused } = counts(&router);
    assert_eq!((evicted, table_full, source_refused), (500 + 4000 + 200 - 1000, 0, 0));
    assert_eq!(miscounts(router.tables()), [""; 0]);
}

#[test]
fn who_has_waited_longest_goes_even_if_his_timeout_is_longer() {
    let mut router = router("conn_max = 300", &[TCP, UDP].concat());
    for index in 0..290 {
        let datagram = json!({"src": client(index), "dst": "10.10.1.30", "proto": "udp", "id": 7, "sport": 1000,
            "dport": 53});
        assert_eq!(send(&mut router, Side::Client, datagram), TO_SERVER);
        router.skip(MILLISECOND);
    }
    (0..40).for_each(|index| _ = request(&mut router, FLOODING + index, "S"));
    assert_eq!(
        clients_in(&mut router, &["SYN_RECV"]).len(),
        40,
        "of UDP, whose timeout is five minutes, some went"
    );
    assert_eq!(clients_in(&mut router, &["UDP"]).len(), 260);
}

#[test]
fn a_client_of_udp_that_was_answered_stays() {
    let mut router = router("conn_max = 20", &UDP);
    let datagram = |index| json!({"src": client(index), "dst": "10.10.1.30", "proto": "udp", "id": 7, "sport": 1000, "dport": 53});
    let answer = |index| json!({"src": "10.8.8.33", "dst": client(index), "proto": "udp", "id": 7, "sport": 53, "dport": 1000});
    for index in 0..10 {
        assert_eq!(send(&mut router, Side::Client, datagram(index)), TO_SERVER);
        assert_eq!(send(&mut router, Side::Server, answer(index)), TO_CLIENT);
        router.skip(MILLISECOND);
    }
    for index in 100..200 {
        assert_eq!(send(&mut router, Side::Client, datagram(index)), TO_SERVER);
        router.skip(MILLISECOND);
    }
    let left = clients_in(&mut router, &["UDP"]);
    assert_eq!(left.len(), 20);
    (0..10).for_each(|index| assert!(left.contains(&format!("{}:1000", client(index))), "{left:?}"));
}

#[test]
fn a_client_that_goes_on_by_the_shortcut_has_not_waited() {
    let mut router = router("", &UDP).with_shortcut(0, usize::MAX);
    set(&mut router, "xlvs.conn_max=4");
    let datagram = |index| json!({"src": client(index), "dst": "10.10.1.30", "proto": "udp", "id": 7, "sport": 1000, "dport": 53});
    (0..2).for_each(|_| assert_eq!(send(&mut router, Side::Client, datagram(0)), TO_SERVER));
    router.advance(SECOND);
    (1..4).for_each(|index| assert_eq!(send(&mut router, Side::Client, datagram(index)), TO_SERVER));
    router.advance(SECOND);
    let taken = router.fast_path().taken();
    assert_eq!(send(&mut router, Side::Client, datagram(0)), TO_SERVER);
    assert_eq!(router.fast_path().taken(), taken + 1);
    router.advance(SECOND);
    assert_eq!(send(&mut router, Side::Client, datagram(4)), TO_SERVER);
    let left = clients_in(&mut router, &["UDP"]);
    assert!(left.contains(&format!("{}:1000", client(0))), "{left:?}");
}

#[test]
fn the_few_half_open_ones_of_a_table_that_was_large_are_found() {
    let mut router = router("", &TCP);
    (0..2000).for_each(|index| _ = request(&mut router, index, "S"));
    router.advance(SECOND * 61);
    assert_eq!(router.tables().connections.len(), 0);
    set(&mut router, "xlvs.conn_max=10");
    (0..10).for_each(|index| assert_eq!(request(&mut router, index, "S"), TO_SERVER));
    for index in 10..100 {
        router.skip(MILLISECOND);
        assert_eq!(request(&mut router, index, "S"), TO_SERVER, "client {index}");
    }
}

#[test]
fn a_table_of_established_connections_takes_no_other_one() {
    let mut router = router("conn_max = 50", &TCP);
    (0..50).for_each(|index| establish(&mut router, index));
    assert_eq!(request(&mut router, 50, "S"), TABLE_FULL);
    assert_eq!(clients_in(&mut router, &["ESTABLISHED"]).len(), 50);
    assert_eq!(reply(&mut router, 0, "R"), TO_CLIENT);
    router.skip(SECOND);
    assert_eq!(request(&mut router, 50, "S"), TABLE_FULL, "what is closing stays its time");
    router.advance(SECOND * 10);
    establish(&mut router, 50);
    assert_eq!(counts(&router), AdmissionCounts { evicted: 0, table_full: 2, source_refused: 0 });
    let dropped = router.settle().dropped;
    assert_eq!(dropped, [(DropReason::TableFull, 2)]);
    assert_eq!(miscounts(router.tables()), [""; 0]);
}

#[test]
fn a_lower_maximum_is_reached_bit_by_bit() {
    let mut router = router("", &TCP);
    (0..300).for_each(|index| _ = request(&mut router, index, "S"));
    assert_eq!(router.tables().connections.len(), 300, "without a maximum");
    set(&mut router, "xlvs.conn_max=100");
    let refused = (300..400).filter(|index| request(&mut router, *index, "S") == TABLE_FULL).count();
    assert!((1..100).contains(&refused), "{refused} of 100 refused");
    assert_eq!(router.tables().connections.len(), 100);
    assert_eq!(miscounts(router.tables()), [""; 0]);
}

const PERSISTENT: [&str; 2] = ["ipvsadm -A -t 10.10.1.30:80 -s rr -p 300", TCP[1]];

#[test]
fn the_templates_of_the_evicted_go_with_them() {
    let mut router = router("conn_max = 100", &PERSISTENT);
    (0..20).for_each(|index| establish(&mut router, index));
    for index in 0..1000 {
        router.skip(MILLISECOND);
        assert_eq!(request(&mut router, FLOODING + index, "S"), TO_SERVER);
        let templates = router.tables().templates.len();
        assert!(templates <= 100, "{templates} templates after {index}");
    }
    assert_eq!(miscounts(router.tables()), [""; 0]);
}

#[test]
fn many_templates_end_with_their_half_open_connections() {
    for (clients, left) in [(20, 20), (60, 0)] {
        let mut router = router("conn_max = 100", &PERSISTENT);
        (0..clients).for_each(|index| assert_eq!(request(&mut router, index, "S"), TO_SERVER));
        router.advance(SECOND * 100);
        assert_eq!(router.tables().connections.len(), 0);
        assert_eq!(router.tables().templates.len(), left, "of {clients}");
        assert_eq!(miscounts(router.tables()), [""; 0]);
    }
}

fn set(router: &mut Router, setting: &str) -> String {
    let output = router.run(&format!("sysctl {setting}"));
    assert_eq!(output.code, 0, "{setting}: {}", output.stderr);
    output.stdout
}

#[test]
fn a_flooding_source_is_limited_and_others_are_not() {
    let mut router = router("source_rate = 10\nsource_burst = 30", &TCP);
    establish(&mut router, 0);
    let flood = |router: &mut Router, ports: std::ops::Range<u16>| {
        ports.filter(|port| request_from(router, "203.0.113.9", *port, "S") != SOURCE_RATE).count()
    };
    assert_eq!(flood(&mut router, 2000..3000), 30, "the burst");
    for index in 1..100 {
        establish(&mut router, index);
    }
    router.skip(SECOND);
    assert_eq!(flood(&mut router, 3000..4000), 10, "the rate");
    for _ in 0..1000 {
        assert_eq!(request(&mut router, 0, "PA"), TO_SERVER, "packets of connections are not limited");
    }
    assert_eq!(counts(&router).source_refused, 970 + 990);
    set(&mut router, "xlvs.source_rate=0");
    assert_eq!(flood(&mut router, 4000..5000), 1000, "no limit any more");
    assert_eq!(miscounts(router.tables()), [""; 0]);
}

#[test]
fn the_new_settings_are_shown_and_checked() {
    let mut router = router("conn_max = 7", &[]);
    let mut sysctl = |setting: &str| {
        let output = router.run(&format!("sysctl {setting}"));
        output.stdout + &output.stderr
    };
    assert_eq!(sysctl("xlvs.conn_max"), "xlvs.conn_max = 7\n");
    assert_eq!(sysctl("xlvs.source_rate=100"), "xlvs.source_rate = 100\n");
    assert_eq!(sysctl("xlvs.source_burst"), "xlvs.source_burst = 0\n");
    assert_eq!(sysctl("xlvs.conn_max=many"), "xlvs.conn_max: `many' is not a number from 0 to 4294967295\n");
    let error = settings::parse("x.toml", "[beyond_ipvs]\nconn_max = -1\n").unwrap_err().to_string();
    assert_eq!(error, "x.toml:2: error: conn_max: expected a number of connections");
}

fn director(memory: u64) -> Director {
    let beyond = settings::parse("x", "").unwrap().beyond();
    let director = Director::new(Instant::START, Arc::new(Tables::new(1)), 1, Vec::new());
    director.with_memory(memory).with_beyond(beyond)
}

#[test]
fn a_quarter_of_the_memory_is_for_connections_unless_somebody_says_otherwise() {
    for (memory, expected) in [(64 << 30, 107_374_182), (0, 0), (u64::MAX, u32::MAX)] {
        let mut director = director(memory);
        let mut shown = |value: Option<&str>| {
            let request = Request::Sysctl { name: "xlvs.conn_max".into(), value: value.map(str::to_owned) };
            let command = Command::Request { client: ClientId(0), request };
            match director.handle(Instant::START, command).as_slice() {
                [Effect::Reply(_, Reply::Text(text))] => text.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(shown(None), format!("xlvs.conn_max = {expected}"));
        assert_eq!(shown(Some("1000")), "xlvs.conn_max = 1000");
        assert_eq!(shown(Some("0")), format!("xlvs.conn_max = {expected}"), "0 is as if nobody said");
    }
}

#[test]
fn a_flood_is_told_about_once_a_minute() {
    let mut router = router("conn_max = 100\nsource_rate = 50", &TCP);
    let flood = |router: &mut Router, first| {
        (first..first + 300).for_each(|index| _ = request(router, FLOODING + index, "S"));
    };
    flood(&mut router, 0);
    (0..60).for_each(|port| _ = request_from(&mut router, "203.0.113.9", port + 2000, "S"));
    router.advance(SECOND * 2);
    let first = router.take_log();
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        first[0].starts_with(
            "the connection table is full: 250 half-open connections made room for new ones, 0 new"
        ) && first[0].ends_with("xlvs sysctl xlvs.conn_max=200"),
        "{first:?}"
    );
    assert!(
        first[1].starts_with(
            "10 new connections were refused, because their sources open more than 50 a second."
        ) && first[1].ends_with("xlvs sysctl xlvs.source_rate=100"),
        "{first:?}"
    );
    flood(&mut router, 1000);
    router.advance(SECOND * 2);
    assert_eq!(router.take_log(), [""; 0], "within the minute");
    router.advance(SECOND * 60);
    let second = router.take_log();
    assert_eq!(second.len(), 1, "{second:?}");
    assert!(second[0].starts_with("the connection table is full: 300 half-open"), "{second:?}");
    router.advance(SECOND * 120);
    assert_eq!(router.take_log(), [""; 0], "nothing new");
}

#[test]
fn status_says_how_full_the_table_is() {
    let mut router = router("conn_max = 10", &TCP);
    (0..25).for_each(|index| _ = request(&mut router, index, "S"));
    let Ok(Reply::Status(status)) = router.call(Request::Status) else { panic!("no status") };
    assert_eq!((status.connections, status.conn_max, status.evicted), (10, 10, 15));
}

const HALF_OPEN: [&str; 3] = ["SYN_RECV", "SYN_SENT", "SYNACK"];

/// What one of a few clients and its server do.
fn deed() -> impl Strategy<Value = (u32, bool, &'static str, u16)> {
    let flags = prop::sample::select(vec!["S", "S", "S", "A", "A", "FA", "R", "PA"]);
    (0..60u32, prop::bool::weighted(0.3), flags, 0..50u16).prop_map(|(index, by_server, flags, pause)| {
        (index, by_server, if by_server && flags == "S" { "SA" } else { flags }, pause)
    })
}

#[test]
fn whatever_comes_only_half_open_connections_make_room() {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]));
    let law = |deeds: Vec<(u32, bool, &'static str, u16)>| {
        let mut router = router("conn_max = 12", &TCP);
        let mut evicted = 0;
        for (index, by_server, flags, pause) in deeds {
            router.skip(MILLISECOND * u32::from(pause));
            let half_open = clients_in(&mut router, &HALF_OPEN);
            let all: BTreeSet<_> = router.connections().iter().map(|one| one.client.to_string()).collect();
            match by_server {
                true => reply(&mut router, index, flags),
                false => request(&mut router, index, flags),
            };
            let after: BTreeSet<_> = router.connections().iter().map(|one| one.client.to_string()).collect();
            let gone: Vec<_> = all.difference(&after).collect();
            prop_assert!(gone.iter().all(|gone| half_open.contains(*gone)), "{gone:?} had not to go");
            prop_assert!(router.tables().connections.len() <= 12);
            prop_assert_eq!(miscounts(router.tables()), [""; 0]);
            evicted += gone.len() as u64;
        }
        prop_assert_eq!(counts(&router).evicted, evicted);
        Ok(())
    };
    if let Err(error) = runner.run(&prop::collection::vec(deed(), 1..200), law) {
        panic!("{error}");
    }
}

/// What reaches the client of an evicted connection that goes on all the same: what IPVS does with a segment of no connection.
#[test]
fn an_evicted_client_that_goes_on_is_told_so() {
    let mut router = router("conn_max = 10", &TCP);
    assert_eq!(request(&mut router, 0, "S"), TO_SERVER);
    router.skip(MILLISECOND);
    (0..200).for_each(|index| _ = request(&mut router, FLOODING + index, "S"));
    let segment = json!({"src": client(0), "dst": "10.10.1.30", "proto": "tcp", "id": 7, "sport": 1000, "dport": 80,
        "flags": "A", "seq": 2, "ack": 3});
    let spec: PacketSpec = serde_json::from_value(segment).unwrap();
    let out = router.deliver(Side::Client, &build(&spec, None).remove(0));
    let shown = out.iter().map(|departure| line(&decode(&departure.packet), &Identities::of(7, 0)));
    let shown = shown.collect::<Vec<_>>();
    assert!(shown[0].starts_with("tcp 10.10.1.30:80 > 198.18.0.1:1000 R seq=3"), "{shown:?}");
}
