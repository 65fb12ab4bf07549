//! Ethernet framing of the scenarios' packets: the router's two interfaces and the machine at the other end of each.

use crate::support::device::Side;

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
