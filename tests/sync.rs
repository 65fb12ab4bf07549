//! Connection synchronisation: the messages, and a pair of routers of which one goes on where the other has stopped. What the
//! kernel sends and takes is in the scenarios `sync-…`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs::admin::client::Transport as _;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::sync::{Batch, Entry, Message, Refused, SyncCounts, Version, flags};
use xlvs::net::addr::Protocol;
use xlvs::net::time::Instant;

use crate::support::audit;
use crate::support::decode::decode;
use crate::support::device::{Departure, Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};
use crate::support::sync::lines;

const SECOND: Duration = Duration::from_secs(1);
const MASTER: &str = "ipvsadm --start-daemon master --mcast-interface eth1 --syncid 7";
const BACKUP: &str = "ipvsadm --start-daemon backup --mcast-interface eth1 --syncid 7";
const SERVICE: [&str; 3] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.34:8080 -m",
];

fn run(router: &mut Router, command: &str) {
    let output = router.run(command);
    assert_eq!(output.code, 0, "{command}: {}", output.stderr);
}

fn with_service(mut router: Router, daemon: &str) -> Router {
    run(&mut router, daemon);
    SERVICE.iter().for_each(|command| run(&mut router, command));
    router
}

fn counts(router: &mut Router) -> SyncCounts {
    match router.call(Request::Status) {
        Ok(Reply::Status(status)) => status.sync,
        other => panic!("{other:?}"),
    }
}

fn segment(side: Side, ends: [(&str, u16); 2], flags: &str) -> Vec<u8> {
    let [source, destination] = ends.map(|(address, _)| address.parse::<IpAddr>().unwrap());
    let mut spec = PacketSpec::new(source, destination, "tcp");
    (spec.sport, spec.dport, spec.id) = (ends[0].1, ends[1].1, 7);
    flags.clone_into(&mut spec.flags);
    spec.len = if side == Side::Server { 40 } else { 20 };
    build(&spec, None).remove(0)
}

fn request(client: u16, flags: &str) -> Vec<u8> {
    segment(Side::Client, [("192.0.2.10", client), ("10.10.1.30", 80)], flags)
}

fn answer(server: &str, client: u16, flags: &str) -> Vec<u8> {
    segment(Side::Server, [(server, 8080), ("192.0.2.10", client)], flags)
}

/// Sends a client's segment; the address of the server that gets it, if one does.
fn ask(router: &mut Router, client: u16, flags: &str) -> Option<String> {
    let left = router.deliver(Side::Client, &request(client, flags));
    let left = left.iter().find(|left| left.side == Side::Server)?;
    Some(decode(&left.packet).packet()?.destination.to_string())
}

fn establish(router: &mut Router, client: u16) -> String {
    let server = ask(router, client, "S").unwrap();
    router.deliver(Side::Server, &answer(&server, client, "SA"));
    ask(router, client, "A");
    server
}

fn messages(out: &[Departure]) -> Vec<Vec<u8>> {
    let decoded = out.iter().map(|left| decode(&left.packet));
    let messages = decoded.filter_map(|decoded| {
        let packet = decoded.packet()?;
        lines(packet).map(|_| packet.payload.clone())
    });
    messages.collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn example() -> Entry {
    Entry {
        protocol: Protocol::TCP,
        flags: 0,
        state: 1,
        client: "10.0.0.2:50000".parse().unwrap(),
        virtual_address: "192.168.0.100:80".parse().unwrap(),
        server: "10.1.0.5:8080".parse().unwrap(),
        mark: 0,
        timeout: 900,
        call_id: None,
    }
}

fn message_of(version: Version, entries: &[Entry]) -> Vec<u8> {
    let mut batch = Batch::new(version, 7, 60_000, Instant::START);
    entries.iter().for_each(|entry| batch.push(&entry.bytes(version).unwrap()));
    batch.finish()
}

#[test]
fn messages_have_the_bytes_that_the_kernel_s_have() {
    let connection = example();
    let v1 =
        "0007002c 01010000 00060024 00000000 0001c350 00501f90 00000000 00000384 0a000002 c0a80064 0a010005";
    assert_eq!(message_of(Version::V1, std::slice::from_ref(&connection)), hex(v1));
    let v0 = "0107001c 0006c350 00501f90 0a000002 c0a80064 0a010005 00000001";
    assert_eq!(message_of(Version::V0, &[connection]), hex(v0));
}

fn entries() -> impl Strategy<Value = Entry> {
    let ends = select(vec![
        ["192.0.2.1:1000", "10.10.1.30:80", "10.8.8.33:8080"],
        ["0.0.0.0:0", "0.0.0.80:0", "255.255.255.255:65535"],
        ["[2001:db8::1]:1", "[fd00:10::30]:80", "[fd00:8::33]:8080"],
    ]);
    let head = (select(vec![(6, 11), (17, 1), (132, 14)]), any::<u32>(), any::<u16>(), ends);
    let tail =
        (any::<u32>(), any::<u32>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=255)));
    (head, tail).prop_map(|(((protocol, states), flags, state, ends), (mark, timeout, call_id))| {
        let [client, virtual_address, server] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
        Entry {
            protocol: Protocol(protocol),
            flags: flags & flags::TAKEN & !flags::SEQUENCE,
            state: state % states,
            client,
            virtual_address,
            server,
            mark,
            timeout,
            call_id: call_id.map(Into::into),
        }
    })
}

fn runner() -> TestRunner {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng)
}

#[test]
fn what_a_message_says_is_read_from_it() {
    let law = |entries: Vec<Entry>| {
        let message = message_of(Version::V1, &entries);
        let read = Message::read(&message).unwrap();
        prop_assert_eq!((read.sync_id, read.version), (7, Version::V1));
        let read: Result<Vec<_>, _> = read.entries().collect();
        prop_assert_eq!(read.unwrap(), entries.clone());
        let old: Vec<_> = entries.into_iter().filter(|entry| entry.client.is_ipv4()).collect();
        let message = message_of(Version::V0, &old);
        let read: Result<Vec<_>, _> = Message::read(&message).unwrap().entries().collect();
        let told = old.into_iter().map(|entry| Entry { mark: 0, timeout: 0, call_id: None, ..entry });
        prop_assert_eq!(read.unwrap(), told.collect::<Vec<_>>());
        Ok(())
    };
    runner().run(&proptest::collection::vec(entries(), 0..20), law).unwrap();
}

#[test]
fn a_cut_or_garbled_message_is_read_as_far_as_it_goes() {
    let law = |(entries, cut, place, byte): (Vec<Entry>, usize, usize, u8)| {
        let mut message = message_of(Version::V1, &entries);
        message.truncate(cut.max(4).min(message.len()));
        let length = message.len();
        message[place % length] = byte;
        let size = (length as u16).to_be_bytes();
        message[2..4].copy_from_slice(&size);
        // Whatever it says, there are no more than it counts.
        prop_assert!(Message::read(&message).unwrap().entries().count() <= 255);
        Ok(())
    };
    let inputs = (proptest::collection::vec(entries(), 1..5), 0..300usize, any::<usize>(), any::<u8>());
    runner().run(&inputs, law).unwrap();
}

#[test]
fn a_batch_takes_what_fits_and_no_more_than_the_header_counts() {
    let bytes = example().bytes(Version::V1).unwrap();
    let mut batch = Batch::new(Version::V1, 7, 8 + 2 * bytes.len(), Instant::START);
    for _ in 0..2 {
        assert!(batch.takes(Version::V1, 7, bytes.len()));
        batch.push(&bytes);
    }
    assert!(!batch.takes(Version::V1, 7, bytes.len()), "it is full");
    let small = Batch::new(Version::V1, 7, 10, Instant::START);
    assert!(small.takes(Version::V1, 7, bytes.len()), "a first entry goes alone");
    assert!(!small.takes(Version::V0, 7, 4) && !small.takes(Version::V1, 8, 4));
    let mut large = Batch::new(Version::V1, 7, 60_000, Instant::START);
    while large.takes(Version::V1, 7, bytes.len()) {
        large.push(&bytes);
    }
    assert_eq!(large.entries(), 255);
    let message = large.finish();
    assert_eq!(Message::read(&message).unwrap().entries().count(), 255);
}

#[test]
fn a_backup_goes_on_with_the_connections_of_a_master() {
    let mut master = with_service(Router::new(), MASTER);
    let servers: Vec<_> = (0..30).map(|client| establish(&mut master, 1000 + client)).collect();
    for client in 0..30 {
        ask(&mut master, 1000 + client, "PA");
    }
    let messages = messages(&master.advance(3 * SECOND));
    let counted = counts(&mut master);
    assert_eq!((counted.entries_sent, counted.messages_sent), (30, 1));
    let mut backup = with_service(Router::new(), BACKUP);
    messages.into_iter().for_each(|message| backup.synchronise(message));
    assert_eq!(counts(&mut backup).entries_received, 30);
    for (client, server) in (1000..).zip(&servers) {
        assert_eq!(ask(&mut backup, client, "PA").as_ref(), Some(server), "client {client}");
        let left = backup.deliver(Side::Server, &answer(server, client, "PA"));
        assert_eq!(left[0].side, Side::Client);
    }
    assert_eq!(ask(&mut backup, 5000, "PA"), None, "what the master has not told of is unknown");
    assert_eq!(audit::miscounts(backup.tables()), Vec::<String>::new());
    backup.leap(1000 * SECOND);
    assert_eq!(backup.connections(), []);
    assert_eq!(audit::miscounts(backup.tables()), Vec::<String>::new());
}

#[test]
fn what_the_shortcut_forwards_is_told_of_as_well() {
    let mut master = with_service(Router::new().with_shortcut(0, usize::MAX), MASTER);
    establish(&mut master, 1000);
    ask(&mut master, 1000, "A");
    assert_eq!(messages(&master.advance(10 * SECOND)).len(), 1, "with the third packet");
    for _ in 0..40 {
        ask(&mut master, 1000, "A");
    }
    assert!(master.fast_path().taken() > 30);
    assert_eq!(messages(&master.advance(10 * SECOND)).len(), 0, "after 43 packets");
    for _ in 0..20 {
        ask(&mut master, 1000, "A");
    }
    assert_eq!(messages(&master.advance(10 * SECOND)).len(), 1, "after 63");
    assert_eq!(messages(&master.advance(30 * SECOND)).len(), 0, "once only");
}

#[test]
fn no_more_messages_wait_than_may() {
    let mut master = with_service(Router::new(), "sysctl -qw net.ipv4.vs.sync_qlen_max=0");
    run(&mut master, MASTER);
    establish(&mut master, 1000);
    ask(&mut master, 1000, "PA");
    assert_eq!(messages(&master.advance(3 * SECOND)).len(), 0);
    let counted = counts(&mut master);
    assert_eq!((counted.entries_sent, counted.queue_full), (0, 1));
}

#[test]
fn each_port_has_its_clients() {
    let mut master = Router::new();
    run(&mut master, "sysctl -qw net.ipv4.vs.sync_ports=4");
    let mut master = with_service(master, MASTER);
    for client in 1..60 {
        let ends = [(&*format!("198.51.100.{client}"), 1000), ("10.10.1.30", 80)];
        ["S", "R"]
            .iter()
            .for_each(|flags| drop(master.deliver(Side::Client, &segment(Side::Client, ends, flags))));
        ["A", "A", "FA"]
            .iter()
            .for_each(|flags| drop(master.deliver(Side::Client, &segment(Side::Client, ends, flags))));
    }
    let out = master.advance(3 * SECOND);
    let ports = out.iter().filter_map(|left| Some(decode(&left.packet).packet()?.ports?.1));
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    assert_eq!(ports, [8848, 8849, 8850, 8851]);
}

#[test]
fn refusals_are_counted_by_reason() {
    let mut backup = with_service(Router::new(), BACKUP);
    let good = message_of(Version::V1, &[example()]);
    let mut other = good.clone();
    other[1] = 8;
    let mut long = good.clone();
    long.push(0);
    let mut state = good.clone();
    state[17] = 11;
    [other, long, state, good].into_iter().for_each(|message| backup.synchronise(message));
    let counted = counts(&mut backup);
    let expected =
        [Refused::Length, Refused::SyncId, Refused::State].map(|refused| (refused.name().to_owned(), 1));
    assert_eq!(counted.refused, expected);
    assert_eq!((counted.messages_received, counted.entries_received), (4, 1));
}

/// An entry about one of few clients and servers, known or not.
fn likely_entries() -> impl Strategy<Value = Entry> {
    let servers = select(vec!["10.8.8.33:8080", "10.8.8.34:8080", "10.8.8.40:8080"]);
    let kinds = (any::<u32>(), 0..11u16, 0..3u16, any::<bool>());
    (kinds, servers, 0..1000u32).prop_map(|((flags, state, client, template), server, timeout)| {
        let flags = flags & flags::TAKEN & !flags::TEMPLATE | if template { flags::TEMPLATE } else { 0 };
        let client = if template { 0 } else { client };
        Entry {
            flags,
            state,
            client: SocketAddr::new("192.0.2.10".parse().unwrap(), client),
            virtual_address: "10.10.1.30:80".parse().unwrap(),
            server: server.parse().unwrap(),
            timeout,
            ..example()
        }
    })
}

#[test]
fn servers_count_what_there_is_whatever_is_told() {
    let law = |(entries, server): (Vec<Entry>, usize)| {
        let mut backup = with_service(Router::new(), BACKUP);
        run(&mut backup, MASTER);
        for (number, entry) in entries.iter().enumerate() {
            backup.synchronise(message_of(Version::V1, std::slice::from_ref(entry)));
            ask(&mut backup, number as u16 % 3, ["S", "A", "FA", "R"][number % 4]);
            if number == server {
                run(&mut backup, "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.40:8080 -m");
            }
            prop_assert_eq!(audit::miscounts(backup.tables()), Vec::<String>::new());
        }
        (0..3).for_each(|_| backup.leap(2000 * SECOND));
        prop_assert_eq!(backup.connections(), []);
        prop_assert_eq!(audit::miscounts(backup.tables()), Vec::<String>::new());
        Ok(())
    };
    runner().run(&(proptest::collection::vec(likely_entries(), 1..30), 0..30usize), law).unwrap();
}
