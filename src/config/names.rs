//! Names that stand for numbers, looked up by whoever owns the I/O.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::net::addr::Protocol;

/// How the parsers look names up; neither function may be asked for literal addresses or numbers.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// First IPv4 address of a host name.
    pub host: &'a dyn Fn(&str) -> Option<Ipv4Addr>,
    /// Port of a service name of `/etc/services`.
    pub service: &'a dyn Fn(&str, Protocol) -> Option<u16>,
}

impl Names<'static> {
    /// Knows no name at all.
    pub const NONE: Names<'static> = Names { host: &|_| None, service: &|_, _| None };
}

/// The contents of `/etc/services`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    ports: HashMap<(String, Protocol), u16>,
}

impl Services {
    /// Reads the format of services(5); lines that do not fit it are skipped, the first entry of a name wins.
    pub fn parse(text: &str) -> Services {
        let mut ports = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = number.split_once('/') else { continue };
            let Some(protocol) = protocol_of(protocol) else { continue };
            let Ok(port) = port.parse::<u16>() else { continue };
            for name in std::iter::once(name).chain(words) {
                ports.entry((name.to_owned(), protocol)).or_insert(port);
            }
        }
        Services { ports }
    }

    /// Port of a service, by its name or an alias.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.get(&(name.to_owned(), protocol)).copied()
    }
}

/// Protocol by its name in `/etc/services` and `/etc/protocols`.
pub fn protocol_of(name: &str) -> Option<Protocol> {
    Some(match name {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        "icmp" => Protocol::ICMP,
        "sctp" => Protocol::SCTP,
        "icmpv6" | "ipv6-icmp" => Protocol::ICMPV6,
        "dccp" => Protocol(33),
        "gre" => Protocol(47),
        "esp" => Protocol(50),
        "ah" => Protocol(51),
        "udplite" => Protocol(136),
        "ipip" | "ipencap" => Protocol(4),
        "igmp" => Protocol(2),
        _ => return None,
    })
}
