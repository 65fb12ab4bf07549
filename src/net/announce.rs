//! How a new owner of an address tells its neighbours: gratuitous ARP, or an unsolicited neighbour advertisement.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::addr::{MacAddr, Protocol};
use crate::net::checksum::pseudo_header;

/// Length of gratuitous ARP in bytes: the shortest Ethernet frame without FCS.
pub const GRATUITOUS_ARP_LEN: usize = 60;
/// Length of an advertisement in bytes: Ethernet and IPv6 headers, the message, and its option.
pub const ADVERTISEMENT_LEN: usize = 14 + 40 + ADVERTISEMENT_PAYLOAD;
const ADVERTISEMENT_PAYLOAD: usize = 24 + 8;

/// The frame that says "`address` is at `mac`" to everybody on the link.
pub fn announcement(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address).into(),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address).into(),
    }
}

/// An ARP reply to broadcast whose sender and target are both the announced pair (reference/piranha.md 4.5), padded with
/// zeros.
pub fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> [u8; GRATUITOUS_ARP_LEN] {
    const ETHERNET_ARP: [u8; 2] = [0x08, 0x06];
    const ETHERNET_IPV4_REPLY: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 2];
    let mut frame = [0; GRATUITOUS_ARP_LEN];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ETHERNET_ARP);
    frame[14..22].copy_from_slice(&ETHERNET_IPV4_REPLY);
    for owner in [22, 32] {
        frame[owner..owner + 6].copy_from_slice(&mac.0);
        frame[owner + 6..owner + 10].copy_from_slice(&address.octets());
    }
    frame
}

/// A neighbour advertisement to all nodes that replaces what they know (RFC 4861 sections 4.4 and 7.2.6). It comes from a
/// router, and has to say so, lest hosts take it for none any more (section 7.2.5).
pub fn unsolicited_advertisement(mac: MacAddr, address: Ipv6Addr) -> [u8; ADVERTISEMENT_LEN] {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ETHERNET_IPV6: [u8; 2] = [0x86, 0xdd];
    const HOP_LIMIT: u8 = 255;
    const ADVERTISEMENT: u8 = 136;
    const ROUTER_AND_OVERRIDE: u8 = 0xa0;
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    let mut frame = [0; ADVERTISEMENT_LEN];
    frame[..6].copy_from_slice(&ALL_NODES_MAC);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ETHERNET_IPV6);
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&(ADVERTISEMENT_PAYLOAD as u16).to_be_bytes());
    frame[20..22].copy_from_slice(&[Protocol::ICMPV6.0, HOP_LIMIT]);
    frame[22..38].copy_from_slice(&address.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());
    frame[54] = ADVERTISEMENT;
    frame[58] = ROUTER_AND_OVERRIDE;
    frame[62..78].copy_from_slice(&address.octets());
    frame[78..80].copy_from_slice(&TARGET_LINK_LAYER_ADDRESS);
    frame[80..86].copy_from_slice(&mac.0);
    let sum = pseudo_header(address.into(), ALL_NODES.into(), Protocol::ICMPV6.0, ADVERTISEMENT_PAYLOAD);
    let checksum = sum.bytes(&frame[54..]).finish();
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}
