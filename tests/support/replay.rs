//! A device that knows no load balancing: it answers from a golden, to test the runner itself. The bytes of a packet
//! that came out then are found by trying: the packet that went in with the addresses, ports and TTL of the golden's
//! line, or an answer of the host's. What needs more (an ICMP error with a rewritten quotation) does not come out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::support::conversation::{Heard, HeardSegment};
use crate::support::decode::{Judgement, Packet, decode};
use crate::support::device::{CommandOutput, Departure, Device, Side};
use crate::support::dump::Dump;
use crate::support::ethernet::{Neighbours, neighbour_mac};
use crate::support::host::HostModel;
use crate::support::packet::{checksum, octets, pseudo_header, put};
use crate::support::scenario::{Golden, StepRecord};
use crate::support::text::{Identities, line};

/// The device.
#[derive(Debug)]
pub struct Replay {
    commands: VecDeque<CommandOutput>,
    dumps: VecDeque<Dump>,
    sends: VecDeque<Sending>,
    host: HostModel,
    now: Duration,
}

#[derive(Debug)]
struct Sending {
    packets_to_come: usize,
    out: Vec<String>,
}

impl Replay {
    /// A device about to relive `golden`.
    pub fn new(golden: &Golden) -> Self {
        Replay {
            commands: golden.steps.iter().flat_map(outputs).collect(),
            dumps: golden.steps.iter().filter_map(|step| step.dump.clone()).collect(),
            sends: golden.steps.iter().filter_map(sending).collect(),
            host: HostModel::default(),
            now: Duration::ZERO,
        }
    }
}

fn outputs(step: &StepRecord) -> impl Iterator<Item = CommandOutput> {
    let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect();
    step.run.iter().map(move |run| CommandOutput {
        code: run.rc,
        stdout: text(&run.out),
        stderr: text(&run.err),
    })
}

fn sending(step: &StepRecord) -> Option<Sending> {
    let packets_to_come = step.input.iter().filter(|line| !line.starts_with("SKIPPED")).count();
    (packets_to_come > 0).then(|| Sending { packets_to_come, out: step.out.clone() })
}

impl Device for Replay {
    fn run(&mut self, command: &str) -> CommandOutput {
        self.commands.pop_front().unwrap_or_else(|| panic!("{command}: not in the golden"))
    }

    fn deliver(&mut self, side: Side, packet: &[u8]) -> Vec<Departure> {
        while self.sends.front().is_some_and(|sending| sending.packets_to_come == 0) {
            self.sends.pop_front();
        }
        let answers = self.host.receive(side, packet);
        let sending = self.sends.front_mut().unwrap_or_else(|| panic!("a packet that the golden has not"));
        sending.packets_to_come -= 1;
        let mut out = Vec::new();
        sending.out.retain(|wanted| {
            let found = imitate(&mut self.host, packet, &answers, wanted);
            let is_found = found.is_some();
            out.extend(found);
            !is_found
        });
        out
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn advance(&mut self, by: Duration) -> Vec<Departure> {
        self.now += by;
        Vec::new()
    }

    fn dump(&mut self, sections: &[String]) -> String {
        let dump = self.dumps.pop_front().unwrap_or_else(|| panic!("{sections:?}: not in the golden"));
        let mut text = String::new();
        if let Some(conns) = &dump.conns {
            text += "== Lnc\nIPVS connection entries\npro expire state source virtual destination\n";
            for conn in conns {
                let (protocol, rest) = conn.c.split_once(' ').unwrap_or_default();
                text += &format!("{protocol} {:02}:{:02}  {rest}\n", conn.exp / 60, conn.exp % 60);
            }
        }
        for (name, lines) in &dump.sections {
            text += &format!("== {name}\n");
            lines.iter().for_each(|line| text += &format!("{line}\n"));
        }
        text
    }
}

/// The packet that reads as `wanted`, if one of the attempts does.
fn imitate(
    host: &mut HostModel,
    packet: &[u8],
    answers: &[(Side, Vec<u8>)],
    wanted: &str,
) -> Option<Departure> {
    let decoded = decode(packet);
    let header = decoded.packet()?;
    let mut identities = Identities::of(header.id.unwrap_or_default(), header.flow_label);
    let quoted = header.inner.as_ref().and_then(|inner| inner.packet.packet()?.id);
    quoted.into_iter().for_each(|id| identities.add_id(id));
    let headline = Headline::parse(wanted)?;
    let error =
        headline.error.and_then(|(kind, code, rest)| host.error(headline.source.0, packet, kind, code, rest));
    let rewritten = rewritten(packet, header, &headline);
    // A datagram that came without checksum may leave with one.
    let summed = (header.checksum == Some(Judgement::None)).then(|| with_udp_checksum(&rewritten));
    let attempts =
        answers.iter().map(|(_, answer)| answer.clone()).chain(error).chain([rewritten]).chain(summed);
    let via = value(&headline.words, "via").and_then(|via| via.parse().ok());
    let wanted = wanted.split_once(' ')?.1;
    let wanted = via.map_or(wanted.to_owned(), |via: IpAddr| wanted.replace(&format!(" via={via}"), ""));
    let packet = attempts.into_iter().find(|attempt| line(&decode(attempt), &identities) == wanted)?;
    let side = headline.side;
    let to = via.map_or_else(|| neighbour_mac(side), |via| Neighbours::Apart.mac(side, via));
    Some(Departure { side, to, packet })
}

/// What a golden's line says first.
struct Headline<'a> {
    side: Side,
    protocol: &'a str,
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    ttl: u8,
    error: Option<(u8, u8, u32)>,
    words: Vec<&'a str>,
}

impl<'a> Headline<'a> {
    fn parse(text: &'a str) -> Option<Headline<'a>> {
        let words: Vec<_> = text.split(" inner(").next()?.split(' ').collect();
        let [side, protocol, source, ">", destination, ..] = words[..] else { return None };
        let number = |name| value(&words, name)?.parse().ok();
        let rest = value(&words, "rest").and_then(|rest| u32::from_str_radix(rest, 16).ok());
        let error = number("type").zip(number("code")).zip(rest);
        Some(Headline {
            side: Side::from_letter(side)?,
            protocol,
            source: endpoint(source)?,
            destination: endpoint(destination)?,
            ttl: number("ttl")?,
            error: error.map(|((kind, code), rest)| (kind, code, rest)),
            words,
        })
    }
}

fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port())));
    with_port.or_else(|_| text.parse().map(|address| (address, None))).ok()
}

/// What an answer to the packet of a golden's line needs; `None` for a packet without ports.
pub fn heard(text: &str) -> Option<Heard> {
    let headline = Headline::parse(text)?;
    let number = |name| value(&headline.words, name).and_then(|number| number.parse().ok()).unwrap_or(0);
    let len = value(&headline.words, "pay").and_then(|pay| pay.split_once('/')?.0.parse().ok());
    let tcp = (headline.protocol == "tcp").then(|| HeardSegment {
        seq: number("seq"),
        ack: number("ack"),
        flags: headline.words[5].trim_matches('-').to_owned(),
        len: len.unwrap_or(0),
    });
    Some(Heard {
        side: headline.side,
        protocol: headline.protocol.to_owned(),
        source: (headline.source.0, headline.source.1?),
        destination: (headline.destination.0, headline.destination.1?),
        tcp,
    })
}

/// `packet` with the addresses, ports and TTL of `headline`. Its checksums are adjusted (RFC 1624), so that a wrong one
/// stays wrong.
fn rewritten(packet: &[u8], header: &Packet, headline: &Headline) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let v4 = header.source.is_ipv4();
    let (addresses, transport) = match (v4, header.id) {
        (true, _) => (12, usize::from(packet[0] & 15) * 4),
        (false, Some(_)) => (8, 48),
        (false, None) => (8, 40),
    };
    let old = packet.clone();
    let new = [octets(headline.source.0), octets(headline.destination.0)].concat();
    if new.len() != (if v4 { 8 } else { 32 }) {
        return packet;
    }
    packet[addresses..addresses + new.len()].copy_from_slice(&new);
    packet[if v4 { 8 } else { 7 }] = headline.ttl;
    if v4 {
        put(&mut packet, 10, 0);
        let sum = checksum(&packet[..transport]);
        put(&mut packet, 10, sum);
    }
    if let (Some(source), Some(destination)) = (headline.source.1, headline.destination.1) {
        put(&mut packet, transport, source);
        put(&mut packet, transport + 2, destination);
        let at = transport + if header.protocol == "tcp" { 16 } else { 6 };
        let changed = |bytes: &[u8]| {
            [&bytes[addresses..addresses + new.len()], &bytes[transport..transport + 4]].concat()
        };
        let (before, after) = (changed(&old), changed(&packet));
        adjust(&mut packet, at, &before, &after);
    }
    packet
}

fn adjust(packet: &mut [u8], at: usize, before: &[u8], after: &[u8]) {
    let Some(field) = packet.get(at..at + 2).filter(|field| *field != [0, 0]) else { return };
    let complement: Vec<u8> = field.iter().chain(before).map(|byte| !byte).collect();
    put(packet, at, checksum(&[&complement, after].concat()));
}

fn with_udp_checksum(packet: &[u8]) -> Vec<u8> {
    let decoded = decode(packet);
    let Some(header) = decoded.packet() else { return packet.to_vec() };
    let datagram = packet.len() - header.payload.len() - 8;
    let pseudo = pseudo_header(header.source, header.destination, 17, packet.len() - datagram);
    let sum = checksum(&[&pseudo, &packet[datagram..]].concat());
    let mut packet = packet.to_vec();
    put(&mut packet, datagram + 6, sum);
    packet
}
