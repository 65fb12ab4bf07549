//! Messages of the connection synchronisation as scenarios word them, and as goldens show them. Shares nothing with the code
//! under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use crate::support::decode::Packet;
use crate::support::packet::{Hex, NameOrNumber, octets, protocol_name};

/// The port that everybody uses.
const PORT: u16 = 8848;
const SEQUENCE: u32 = 0x600;

/// A message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageSpec {
    /// Version of the protocol.
    #[serde(default = "one")]
    pub v: u8,
    /// Number of the cluster.
    #[serde(default)]
    pub id: u8,
    /// What it tells of.
    #[serde(default)]
    pub entries: Vec<EntrySpec>,
    /// Its length, if it does not say the right one.
    pub size: Option<u16>,
    /// The number of entries, likewise.
    pub count: Option<u8>,
    /// The version byte, likewise.
    pub version: Option<u8>,
    /// The reserved bytes.
    #[serde(default)]
    pub reserved: u16,
    /// All of it.
    pub hex: Option<Hex>,
}

fn one() -> u8 {
    1
}

/// An entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntrySpec {
    /// Transport protocol.
    pub proto: NameOrNumber,
    /// Flags.
    #[serde(default)]
    pub flags: u32,
    /// State.
    #[serde(default)]
    pub state: u16,
    /// Client.
    pub c: SocketAddr,
    /// Virtual address.
    pub v: SocketAddr,
    /// Server.
    pub d: SocketAddr,
    /// Mark.
    #[serde(default)]
    pub fwmark: u32,
    /// Seconds.
    #[serde(default)]
    pub timeout: u32,
    /// Options.
    #[serde(default)]
    pub opts: Hex,
    /// Its length, if it does not say the right one.
    pub size: Option<u16>,
    /// Its type, likewise.
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    /// Its version, likewise.
    #[serde(default)]
    pub ver: u16,
}

impl EntrySpec {
    fn ends(&self) -> [SocketAddr; 3] {
        [self.c, self.v, self.d]
    }

    fn ports(&self) -> Vec<u8> {
        self.ends().iter().flat_map(|end| end.port().to_be_bytes()).collect()
    }

    fn addresses(&self) -> Vec<u8> {
        self.ends().iter().flat_map(|end| octets(end.ip())).collect()
    }

    fn v0(&self) -> Vec<u8> {
        let head = vec![0, self.proto.protocol()];
        let tail = [(self.flags as u16).to_be_bytes(), self.state.to_be_bytes()].concat();
        [head, self.ports(), self.addresses(), tail, self.opts.0.clone()].concat()
    }

    fn v1(&self) -> Vec<u8> {
        let addresses = self.addresses();
        let size = self.size.unwrap_or((24 + addresses.len() + self.opts.0.len()) as u16);
        let head = vec![self.kind.unwrap_or(u8::from(self.c.is_ipv6())), self.proto.protocol()];
        let size = (self.ver << 12 | size).to_be_bytes().to_vec();
        let flags = [&self.flags.to_be_bytes()[..], &self.state.to_be_bytes()].concat();
        let tail = [self.fwmark.to_be_bytes(), self.timeout.to_be_bytes()].concat();
        [head, size, flags, self.ports(), tail, addresses, self.opts.0.clone()].concat()
    }
}

impl MessageSpec {
    /// The payload of its datagram.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(Hex(bytes)) = &self.hex {
            return bytes.clone();
        }
        let count = self.count.unwrap_or(self.entries.len() as u8);
        let mut body = Vec::new();
        for entry in &self.entries {
            match self.v {
                0 => body.extend(entry.v0()),
                _ => {
                    body.resize(body.len().next_multiple_of(4), 0);
                    body.extend(entry.v1());
                }
            }
        }
        let size = |header: usize| self.size.unwrap_or((header + body.len()) as u16).to_be_bytes();
        let header = match self.v {
            0 => [&[count, self.id][..], &size(4)].concat(),
            _ => {
                let version = self.version.unwrap_or(1);
                [&[0, self.id][..], &size(8), &[count, version], &self.reserved.to_be_bytes()].concat()
            }
        };
        [header, body].concat()
    }
}

/// The lines that a golden has for a packet, if it is a message: one an entry.
pub fn lines(packet: &Packet) -> Option<Vec<String>> {
    let (source, destination) = (packet.source, packet.destination);
    let (_, port) = packet.ports?;
    if packet.protocol != "udp" || port != PORT || !destination.is_multicast() {
        return None;
    }
    let head = format!("{source} > {destination}:{port} ttl={} ", packet.ttl);
    let bytes = &packet.payload;
    let entries = if bytes.len() >= 8 && bytes[0] == 0 && bytes[5] == 1 { v1(bytes) } else { v0(bytes) };
    Some(entries.into_iter().map(|entry| head.clone() + &entry).collect())
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn double(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

fn head(version: u8, bytes: &[u8]) -> String {
    let size = if usize::from(word(bytes, 2)) == bytes.len() { "ok" } else { "BAD" };
    format!("v{version} id={} size={size} ", bytes[1])
}

fn ends(bytes: &[u8], addresses: usize, ipv6: bool, ports: usize) -> String {
    let end = |index: usize| {
        let address: IpAddr = if ipv6 {
            let at = addresses + 16 * index;
            Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes")).into()
        } else {
            Ipv4Addr::from(double(bytes, addresses + 4 * index)).into()
        };
        SocketAddr::new(address, word(bytes, ports + 2 * index))
    };
    format!("c={} v={} d={}", end(0), end(1), end(2))
}

fn v1(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut place = 8usize;
    for _ in 0..bytes[4] {
        place = place.next_multiple_of(4);
        let entry = &bytes[place..];
        let (size, ipv6) = (usize::from(word(entry, 2) & 0xfff), entry[0] & 1 == 1);
        let fixed = if ipv6 { 72 } else { 36 };
        let options: String = entry[fixed..size].iter().map(|byte| format!("{byte:02x}")).collect();
        lines.push(format!(
            "{}{} ver={} flags=0x{:x} state={} {} fwmark={} timeout={}{}",
            head(1, bytes),
            protocol_name(entry[1]),
            word(entry, 2) >> 12,
            double(entry, 4),
            word(entry, 8),
            ends(entry, 24, ipv6, 10),
            double(entry, 16),
            double(entry, 20),
            if options.is_empty() { String::new() } else { format!(" opts={options}") }
        ));
        place += size;
    }
    if place != bytes.len() {
        lines.push("trailing bytes".to_owned());
    }
    lines
}

fn v0(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut place = 4;
    for _ in 0..bytes[0] {
        let entry = &bytes[place..];
        let flags = u32::from(word(entry, 20));
        let text = format!("flags=0x{flags:x} state={} {}", word(entry, 22), ends(entry, 8, false, 2));
        lines.push(format!("{}{} {text}", head(0, bytes), protocol_name(entry[1])));
        place += if flags & SEQUENCE != 0 { 48 } else { 24 };
    }
    lines
}
