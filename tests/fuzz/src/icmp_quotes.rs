//! ICMP errors with any quotation, from either side, about connections that there are. The outer headers always fit.

use std::net::IpAddr;

use crate::record::{self, Record};
use crate::router::Fuzzed;
use crate::support::device::Side;
use crate::support::packet::{self, IcmpSpec, PacketSpec};

const SERVICES: [&str; 8] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -A -u 10.10.1.30:53 -s rr",
    "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:53 -m",
    "ipvsadm -A -t [fd00:10::30]:80 -s rr",
    "ipvsadm -a -t [fd00:10::30]:80 -r [fd00:8::33]:8080 -m",
    "ipvsadm -A -t 10.10.1.30:81 -s rr",
    "ipvsadm -a -t 10.10.1.30:81 -r 10.8.8.34:80 -i",
];

/// Bits of a record's tag.
pub const FROM_SERVER: u8 = 1;
/// ICMPv6.
pub const V6: u8 = 2;

/// The client's side of each connection: protocol, source, destination, port. Its own port is 1000.
const CONNECTIONS: [(&str, &str, &str, u16); 4] = [
    ("tcp", "192.0.2.10", "10.10.1.30", 80),
    ("udp", "192.0.2.10", "10.10.1.30", 53),
    ("tcp", "2001:db8::10", "fd00:10::30", 80),
    ("tcp", "192.0.2.10", "10.10.1.30", 81),
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The packets that open the connections.
pub fn openings() -> impl Iterator<Item = Vec<u8>> {
    CONNECTIONS.into_iter().map(|(protocol, client, target, port)| {
        let mut spec = PacketSpec::new(address(client), address(target), protocol);
        (spec.sport, spec.dport, spec.flags) = (1000, port, "S".into());
        packet::build(&spec, None).remove(0)
    })
}

/// What servers get of [`openings`].
pub fn openings_at_servers() -> Vec<Vec<u8>> {
    let mut router = Fuzzed::with(&SERVICES);
    openings().filter_map(|opening| router.packet(Side::Client, &opening)).map(|(_, packet)| packet).collect()
}

/// Plays an input: each record an error, its content type, code, the second word, and what it quotes.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::with(&SERVICES);
    openings().for_each(|opening| drop(router.packet(Side::Client, &opening)));
    for Record { tag, content } in record::read(data) {
        let Some((&[kind, code, a, b, c, d], quote)) = content.split_first_chunk() else { continue };
        let v6 = tag & V6 != 0;
        let name = if v6 { "icmp6" } else { "icmp" };
        let (client, target, server) = if v6 {
            ("2001:db8::10", "fd00:10::30", "fd00:8::33")
        } else {
            ("192.0.2.10", "10.10.1.30", "10.8.8.33")
        };
        let (side, source, destination) = if tag & FROM_SERVER == 0 {
            (Side::Client, client, target)
        } else {
            (Side::Server, server, client)
        };
        let mut spec = PacketSpec::new(address(source), address(destination), name);
        let rest = packet::Hex(vec![a, b, c, d]);
        spec.icmp = Some(IcmpSpec { kind, code, rest: Some(rest), ..IcmpSpec::default() });
        router.packet(side, &packet::build(&spec, Some(quote))[0]);
    }
    router.finish();
}
