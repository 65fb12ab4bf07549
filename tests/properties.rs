//! Laws that hold whatever packets come. proptest makes them up, the same ones at every run.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs::host::clock::Clock;
use xlvs::ipvs::verdict::Verdict;
use xlvs::net::time::Instant;

use crate::support::decode::{Judgement, decode};
use crate::support::device::{Device as _, Side};
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{self, Hex, PacketSpec};

/// Far more than any of this takes, far less than what it would take if the work grew with the numbers in it.
const COARSE_BOUND: Duration = Duration::from_secs(60);

/// Client, virtual address and server.
const ENDS: [[&str; 3]; 4] = [
    ["192.0.2.10", "10.10.1.30", "10.8.8.33"],
    ["198.51.100.7", "10.10.1.30", "10.8.8.33"],
    ["255.1.2.3", "10.10.1.30", "10.8.8.33"],
    ["2001:db8::ffff:10", "fd00:10::30", "fd00:8::33"],
];

const SERVICES: [&str; 8] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -A -u 10.10.1.30:80 -s rr",
    "ipvsadm -a -u 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -A -t [fd00:10::30]:80 -s rr",
    "ipvsadm -a -t [fd00:10::30]:80 -r [fd00:8::33]:8080 -m",
    "ipvsadm -A -u [fd00:10::30]:80 -s rr",
    "ipvsadm -a -u [fd00:10::30]:80 -r [fd00:8::33]:8080 -m",
];

fn router() -> Router {
    let mut router = Router::new();
    for command in SERVICES {
        run(&mut router, command);
    }
    router
}

fn run(router: &mut Router, command: &str) {
    let output = router.run(command);
    assert_eq!(output.code, 0, "{command}: {}", output.stderr);
}

/// Runs `law` on cases that follow from a fixed seed.
fn holds<S: Strategy>(cases: u32, of: S, law: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]));
    if let Err(error) = runner.run(&of, law) {
        panic!("{error}");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A TCP or UDP packet with anything in it, between ends that are filled in later.
fn content() -> impl Strategy<Value = PacketSpec> {
    let header = (any::<u16>(), 2..=255_u8, any::<u8>(), any::<bool>(), 0..0x10_0000_u32);
    let segment =
        (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..40));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (select(vec!["tcp", "udp"]), header, segment, payload, prop::bool::weighted(0.1)).prop_map(
        |(protocol, (id, ttl, tos, df, fl), (seq, ack, win, urg, opts), payload, nocsum)| {
            let mut spec = PacketSpec::new(address("0.0.0.0"), address("0.0.0.0"), protocol);
            (spec.id, spec.ttl, spec.tos, spec.df, spec.fl) = (id.into(), ttl, tos, df, fl);
            (spec.seq, spec.ack, spec.win, spec.urg, spec.opts) = (seq, ack, win, urg, Hex(opts));
            (spec.hex, spec.nocsum) = (Some(Hex(payload)), nocsum);
            spec
        },
    )
}

/// The packet between other ends.
fn between(spec: &PacketSpec, source: (IpAddr, u16), destination: (IpAddr, u16), flags: &str) -> PacketSpec {
    let mut spec = spec.clone();
    (spec.src, spec.sport, spec.dst, spec.dport) = (source.0, source.1, destination.0, destination.1);
    spec.flags = flags.into();
    // Without checksum UDP is not allowed over IPv6 (RFC 8200, 8.1).
    spec.nocsum &= spec.src.is_ipv4() && spec.proto == packet::NameOrNumber::Name("udp".into());
    spec
}

fn bytes(spec: &PacketSpec) -> Vec<u8> {
    packet::build(spec, None).remove(0)
}

/// One hop further, with other ends: what must come out if checksums are computed anew over the whole packet.
fn translated(spec: &PacketSpec, source: (IpAddr, u16), destination: (IpAddr, u16)) -> PacketSpec {
    let mut after = between(spec, source, destination, &spec.flags);
    after.ttl -= 1;
    after.nocsum = false;
    after
}

/// Makes the UDP checksum come out as 0 after translation to `destination`, which must then be sent as 0xffff.
fn provoke_zero_checksum(spec: &mut PacketSpec, source: (IpAddr, u16), destination: (IpAddr, u16)) {
    (spec.hex, spec.nocsum) = (Some(Hex(vec![0; 2])), false);
    let packet = bytes(&translated(spec, source, destination));
    let header = if source.0.is_ipv4() { 20 } else { 40 };
    spec.hex = Some(Hex(packet[header + 6..header + 8].to_vec()));
}

#[test]
fn translation_there_and_back_changes_nothing_else() {
    let zero = prop::bool::weighted(0.2);
    holds(
        2000,
        (content(), content(), 0..ENDS.len(), 1024..=65535_u16, zero),
        |(there, back, ends, port, zero)| {
            let mut router = router();
            let [client, service, server] = ENDS[ends].map(address);
            let (client, service, server) = ((client, port), (service, 80), (server, 8080));
            let mut request = between(&there, client, service, "S");
            if zero && request.proto == packet::NameOrNumber::Name("udp".into()) {
                provoke_zero_checksum(&mut request, client, server);
            }
            let sent = router.send(Side::Client, &bytes(&request));
            prop_assert_eq!(&sent, &[(Side::Server, bytes(&translated(&request, client, server)))]);
            prop_assert_eq!(
                decode(&sent[0].1).packet().and_then(|packet| packet.checksum),
                Some(Judgement::Ok)
            );

            let mut reply = between(&back, server, client, "SA");
            reply.proto = request.proto.clone();
            let reply = between(&reply, server, client, "SA");
            let sent = router.send(Side::Server, &bytes(&reply));
            prop_assert_eq!(&sent, &[(Side::Client, bytes(&translated(&reply, service, client)))]);

            // What is plain from now on takes fewer steps; the first one makes the connection established.
            for (content, flags) in [(&there, "A"), (&back, "A"), (&there, "PA")] {
                let mut request = between(content, client, service, flags);
                request.proto = there.proto.clone();
                let request = between(&request, client, service, flags);
                let sent = router.send(Side::Client, &bytes(&request));
                prop_assert_eq!(&sent, &[(Side::Server, bytes(&translated(&request, client, server)))]);
                let reply = between(&request, server, client, flags);
                let sent = router.send(Side::Server, &bytes(&reply));
                prop_assert_eq!(&sent, &[(Side::Client, bytes(&translated(&reply, service, client)))]);
            }
            Ok(())
        },
    );
}

/// What is done to a good frame to make it a bad one.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(index, bit)| Damage::Flip(index, bit)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Damage::Append),
    ]
}

fn damaged(mut frame: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for damage in damage.iter() {
        match damage {
            Damage::Flip(index, bit) if !frame.is_empty() => {
                let at = index.index(frame.len());
                frame[at] ^= 1 << bit;
            }
            Damage::Flip(..) => {}
            Damage::Cut(index) => frame.truncate(index.index(frame.len() + 1)),
            Damage::Append(bytes) => frame.extend(bytes),
        }
    }
    frame
}

/// Noise, or frames that were good once: both ways, of both families, and errors about them.
fn frames() -> impl Strategy<Value = (Side, Vec<u8>)> {
    let noise = prop::collection::vec(any::<u8>(), 0..120);
    let good = (content(), 0..ENDS.len(), any::<bool>(), 1024..1026_u16, any::<bool>());
    let good = good.prop_map(|(content, ends, request, port, error)| {
        let [client, service, server] = ENDS[ends].map(address);
        let (source, destination, side) = if request {
            ((client, port), (service, 80), Side::Client)
        } else {
            ((server, 8080), (client, port), Side::Server)
        };
        let packet = between(&content, source, destination, "S");
        if !error {
            return (side, ethernet::frame(side, &bytes(&packet)));
        }
        // The error about a packet comes from where that packet went to.
        let (name, kind) = if client.is_ipv4() { ("icmp", 3) } else { ("icmp6", 1) };
        let mut spec = PacketSpec::new(destination.0, source.0, name);
        spec.icmp = Some(packet::IcmpSpec { kind, code: 1, ..packet::IcmpSpec::default() });
        let other = if side == Side::Client { Side::Server } else { Side::Client };
        (other, ethernet::frame(other, &packet::build(&spec, Some(&bytes(&packet)))[0]))
    });
    prop_oneof![
        1 => (select(vec![Side::Client, Side::Server]), noise),
        6 => (good, prop::collection::vec(damage(), 0..4))
            .prop_map(|((side, frame), damage)| (side, damaged(frame, &damage))),
    ]
}

#[test]
fn every_frame_of_a_burst_gets_a_verdict_that_fits_it() {
    holds(1000, prop::collection::vec(frames(), 1..20), |frames| {
        let mut router = router();
        let after = router.burst(&frames);
        prop_assert_eq!(after.len(), frames.len(), "no frame may be lost, none made up");
        for ((_, before), (verdict, after)) in frames.iter().zip(&after) {
            match verdict {
                Verdict::Transmit(_) => {
                    let packet = ethernet::packet(after);
                    let whole = packet.and_then(|packet| decode(packet).packet().map(|header| header.ttl));
                    prop_assert!(whole.is_some(), "sent, but no IP packet: {:02x?}", after);
                }
                Verdict::Pass => prop_assert_eq!(before.len(), after.len()),
                Verdict::HandOver | Verdict::Drop(_) | Verdict::Hold => {}
            }
        }
        let books = router.settle();
        prop_assert!(books.imbalance() == 0 && books.held >= 0, "{:?}", books);
        Ok(())
    });
}

/// Fails if `work` takes longer than anybody would wait for it.
fn in_bounded_time(work: impl FnOnce()) {
    let clock = Clock::start();
    work();
    let time = clock.now().saturating_since(Instant::START);
    assert!(time < COARSE_BOUND, "it took {time:?}");
}

fn syn(client: &str, source: u16, destination: u16) -> Vec<u8> {
    let mut spec = PacketSpec::new(address(client), address("10.10.1.30"), "tcp");
    (spec.sport, spec.dport, spec.flags) = (source, destination, "S".into());
    bytes(&spec)
}

#[test]
fn weights_however_large_are_no_work() {
    for scheduler in
        ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "mh", "lblc", "lblcr", "twos"]
    {
        let mut router = Router::new();
        run(&mut router, &format!("ipvsadm -A -t 10.10.1.30:80 -s {scheduler}"));
        for (host, weight, limit) in [(33, i32::MAX, 1), (34, i32::MAX - 1, 1), (35, 1, 0)] {
            run(
                &mut router,
                &format!("ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.{host}:80 -m -w {weight} -x {limit}"),
            );
        }
        in_bounded_time(|| {
            for client in 1..100 {
                router.send(Side::Client, &syn(&format!("198.51.100.{client}"), 1000, 80));
            }
        });
    }
}

/// One client port, one server port, and every virtual port between them: the server's packets look all the same.
#[test]
fn connections_that_hide_each_other_are_no_work() {
    let mut router = Router::new();
    run(&mut router, "iptables -t mangle -A PREROUTING -d 10.10.1.30/32 -p tcp -m tcp -j MARK --set-mark 7");
    run(&mut router, "ipvsadm -A -f 7 -s rr");
    run(&mut router, "ipvsadm -a -f 7 -r 10.8.8.33:80 -m");
    in_bounded_time(|| {
        for port in 1..=u16::MAX {
            assert_eq!(router.send(Side::Client, &syn("192.0.2.10", 1000, port)).len(), 1);
        }
        router.leap(Duration::from_secs(100));
    });
    assert_eq!(router.dump(&["conns".to_owned()]).lines().count(), 3, "all have come to their end");
}
