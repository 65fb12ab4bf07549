//! Firewall marks: the mangle PREROUTING chain as data, and what mark it gives a packet.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::net::addr::{Family, PortRange, Protocol};

/// One header field test with its `!`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test<T> {
    /// What to compare with.
    pub value: T,
    /// `!`: holds when the comparison does not.
    pub negated: bool,
}

/// An IPv4 or IPv6 address under a mask that need not be contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedAddress {
    /// Address, already under the mask.
    pub address: IpAddr,
    /// Mask of the same family.
    pub mask: IpAddr,
}

/// What a rule compares. All of a rule's matches must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    /// `-s`.
    Source(Test<MaskedAddress>),
    /// `-d`.
    Destination(Test<MaskedAddress>),
    /// `-i`: exact name, or a prefix when the rule ended in `+`.
    Interface(Test<InterfaceName>),
    /// `-p`.
    Protocol(Test<Protocol>),
    /// `--sport`, `--sports`: any of the ranges.
    SourcePorts(Test<Vec<RangeInclusive<u16>>>),
    /// `--dport`, `--dports`: any of the ranges.
    DestinationPorts(Test<Vec<RangeInclusive<u16>>>),
    /// `-m multiport --ports`: either port in any of the ranges.
    EitherPorts(Test<Vec<RangeInclusive<u16>>>),
    /// `-m mark --mark value/mask`.
    Mark(Test<MaskedMark>),
    /// Which of iptables and ip6tables the rule is of, where no address says it.
    Family(Family),
}

/// A mark under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedMark {
    /// Value.
    pub value: u32,
    /// Mask.
    pub mask: u32,
}

/// An interface name of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceName {
    /// Name without the `+`.
    pub name: String,
    /// Whether any name that starts with it matches.
    pub prefix: bool,
}

/// What a rule does when its matches hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// `-j MARK`: mark = (mark & !clear) ^ flip. `--set-mark V` is clear all, flip V; `--or-mark V` clear V, flip V;
    /// `--and-mark V` clear !V; `--xor-mark V` flip V.
    Mark {
        /// Bits to zero.
        clear: u32,
        /// Bits to flip after that.
        flip: u32,
    },
    /// `-j RETURN`, and the end of a user chain.
    Return,
    /// `-j ACCEPT`: no further rule is looked at.
    Accept,
    /// `-j NAME` (or `-g`): a user chain by index into [`MarkRules::chains`].
    Chain {
        /// Index of the chain.
        index: usize,
        /// `-g`: on its end go on where the calling chain would.
        goto: bool,
    },
    /// No target: the rule only counts.
    Continue,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What then happens.
    pub target: Target,
}

/// The chains of the mangle table that PREROUTING can reach. `chains[0]` is PREROUTING.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRules {
    /// Chains; calls point to higher or lower indices but never in a circle (checked when parsed).
    pub chains: Vec<Vec<Rule>>,
}

/// Destinations that a mark can be given to, for steering: `None` means any address.
pub type MarkedDestination = (Option<IpNet>, PortRange);

/// What the rules look at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkPacket<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source and destination port; `None` for a protocol without ports and for a fragment other than the first.
    pub ports: Option<(u16, u16)>,
    /// Interface that the packet came in by.
    pub interface: &'a str,
}

/// How a chain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Returned,
    Accepted,
}

impl MarkRules {
    /// These rules, and for IPv6 packets before them those of a table of its own.
    pub fn with_ipv6(self, ipv6: MarkRules) -> MarkRules {
        if ipv6.chains.is_empty() {
            return self;
        }
        let begin = |matches, index, goto| Rule { matches, target: Target::Chain { index, goto } };
        let behind = 1 + self.chains.len();
        let mut entrance = vec![begin(vec![Match::Family(Family::V6)], behind, false)];
        if !self.chains.is_empty() {
            entrance.push(begin(Vec::new(), 1, true));
        }
        let own = self.chains.into_iter().map(|chain| moved(chain, 1));
        let theirs = ipv6.chains.into_iter().map(|chain| moved(chain, behind));
        MarkRules { chains: std::iter::once(entrance).chain(own).chain(theirs).collect() }
    }

    /// The mark of a packet that arrives without one; 0 is none.
    pub fn mark(&self, packet: &MarkPacket<'_>) -> u32 {
        let mut mark = 0;
        if !self.chains.is_empty() {
            self.walk(0, packet, &mut mark);
        }
        mark
    }

    fn walk(&self, chain: usize, packet: &MarkPacket<'_>, mark: &mut u32) -> End {
        for rule in &self.chains[chain] {
            if !rule.matches.iter().all(|test| test.holds(packet, *mark)) {
                continue;
            }
            match rule.target {
                Target::Continue => {}
                Target::Mark { clear, flip } => *mark = (*mark & !clear) ^ flip,
                Target::Return => return End::Returned,
                Target::Accept => return End::Accepted,
                Target::Chain { index, goto: true } => return self.walk(index, packet, mark),
                Target::Chain { index, goto: false } => {
                    if self.walk(index, packet, mark) == End::Accepted {
                        return End::Accepted;
                    }
                }
            }
        }
        End::Returned
    }

    /// Every destination that can end with a mark other than 0, and which mark; perhaps some more. `None` is a mark
    /// that cannot be told, because a rule changes only some of its bits.
    pub fn destinations(&self) -> Vec<(Option<u32>, MarkedDestination)> {
        let mut search = Search {
            rules: self,
            exact: self.replaces_whole_marks(),
            found: Vec::new(),
            seen: HashSet::new(),
        };
        if !self.chains.is_empty() {
            search.chain(0, &Reach::ANY);
        }
        search.found
    }

    fn replaces_whole_marks(&self) -> bool {
        let whole = |rule: &Rule| !matches!(rule.target, Target::Mark { clear, .. } if clear != u32::MAX);
        self.chains.iter().flatten().all(whole)
    }
}

/// A chain among others whose indices begin `by` further on.
fn moved(mut chain: Vec<Rule>, by: usize) -> Vec<Rule> {
    for rule in &mut chain {
        if let Target::Chain { index, .. } = &mut rule.target {
            *index += by;
        }
    }
    chain
}

impl Match {
    fn holds(&self, packet: &MarkPacket<'_>, mark: u32) -> bool {
        match self {
            Match::Source(test) => test.holds_for(packet.source),
            Match::Destination(test) => test.holds_for(packet.destination),
            Match::Interface(test) => test.value.is(packet.interface) != test.negated,
            Match::Protocol(test) => (test.value == packet.protocol) != test.negated,
            Match::SourcePorts(test) => packet.ports.is_some_and(|(source, _)| test.has(&[source])),
            Match::DestinationPorts(test) => {
                packet.ports.is_some_and(|(_, destination)| test.has(&[destination]))
            }
            Match::EitherPorts(test) => {
                packet.ports.is_some_and(|(source, destination)| test.has(&[source, destination]))
            }
            Match::Mark(test) => (mark & test.value.mask == test.value.value) != test.negated,
            Match::Family(family) => Family::from(packet.destination) == *family,
        }
    }
}

impl Test<MaskedAddress> {
    /// A rule of one family is never asked about a packet of the other, so `!` does not hold there either.
    fn holds_for(&self, address: IpAddr) -> bool {
        match (address, self.value.address, self.value.mask) {
            (IpAddr::V4(address), IpAddr::V4(wanted), IpAddr::V4(mask)) => {
                (u32::from(address) & u32::from(mask) == u32::from(wanted)) != self.negated
            }
            (IpAddr::V6(address), IpAddr::V6(wanted), IpAddr::V6(mask)) => {
                (u128::from(address) & u128::from(mask) == u128::from(wanted)) != self.negated
            }
            _ => false,
        }
    }
}

impl Test<Vec<RangeInclusive<u16>>> {
    fn has(&self, ports: &[u16]) -> bool {
        let found = self.value.iter().any(|range| ports.iter().any(|port| range.contains(port)));
        found != self.negated
    }
}

impl InterfaceName {
    fn is(&self, interface: &str) -> bool {
        if self.prefix { interface.starts_with(&self.name) } else { interface == self.name }
    }
}

/// What the tests on the way to a rule leave of the destinations.
#[derive(Clone)]
struct Reach {
    prefix: Option<IpNet>,
    protocol: Protocol,
    ports: Vec<RangeInclusive<u16>>,
}

impl Reach {
    const ANY: Reach = Reach { prefix: None, protocol: Protocol::IP, ports: Vec::new() };

    /// `None` when no destination is left. Tests that are not about the destination leave all of them.
    fn after(&self, matches: &[Match]) -> Option<Reach> {
        let mut reach = self.clone();
        for test in matches {
            match test {
                Match::Destination(Test { value, negated: false }) => reach.narrow(value.widened())?,
                Match::Protocol(Test { value, negated: false }) => match reach.protocol {
                    Protocol::IP => reach.protocol = *value,
                    earlier if earlier != *value => return None,
                    _ => {}
                },
                Match::DestinationPorts(Test { value, negated: false }) => reach.narrow_ports(value)?,
                Match::Family(family) => reach.narrow(everywhere(*family))?,
                _ => {}
            }
        }
        Some(reach)
    }

    fn narrow(&mut self, prefix: IpNet) -> Option<()> {
        match self.prefix {
            Some(earlier) if prefix.contains(&earlier) => {}
            Some(earlier) if !earlier.contains(&prefix) => return None,
            _ => self.prefix = Some(prefix),
        }
        Some(())
    }

    fn narrow_ports(&mut self, ranges: &[RangeInclusive<u16>]) -> Option<()> {
        let common = |a: &RangeInclusive<u16>, b: &RangeInclusive<u16>| {
            let both = *a.start().max(b.start())..=*a.end().min(b.end());
            (!both.is_empty()).then_some(both)
        };
        let narrowed: Vec<_> = match self.ports.is_empty() {
            true => ranges.to_vec(),
            false => {
                self.ports.iter().flat_map(|a| ranges.iter().filter_map(move |b| common(a, b))).collect()
            }
        };
        self.ports = narrowed;
        (!self.ports.is_empty()).then_some(())
    }
}

fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

impl MaskedAddress {
    /// The smallest prefix that has all the addresses under the mask.
    fn widened(&self) -> IpNet {
        let length = match self.mask {
            IpAddr::V4(mask) => u32::from(mask).leading_ones(),
            IpAddr::V6(mask) => u128::from(mask).leading_ones(),
        };
        let length = u8::try_from(length).unwrap_or_default();
        IpNet::new(self.address, length).map_or(IpNet::from(self.address), |prefix| prefix.trunc())
    }
}

struct Search<'a> {
    rules: &'a MarkRules,
    exact: bool,
    found: Vec<(Option<u32>, MarkedDestination)>,
    seen: HashSet<(Option<u32>, MarkedDestination)>,
}

impl Search<'_> {
    fn chain(&mut self, chain: usize, before: &Reach) {
        for rule in &self.rules.chains[chain] {
            let Some(reach) = before.after(&rule.matches) else { continue };
            match rule.target {
                Target::Mark { flip, .. } if flip != 0 => self.add(flip, &reach),
                Target::Chain { index, .. } => self.chain(index, &reach),
                _ => {}
            }
        }
    }

    fn add(&mut self, mark: u32, reach: &Reach) {
        let whole = [0..=u16::MAX];
        let ports = if reach.ports.is_empty() { &whole[..] } else { &reach.ports };
        for ports in ports {
            let range = PortRange { protocol: reach.protocol, ports: ports.clone() };
            let found = (self.exact.then_some(mark), (reach.prefix, range));
            if self.seen.insert(found.clone()) {
                self.found.push(found);
            }
        }
    }
}
