//! Gratuitous ARP: how a new owner of an address tells its neighbours.

use std::net::Ipv4Addr;

use crate::net::addr::MacAddr;

/// Length of the announcement in bytes: the shortest Ethernet frame without FCS.
pub const ANNOUNCEMENT_LEN: usize = 60;

/// The frame that says "`address` is at `mac`" to everybody on the link: an ARP reply to broadcast whose sender and
/// target are both the announced pair (reference/piranha.md 4.5), padded with zeros.
pub fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> [u8; ANNOUNCEMENT_LEN] {
    const ETHERNET_ARP: [u8; 2] = [0x08, 0x06];
    const ETHERNET_IPV4_REPLY: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 2];
    let mut frame = [0; ANNOUNCEMENT_LEN];
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
