//! Takes IP packets apart and judges their checksums. Shares nothing with the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::packet::{self, checksum, crc32c, protocol_name, pseudo_header};

const GUE_PORT: u16 = 6080;

/// A packet, or what is left of one.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// Too short for its own IP header.
    Short(Vec<u8>),
    /// Anything else.
    Packet(Box<Packet>),
}

impl Decoded {
    /// The packet, if there was enough of it.
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Decoded::Short(_) => None,
            Decoded::Packet(packet) => Some(packet),
        }
    }
}

/// What is to be said of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Right.
    Ok,
    /// Wrong.
    Bad,
    /// The sender made none (UDP).
    None,
    /// Cannot be told: a fragment, or a quotation cut short.
    NotApplicable,
}

impl Judgement {
    fn from_sum(sum: u16) -> Self {
        if sum == 0 { Judgement::Ok } else { Judgement::Bad }
    }
}

/// Fields of a whole TCP header.
#[derive(Clone, Debug)]
pub struct TcpHeader {
    /// Acknowledgment number.
    pub ack: u32,
    /// Flag bits, FIN lowest.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Options.
    pub options: Vec<u8>,
}

/// What lies above IP, as far as it could be read.
#[derive(Clone, Debug)]
pub enum Transport {
    /// No header that is read here.
    Opaque,
    /// UDP.
    Udp,
    /// TCP; without a header if only its first 8 bytes are there.
    Tcp { seq: u32, header: Option<TcpHeader> },
    /// ICMP or ICMPv6.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// SCTP.
    Sctp { tag: u32, chunks: Vec<SctpChunk> },
}

/// Head of an SCTP chunk.
#[derive(Clone, Debug)]
pub struct SctpChunk {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Length of the value, as the chunk says.
    pub value_len: i32,
}

/// A packet within a packet.
#[derive(Clone, Debug)]
pub struct Inner {
    /// How many bytes of it there are.
    pub len: usize,
    /// The packet.
    pub packet: Decoded,
}

/// One IP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Name, or number in decimal.
    pub protocol: String,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv6 flow label; 0 for IPv4.
    pub flow_label: u32,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Fragment offset in bytes.
    pub offset: u16,
    /// IPv4 options.
    pub ip_options: Vec<u8>,
    /// IPv4 identification, or that of the IPv6 fragment header.
    pub id: Option<u32>,
    /// Length that the IP header states, header included.
    pub ip_len: usize,
    /// IPv4 header checksum.
    pub ip_checksum: Option<Judgement>,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// Upper layer.
    pub transport: Transport,
    /// Its checksum.
    pub checksum: Option<Judgement>,
    /// TCP checksum field of a quotation cut short, which cannot be judged but must not change.
    pub quoted_checksum: Option<u16>,
    /// What follows the headers.
    pub payload: Vec<u8>,
    /// Who got it, where each server has a hardware address of its own.
    pub via: Option<String>,
    /// The packet that it carries: quoted by an ICMP error, or in a tunnel.
    pub inner: Option<Inner>,
}

/// Reads one IP packet.
pub fn decode(bytes: &[u8]) -> Decoded {
    decode_level(bytes, false)
}

fn decode_level(bytes: &[u8], quoted: bool) -> Decoded {
    let network = match bytes.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        _ => None,
    };
    let Some(mut network) = network else { return Decoded::Short(bytes.to_vec()) };
    network.packet.protocol = protocol_name(network.number);
    network.read_transport(quoted);
    Decoded::Packet(Box::new(network.packet))
}

struct Network<'a> {
    packet: Packet,
    number: u8,
    body: &'a [u8],
    whole: bool,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn clamped(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    let to = to.min(bytes.len());
    &bytes[from.min(to)..to]
}

fn blank(source: IpAddr, destination: IpAddr, ip_len: usize) -> Packet {
    Packet {
        source,
        destination,
        protocol: String::new(),
        ttl: 0,
        tos: 0,
        flow_label: 0,
        dont_fragment: false,
        more_fragments: false,
        offset: 0,
        ip_options: Vec::new(),
        id: None,
        ip_len,
        ip_checksum: None,
        ports: None,
        transport: Transport::Opaque,
        checksum: None,
        quoted_checksum: None,
        payload: Vec::new(),
        via: None,
        inner: None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<Network<'_>> {
    let header_len = usize::from(bytes[0] & 15) * 4;
    let header = bytes.get(..header_len).filter(|header| header.len() >= 20)?;
    let address = |at: usize| IpAddr::from(Ipv4Addr::from(long(header, at)));
    let mut packet = blank(address(12), address(16), usize::from(word(header, 2)));
    let fragment = word(header, 6);
    packet.tos = header[1];
    packet.id = Some(u32::from(word(header, 4)));
    packet.dont_fragment = fragment & 0x4000 != 0;
    packet.more_fragments = fragment & 0x2000 != 0;
    packet.offset = (fragment & 0x1fff) * 8;
    packet.ttl = header[8];
    packet.ip_options = header[20..].to_vec();
    packet.ip_checksum = Some(Judgement::from_sum(checksum(header)));
    let whole = bytes.len() >= packet.ip_len && !packet.more_fragments && packet.offset == 0;
    let body = clamped(bytes, header_len, packet.ip_len);
    Some(Network { packet, number: header[9], body, whole })
}

fn ipv6(bytes: &[u8]) -> Option<Network<'_>> {
    let header: &[u8; 40] = bytes.first_chunk()?;
    let address = |at: usize| -> IpAddr {
        let octets: [u8; 16] = std::array::from_fn(|i| header[at + i]);
        Ipv6Addr::from(octets).into()
    };
    let mut packet = blank(address(8), address(24), 40 + usize::from(word(header, 4)));
    packet.tos = (long(header, 0) >> 20) as u8;
    packet.flow_label = long(header, 0) & 0xf_ffff;
    packet.ttl = header[7];
    let (mut number, mut body) = (header[6], clamped(bytes, 40, packet.ip_len));
    if number == 44 && body.len() >= 8 {
        number = body[0];
        packet.offset = word(body, 2) & !7;
        packet.more_fragments = body[3] & 1 == 1;
        packet.id = Some(long(body, 4));
        body = &body[8..];
    }
    let whole = bytes.len() >= packet.ip_len && !packet.more_fragments && packet.offset == 0;
    Some(Network { packet, number, body, whole })
}

impl Network<'_> {
    fn read_transport(&mut self, quoted: bool) {
        let body = self.body;
        let first_fragment = self.packet.offset == 0;
        match self.number {
            6 if first_fragment && body.len() >= 8 => self.tcp(quoted),
            17 if first_fragment && body.len() >= 8 => self.udp(),
            1 | 58 if first_fragment && body.len() >= 8 => self.icmp(),
            132 if first_fragment && body.len() >= 8 => self.sctp(),
            4 | 41 if first_fragment && self.holds_packet() => self.ip_in_ip(),
            47 if first_fragment && holds_gre(body) => self.gre(),
            _ => self.packet.payload = body.to_vec(),
        }
    }

    fn judge(&self) -> Judgement {
        if !self.whole {
            return Judgement::NotApplicable;
        }
        let pseudo = match self.number {
            1 => Vec::new(),
            number => pseudo_header(self.packet.source, self.packet.destination, number, self.body.len()),
        };
        Judgement::from_sum(checksum(&[&pseudo, self.body].concat()))
    }

    fn tcp(&mut self, quoted: bool) {
        let body = self.body;
        self.packet.ports = Some((word(body, 0), word(body, 2)));
        let seq = long(body, 4);
        if body.len() < 20 {
            self.packet.transport = Transport::Tcp { seq, header: None };
            return;
        }
        let header_len = usize::from(body[12] >> 4) * 4;
        let header = TcpHeader {
            ack: long(body, 8),
            flags: body[13],
            window: word(body, 14),
            options: clamped(body, 20, header_len).to_vec(),
        };
        self.packet.checksum = Some(self.judge());
        self.packet.quoted_checksum = (quoted && !self.whole).then(|| word(body, 16));
        self.packet.payload = clamped(body, header_len, body.len()).to_vec();
        self.packet.transport = Transport::Tcp { seq, header: Some(header) };
    }

    fn udp(&mut self) {
        let body = self.body;
        self.packet.ports = Some((word(body, 0), word(body, 2)));
        self.packet.transport = Transport::Udp;
        self.packet.checksum = Some(if word(body, 6) == 0 { Judgement::None } else { self.judge() });
        let payload = &body[8..];
        if word(body, 2) == GUE_PORT && payload.len() > 24 && payload[0] == 0 && matches!(payload[1], 4 | 41)
        {
            self.packet.protocol = "gue".to_owned();
            self.packet.inner = Some(carried(&payload[4..]));
        } else {
            self.packet.payload = payload.to_vec();
        }
    }

    fn icmp(&mut self) {
        let body = self.body;
        let (kind, code) = (body[0], body[1]);
        self.packet.transport = Transport::Icmp { kind, code, rest: [body[4], body[5], body[6], body[7]] };
        self.packet.checksum = Some(self.judge());
        let error = if self.number == 1 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 };
        if error && body.len() >= 28 {
            self.packet.inner = Some(carried(&body[8..]));
        } else {
            self.packet.payload = body[8..].to_vec();
        }
    }

    fn sctp(&mut self) {
        let body = self.body;
        self.packet.ports = Some((word(body, 0), word(body, 2)));
        let mut chunks = Vec::new();
        if body.len() >= 12 {
            let zeroed = [&body[..8], &[0; 4], &body[12..]].concat();
            let right = crc32c(&zeroed).to_le_bytes() == body[8..12];
            let judged = if right { Judgement::Ok } else { Judgement::Bad };
            self.packet.checksum = Some(if self.whole { judged } else { Judgement::NotApplicable });
            self.packet.payload = body[12..].to_vec();
            chunks = sctp_chunks(&body[12..]);
        }
        self.packet.transport = Transport::Sctp { tag: long(body, 4), chunks };
    }

    fn holds_packet(&self) -> bool {
        let version = if self.number == 4 { 4 } else { 6 };
        self.body.len() >= 20 && self.body[0] >> 4 == version
    }

    fn ip_in_ip(&mut self) {
        self.packet.protocol = if self.number == 4 { "ipip" } else { "ip6ip" }.to_owned();
        self.packet.inner = Some(carried(self.body));
    }

    fn gre(&mut self) {
        let has_checksum = self.body[0] & 0x80 != 0;
        self.packet.protocol = "gre".to_owned();
        self.packet.checksum = has_checksum.then(|| Judgement::from_sum(checksum(self.body)));
        self.packet.inner = Some(carried(&self.body[if has_checksum { 8 } else { 4 }..]));
    }
}

fn carried(bytes: &[u8]) -> Inner {
    Inner { len: bytes.len(), packet: decode_level(bytes, true) }
}

fn holds_gre(body: &[u8]) -> bool {
    body.len() >= 24
        && body[0] & 0x7f == 0
        && body[1] == 0
        && matches!(body[2..4], [0x08, 0x00] | [0x86, 0xdd])
}

fn sctp_chunks(mut bytes: &[u8]) -> Vec<SctpChunk> {
    let mut chunks = Vec::new();
    while bytes.len() >= 4 {
        let len = word(bytes, 2);
        chunks.push(SctpChunk { kind: bytes[0], flags: bytes[1], value_len: i32::from(len) - 4 });
        if len < 4 {
            break;
        }
        bytes = clamped(bytes, usize::from(len).next_multiple_of(4), bytes.len());
    }
    chunks
}

/// The name of an SCTP chunk type, or its number in decimal.
pub fn chunk_name(kind: u8) -> String {
    let known = packet::SCTP_CHUNKS.iter().find(|(_, number)| *number == kind);
    known.map_or_else(|| kind.to_string(), |(name, _)| (*name).to_owned())
}
