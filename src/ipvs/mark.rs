//! Firewall marks: the mangle PREROUTING chain as data, and what mark it gives a packet.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::addr::Protocol;

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
pub type MarkedDestination = (Option<IpNet>, super::steering::PortRange);

/// A packet as mark rules see it.
#[derive(Clone, Copy, Debug)]
pub struct MarkPacket<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source and destination port, if the protocol has any.
    pub ports: Option<(u16, u16)>,
    /// Name of the interface it came in by.
    pub interface: &'a str,
}

impl MarkRules {
    /// stub
    pub fn mark(&self, _packet: &MarkPacket<'_>) -> u32 { 0 }
    /// stub
    pub fn destinations(&self) -> Vec<(u32, MarkedDestination)> { Vec::new() }
}
