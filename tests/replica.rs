//! What another process needs to go on: records of connections and templates, and what is made of them.

pub mod ends;
mod paths;
mod protocol;
mod tables;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs::ipvs::edit::{Forward, ServerId, ServiceId};
use xlvs::ipvs::helper::control::FtpControl;
use xlvs::ipvs::persistence::TemplateKey;
use xlvs::ipvs::replica::{
    self, ConnectionRecord, Home, Key, LONGEST, Marks, Origin, Outcome, PARTS, Record, Refused,
    TemplateRecord,
};
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::flow::FlowKey;

use crate::support::audit;
use crate::support::decode::decode;
use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{Hex, PacketSpec, build};

const SECOND: Duration = Duration::from_secs(1);
const VIP: &str = "10.10.1.30";
const CLIENT: &str = "192.0.2.10";
const SETUP: [&str; 11] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.34:8080 -m",
    "ipvsadm -A -u 10.10.1.30:53 -s rr",
    "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:53 -m",
    "ipvsadm -A -t 10.10.1.30:443 -s rr -p 60",
    "ipvsadm -a -t 10.10.1.30:443 -r 10.8.8.33:443 -m",
    "ipvsadm -a -t 10.10.1.30:443 -r 10.8.8.34:443 -m",
    "ipvsadm -A -t 10.10.1.30:21 -s rr -p 60",
    "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.33:21 -m",
    "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.34:21 -m",
];

fn router() -> Router {
    let mut router = Router::new();
    for command in SETUP {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

/// A packet of a client's, and the ends with which it reaches a server.
struct Talk<'a> {
    router: &'a mut Router,
    protocol: &'static str,
    client: SocketAddr,
    port: u16,
}

impl Talk<'_> {
    fn packet(&self, ends: [SocketAddr; 2], flags: &str, payload: &[u8]) -> Vec<u8> {
        let [source, destination] = ends;
        let mut spec = PacketSpec::new(source.ip(), destination.ip(), self.protocol);
        (spec.sport, spec.dport, spec.id) = (source.port(), destination.port(), 7);
        flags.clone_into(&mut spec.flags);
        spec.hex = (!payload.is_empty()).then(|| Hex(payload.to_vec()));
        build(&spec, None).remove(0)
    }

    /// The client speaks; the server that hears it.
    fn ask(&mut self, flags: &str, payload: &[u8]) -> Option<SocketAddr> {
        let vip = SocketAddr::new(VIP.parse().unwrap(), self.port);
        let packet = self.packet([self.client, vip], flags, payload);
        let left = self.router.deliver(Side::Client, &packet);
        let left = left.iter().find(|left| left.side == Side::Server)?;
        let decoded = decode(&left.packet);
        let packet = decoded.packet()?;
        Some(SocketAddr::new(packet.destination, packet.ports?.1))
    }

    /// A server speaks; what the client hears.
    fn answer(&mut self, server: SocketAddr, flags: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let packet = self.packet([server, self.client], flags, payload);
        let left = self.router.deliver(Side::Server, &packet);
        let left = left.iter().find(|left| left.side == Side::Client)?;
        Some(decode(&left.packet).packet()?.payload.clone())
    }

    fn establish(&mut self) -> SocketAddr {
        let server = self.ask("S", b"").unwrap();
        self.answer(server, "SA", b"");
        self.ask("A", b"");
        server
    }
}

fn talk<'a>(router: &'a mut Router, protocol: &'static str, client: u16, port: u16) -> Talk<'a> {
    Talk { router, protocol, client: SocketAddr::new(CLIENT.parse().unwrap(), client), port }
}

/// All that one router knows, as bytes and back.
fn told(router: &Router) -> Vec<Record> {
    let mut bytes = Vec::new();
    for number in 0..PARTS {
        replica::part(router.tables(), number, router_now(router))
            .iter()
            .for_each(|record| record.put(&mut bytes));
    }
    read_all(&bytes)
}

fn router_now(router: &Router) -> xlvs::net::time::Instant {
    xlvs::net::time::Instant::START + router.now()
}

fn read_all(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = Record::read(bytes).unwrap();
        records.push(record);
        bytes = rest;
    }
    records
}

fn take(router: &mut Router, origin: Origin, record: &Record) -> Result<Outcome, Refused> {
    let snapshot = router.tables().snapshot.load_full();
    let outcome = replica::install(router.tables(), &snapshot, origin, record, router_now(router));
    assert_eq!(audit::miscounts(router.tables()), Vec::<String>::new(), "after {record:?}");
    outcome
}

fn listing(router: &mut Router) -> Vec<String> {
    let mut lines: Vec<_> = router.connections().iter().map(|view| format!("{view:?}")).collect();
    lines.sort();
    lines
}

/// One of each kind of connection; the servers of the first three.
fn busy(router: &mut Router) -> [SocketAddr; 3] {
    let servers = [
        talk(router, "tcp", 1000, 80).establish(),
        talk(router, "udp", 2000, 53).ask("", b"?").unwrap(),
        talk(router, "tcp", 3000, 443).establish(),
    ];
    let mut control = talk(router, "tcp", 4000, 21);
    let server = control.establish();
    control.ask("PA", b"PASV\r\n");
    let address = server.ip().to_string().replace('.', ",");
    control.answer(server, "PA", format!("227 here ({address},200,1).\r\n").as_bytes());
    talk(router, "tcp", 1001, 80).ask("S", b"");
    servers
}

#[test]
fn the_next_process_goes_on_with_everything() {
    let mut first = router();
    let servers = busy(&mut first);
    first.advance(5 * SECOND);
    let records = told(&first);
    let mut second = router();
    second.advance(5 * SECOND);
    for record in &records {
        take(&mut second, Origin::Predecessor, record).unwrap();
    }
    let half_open = |line: &String| !line.contains("SYN_RECV");
    let expected: Vec<_> = listing(&mut first).into_iter().filter(half_open).collect();
    assert_eq!(expected.len(), 7, "{expected:#?}");
    assert_eq!(listing(&mut second), expected);
    for (server, (protocol, client, port)) in
        servers.into_iter().zip([("tcp", 1000, 80), ("udp", 2000, 53), ("tcp", 3000, 443)])
    {
        assert_eq!(talk(&mut second, protocol, client, port).ask("A", b"x"), Some(server));
        assert!(talk(&mut second, protocol, client, port).answer(server, "A", b"x").is_some());
    }
    // A new connection of the persistent client, and the data connection that was announced.
    assert_eq!(talk(&mut second, "tcp", 3001, 443).ask("S", b"").unwrap().ip(), servers[2].ip());
    let data = talk(&mut second, "tcp", 5000, 200 * 256 + 1).ask("S", b"").unwrap();
    assert_eq!(data.port(), 200 * 256 + 1);
    let views = second.connections();
    let control = views.iter().find(|view| view.virtual_address.port() == 21 && view.client.port() != 0);
    assert_eq!(data.ip(), control.unwrap().server.ip());
    assert_eq!(audit::miscounts(second.tables()), Vec::<String>::new());
    second.leap(2000 * SECOND);
    second.leap(2000 * SECOND);
    second.leap(2000 * SECOND);
    assert_eq!(second.connections(), []);
    assert_eq!(audit::miscounts(second.tables()), Vec::<String>::new());
}

/// What an FTP server says after the takeover is numbered as the client has counted before it.
#[test]
fn numbers_that_a_rewritten_answer_has_shifted_stay_shifted() {
    let mut routers = [router(), router()];
    busy(&mut routers[0]);
    for record in told(&routers[0]) {
        take(&mut routers[1], Origin::Predecessor, &record).unwrap();
    }
    let answers = routers.map(|mut router| {
        let view = router.connections().into_iter().find(|view| view.client.port() == 4000).unwrap();
        answer_behind(&mut router, view.server)
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(sequence(&answers[0]), BEHIND + 1, "10,10,1,30 is longer than what it stands for by one");
}

/// Behind all that an FTP server has said.
const BEHIND: u32 = 1000;

/// What the client of port 4000 gets when its FTP server says something more.
fn answer_behind(router: &mut Router, server: SocketAddr) -> Vec<u8> {
    let client: IpAddr = CLIENT.parse().unwrap();
    let mut spec = PacketSpec::new(server.ip(), client, "tcp");
    (spec.sport, spec.dport, spec.id, spec.seq) = (server.port(), 4000, 7, BEHIND);
    "PA".clone_into(&mut spec.flags);
    spec.hex = Some(Hex(b"150 ok\r\n".to_vec()));
    router.deliver(Side::Server, &build(&spec, None)[0])[0].packet.clone()
}

/// The sequence number of a TCP segment without options of IPv4.
fn sequence(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[24..28].try_into().unwrap())
}

#[test]
fn installing_again_changes_nothing_and_the_last_one_holds() {
    let mut first = router();
    busy(&mut first);
    let records = told(&first);
    let mut second = router();
    for record in &records {
        take(&mut second, Origin::Partner, record).unwrap();
    }
    let before = listing(&mut second);
    for record in &records {
        assert_eq!(take(&mut second, Origin::Partner, record), Ok(Outcome::Updated), "{record:?}");
    }
    assert_eq!(listing(&mut second), before);
    assert!(second.connections().iter().all(|view| view.synced), "{before:#?}");
    // Another connection with the same ends has taken the place of the first one.
    let Some(Record::Connection(mut other)) = records
        .iter()
        .find(|record| matches!(record, Record::Connection(record) if record.client.port() == 1000))
        .cloned()
    else {
        panic!("the connection of client port 1000 is not among {records:?}")
    };
    let server = if other.server.to_string() == "10.8.8.33:8080" { "10.8.8.34" } else { "10.8.8.33" };
    other.server.set_ip(server.parse().unwrap());
    other.home.as_mut().unwrap().server.address = server.parse().unwrap();
    assert_eq!(take(&mut second, Origin::Partner, &Record::Connection(other)), Ok(Outcome::Replaced));
    let heard = talk(&mut second, "tcp", 1000, 80).ask("A", b"").unwrap();
    assert_eq!(heard.to_string(), format!("{server}:8080"));
    for record in records.iter().rev() {
        take(&mut second, Origin::Partner, &Record::End(record.key())).unwrap();
        assert_eq!(take(&mut second, Origin::Partner, &Record::End(record.key())), Ok(Outcome::Absent));
    }
    assert_eq!(second.connections(), []);
}

/// A standby that is told of everything does not let anything end by itself; once it is told no more, nothing ends before
/// its whole time.
#[test]
fn what_a_partner_told_of_lives_as_long_as_the_partner_says() {
    let mut first = router();
    busy(&mut first);
    let mut second = router();
    second.tables().replication.hold();
    for record in told(&first) {
        take(&mut second, Origin::Partner, &record).unwrap();
    }
    let count = second.connections().len();
    for _ in 0..20 {
        second.advance(Duration::from_secs(400));
    }
    second.advance(SECOND);
    assert_eq!(second.connections().len(), count);
    let now = router_now(&second);
    second.tables().replication.release(now);
    second.advance(Duration::from_secs(280));
    assert_eq!(talk(&mut second, "udp", 2000, 53).ask("", b"").unwrap().to_string(), "10.8.8.33:53");
    second.advance(Duration::from_secs(610));
    let left = second.connections();
    assert!(left.iter().any(|view| view.client.port() == 1000), "900 s of an established one: {left:?}");
    assert!(left.iter().all(|view| view.client.port() != 2000), "300 s after a packet: {left:?}");
    (0..3).for_each(|_| second.leap(1000 * SECOND));
    assert_eq!(second.connections(), []);
    assert_eq!(audit::miscounts(second.tables()), Vec::<String>::new());
}

/// An upgrade on a standby, or soon after a takeover: what was not let end because nobody knows when its last packet came is not let
/// end by the next process either.
#[test]
fn the_next_process_lets_nothing_end_earlier_than_this_one() {
    let mut first = router();
    talk(&mut first, "tcp", 3000, 443).establish();
    let mut standby = router();
    standby.tables().replication.hold();
    for record in told(&first) {
        take(&mut standby, Origin::Partner, &record).unwrap();
    }
    standby.advance(Duration::from_secs(895));
    let held = handed_over(&standby);
    let now = router_now(&standby);
    standby.tables().replication.release(now);
    replica::keep_all(standby.tables());
    let released = handed_over(&standby);
    for (records, what) in [(held, "a standby"), (released, "a router that has taken over")] {
        let mut next = router();
        next.advance(Duration::from_secs(895));
        for record in &records {
            take(&mut next, Origin::Predecessor, record).unwrap();
        }
        next.advance(Duration::from_secs(600));
        assert!(next.connections().iter().any(|view| view.client.port() == 3000), "after {what}");
    }
}

/// What the next process is told.
fn handed_over(router: &Router) -> Vec<Record> {
    let (tables, now) = (router.tables(), router_now(router));
    let mut records = Vec::new();
    tables.templates.for_each(|template| {
        let record = replica::template_for_successor(tables, template, now);
        records.push(Record::Template(Box::new(record)));
    });
    tables.connections.for_each(|connection| {
        let record = replica::connection_for_successor(tables, &connection, now);
        records.push(Record::Connection(Box::new(record)));
    });
    records
}

#[test]
fn every_change_is_noted_while_somebody_watches() {
    let mut router = router();
    busy(&mut router);
    assert_eq!(router.tables().replication.next(), None, "nobody watches");
    router.tables().replication.watch(true);
    let noted = |router: &mut Router, act: &dyn Fn(&mut Router)| {
        act(router);
        let keys: Vec<_> = std::iter::from_fn(|| router.tables().replication.next()).collect();
        let key = |key: &Key| match key {
            Key::Connection(flow) => format!("{}", flow.source_port),
            Key::Template(key) => format!("{} {}", key.client, key.virtual_address.port()),
        };
        keys.iter().map(key).collect::<Vec<_>>()
    };
    assert_eq!(
        noted(&mut router, &|router| {
            talk(router, "tcp", 1002, 80).ask("S", b"");
        }),
        [""; 0]
    );
    let server = talk(&mut router, "tcp", 1003, 80).ask("S", b"").unwrap();
    let established = noted(&mut router, &|router| {
        let mut talk = talk(router, "tcp", 1003, 80);
        talk.answer(server, "SA", b"");
        talk.ask("A", b"");
        for _ in 0..10 {
            talk.ask("A", b"data");
        }
    });
    assert_eq!(established, ["1003"], "and nothing for packets that say nothing");
    assert_eq!(
        noted(&mut router, &|router| {
            talk(router, "udp", 2001, 53).ask("", b"");
        }),
        ["2001"]
    );
    assert_eq!(
        noted(&mut router, &|router| {
            talk(router, "tcp", 1003, 80).ask("FA", b"");
        }),
        ["1003"],
        "a state"
    );
    let ends = noted(&mut router, &|router| (0..3).for_each(|_| router.leap(1000 * SECOND)));
    for key in ["1000", "1003", "2000", "2001", "3000", "4000", "192.0.2.10 443", "192.0.2.10 0"] {
        assert!(ends.iter().any(|noted| noted == key), "{key} in {ends:?}");
    }
    assert!(router.tables().replication.lost().is_empty());
    router.tables().replication.watch(false);
    assert_eq!(
        noted(&mut router, &|router| {
            talk(router, "udp", 2002, 53).ask("", b"");
        }),
        [""; 0]
    );
}

fn ends() -> impl Strategy<Value = [SocketAddr; 3]> {
    let ends = select(vec![
        ["192.0.2.1:1000", "10.10.1.30:80", "10.8.8.33:8080"],
        ["192.0.2.1:1001", "10.10.1.30:80", "10.8.8.34:8080"],
        ["192.0.2.1:1001", "10.10.1.30:80", "10.8.8.99:8080"],
        ["192.0.2.10:1000", "10.10.1.30:443", "10.8.8.33:443"],
        ["192.0.2.10:1", "10.10.1.30:21", "10.8.8.33:21"],
        ["0.0.0.0:0", "0.0.0.80:0", "255.255.255.255:65535"],
        ["[2001:db8::1]:1", "[fd00:10::30]:80", "[fd00:8::33]:8080"],
        ["192.0.2.1:1000", "10.10.1.30:80", "[fd00:8::33]:8080"],
    ]);
    ends.prop_map(|ends| ends.map(|end| end.parse().unwrap()))
}

fn keys() -> impl Strategy<Value = TemplateKey> {
    let call_id = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255));
    (ends(), select(vec![0, 6, 17]), call_id).prop_map(|([client, virtual_address, _], protocol, call_id)| {
        TemplateKey {
            protocol: Protocol(protocol),
            client: client.ip(),
            virtual_address,
            call_id: call_id.map(Into::into),
        }
    })
}

fn homes() -> impl Strategy<Value = Option<Home>> {
    let services = select(vec![
        ServiceId::FwMark { mark: 0x8000_0001, family: Family::V6 },
        ServiceId::Address { protocol: Protocol::TCP, address: VIP.parse().unwrap(), port: 80 },
        ServiceId::Address { protocol: Protocol::TCP, address: VIP.parse().unwrap(), port: 443 },
    ]);
    let server = ends().prop_map(|[.., server]| ServerId { address: server.ip(), port: server.port() });
    proptest::option::of((services, server).prop_map(|(service, server)| Home { service, server }))
}

fn forwards() -> impl Strategy<Value = Forward> {
    select(vec![Forward::Masquerade, Forward::Local, Forward::Tunnel, Forward::Route])
}

fn controls() -> impl Strategy<Value = FtpControl> {
    select(vec!["", "227 (10,8", "227 (10,8,8,33,1,2)\r\n", "229 (|||77|)\r\n"]).prop_map(|answer| {
        let mut control = FtpControl::default();
        let [server, own]: [IpAddr; 2] = ["10.8.8.33", VIP].map(|address| address.parse().unwrap());
        control.read_client(if answer.starts_with("229") { b"EPSV\r\n" } else { b"PASV\r\n" }, Family::V4);
        if let Some(announcement) = control.read_server(7, answer.as_bytes(), server, own) {
            control.replace(&announcement, SocketAddr::new(own, 5000));
        }
        control
    })
}

fn connections() -> impl Strategy<Value = Record> {
    let kind = (select(vec![(6, 11), (17, 1), (132, 14)]), any::<u8>(), forwards(), ends(), homes());
    let marks = proptest::array::uniform6(any::<bool>());
    let numbers = (any::<u32>(), 0..4_000_000_000u64, any::<u32>());
    let acknowledged = proptest::array::uniform2(proptest::option::of(any::<u32>()));
    let bonds = (acknowledged, proptest::option::of(keys()), any::<bool>(), proptest::option::of(controls()));
    (kind, marks, numbers, bonds).prop_map(|(kind, marks, (timeout, remaining, packets), bonds)| {
        let ((protocol, states), state, forward, [client, virtual_address, server], home) = kind;
        let (acknowledged, template, parent, ftp) = bonds;
        let protocol = Protocol(protocol);
        let [active, no_output, awaits, unanswered, synced, borrowed] = marks;
        let control = SocketAddr::new(virtual_address.ip(), 21);
        Record::Connection(Box::new(ConnectionRecord {
            protocol,
            client,
            virtual_address,
            server,
            home,
            forward,
            state: state % states,
            marks: Marks {
                active,
                no_output,
                awaits_port: awaits && client.port() == 0,
                unanswered,
                synced,
                borrowed,
            },
            timeout,
            remaining: Duration::from_millis(remaining),
            packets,
            acknowledged,
            template,
            parent: parent.then(|| FlowKey::new(Protocol::TCP, client, control)),
            ftp,
        }))
    })
}

fn templates() -> impl Strategy<Value = Record> {
    let numbers = (any::<u32>(), 0..4_000_000_000u64, any::<u32>());
    let marks = proptest::array::uniform4(any::<bool>());
    (keys(), homes(), forwards(), ends(), numbers, marks).prop_map(
        |(key, home, forward, [.., place], (timeout, remaining, packets), marks)| {
            let [assured, one_packet, synced, borrowed] = marks;
            Record::Template(Box::new(TemplateRecord {
                key,
                home,
                forward,
                place,
                timeout,
                remaining: Duration::from_millis(remaining),
                packets,
                assured,
                one_packet,
                synced,
                borrowed,
            }))
        },
    )
}

fn records() -> impl Strategy<Value = Record> {
    let some = prop_oneof![3 => connections(), 2 => templates()];
    (some, any::<u8>()).prop_map(|(record, end)| match end {
        0..64 => Record::End(record.key()),
        _ => record,
    })
}

fn runner(cases: u32) -> TestRunner {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(Config { failure_persistence: None, cases, ..Config::default() }, rng)
}

#[test]
fn what_a_record_says_is_read_from_it() {
    let law = |records: Vec<Record>| {
        let mut bytes = Vec::new();
        for record in &records {
            let start = bytes.len();
            record.put(&mut bytes);
            prop_assert!(bytes.len() - start <= LONGEST, "{} bytes", bytes.len() - start);
        }
        prop_assert_eq!(read_all(&bytes), records);
        Ok(())
    };
    runner(256).run(&proptest::collection::vec(records(), 0..10), law).unwrap();
}

#[test]
fn a_record_with_more_behind_it_is_read_and_one_of_another_kind_can_be_skipped() {
    let mut bytes = Vec::new();
    let record = Record::End(Key::Connection(FlowKey::new(
        Protocol::TCP,
        "192.0.2.1:1".parse().unwrap(),
        "10.10.1.30:80".parse().unwrap(),
    )));
    record.put(&mut bytes);
    bytes.extend([1, 2, 3]);
    bytes[2] += 3;
    assert_eq!(Record::read(&bytes), Ok((record, &[][..])), "a later version says more");
    bytes[0] = 77;
    bytes.push(9);
    assert_eq!(Record::read(&bytes), Err(Refused::Layout));
    assert_eq!(Record::skip(&bytes), Ok(&[9][..]));
    assert_eq!(Record::skip(&bytes[..10]), Err(Refused::CutOff));
}

#[test]
fn a_cut_or_garbled_record_does_no_harm() {
    let law = |(record, cut, place, bit): (Record, usize, usize, u8)| {
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        let whole = bytes.len();
        bytes.truncate(cut % (whole + 1));
        if bytes.len() < whole {
            prop_assert_eq!(Record::read(&bytes).err(), Some(Refused::CutOff));
        }
        if let Some(byte) = bytes.len().checked_sub(1).map(|last| place % (last + 1)) {
            bytes[byte] ^= 1 << (bit % 8);
            let mut router = router();
            if let Ok((record, _)) = Record::read(&bytes) {
                let _ = take(&mut router, Origin::Partner, &record);
            }
        }
        Ok(())
    };
    runner(256).run(&(records(), any::<usize>(), any::<usize>(), any::<u8>()), law).unwrap();
}

#[test]
fn servers_count_what_there_is_whatever_records_say() {
    let law = |records: Vec<Record>| {
        let mut router = router();
        for (number, record) in records.iter().enumerate() {
            let _ = take(&mut router, Origin::Partner, record);
            talk(&mut router, "tcp", 1000 + number as u16 % 3, [80, 443][number % 2]).ask("S", b"");
            if number % 4 == 3 {
                router.advance(SECOND);
            }
        }
        prop_assert_eq!(audit::miscounts(router.tables()), Vec::<String>::new());
        for number in 0..PARTS {
            for record in replica::part(router.tables(), number, router_now(&router)) {
                prop_assert_eq!(take(&mut router, Origin::Predecessor, &record), Ok(Outcome::Updated));
            }
        }
        Ok(())
    };
    runner(128).run(&proptest::collection::vec(records(), 1..30), law).unwrap();
}
