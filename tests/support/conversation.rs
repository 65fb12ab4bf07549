//! What was said so far in a scenario, and the next packet made from it: `like`, `reply_to` and `inner_of` refer to
//! earlier steps.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::decode::{Packet, Transport, decode};
use crate::support::device::Side;
use crate::support::packet::{self, PacketSpec};
use crate::support::scenario::Wish;
use crate::support::text::{Identities, flag_letters};

/// Fields that `like` does not take over.
const OWN_TO_EACH: [&str; 8] = ["flags", "len", "data", "bad", "frag", "id", "ack", "seq"];
const FIRST_ID: u64 = 1000;
const QUOTED_ID: u64 = 777;
const UNANSWERED_SEQ: u32 = 5000;

/// As much of a packet that came out as an answer to it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where it came out.
    pub side: Side,
    /// Protocol name.
    pub protocol: String,
    /// Source address and port.
    pub source: (IpAddr, u16),
    /// Destination address and port.
    pub destination: (IpAddr, u16),
    /// For TCP.
    pub tcp: Option<HeardSegment>,
}

/// As much of a TCP segment as an answer to it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeardSegment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Flag letters.
    pub flags: String,
    /// Bytes of payload.
    pub len: u32,
}

impl Heard {
    /// From a packet with ports; others cannot be answered.
    pub fn from_packet(side: Side, packet: &Packet) -> Option<Heard> {
        let (source, destination) = packet.ports?;
        let tcp = match &packet.transport {
            Transport::Tcp { seq, header } => Some(HeardSegment {
                seq: *seq,
                ack: header.as_ref().map_or(0, |header| header.ack),
                flags: header.as_ref().map_or_else(String::new, |header| flag_letters(header.flags)),
                len: packet.payload.len() as u32,
            }),
            _ => None,
        };
        Some(Heard {
            side,
            protocol: packet.protocol.clone(),
            source: (packet.source, source),
            destination: (packet.destination, destination),
            tcp,
        })
    }

    fn answer(&self) -> Wish {
        let mut wish = object(json!({
            "side": self.side.to_string(), "proto": self.protocol,
            "src": self.destination.0, "sport": self.destination.1,
            "dst": self.source.0, "dport": self.source.1,
        }));
        if let Some(tcp) = &self.tcp {
            let flag = |letter| u32::from(tcp.flags.contains(letter));
            let seq = if tcp.ack == 0 { UNANSWERED_SEQ } else { tcp.ack };
            let ack = tcp.seq.wrapping_add(tcp.len + flag('S') + flag('F'));
            wish.extend([("seq".to_owned(), json!(seq)), ("ack".to_owned(), json!(ack))]);
        }
        wish
    }
}

/// A packet ready to be built.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it goes in.
    pub side: Side,
    /// What it is.
    pub spec: PacketSpec,
    /// What an ICMP error quotes.
    pub inner: Option<Vec<u8>>,
}

impl Outgoing {
    /// The id and flow label that show as `in`.
    pub fn identities(&self) -> Identities {
        Identities::of(self.spec.id, self.spec.fl)
    }

    /// The IP packets: one, or its fragments.
    pub fn build(&self) -> Vec<Vec<u8>> {
        packet::build(&self.spec, self.inner.as_deref())
    }

    /// The IPv4 id of the quoted packet.
    pub fn quoted_id(&self) -> Option<u32> {
        let inner = self.inner.as_ref().filter(|inner| inner.len() >= 6 && inner[0] >> 4 == 4)?;
        Some(u32::from(u16::from_be_bytes([inner[4], inner[5]])))
    }
}

/// What becomes of a wish.
#[derive(Clone, Debug)]
pub enum Turn {
    /// This packet.
    Send(Box<Outgoing>),
    /// Nothing, because what it refers to never came out; the text says so as a golden does.
    Skip(&'static str),
}

/// The labelled packets of a scenario, in and out.
#[derive(Debug, Default)]
pub struct Conversation {
    said: HashMap<String, Wish>,
    heard: HashMap<String, Vec<Heard>>,
    raw: HashMap<String, Vec<(Side, Vec<u8>)>>,
    count: u64,
}

impl Conversation {
    /// The packet that `wish` means, as part of the step `label`. Panics if the scenario is wrong.
    pub fn next(&mut self, label: Option<&str>, wish: &Wish) -> Turn {
        let Some(mut wish) = self.fill(wish) else { return Turn::Skip("SKIPPED: nothing to reply to") };
        self.count += 1;
        wish.entry("id").or_insert(json!(FIRST_ID + self.count));
        let said = wish.clone();
        let side: Side = field(wish.remove("side").expect("a packet has a side"));
        let inner = match self.inner(side, &mut wish) {
            Ok(inner) => inner,
            Err(reason) => return Turn::Skip(reason),
        };
        if let Some(label) = label {
            self.said.entry(label.to_owned()).or_insert(said);
        }
        Turn::Send(Box::new(Outgoing { side, spec: field(Value::Object(wish)), inner }))
    }

    /// Takes note of what came out of the step `label`.
    pub fn note(&mut self, label: &str, out: Vec<(Side, Vec<u8>)>) {
        let heard =
            out.iter().filter_map(|(side, packet)| Heard::from_packet(*side, decode(packet).packet()?));
        self.note_heard(label, heard.collect());
        self.raw.insert(label.to_owned(), out);
    }

    /// The same where the bytes are not known.
    pub fn note_heard(&mut self, label: &str, heard: Vec<Heard>) {
        self.heard.insert(label.to_owned(), heard);
    }

    fn fill(&self, wish: &Wish) -> Option<Wish> {
        let mut wish = wish.clone();
        if let Some(label) = wish.remove("like") {
            let label: String = field(label);
            let said =
                self.said.get(&label).unwrap_or_else(|| panic!("like {label}: no such packet was sent"));
            let mut base = said.clone();
            base.retain(|name, _| !OWN_TO_EACH.contains(&name.as_str()));
            base.extend(wish);
            wish = base;
        }
        if let Some(label) = wish.remove("reply_to") {
            let side: Option<Side> = wish.remove("reply_side").map(field);
            let heard = self.heard.get(&field::<String>(label))?;
            let heard = heard.iter().find(|heard| side.is_none_or(|side| heard.side == side))?;
            let mut base = heard.answer();
            base.extend(wish);
            wish = base;
        }
        Some(wish)
    }

    /// Takes what only says what to quote out of the `icmp` field, and makes it.
    fn inner(&self, side: Side, wish: &mut Wish) -> Result<Option<Vec<u8>>, &'static str> {
        let Some(Value::Object(icmp)) = wish.get_mut("icmp") else { return Ok(None) };
        let limit: Option<usize> = icmp.remove("inner_len").map(field);
        let (inner_of, inner) = (icmp.remove("inner_of"), icmp.remove("inner"));
        let (mut bytes, limit) = if let Some(label) = inner_of {
            let raw = self.raw.get(&field::<String>(label)).into_iter().flatten();
            let (_, packet) =
                raw.into_iter().find(|(out, _)| *out == side).ok_or("SKIPPED: nothing to embed")?;
            let usual = if packet[0] >> 4 == 4 { 28 } else { 1000 };
            (packet.clone(), limit.unwrap_or(usual))
        } else if let Some(inner) = inner {
            let mut inner = object(inner);
            inner.entry("id").or_insert(json!(QUOTED_ID));
            let packets = packet::build(&field(Value::Object(inner)), None);
            (packets[0].clone(), limit.unwrap_or(usize::MAX))
        } else {
            return Ok(None);
        };
        bytes.truncate(limit);
        Ok(Some(bytes))
    }
}

fn field<T: for<'de> Deserialize<'de>>(value: Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn object(value: Value) -> Wish {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}: not a packet"),
    }
}
