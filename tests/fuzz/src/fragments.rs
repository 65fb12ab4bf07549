//! Fragments that may overlap, repeat, leave holes or be far too many, with headers that always fit.

use std::time::Duration;

use crate::record::{self, Record};
use crate::router::Fuzzed;
use crate::support::device::Side;
use crate::support::packet::{checksum, put};

const SERVICES: [&str; 6] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -A -u 10.10.1.30:53 -s wlc",
    "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.34:53 -m",
    "ipvsadm -A -u [fd00:10::30]:53 -s rr",
    "ipvsadm -a -u [fd00:10::30]:53 -r [fd00:8::33]:5353 -m",
];

/// Bits of a record's tag.
pub const FROM_SERVER: u8 = 1;
/// IPv6.
pub const V6: u8 = 2;
/// UDP rather than TCP.
pub const UDP: u8 = 4;
/// Not the last fragment.
pub const MORE: u8 = 8;
/// A second passes first.
const LATER: u8 = 16;

/// Plays an input: each record one fragment, its content the IP identification, the offset in units of eight bytes (two
/// bytes, the lower one first), and the payload.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::with(&SERVICES);
    for Record { tag, content } in record::read(data) {
        let Some((&[id, low, high], payload)) = content.split_first_chunk() else { continue };
        if tag & LATER != 0 {
            router.pass(Duration::from_secs(1));
        }
        let side = if tag & FROM_SERVER == 0 { Side::Client } else { Side::Server };
        let packet = fragment(tag, id, u16::from_le_bytes([low, high]) % 0x2000, payload);
        router.packet(side, &packet);
    }
    router.finish();
}

/// One fragment between the client and the service, or back from the server.
fn fragment(tag: u8, id: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let protocol = if tag & UDP == 0 { 6 } else { 17 };
    let more = tag & MORE != 0;
    if tag & V6 == 0 {
        ipv4(tag, protocol, id, offset, more, payload)
    } else {
        ipv6(tag, protocol, id, offset, more, payload)
    }
}

fn ipv4(tag: u8, protocol: u8, id: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let client = [192, 0, 2, 10];
    let server = if tag & UDP == 0 { [10, 8, 8, 33] } else { [10, 8, 8, 34] };
    let (source, destination) =
        if tag & FROM_SERVER == 0 { (client, [10, 10, 1, 30]) } else { (server, client) };
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, id]);
    packet.extend((offset | u16::from(more) << 13).to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend([source, destination].concat());
    let sum = checksum(&packet);
    put(&mut packet, 10, sum);
    packet.extend(payload);
    packet
}

fn ipv6(tag: u8, protocol: u8, id: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let address =
        |text: &str| text.parse::<std::net::Ipv6Addr>().map(|address| address.octets()).unwrap_or_default();
    let (client, target, server) = (address("2001:db8::10"), address("fd00:10::30"), address("fd00:8::33"));
    let (source, destination) = if tag & FROM_SERVER == 0 { (client, target) } else { (server, client) };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([44, 64]);
    packet.extend([source, destination].concat());
    packet.extend([protocol, 0]);
    packet.extend((offset << 3 | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, id]);
    packet.extend(payload);
    packet
}
