//! Laws that hold whatever happens, tried with random packets, edits and pauses; the same ones at every run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::support::decode::{Judgement, decode};
use crate::support::device::{Device, Side};
use crate::support::dump::Dump;
use crate::support::engine;
use crate::support::packet::{self, Hex, PacketSpec};

const VIRTUAL: &str = "10.10.1.30";
const TCP_FLAGS: [&str; 12] = ["S", "S", "S", "SA", "A", "A", "PA", "FA", "F", "R", "RA", ""];

/// A fixed sequence (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    fn port(&mut self) -> u16 {
        1024 + self.below(64000) as u16
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn run(device: &mut dyn Device, story: &mut String, command: &str) {
    let output = device.run(command);
    let _ = writeln!(story, "$ {command} [{}]", output.code);
}

/// A TCP or UDP packet of random content, between the addresses that are given.
fn random_packet(
    chance: &mut Chance,
    protocol: &str,
    source: (&str, u16),
    destination: (&str, u16),
) -> PacketSpec {
    let mut spec = PacketSpec::new(address(source.0), address(destination.0), protocol);
    (spec.sport, spec.dport) = (source.1, destination.1);
    spec.id = chance.below(65536) as u32;
    spec.ttl = 2 + chance.below(254) as u8;
    spec.seq = chance.below(1 << 32) as u32;
    spec.ack = chance.below(1 << 32) as u32;
    spec.nocsum = protocol == "udp" && chance.below(8) == 0;
    let payload = (0..chance.below(200)).map(|_| chance.below(256) as u8).collect();
    spec.hex = Some(Hex(payload));
    spec
}

/// One hop further, with other ends: what must come out if checksums are computed anew over the whole packet.
fn translated(spec: &PacketSpec, source: (&str, u16), destination: (&str, u16)) -> Vec<u8> {
    let mut after = spec.clone();
    (after.src, after.sport) = (address(source.0), source.1);
    (after.dst, after.dport) = (address(destination.0), destination.1);
    after.ttl -= 1;
    after.nocsum = false;
    packet::build(&after, None).remove(0)
}

/// Makes the UDP checksum come out as 0 after translation to `destination`, which must then be sent as 0xffff.
fn provoke_zero_checksum(spec: &mut PacketSpec, source: (&str, u16), destination: (&str, u16)) {
    let mut payload = vec![0; 2];
    spec.hex = Some(Hex(payload.clone()));
    let packet = translated(spec, source, destination);
    payload.copy_from_slice(&packet[26..28]);
    spec.hex = Some(Hex(payload));
}

#[test]
fn translation_there_and_back_changes_nothing_else() {
    let mut chance = Chance(0x5eed);
    let mut device = engine::device();
    for protocol in ["-t", "-u"] {
        device.run(&format!("ipvsadm -A {protocol} {VIRTUAL}:80 -s rr"));
        device.run(&format!("ipvsadm -a {protocol} {VIRTUAL}:80 -r 10.8.8.33:8080 -m"));
    }
    let (service, server) = ((VIRTUAL, 80), ("10.8.8.33", 8080));
    for round in 0..3000 {
        let protocol = chance.pick(&["tcp", "udp"]);
        let client = (chance.pick(&["192.0.2.10", "198.51.100.7", "255.1.2.3"]), chance.port());
        let mut request = random_packet(&mut chance, protocol, client, service);
        request.flags = "S".into();
        if protocol == "udp" && chance.below(4) == 0 {
            request.nocsum = false;
            provoke_zero_checksum(&mut request, client, server);
        }
        let sent = device.send(Side::Client, &packet::build(&request, None)[0]);
        assert_eq!(sent, [(Side::Server, translated(&request, client, server))], "{round}: {request:?}");
        assert_eq!(decode(&sent[0].1).packet().and_then(|packet| packet.checksum), Some(Judgement::Ok));

        let mut reply = random_packet(&mut chance, protocol, server, client);
        reply.flags = "SA".into();
        let sent = device.send(Side::Server, &packet::build(&reply, None)[0]);
        assert_eq!(sent, [(Side::Client, translated(&reply, service, client))], "{round}: {reply:?}");
    }
}

/// A service of the test: each has ports and servers of its own, so that a listed connection tells whose it is.
struct Service {
    key: &'static str,
    protocols: &'static [&'static str],
    port: u16,
    servers: [&'static str; 3],
}

const SERVICES: [Service; 3] = [
    Service {
        key: "-t 10.10.1.30:80",
        protocols: &["tcp"],
        port: 80,
        servers: ["10.8.8.33:80", "10.8.8.34:80", "10.8.8.35:80"],
    },
    Service {
        key: "-u 10.10.1.30:53",
        protocols: &["udp"],
        port: 53,
        servers: ["10.8.8.36:53", "10.8.8.37:53", "10.8.8.38:53"],
    },
    Service {
        key: "-f 7",
        protocols: &["tcp", "udp"],
        port: 443,
        servers: ["10.8.8.39:0", "10.8.8.40:0", "10.8.8.41:0"],
    },
];

fn options(chance: &mut Chance) -> String {
    let persistence = chance.pick(&["", "", "-p 30", "-p 90 -M 255.255.255.0"]);
    format!("-s {} {persistence}", chance.pick(&["rr", "wlc"]))
}

fn random_edit(chance: &mut Chance) -> String {
    let service = &SERVICES[chance.below(SERVICES.len())];
    let (key, server) = (service.key, chance.pick(&service.servers));
    let weight = chance.below(3);
    match chance.below(12) {
        0 => format!("ipvsadm -D {key}"),
        1..=3 => format!("ipvsadm -A {key} {}", options(chance)),
        4 => format!("ipvsadm -E {key} {}", options(chance)),
        5 => format!("ipvsadm -d {key} -r {server}"),
        6..=8 => format!("ipvsadm -a {key} -r {server} -m -w {weight} -x {}", chance.below(6)),
        9 => format!("ipvsadm -e {key} -r {server} -m -w {weight}"),
        10 => format!("sysctl -qw net.ipv4.vs.expire_nodest_conn={}", chance.below(2)),
        _ => format!("sysctl -qw net.ipv4.vs.expire_quiescent_template={}", chance.below(2)),
    }
}

fn send_at_random(device: &mut dyn Device, chance: &mut Chance, story: &mut String) {
    let service = &SERVICES[chance.below(SERVICES.len())];
    let protocol = chance.pick(service.protocols);
    let client = (chance.pick(&["192.0.2.10", "192.0.2.11", "198.51.100.7"]), 1000 + chance.below(3) as u16);
    let mut spec = random_packet(chance, protocol, client, (VIRTUAL, service.port));
    let mut side = Side::Client;
    if chance.below(3) == 0 {
        let server = chance.pick(&service.servers).split(':').next().unwrap_or_default();
        spec = random_packet(chance, protocol, (server, service.port), client);
        side = Side::Server;
    }
    spec.flags = chance.pick(&TCP_FLAGS).to_owned();
    let out = device.send(side, &packet::build(&spec, None)[0]);
    let _ = writeln!(
        story,
        "{side} {protocol} {}:{} > {}:{} {}: {} out",
        spec.src,
        spec.sport,
        spec.dst,
        spec.dport,
        spec.flags,
        out.len()
    );
}

/// Server address → templates, active and inactive connections.
type Counts = BTreeMap<String, [u32; 3]>;

/// What the servers that are listed count.
fn counted(dump: &Dump) -> Counts {
    let lines = dump.sections["persistent-conn"].iter().filter(|line| line.starts_with("-> "));
    let count = |line: &String| {
        let fields: Vec<&str> = line.split(' ').collect();
        let server = fields[1].split(':').next().unwrap_or_default().to_owned();
        (server, [3, 4, 5].map(|field| fields[field].parse().expect("a number")))
    };
    lines.map(count).collect()
}

/// What the table of connections holds of each of the servers in `listed`.
fn held(dump: &Dump, listed: &Counts) -> Counts {
    let mut counts: Counts = listed.keys().map(|server| (server.clone(), [0; 3])).collect();
    for connection in dump.conns.iter().flatten() {
        let fields: Vec<&str> = connection.c.split(' ').collect();
        let server = fields[4].split(':').next().unwrap_or_default();
        let kind = match fields[1] {
            _ if fields[2].ends_with(":0") => 0,
            "ESTABLISHED" | "SYN_RECV" | "SYN_SENT" => 1,
            _ => 2,
        };
        if let Some(count) = counts.get_mut(server) {
            count[kind] += 1;
        }
    }
    counts
}

#[test]
fn servers_count_what_the_table_holds() {
    let sections = ["conns", "persistent-conn"].map(str::to_owned);
    let mut most = 0;
    for seed in 1..=20 {
        let mut chance = Chance(seed);
        let mut device = engine::device();
        let mut story = String::new();
        run(
            &mut *device,
            &mut story,
            "iptables -t mangle -A PREROUTING -d 10.10.1.30/32 -p tcp -m tcp --dport 443 -j MARK --set-mark 7",
        );
        run(
            &mut *device,
            &mut story,
            "iptables -t mangle -A PREROUTING -d 10.10.1.30/32 -p udp -m udp --dport 443 -j MARK --set-mark 7",
        );
        for round in 0..120 {
            for _ in 0..4 {
                run(&mut *device, &mut story, &random_edit(&mut chance));
            }
            for _ in 0..12 {
                send_at_random(&mut *device, &mut chance, &mut story);
            }
            // Half a second apart from any deadline, so that nothing is over and still to be found by the wheel.
            let pause = [0, 1, 20, 70, 200][chance.below(5)];
            device.advance(Duration::from_millis(pause * 1000 + 500));
            let dump = Dump::parse(&device.dump(&sections), &sections);
            device.advance(Duration::from_millis(500));
            let _ = writeln!(story, "{pause} s later");
            let counted = counted(&dump);
            assert_eq!(
                counted,
                held(&dump, &counted),
                "seed {seed} round {round}:\n{story}{:#?}",
                dump.conns
            );
            most = most.max(counted.values().flatten().sum());
        }
    }
    assert!(most > 20, "at most {most} connections and templates: was anything balanced?");
}
