//! The canonical line of a packet: everything about it that must match a golden, nothing that need not.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::support::decode::{Decoded, Inner, Judgement, Packet, TcpHeader, Transport, chunk_name};
use crate::support::packet::crc32;

const TCP_FLAGS: &str = "FSRPAUEC";
const FTP_CONTROL: u16 = 21;

/// The IP ids and flow labels that the runner itself put in. Those show as `in`, all others as `gen`: the device made
/// them up.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    ids: HashSet<u32>,
    flow_labels: HashSet<u32>,
}

impl Identities {
    /// Takes note of one packet's id and flow label.
    pub fn add(&mut self, id: u32, flow_label: u32) {
        self.ids.insert(id);
        self.flow_labels.insert(flow_label);
    }

    /// Takes note of the id of a packet that an ICMP error quotes.
    pub fn add_id(&mut self, id: u32) {
        self.ids.insert(id);
    }

    /// The ids of one packet alone.
    pub fn of(id: u32, flow_label: u32) -> Self {
        let mut identities = Identities::default();
        identities.add(id, flow_label);
        identities
    }
}

/// `address:port`, an IPv6 address in brackets.
pub fn endpoint(address: IpAddr, port: impl std::fmt::Display) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// The letters of TCP flag bits, FIN first.
pub fn flag_letters(flags: u8) -> String {
    TCP_FLAGS.chars().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, letter)| letter).collect()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The canonical line.
pub fn line(decoded: &Decoded, identities: &Identities) -> String {
    match decoded {
        Decoded::Short(bytes) => format!("short {}", hex(bytes)),
        Decoded::Packet(packet) => {
            let mut words = vec![packet.protocol.clone(), addresses(packet)];
            transport(packet, &mut words);
            network(packet, identities, &mut words);
            contents(packet, identities, &mut words);
            words.join(" ")
        }
    }
}

fn addresses(packet: &Packet) -> String {
    let Some((source, destination)) = packet.ports else {
        return format!("{} > {}", packet.source, packet.destination);
    };
    // GUE takes its source port from a hash of the flow inside.
    let source = if packet.protocol == "gue" { "*".to_owned() } else { source.to_string() };
    format!("{} > {}", endpoint(packet.source, source), endpoint(packet.destination, destination))
}

fn transport(packet: &Packet, words: &mut Vec<String>) {
    match &packet.transport {
        Transport::Tcp { seq, header: Some(header) } => words.push(tcp(*seq, header)),
        Transport::Tcp { seq, header: None } => words.push(format!("seq={seq}")),
        Transport::Sctp { tag, chunks } => {
            let chunks = chunks.iter().map(|chunk| {
                let flags = if chunk.flags == 0 { String::new() } else { format!("/{}", chunk.flags) };
                format!("{}{flags}({})", chunk_name(chunk.kind), chunk.value_len)
            });
            words.push(format!("tag={tag:08x} {}", chunks.collect::<Vec<_>>().join(",")));
        }
        Transport::Icmp { kind, code, rest } => {
            words.push(format!("type={kind} code={code} rest={}", hex(rest)));
        }
        Transport::Udp | Transport::Opaque => {}
    }
}

fn tcp(seq: u32, header: &TcpHeader) -> String {
    let flags = if header.flags == 0 { "-".to_owned() } else { flag_letters(header.flags) };
    let text = format!("{flags} seq={seq} ack={} win={}", header.ack, header.window);
    if header.options.is_empty() { text } else { format!("{text} opts={}", hex(&header.options)) }
}

fn network(packet: &Packet, identities: &Identities, words: &mut Vec<String>) {
    words.push(format!("ttl={}", packet.ttl));
    if packet.tos != 0 {
        words.push(format!("tos={}", packet.tos));
    }
    if packet.flow_label != 0 {
        let known = identities.flow_labels.contains(&packet.flow_label);
        words.push(format!("fl={}", if known { "in" } else { "gen" }));
    }
    if packet.dont_fragment {
        words.push("DF".to_owned());
    }
    if packet.more_fragments || packet.offset != 0 {
        words.push(format!("frag={}{}", packet.offset, if packet.more_fragments { "+" } else { "" }));
    }
    if !packet.ip_options.is_empty() {
        words.push(format!("ipopts={}", hex(&packet.ip_options)));
    }
    if let Some(id) = packet.id {
        let known = identities.ids.contains(&id);
        words.push(format!(
            "id={}",
            if known {
                "in"
            } else if id == 0 {
                "0"
            } else {
                "gen"
            }
        ));
    }
    words.push(format!("iplen={}", packet.ip_len));
}

fn contents(packet: &Packet, identities: &Identities, words: &mut Vec<String>) {
    words.extend(packet.ip_checksum.map(|judged| format!("ipsum={}", judgement(judged))));
    words.extend(packet.checksum.map(|judged| format!("l4sum={}", judgement(judged))));
    words.extend(packet.quoted_checksum.map(|sum| format!("ck={sum:04x}")));
    if !packet.payload.is_empty() {
        words.push(format!("pay={}/{:08x}", packet.payload.len(), crc32(&packet.payload)));
        if is_ftp_control(packet) {
            words.push(quoted(&packet.payload));
        }
    }
    words.extend(packet.via.as_ref().map(|via| format!("via={via}")));
    if let Some(Inner { len, packet }) = &packet.inner {
        words.push(format!("inner({len})={{{}}}", line(packet, identities)));
    }
}

fn judgement(judged: Judgement) -> &'static str {
    match judged {
        Judgement::Ok => "ok",
        Judgement::Bad => "BAD",
        Judgement::None => "none",
        Judgement::NotApplicable => "n/a",
    }
}

fn is_ftp_control(packet: &Packet) -> bool {
    let ports =
        packet.ports.is_some_and(|(source, destination)| [source, destination].contains(&FTP_CONTROL));
    ports && matches!(packet.transport, Transport::Tcp { .. })
}

/// Payload as the goldens write it: in quotes, anything but printable ASCII escaped.
fn quoted(bytes: &[u8]) -> String {
    let mark = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = String::from(mark);
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' if char::from(byte) == mark => text.extend(['\\', mark]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(mark);
    text
}
