//! Ethernet framing of the scenarios' packets: the router's two interfaces and the machine at the other end of each.

use std::net::{IpAddr, Ipv6Addr};

use crate::support::device::{Departure, Side};

const HEADER: usize = 14;

/// Hardware address of the router's interface on `side`.
pub const fn router_mac(side: Side) -> [u8; 6] {
    match side {
        Side::Client => [0x02, 0, 0, 0, 0x0c, 0x01],
        Side::Server => [0x02, 0, 0, 0, 0x05, 0x01],
    }
}

/// Hardware address of every neighbour on `side`: the clients' gateway, or all servers.
pub const fn neighbour_mac(side: Side) -> [u8; 6] {
    match side {
        Side::Client => [0x02, 0, 0, 0, 0x0c, 0xfe],
        Side::Server => [0x02, 0, 0, 0, 0x05, 0xfe],
    }
}

/// The servers of the scenarios: the last part of their addresses, as it is written.
const SERVERS: std::ops::RangeInclusive<u8> = 33..=44;

/// Whose hardware addresses a scenario knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// One on each side.
    Shared,
    /// Each server has its own.
    Apart,
}

impl Neighbours {
    /// Hardware address of whoever has `address` on `side`.
    pub fn mac(self, side: Side, address: IpAddr) -> [u8; 6] {
        match (self, side, address) {
            (Neighbours::Apart, Side::Server, IpAddr::V4(address)) => {
                [0x02, 0, 0, 0x08, 0x08, address.octets()[3]]
            }
            (Neighbours::Apart, Side::Server, IpAddr::V6(address)) => {
                [0x02, 0, 0, 0x08, 0x06, address.octets()[15]]
            }
            _ => neighbour_mac(side),
        }
    }

    /// What a golden says of the one that a packet went to, if anything.
    pub fn name(self, departure: &Departure) -> Option<String> {
        if self == Neighbours::Shared || departure.side == Side::Client {
            return None;
        }
        let known = servers().find(|address| self.mac(Side::Server, *address) == departure.to);
        let hex = || departure.to.map(|byte| format!("{byte:02x}")).join(":");
        Some(known.map_or_else(hex, |address| address.to_string()))
    }
}

/// All servers of the scenarios: 10.8.8.33 to 10.8.8.44, and fd00:8::33 to fd00:8::44.
pub fn servers() -> impl Iterator<Item = IpAddr> {
    let v4 = SERVERS.map(|host| IpAddr::from([10, 8, 8, host]));
    // The same digits, read as hexadecimal.
    let v6 =
        SERVERS.map(|host| Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, u16::from(host / 10 * 16 + host % 10)));
    v4.chain(v6.map(IpAddr::from))
}

/// The hardware address that a frame is for.
pub fn receiver(frame: &[u8]) -> [u8; 6] {
    frame.first_chunk().copied().unwrap_or_default()
}

/// The frame by which a neighbour on `side` gives `packet` to the router. An IPv4 multicast destination gets its group
/// address.
pub fn frame(side: Side, packet: &[u8]) -> Vec<u8> {
    let version = packet[0] >> 4;
    let destination = if version == 4 && packet[16] >> 4 == 14 {
        [0x01, 0x00, 0x5e, packet[17] & 0x7f, packet[18], packet[19]]
    } else {
        router_mac(side)
    };
    [&destination[..], &neighbour_mac(side), &ether_type(version), packet].concat()
}

/// The frame by which the router gives `packet` to the neighbour on `side`.
pub fn frame_of_router(side: Side, packet: &[u8]) -> Vec<u8> {
    [&neighbour_mac(side)[..], &router_mac(side), &ether_type(packet[0] >> 4), packet].concat()
}

fn ether_type(version: u8) -> [u8; 2] {
    if version == 4 { [0x08, 0x00] } else { [0x86, 0xdd] }
}

/// The IP packet in a frame, without Ethernet padding; `None` for anything else (ARP, a frame cut short).
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let bytes = frame.get(HEADER..)?;
    let length = match frame[12..HEADER] {
        [0x08, 0x00] => usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        [0x86, 0xdd] => 40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?])),
        _ => return None,
    };
    bytes.get(..length)
}
