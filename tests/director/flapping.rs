//! A server that flaps a hundred times a minute: the log stays readable, the table true, and connections lose nothing but the time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::event::{Event, Happened};
use xlvs::director::member::State;
use xlvs::director::notices::Notice;
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{Command, Effect, Level};
use xlvs::nanny::Check;

use super::live::Live;
use super::{ARTICLE, MARKS, Site};
use crate::support::audit;
use crate::support::decode::decode;
use crate::support::device::{Device as _, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};

const MINUTES: u32 = 60;
const FLAPS: u32 = 100;

fn events(effects: &[Effect]) -> Vec<Event> {
    let event = |effect: &Effect| match effect {
        Effect::Event(event) => Some(event.clone()),
        _ => None,
    };
    effects.iter().filter_map(event).collect()
}

/// Each minute the first four changes are told one by one, all others as a number, and at its end the state as it is.
#[test]
fn an_hour_of_flapping_is_told_in_few_lines_and_no_change_is_lost() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.pass(60);
    let pause = Duration::from_secs(60) / (2 * FLAPS);
    for change in 0..MINUTES * FLAPS * 2 {
        site.health(&check, change % 2 == 1);
        site.now = site.now + pause;
        if site.director.next_deadline() <= site.now {
            site.command(Command::Tick);
        }
    }
    site.pass(120);
    let events = events(&site.effects);
    let minutes = u64::from(MINUTES);
    assert!(events.len() as u64 <= minutes * 6, "{} lines", events.len());
    let changes = u64::from(MINUTES * FLAPS * 2);
    // The last word of a minute has no time of a former state.
    let told = events.iter().filter(|event| event.lasted.is_some()).count() as u64;
    let more: u64 = events.iter().map(untold).sum();
    assert_eq!(told + more, changes, "told {told}, counted {more}");
    let last = events.iter().rfind(|event| matches!(event.happened, Happened::Up | Happened::Down));
    assert_eq!(last.map(|event| event.happened.clone()), Some(Happened::Up), "as it is");
    let line = events.iter().find(|event| untold(event) != 0).expect("some were counted").to_string();
    let form = "10.8.8.33:80: ... and 196 changes more in the last 60 s virtual=http_server server=lvs-03";
    assert!(line.starts_with(form), "{line}");
    assert_eq!(
        events.iter().filter_map(Notice::of).count(),
        events.len(),
        "the notify command runs as often"
    );
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
    assert_eq!(site.standing().state, State::Up);
}

fn untold(event: &Event) -> u64 {
    match event.happened {
        Happened::Flapping { more } => more.into(),
        _ => 0,
    }
}

#[test]
fn what_was_said_last_is_true_a_minute_later_at_most() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.pass(60);
    for change in 0..5 {
        site.health(&check, change % 2 == 1);
    }
    site.effects.clear();
    site.pass(59);
    assert_eq!(site.told(), Vec::<String>::new());
    site.pass(1);
    let fields = "virtual=http_server server=lvs-03";
    assert_eq!(
        site.told(),
        [
            format!("10.8.8.33:80: ... and 1 change more in the last 60 s {fields} reason=\"now down\""),
            format!(
                "[inactive] shutting down 10.8.8.33:80 due to connection failure {fields} reason=\"said the test\""
            ),
        ]
    );
    site.effects.clear();
    site.health(&check, true);
    assert_eq!(site.told().len(), 1, "it is calm again");
}

/// The virtual server's own words are kept back as well.
#[test]
fn the_last_server_of_a_virtual_server_may_flap() {
    let mut site = Site::new();
    let one = ARTICLE.split_once("     server lvs-04").unwrap().0;
    site.configure(&format!(
        "{}}}\n",
        one.replace("fwmark = 80\n", "fwmark = 80\n sorry_server = 10.8.8.99\n")
    ));
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.effects.clear();
    for _ in 0..100 {
        site.health(&check, false);
        assert_eq!(site.servers(), ["10.8.8.99:80 1"]);
        site.health(&check, true);
        assert_eq!(site.servers(), ["10.8.8.33:80 1"]);
    }
    site.pass(60);
    let of_virtual = |line: &&String| line.starts_with("Virtual Server") || line.starts_with("http_server:");
    let told: Vec<String> = site.told().iter().filter(of_virtual).cloned().collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert_eq!(told[4], "http_server: ... and 196 changes more in the last 60 s virtual=http_server");
}

/// A router with the article's site; both servers are up.
struct Farm {
    router: Router,
    checks: Vec<Arc<Check>>,
}

impl Farm {
    fn new() -> Self {
        let mut router = Router::new();
        let lvs = Box::new(load(ARTICLE, Names::NONE).unwrap());
        let marks = Arc::new(parse_marks(MARKS, Names::NONE).unwrap());
        let effects = router.command(Command::Configure { lvs, marks });
        let started = |effect| match effect {
            Effect::StartCheck(check) => Some(check),
            _ => None,
        };
        let mut farm = Farm { router, checks: effects.into_iter().filter_map(started).collect() };
        (0..farm.checks.len()).for_each(|index| farm.health(index, true));
        farm
    }

    fn health(&mut self, index: usize, up: bool) {
        let check = Arc::clone(&self.checks[index]);
        self.router.command(Command::Health { check, up, reason: "said the test".into() });
    }

    /// A packet of a client; where it goes to, if it goes.
    fn client_sends(&mut self, client: u16, flags: &str) -> Option<String> {
        let source = format!("192.0.{}.{}", client / 200, client % 200 + 1);
        let (seq, ack) = if flags == "S" { (1, 0) } else { (2, 5001) };
        let packet = json!({"src": source, "dst": "10.10.1.30", "proto": "tcp", "sport": 1000, "dport": 80,
            "flags": flags, "seq": seq, "ack": ack, "id": 7});
        self.send(Side::Client, packet)
    }

    fn server_sends(&mut self, client: u16, server: &str) -> Option<String> {
        let destination = format!("192.0.{}.{}", client / 200, client % 200 + 1);
        let packet = json!({"src": server, "dst": destination, "proto": "tcp", "sport": 80, "dport": 1000,
            "flags": "SA", "seq": 5000, "ack": 2, "id": 7});
        self.send(Side::Server, packet)
    }

    fn send(&mut self, side: Side, packet: serde_json::Value) -> Option<String> {
        let spec: PacketSpec = serde_json::from_value(packet).unwrap();
        let out = self.router.deliver(side, &build(&spec, None).remove(0));
        let away = out.iter().find(|departure| departure.side != side)?;
        decode(&away.packet).packet().map(|packet| packet.destination.to_string())
    }

    /// A handshake; the server that it was with.
    fn open(&mut self, client: u16) -> String {
        let server = self.client_sends(client, "S").expect("a server takes it");
        self.server_sends(client, &server).expect("the answer is translated");
        assert_eq!(self.client_sends(client, "A").as_ref(), Some(&server));
        server
    }
}

const CLIENTS: u16 = 40;

#[test]
fn connections_and_templates_of_a_flapping_server_are_its_own_all_along() {
    let mut farm = Farm::new();
    let servers: Vec<String> = (0..CLIENTS).map(|client| farm.open(client)).collect();
    let at_first = servers.iter().filter(|server| *server == "10.8.8.33").count();
    assert_eq!(at_first, usize::from(CLIENTS / 2));
    let pause = Duration::from_millis(300);
    for flap in 0..MINUTES * FLAPS {
        farm.health(0, false);
        farm.router.pass(pause, pause);
        if flap % FLAPS == 0 {
            let client = CLIENTS + (flap / FLAPS) as u16;
            assert_eq!(farm.open(client), "10.8.8.34", "new clients go where somebody is");
        }
        farm.health(0, true);
        farm.router.pass(pause, pause);
        if flap % 50 == 0 {
            for (client, server) in servers.iter().enumerate() {
                let went = farm.client_sends(client as u16, "A");
                assert_eq!(went.as_ref(), Some(server), "client {client} at flap {flap}");
            }
        }
    }
    assert_eq!(audit::miscounts(farm.router.tables()), Vec::<String>::new());
    let listing = farm.router.run("ipvsadm -Ln").stdout;
    let active = |server: &str| -> usize {
        let line = listing.lines().find(|line| line.contains(server)).expect("it is there");
        line.split_whitespace().nth(4).unwrap().parse().unwrap()
    };
    assert_eq!(active("10.8.8.33:80"), at_first, "{listing}");
}

/// A server that is drained is drained anew each time that it comes back; once is enough to tell.
#[test]
fn a_drained_server_that_flaps_is_told_as_seldom() {
    let one = |more: &str| {
        format!(
            "primary = 10.10.1.1\nvirtual web {{\n active = 1\n address = 10.10.1.30 eth0:1\n \
             vip_nmask = 255.255.255.255\n {more}\n server one {{\n  address = 10.8.8.33\n  active = 1\n }}\n}}\n"
        )
    };
    let order = || Request::DrainServer { server: "one".into(), service: None, deadline: None };
    for (beyond, lvs, order) in [
        ("", one(""), Some(order())),
        ("drain_quiesced = true\ndrain_deadline = 5", one("quiesce_server = 1"), None),
    ] {
        let mut live = Live::with(beyond, &lvs);
        live.open(2, "tcp", "10.10.1.30:80");
        if let Some(order) = order {
            assert!(matches!(live.ask(order), Reply::Drains(_)));
        }
        let check = live.check("10.8.8.33:80");
        live.effects.clear();
        for _ in 0..FLAPS {
            live.health(&check, false);
            live.router.pass(Duration::from_millis(300), Duration::from_millis(300));
            live.health(&check, true);
            live.router.pass(Duration::from_millis(300), Duration::from_millis(300));
        }
        live.pass(61);
        let told = |effect: &&Effect| match effect {
            Effect::Log(level, _) => *level != Level::Debug,
            effect => matches!(effect, Effect::Event(_)),
        };
        let told: Vec<&Effect> = live.effects.iter().filter(told).collect();
        assert!(told.len() < 20, "{beyond}: {} lines: {told:#?}", told.len());
    }
}
