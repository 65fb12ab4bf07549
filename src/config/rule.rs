//! The options of one iptables rule that give a mark (iptables(8), iptables-extensions(8): tcp, udp, sctp, multiport,
//! mark, comment, MARK).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::bystander;
use super::lex;
use super::marks::words;
use super::names::{Names, protocol_of};
use crate::ipvs::mark::{InterfaceName, MaskedAddress, MaskedMark, Match, Target, Test};
use crate::net::addr::{Family, Protocol};

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jump {
    /// A target that is not a chain.
    Target(Target),
    /// Perhaps a chain.
    Chain {
        /// Name as written.
        name: String,
        /// `-g` instead of `-j`.
        goto: bool,
    },
}

/// What to do about something that is not understood.
pub(super) const ADVICE: &str = "xlvs understands -s -d -i -p, --sport and --dport (tcp, udp, sctp, multiport), \
    -m mark, -m comment, and -j MARK, ACCEPT, RETURN or a chain; rewrite the rule, or move it out of mangle PREROUTING";

/// Reads the part of a rule after `-A CHAIN`; the error says what is not understood. `family` tells the rules of iptables from
/// those of ip6tables, `is_chain` the chains of the table from targets. A rule that cannot concern the mark of a balanced packet only counts.
pub fn parse(
    rule: &str,
    names: Names<'_>,
    family: Family,
    is_chain: impl Fn(&str) -> bool,
) -> Result<(Vec<Match>, Jump), String> {
    let words = words(rule).ok_or("a quote is not closed")?;
    let words: Vec<String> = words.into_iter().flat_map(split_long_option).collect();
    if bystander::harmless_target(&words).is_some_and(|target| !is_chain(target)) {
        return Ok((Vec::new(), Jump::Target(Target::Continue)));
    }
    match understood(&words, names, family) {
        Err(_) if bystander::is_icmp_only(&words) => Ok((Vec::new(), Jump::Target(Target::Continue))),
        understood => understood,
    }
}

fn understood(words: &[String], names: Names<'_>, family: Family) -> Result<(Vec<Match>, Jump), String> {
    let mut options = Options { words: words.iter(), names, draft: Draft::of(family) };
    while let Some(word) = options.words.next() {
        options.option(word)?;
    }
    options.draft.finish()
}

/// `--option=value` is two words.
fn split_long_option(word: String) -> Vec<String> {
    match word.split_once('=') {
        Some((option, value)) if word.starts_with("--") => vec![option.to_owned(), value.to_owned()],
        _ => vec![word],
    }
}

struct Draft {
    matches: Vec<Match>,
    /// `!` before the option that comes next.
    negated: bool,
    /// Of the whole file.
    usual_family: Family,
    family: Family,
    protocol: Option<Protocol>,
    needs_ports: bool,
    jump: Jump,
    mark: Option<Target>,
}

impl Draft {
    fn of(family: Family) -> Self {
        Draft {
            matches: Vec::new(),
            negated: false,
            usual_family: family,
            family,
            protocol: None,
            needs_ports: false,
            jump: Jump::Target(Target::Continue),
            mark: None,
        }
    }

    /// Whether a comparison with an address is of IPv4; ip6tables takes none but those of lines for iptables alone.
    fn is_misplaced(&self, test: &Match) -> bool {
        let (Match::Source(Test { value, .. }) | Match::Destination(Test { value, .. })) = test else {
            return false;
        };
        value.address.is_ipv4() && self.usual_family == Family::V6 && self.family == Family::V6
    }

    fn finish(mut self) -> Result<(Vec<Match>, Jump), String> {
        if self.negated {
            return Err("! stands before nothing".to_owned());
        }
        if self.needs_ports && !self.protocol.is_some_and(has_ports) {
            return Err("ports need -p tcp, udp, udplite, sctp or dccp in the same rule".to_owned());
        }
        if self.matches.iter().any(|test| self.is_misplaced(test)) {
            return Err("an IPv4 address cannot be compared with by a rule of ip6tables".to_owned());
        }
        // A comparison with an address of one family never holds for a packet of the other.
        let addressed =
            self.matches.iter().any(|test| matches!(test, Match::Source(_) | Match::Destination(_)));
        if !addressed {
            self.matches.insert(0, Match::Family(self.family));
        }
        match (self.jump, self.mark) {
            (Jump::Chain { name, goto: false }, Some(target)) if name == "MARK" => {
                Ok((self.matches, Jump::Target(target)))
            }
            (Jump::Chain { name, goto: false }, None) if name == "MARK" => {
                Err("-j MARK needs --set-mark, --set-xmark, --or-mark, --and-mark or --xor-mark".to_owned())
            }
            (_, Some(_)) => Err("--set-mark and the like belong to -j MARK".to_owned()),
            (jump, None) => Ok((self.matches, jump)),
        }
    }
}

fn not_understood(what: &str) -> String {
    format!("{what} is not understood; {ADVICE}")
}

fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol(33 | 136))
}

struct Options<'a> {
    words: std::slice::Iter<'a, String>,
    names: Names<'a>,
    draft: Draft,
}

impl<'a> Options<'a> {
    fn option(&mut self, option: &'a str) -> Result<(), String> {
        match option {
            "!" if !self.draft.negated => {
                self.draft.negated = true;
                return Ok(());
            }
            "-s" | "--source" | "--src" => self.address(option, Match::Source)?,
            "-d" | "--destination" | "--dst" => self.address(option, Match::Destination)?,
            "-i" | "--in-interface" => self.interface(option)?,
            "-p" | "--protocol" | "--proto" => self.protocol(option)?,
            "-m" | "--match" => self.module(option)?,
            "--sport" | "--source-port" | "--sports" | "--source-ports" => {
                self.ports(option, Match::SourcePorts)?;
            }
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                self.ports(option, Match::DestinationPorts)?;
            }
            "--port" | "--ports" => self.ports(option, Match::EitherPorts)?,
            "--mark" => {
                let value = self.value(option)?;
                let (value, mask) = masked_mark(value)?;
                let test = self.test(MaskedMark { value, mask: mask.unwrap_or(u32::MAX) });
                self.draft.matches.push(Match::Mark(test));
            }
            "--comment" if !self.draft.negated => drop(self.value(option)?),
            _ if self.draft.negated => return Err(not_understood(&format!("! {option}"))),
            "-4" | "--ipv4" => self.draft.family = Family::V4,
            "-6" | "--ipv6" => self.draft.family = Family::V6,
            "-j" | "--jump" => self.jump(option, false)?,
            "-g" | "--goto" => self.jump(option, true)?,
            "-c" | "--set-counters" => drop((self.value(option)?, self.value(option)?)),
            _ => self.set_mark(option)?,
        }
        Ok(())
    }

    fn set_mark(&mut self, option: &str) -> Result<(), String> {
        if !["--set-mark", "--set-xmark", "--or-mark", "--and-mark", "--xor-mark"].contains(&option) {
            return Err(not_understood(option));
        }
        let (value, mask) = masked_mark(self.value(option)?)?;
        if mask.is_some() && !option.starts_with("--set") {
            return Err(format!("{option} takes no mask"));
        }
        let mask = mask.unwrap_or(u32::MAX);
        let (clear, flip) = match option {
            "--set-mark" => (mask | value, value),
            "--set-xmark" => (mask, value),
            "--or-mark" => (value, value),
            "--and-mark" => (!value, 0),
            _ => (0, value),
        };
        self.draft.mark = Some(Target::Mark { clear, flip });
        Ok(())
    }

    fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.words.next().map(String::as_str).ok_or_else(|| format!("{option} needs a value"))
    }

    /// The value of an option that `!` may negate, before it or, as old versions wrote it, before the value.
    fn negatable(&mut self, option: &str) -> Result<&'a str, String> {
        match self.value(option)? {
            "!" if !self.draft.negated => {
                self.draft.negated = true;
                self.value(option)
            }
            value => Ok(value),
        }
    }

    fn test<T>(&mut self, value: T) -> Test<T> {
        Test { value, negated: std::mem::take(&mut self.draft.negated) }
    }

    fn address(&mut self, option: &str, test: fn(Test<MaskedAddress>) -> Match) -> Result<(), String> {
        let value = self.negatable(option)?;
        let address = masked_address(value).ok_or_else(|| {
            format!("'{value}' is not one address with an optional mask; write one rule for each")
        })?;
        let test = test(self.test(address));
        self.draft.matches.push(test);
        Ok(())
    }

    fn interface(&mut self, option: &str) -> Result<(), String> {
        let value = self.negatable(option)?;
        let name = match value.strip_suffix('+') {
            Some(name) => InterfaceName { name: name.to_owned(), prefix: true },
            None => InterfaceName { name: value.to_owned(), prefix: false },
        };
        let test = self.test(name);
        self.draft.matches.push(Match::Interface(test));
        Ok(())
    }

    fn protocol(&mut self, option: &str) -> Result<(), String> {
        let value = self.negatable(option)?;
        let number = value.parse::<u8>().map(Protocol).ok();
        let name = || (value == "all").then_some(Protocol::IP);
        let protocol = number
            .or_else(|| protocol_of(&value.to_ascii_lowercase()))
            .or_else(name)
            .ok_or_else(|| format!("protocol '{value}' is not known; write its number"))?;
        if protocol == Protocol::IP {
            let negated = std::mem::take(&mut self.draft.negated);
            return if negated { Err("! -p all takes no packet".to_owned()) } else { Ok(()) };
        }
        let test = self.test(protocol);
        self.draft.protocol = (!test.negated).then_some(protocol);
        self.draft.matches.push(Match::Protocol(test));
        Ok(())
    }

    fn module(&mut self, option: &str) -> Result<(), String> {
        match self.value(option)? {
            "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "multiport" | "mark" | "comment" => Ok(()),
            other => Err(not_understood(&format!("-m {other}"))),
        }
    }

    fn ports(
        &mut self,
        option: &str,
        test: fn(Test<Vec<RangeInclusive<u16>>>) -> Match,
    ) -> Result<(), String> {
        let value = self.negatable(option)?;
        self.draft.needs_ports = true;
        let ranges = value.split(',').map(|range| self.range(range)).collect::<Result<_, _>>()?;
        let test = test(self.test(ranges));
        self.draft.matches.push(test);
        Ok(())
    }

    fn range(&self, range: &str) -> Result<RangeInclusive<u16>, String> {
        let (first, last) = match range.split_once(':') {
            Some((first, last)) => (self.port(first, 0)?, self.port(last, u16::MAX)?),
            None => (self.port(range, 0)?, self.port(range, 0)?),
        };
        match range.is_empty() || first > last {
            true => Err(format!("'{range}' is not a port or a range of ports")),
            false => Ok(first..=last),
        }
    }

    fn port(&self, port: &str, absent: u16) -> Result<u16, String> {
        if port.is_empty() {
            return Ok(absent);
        }
        let protocol = self.draft.protocol.unwrap_or(Protocol::TCP);
        let number = port.parse().ok().or_else(|| (self.names.service)(port, protocol));
        number.ok_or_else(|| format!("'{port}' is not a port number or a service of /etc/services"))
    }

    fn jump(&mut self, option: &str, goto: bool) -> Result<(), String> {
        self.draft.jump = match self.value(option)? {
            "RETURN" if !goto => Jump::Target(Target::Return),
            "ACCEPT" if !goto => Jump::Target(Target::Accept),
            name => Jump::Chain { name: name.to_owned(), goto },
        };
        Ok(())
    }
}

fn masked_mark(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| lex::integer(text).and_then(|number| u32::try_from(number).ok());
    let marks = match text.split_once('/') {
        Some((value, mask)) => number(value).zip(number(mask)).map(|(value, mask)| (value, Some(mask))),
        None => number(text).map(|value| (value, None)),
    };
    marks.ok_or_else(|| {
        format!("'{text}' is not a mark, which is a number from 0 to 4294967295 with an optional /mask")
    })
}

fn masked_address(text: &str) -> Option<MaskedAddress> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address.parse().ok()?, Some(mask)),
        None => (text.parse().ok()?, None),
    };
    Some(match address {
        IpAddr::V4(address) => {
            let mask = mask.map_or(Some(u32::MAX), mask_v4)?;
            MaskedAddress {
                address: Ipv4Addr::from(u32::from(address) & mask).into(),
                mask: Ipv4Addr::from(mask).into(),
            }
        }
        IpAddr::V6(address) => {
            let mask = mask.map_or(Some(u128::MAX), mask_v6)?;
            MaskedAddress {
                address: Ipv6Addr::from(u128::from(address) & mask).into(),
                mask: Ipv6Addr::from(mask).into(),
            }
        }
    })
}

fn mask_v4(text: &str) -> Option<u32> {
    match text.parse::<u32>() {
        Ok(length) => (length <= 32).then(|| u32::MAX.checked_shl(32 - length).unwrap_or(0)),
        Err(_) => text.parse::<Ipv4Addr>().ok().map(u32::from),
    }
}

fn mask_v6(text: &str) -> Option<u128> {
    match text.parse::<u32>() {
        Ok(length) => (length <= 128).then(|| u128::MAX.checked_shl(128 - length).unwrap_or(0)),
        Err(_) => text.parse::<Ipv6Addr>().ok().map(u128::from),
    }
}
