//! Builds the packets that a scenario describes. Shares nothing with the code under test.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use crate::support::sync::MessageSpec;

const TCP_FLAGS: &str = "FSRPAUEC";
const CRC32_POLYNOMIAL: u32 = 0xedb8_8320;
const CRC32C_POLYNOMIAL: u32 = 0x82f6_3b78;

/// Protocol names of the scenarios and their numbers.
const PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ip6ip", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("sctp", 132),
];

/// SCTP chunk names and their types (RFC 9260, 3.2).
pub const SCTP_CHUNKS: [(&str, u8); 13] = [
    ("DATA", 0),
    ("INIT", 1),
    ("INIT-ACK", 2),
    ("SACK", 3),
    ("HEARTBEAT", 4),
    ("HEARTBEAT-ACK", 5),
    ("ABORT", 6),
    ("SHUTDOWN", 7),
    ("SHUTDOWN-ACK", 8),
    ("ERROR", 9),
    ("COOKIE-ECHO", 10),
    ("COOKIE-ACK", 11),
    ("SHUTDOWN-COMPLETE", 14),
];

/// A name or a number. A protocol given by number carries its payload as it is, without a header of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum NameOrNumber {
    /// As the tables here spell it.
    Name(String),
    /// The number itself.
    Number(u8),
}

impl NameOrNumber {
    /// As a protocol.
    pub fn protocol(&self) -> u8 {
        self.number(&PROTOCOLS)
    }

    fn number(&self, names: &[(&str, u8)]) -> u8 {
        match self {
            NameOrNumber::Number(number) => *number,
            NameOrNumber::Name(name) => {
                number_of(names, name).unwrap_or_else(|| panic!("unknown name {name}"))
            }
        }
    }
}

fn number_of(names: &[(&str, u8)], name: &str) -> Option<u8> {
    names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of protocol `number`, where the goldens show it by name.
pub fn protocol_name(number: u8) -> String {
    let shown = PROTOCOLS.iter().find(|(_, known)| *known == number && !matches!(number, 4 | 41 | 47));
    shown.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// One SCTP chunk: its type, alone or with value (hex) and flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Chunk {
    /// Nothing but the type.
    Bare(NameOrNumber),
    /// Type and value.
    Valued(NameOrNumber, Hex),
    /// Type, value and flags.
    Flagged(NameOrNumber, Hex, u8),
}

/// Bytes written in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or("?"));
        let bytes = digits.map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>();
        bytes.map(Hex).map_err(|_| serde::de::Error::custom(format!("not hexadecimal: {text}")))
    }
}

/// ICMP or ICMPv6 header fields; what is quoted is given to [`build`] as bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpSpec {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Second word as a number.
    #[serde(default)]
    pub mtu: u32,
    /// Second word as bytes; wins over the others.
    pub rest: Option<Hex>,
    /// Echo identifier; 1 if absent.
    pub id: Option<u16>,
    /// Echo sequence number; 1 if absent.
    pub seq: Option<u16>,
}

/// Everything that a scenario can say about one packet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketSpec {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol.
    pub proto: NameOrNumber,
    /// IPv4 identification, or that of the IPv6 fragment header.
    pub id: u32,
    /// Source port.
    #[serde(default)]
    pub sport: u16,
    /// Destination port.
    #[serde(default)]
    pub dport: u16,
    /// TCP flags, letters of FSRPAUEC.
    #[serde(default)]
    pub flags: String,
    /// TCP sequence number.
    #[serde(default)]
    pub seq: u32,
    /// TCP acknowledgment number.
    #[serde(default)]
    pub ack: u32,
    /// TCP window.
    #[serde(default = "full_window")]
    pub win: u16,
    /// TCP urgent pointer.
    #[serde(default)]
    pub urg: u16,
    /// TCP options; padded to whole words.
    #[serde(default)]
    pub opts: Hex,
    /// Length of a pattern payload.
    #[serde(default)]
    pub len: usize,
    /// Payload as text.
    pub data: Option<String>,
    /// Payload as bytes.
    pub hex: Option<Hex>,
    /// Payload as a message of the connection synchronisation.
    pub sync: Option<MessageSpec>,
    /// TTL or hop limit.
    #[serde(default = "usual_ttl")]
    pub ttl: u8,
    /// TOS or traffic class.
    #[serde(default)]
    pub tos: u8,
    /// IPv6 flow label.
    #[serde(default)]
    pub fl: u32,
    /// IPv4 "don't fragment".
    #[serde(default)]
    pub df: bool,
    /// IPv4 options, whole words.
    #[serde(default)]
    pub ipopts: Hex,
    /// UDP without checksum.
    #[serde(default)]
    pub nocsum: bool,
    /// Checksums to make wrong: `l4`, `ip`.
    #[serde(default)]
    pub bad: Vec<String>,
    /// Payload bytes of each fragment, if it is to be sent in fragments.
    pub frag: Option<usize>,
    /// Which fragments to send, in which order.
    pub frag_order: Option<Vec<usize>>,
    /// An IPv6 fragment header even on a whole packet.
    #[serde(default)]
    pub frag6: bool,
    /// ICMP header.
    pub icmp: Option<IcmpSpec>,
    /// SCTP verification tag.
    #[serde(default)]
    pub tag: u32,
    /// SCTP chunks; without any, the payload follows the IP header as it is.
    pub chunks: Option<Vec<Chunk>>,
}

fn full_window() -> u16 {
    65535
}

fn usual_ttl() -> u8 {
    64
}

impl PacketSpec {
    /// A packet of protocol `name` without payload, every field at the scenarios' default, IP id 0.
    pub fn new(src: IpAddr, dst: IpAddr, name: &str) -> Self {
        let fields = serde_json::json!({"src": src, "dst": dst, "proto": name, "id": 0});
        serde_json::from_value(fields).expect("the four fields without a default are there")
    }

    fn payload(&self) -> Vec<u8> {
        if let Some(message) = &self.sync {
            return message.bytes();
        }
        match (&self.hex, &self.data) {
            (Some(Hex(bytes)), _) => bytes.clone(),
            (None, Some(text)) => text.clone().into_bytes(),
            (None, None) => (0..self.len).map(|i| (i * 7 + 1) as u8).collect(),
        }
    }

    fn damage(&self, layer: &str, mask: u16) -> u16 {
        if self.bad.iter().any(|bad| bad == layer) { mask } else { 0 }
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        pseudo_header(self.src, self.dst, self.proto.number(&PROTOCOLS), length)
    }

    fn checksum_with_pseudo_header(&self, segment: &[u8]) -> u16 {
        checksum(&[&self.pseudo_header(segment.len()), segment].concat())
    }
}

/// The IP packets of `spec`: one, or its fragments. `inner` is what an ICMP message carries instead of the payload.
pub fn build(spec: &PacketSpec, inner: Option<&[u8]>) -> Vec<Vec<u8>> {
    let segment = transport(spec, inner);
    let Some(size) = spec.frag else { return vec![network(spec, &segment, 0, false)] };
    let pieces = segment.chunks(size).enumerate();
    let fragments: Vec<_> = pieces
        .map(|(i, piece)| network(spec, piece, i * size, i * size + piece.len() < segment.len()))
        .collect();
    match &spec.frag_order {
        Some(order) => order.iter().map(|&i| fragments[i].clone()).collect(),
        None => fragments,
    }
}

fn transport(spec: &PacketSpec, inner: Option<&[u8]>) -> Vec<u8> {
    let NameOrNumber::Name(name) = &spec.proto else { return spec.payload() };
    match (name.as_str(), &spec.chunks) {
        ("tcp", _) => tcp(spec),
        ("udp", _) => udp(spec),
        ("icmp" | "icmp6", _) => icmp(spec, inner, name == "icmp6"),
        ("sctp", Some(chunks)) => sctp(spec, chunks),
        _ => spec.payload(),
    }
}

fn tcp(spec: &PacketSpec) -> Vec<u8> {
    let mut options = spec.opts.0.clone();
    options.resize(options.len().next_multiple_of(4), 0);
    let flags = spec.flags.chars().fold(0, |flags, letter| {
        flags | 1 << TCP_FLAGS.find(letter).unwrap_or_else(|| panic!("unknown TCP flag {letter}"))
    });
    let mut segment = [spec.sport.to_be_bytes(), spec.dport.to_be_bytes()].concat();
    segment.extend([spec.seq.to_be_bytes(), spec.ack.to_be_bytes()].concat());
    segment.extend([(5 + options.len() as u8 / 4) << 4, flags]);
    segment.extend([spec.win, 0, spec.urg].iter().flat_map(|word| word.to_be_bytes()));
    segment.extend(options);
    segment.extend(spec.payload());
    let sum = spec.checksum_with_pseudo_header(&segment) ^ spec.damage("l4", 0x1111);
    put(&mut segment, 16, sum);
    segment
}

fn udp(spec: &PacketSpec) -> Vec<u8> {
    let payload = spec.payload();
    let words = [spec.sport, spec.dport, 8 + payload.len() as u16, 0];
    let mut datagram: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend(payload);
    if !spec.nocsum {
        let sum = match spec.checksum_with_pseudo_header(&datagram) {
            0 => 0xffff,
            sum => sum,
        };
        put(&mut datagram, 6, sum ^ spec.damage("l4", 0x1111));
    }
    datagram
}

fn icmp(spec: &PacketSpec, inner: Option<&[u8]>, v6: bool) -> Vec<u8> {
    let header = spec.icmp.as_ref().expect("an ICMP packet says its type and code in `icmp`");
    let echo = matches!(header.kind, 0 | 8 | 128 | 129);
    let rest = match &header.rest {
        Some(Hex(bytes)) => bytes.clone(),
        None if echo => {
            [header.id.unwrap_or(1).to_be_bytes(), header.seq.unwrap_or(1).to_be_bytes()].concat()
        }
        None => header.mtu.to_be_bytes().to_vec(),
    };
    let body = inner.map_or_else(|| spec.payload(), <[u8]>::to_vec);
    let mut message = [&[header.kind, header.code, 0, 0], &rest[..], &body].concat();
    let sum = if v6 { spec.checksum_with_pseudo_header(&message) } else { checksum(&message) };
    put(&mut message, 2, sum ^ spec.damage("l4", 0x1111));
    message
}

fn sctp(spec: &PacketSpec, chunks: &[Chunk]) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in chunks {
        let (kind, value, flags) = match chunk {
            Chunk::Bare(kind) => (kind, &[][..], 0),
            Chunk::Valued(kind, value) => (kind, &value.0[..], 0),
            Chunk::Flagged(kind, value, flags) => (kind, &value.0[..], *flags),
        };
        body.extend([kind.number(&SCTP_CHUNKS), flags]);
        body.extend((4 + value.len() as u16).to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut packet = [spec.sport.to_be_bytes(), spec.dport.to_be_bytes()].concat();
    packet.extend(spec.tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(body);
    let damage = u32::from(spec.damage("l4", 0x1111));
    let sum = crc32c(&packet) ^ (damage << 16 | damage);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn network(spec: &PacketSpec, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
    match (spec.src, spec.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ipv4(spec, body, offset, more),
        (IpAddr::V6(_), IpAddr::V6(_)) => ipv6(spec, body, offset, more),
        (src, dst) => panic!("{src} and {dst} are of different families"),
    }
}

fn ipv4(spec: &PacketSpec, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let header_len = 20 + spec.ipopts.0.len();
    let fragment = u16::from(spec.df) << 14 | u16::from(more) << 13 | (offset / 8) as u16;
    let mut packet = vec![0x40 | (header_len / 4) as u8, spec.tos];
    let words = [(header_len + body.len()) as u16, spec.id as u16, fragment];
    packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    packet.extend([spec.ttl, spec.proto.number(&PROTOCOLS), 0, 0]);
    packet.extend([octets(spec.src), octets(spec.dst)].concat());
    packet.extend(&spec.ipopts.0);
    let sum = checksum(&packet) ^ spec.damage("ip", 0x2222);
    put(&mut packet, 10, sum);
    packet.extend(body);
    packet
}

fn ipv6(spec: &PacketSpec, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let protocol = spec.proto.number(&PROTOCOLS);
    let fragmented = more || offset != 0 || spec.frag6;
    let mut rest = Vec::new();
    if fragmented {
        rest.extend([protocol, 0]);
        rest.extend((offset as u16 | u16::from(more)).to_be_bytes());
        rest.extend(spec.id.to_be_bytes());
    }
    rest.extend(body);
    let mut packet = (6 << 28 | u32::from(spec.tos) << 20 | spec.fl).to_be_bytes().to_vec();
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([if fragmented { 44 } else { protocol }, spec.ttl]);
    packet.extend([octets(spec.src), octets(spec.dst), rest].concat());
    packet
}

/// Writes a big-endian word at `offset`.
pub fn put(bytes: &mut [u8], offset: usize, word: u16) {
    bytes[offset..offset + 2].copy_from_slice(&word.to_be_bytes());
}

/// An address as it stands in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The pseudo header of RFC 9293 (3.1) or RFC 8200 (8.1) for `length` bytes of upper-layer packet.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = [octets(src), octets(dst)].concat();
    match src {
        IpAddr::V4(_) => header.extend([0, protocol, (length >> 8) as u8, length as u8]),
        IpAddr::V6(_) => {
            header.extend((length as u32).to_be_bytes());
            header.extend([0, 0, 0, protocol]);
        }
    }
    header
}

/// The Internet checksum (RFC 1071): 0 over bytes that hold a right one.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// The CRC-32 of zlib, by which goldens name a payload.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc(bytes, CRC32_POLYNOMIAL)
}

/// The CRC-32C of SCTP (RFC 9260, appendix A); little-endian in the header.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc(bytes, CRC32C_POLYNOMIAL)
}

fn crc(bytes: &[u8], polynomial: u32) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { polynomial } else { 0 })
    })
}
