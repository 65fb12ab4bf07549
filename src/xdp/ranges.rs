//! The contents of the steering tables, worked out from [`Steering`] without any kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ipvs::steering::Steering;
use crate::net::addr::PortRange;

/// Ranges that one table entry holds; MAX_RANGES of `bpf/xlvs.bpf.c`.
pub(super) const MAX_RANGES: usize = 16;

/// An address as the tables hold it: IPv4 as ::ffff:a.b.c.d, network byte order.
pub(super) type Address = [u8; 16];

/// `struct range` of `bpf/xlvs.bpf.c`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) low: u16,
    pub(super) high: u16,
    pub(super) protocol: u8,
    pub(super) unused: u8,
}

/// `struct ranges` of `bpf/xlvs.bpf.c`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    pub(super) count: u32,
    pub(super) list: [Range; MAX_RANGES],
}

/// A destination prefix. Sorts a covering prefix before those that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) address: Address,
    pub(super) length: u32,
}

/// Everything that the steering tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) destinations: BTreeMap<Prefix, Ranges>,
    pub(super) servers: BTreeMap<Address, Ranges>,
    pub(super) own: BTreeSet<Address>,
}

impl From<&Steering> for Tables {
    fn from(steering: &Steering) -> Self {
        let mut destinations: BTreeMap<Prefix, Vec<Range>> = BTreeMap::new();
        for (net, ports) in &steering.destinations {
            destinations.entry(Prefix::from(*net)).or_default().extend(ranges_of(ports));
        }
        let mut servers: BTreeMap<Address, Vec<Range>> = BTreeMap::new();
        for (address, ports) in &steering.servers {
            servers.entry(mapped(*address)).or_default().extend(ranges_of(ports));
        }
        Tables {
            destinations: with_covering(destinations),
            servers: servers.into_iter().map(|(address, list)| (address, Ranges::over(list))).collect(),
            own: steering.own.iter().map(|address| mapped(*address)).collect(),
        }
    }
}

impl Ranges {
    /// The table entry for `list`. More ranges than an entry holds are merged, which steers more than asked, never
    /// less.
    fn over(mut list: Vec<Range>) -> Self {
        merge_touching(&mut list);
        while list.len() > MAX_RANGES {
            merge_closest(&mut list);
        }
        let mut ranges = Ranges { count: 0, ..Ranges::default() };
        for (slot, range) in ranges.list.iter_mut().zip(list) {
            *slot = range;
            ranges.count += 1;
        }
        ranges
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let unmapped_bits = if net.addr().is_ipv4() { 96 } else { 0 };
        Prefix { address: mapped(net.network()), length: u32::from(net.prefix_len()) + unmapped_bits }
    }
}

impl Prefix {
    fn covers(&self, other: &Prefix) -> bool {
        let difference = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(other.address);
        self.length <= other.length && difference.leading_zeros() >= self.length
    }
}

pub(super) fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn ranges_of(ports: &[PortRange]) -> impl Iterator<Item = Range> + '_ {
    ports.iter().filter(|range| !range.ports.is_empty()).map(|range| Range {
        low: *range.ports.start(),
        high: *range.ports.end(),
        protocol: range.protocol.0,
        unused: 0,
    })
}

/// The program looks at the longest matching prefix only, so each entry also has what the shorter ones ask for.
fn with_covering(prefixes: BTreeMap<Prefix, Vec<Range>>) -> BTreeMap<Prefix, Ranges> {
    let mut covering: Vec<(Prefix, Vec<Range>)> = Vec::new();
    let mut complete = BTreeMap::new();
    for (prefix, mut list) in prefixes {
        while covering.last().is_some_and(|(outer, _)| !outer.covers(&prefix)) {
            covering.pop();
        }
        if let Some((_, outer)) = covering.last() {
            list.extend_from_slice(outer);
        }
        complete.insert(prefix, Ranges::over(list.clone()));
        covering.push((prefix, list));
    }
    complete
}

/// Sorts by protocol and port, and joins ranges that overlap or follow on each other.
fn merge_touching(list: &mut Vec<Range>) {
    list.sort_by_key(|range| (range.protocol, range.low, range.high));
    list.dedup_by(|next, kept| {
        let touching = next.protocol == kept.protocol && u32::from(next.low) <= u32::from(kept.high) + 1;
        if touching {
            kept.high = kept.high.max(next.high);
        }
        touching
    });
}

/// Joins the two ranges of one protocol with the smallest gap between them; without such a pair, all become one range
/// of any protocol and port. `list` is sorted.
fn merge_closest(list: &mut Vec<Range>) {
    let closest = (1..list.len())
        .filter(|next| list[*next].protocol == list[next - 1].protocol)
        .min_by_key(|next| list[*next].low - list[next - 1].high);
    match closest {
        Some(next) => {
            let joined = list.remove(next);
            list[next - 1].high = joined.high;
        }
        None => *list = vec![Range { low: 0, high: u16::MAX, ..Range::default() }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::Protocol;

    fn ports(protocol: Protocol, low: u16, high: u16) -> PortRange {
        PortRange { protocol, ports: low..=high }
    }

    fn entry(tables: &Tables, prefix: &str) -> Vec<(u8, u16, u16)> {
        let ranges = tables.destinations[&Prefix::from(prefix.parse::<IpNet>().unwrap())];
        ranges.list[..ranges.count as usize].iter().map(|r| (r.protocol, r.low, r.high)).collect()
    }

    fn to(destinations: Vec<(&str, Vec<PortRange>)>) -> Tables {
        let destinations = destinations.into_iter().map(|(net, list)| (net.parse().unwrap(), list)).collect();
        Tables::from(&Steering { destinations, ..Steering::default() })
    }

    #[test]
    fn touching_ranges_become_one() {
        let tables = to(vec![(
            "10.0.0.1/32",
            vec![
                ports(Protocol::TCP, 80, 80),
                ports(Protocol::UDP, 81, 81),
                ports(Protocol::TCP, 81, 90),
                ports(Protocol::TCP, 65535, 65535),
            ],
        )]);
        assert_eq!(entry(&tables, "10.0.0.1/32"), [(6, 80, 90), (6, 65535, 65535), (17, 81, 81)]);
    }

    #[test]
    fn too_many_ranges_lose_the_smallest_gaps_and_cover_all() {
        let mut list: Vec<PortRange> =
            (0..16).map(|i| ports(Protocol::TCP, i * 1000, i * 1000 + 1)).collect();
        list.push(ports(Protocol::TCP, 5005, 5005));
        let tables = to(vec![("10.0.0.1/32", list.clone())]);
        let merged = entry(&tables, "10.0.0.1/32");
        assert_eq!(merged.len(), MAX_RANGES);
        assert!(merged.contains(&(6, 5000, 5005)), "{merged:?}");
    }

    #[test]
    fn too_many_protocols_become_any() {
        let list = (1..=17).map(|protocol| ports(Protocol(protocol), 0, 65535)).collect();
        assert_eq!(entry(&to(vec![("10.0.0.1/32", list)]), "10.0.0.1/32"), [(0, 0, 65535)]);
    }

    #[test]
    fn a_longer_prefix_has_what_the_shorter_ones_ask_for() {
        let tables = to(vec![
            ("10.0.0.7/32", vec![ports(Protocol::TCP, 443, 443)]),
            ("10.0.0.0/24", vec![ports(Protocol::TCP, 80, 80)]),
            ("10.0.1.0/24", vec![ports(Protocol::TCP, 21, 21)]),
            ("0.0.0.0/0", vec![ports(Protocol::UDP, 53, 53)]),
        ]);
        assert_eq!(entry(&tables, "10.0.0.7/32"), [(6, 80, 80), (6, 443, 443), (17, 53, 53)]);
        assert_eq!(entry(&tables, "10.0.1.0/24"), [(6, 21, 21), (17, 53, 53)]);
        assert_eq!(entry(&tables, "0.0.0.0/0"), [(17, 53, 53)]);
    }
}
