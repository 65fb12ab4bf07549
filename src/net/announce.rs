//! How a new owner of an address asks whether it is in use, by an ARP probe or a neighbour solicitation, and tells its
//! neighbours, by gratuitous ARP or an unsolicited neighbour advertisement.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::addr::{MacAddr, Protocol};
use crate::net::checksum::pseudo_header;

/// Length of gratuitous ARP in bytes: the shortest Ethernet frame without FCS.
pub const GRATUITOUS_ARP_LEN: usize = 60;
/// Length of an advertisement in bytes: Ethernet and IPv6 headers, the message, and its option.
pub const ADVERTISEMENT_LEN: usize = 14 + 40 + ADVERTISEMENT_PAYLOAD;
const ADVERTISEMENT_PAYLOAD: usize = 24 + 8;
/// Length of a solicitation for duplicate address detection in bytes: Ethernet and IPv6 headers, and the message without options.
pub const SOLICITATION_LEN: usize = 14 + 40 + SOLICITATION_PAYLOAD;
const SOLICITATION_PAYLOAD: usize = 24;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const HOP_LIMIT: u8 = 255;

/// The frame that says "`address` is at `mac`" to everybody on the link.
pub fn announcement(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address).into(),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address).into(),
    }
}

/// The frame that asks everybody on the link whether they have `address`, without telling that anybody else might.
pub fn probe(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_probe(mac, address).into(),
        IpAddr::V6(address) => duplicate_solicitation(mac, address).into(),
    }
}

/// The owner, or a would-be owner, that a received frame tells of: which address, and whose hardware address. `None` of all that
/// is no such frame.
pub fn claimed(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    match *frame.get(12..14)? {
        [0x08, 0x06] => claimed_by_arp(frame),
        [0x86, 0xdd] => claimed_by_discovery(frame),
        _ => None,
    }
}

/// The sender of any ARP packet has its address; that of a probe would like to have it (RFC 5227 section 2.1.1).
fn claimed_by_arp(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    if frame.get(14..20)? != ETHERNET_IPV4 {
        return None;
    }
    let (operation, mac) = (frame.get(20..22)?, MacAddr(frame.get(22..28)?.try_into().ok()?));
    let ip =
        |at: usize| -> Option<Ipv4Addr> { Some(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?.into()) };
    let (sender, target) = (ip(28)?, ip(38)?);
    match sender.is_unspecified() {
        false => Some((sender.into(), mac)),
        true if operation == REQUEST => Some((target.into(), mac)),
        true => None,
    }
}

/// An advertisement's target, or that of a solicitation from nowhere (RFC 4862 section 5.4.3).
fn claimed_by_discovery(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    if *frame.get(20..22)? != [Protocol::ICMPV6.0, HOP_LIMIT] {
        return None;
    }
    let from_nowhere = frame.get(22..38)?.iter().all(|byte| *byte == 0);
    let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
    let mac = MacAddr(frame.get(6..12)?.try_into().ok()?);
    match *frame.get(54)? {
        ADVERTISEMENT => Some((Ipv6Addr::from(target).into(), mac)),
        SOLICITATION if from_nowhere => Some((Ipv6Addr::from(target).into(), mac)),
        _ => None,
    }
}

/// An ARP request from nobody (RFC 5227 section 2.1.1), padded with zeros: no neighbour takes anything from it.
pub fn arp_probe(mac: MacAddr, address: Ipv4Addr) -> [u8; GRATUITOUS_ARP_LEN] {
    let mut frame = arp(mac, REQUEST);
    frame[22..28].copy_from_slice(&mac.0);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// A neighbour solicitation from nowhere to those who may have the address (RFC 4862 section 5.4.2).
pub fn duplicate_solicitation(mac: MacAddr, address: Ipv6Addr) -> [u8; SOLICITATION_LEN] {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut frame = [0; SOLICITATION_LEN];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, a, b, c]);
    discovery(&mut frame, mac, Ipv6Addr::UNSPECIFIED, group, SOLICITATION, address);
    frame
}

/// An ARP reply to broadcast whose sender and target are both the announced pair (reference/piranha.md 4.5), padded with
/// zeros.
pub fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> [u8; GRATUITOUS_ARP_LEN] {
    let mut frame = arp(mac, REPLY);
    for owner in [22, 32] {
        frame[owner..owner + 6].copy_from_slice(&mac.0);
        frame[owner + 6..owner + 10].copy_from_slice(&address.octets());
    }
    frame
}

fn arp(mac: MacAddr, operation: [u8; 2]) -> [u8; GRATUITOUS_ARP_LEN] {
    let mut frame = [0; GRATUITOUS_ARP_LEN];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ARP);
    frame[14..20].copy_from_slice(&ETHERNET_IPV4);
    frame[20..22].copy_from_slice(&operation);
    frame
}

/// A neighbour advertisement to all nodes that replaces what they know (RFC 4861 sections 4.4 and 7.2.6). It comes from a
/// router, and has to say so, lest hosts take it for none any more (section 7.2.5).
pub fn unsolicited_advertisement(mac: MacAddr, address: Ipv6Addr) -> [u8; ADVERTISEMENT_LEN] {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ROUTER_AND_OVERRIDE: u8 = 0xa0;
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    let mut frame = [0; ADVERTISEMENT_LEN];
    frame[..6].copy_from_slice(&ALL_NODES_MAC);
    frame[58] = ROUTER_AND_OVERRIDE;
    frame[78..80].copy_from_slice(&TARGET_LINK_LAYER_ADDRESS);
    frame[80..86].copy_from_slice(&mac.0);
    discovery(&mut frame, mac, address, ALL_NODES, ADVERTISEMENT, address);
    frame
}

/// Fills in all that the messages of neighbour discovery have in common; the checksum last.
fn discovery(frame: &mut [u8], mac: MacAddr, source: Ipv6Addr, to: Ipv6Addr, kind: u8, target: Ipv6Addr) {
    let payload = frame.len() - 54;
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&IPV6);
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
    frame[20..22].copy_from_slice(&[Protocol::ICMPV6.0, HOP_LIMIT]);
    frame[22..38].copy_from_slice(&source.octets());
    frame[38..54].copy_from_slice(&to.octets());
    frame[54] = kind;
    frame[62..78].copy_from_slice(&target.octets());
    let sum = pseudo_header(source.into(), to.into(), Protocol::ICMPV6.0, payload);
    let checksum = sum.bytes(&frame[54..]).finish();
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
}
