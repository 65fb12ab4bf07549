//! A connection, a persistence template, or the end of one, with all that another process needs to go on with it: as values
//! and as bytes.
//!
//! A record is one byte that says what it is, two with the length of the rest, and the rest. What a later version adds comes
//! behind what is known here, and is not read. Times are durations: the clocks of two machines have nothing in common.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::bytes::{Reader, put_address, put_end, put_own_end, put_text};
use super::control::{put_control, read_control};
use super::home::{Home, forward_of, number_of, put_home, read_home};
use crate::ipvs::connection::Told;
use crate::ipvs::edit::{Forward, ServerId, ServiceId};
use crate::ipvs::helper::control::FtpControl;
use crate::ipvs::persistence::TemplateKey;
use crate::ipvs::protocol::{State, sctp, tcp};
use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;

/// Version of the records. One that reads a higher version reads this one, too.
pub const VERSION: u8 = 1;
/// No record is longer, in bytes.
pub const LONGEST: usize = 1300;

const CONNECTION: u8 = 1;
const TEMPLATE: u8 = 2;
const CONNECTION_END: u8 = 3;
const TEMPLATE_END: u8 = 4;

/// Why a record is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refused {
    /// It is longer than what there is of it.
    #[error("cut off")]
    CutOff,
    /// A kind of record, or a form of one, that is not known.
    #[error("unknown form")]
    Layout,
    /// A protocol that is not balanced.
    #[error("unknown protocol")]
    Protocol,
    /// A state that the protocol does not have.
    #[error("unknown state")]
    State,
    /// The connection table is full.
    #[error("no room")]
    NoRoom,
}

impl Refused {
    /// All of them, in order.
    pub const ALL: [Refused; 5] =
        [Refused::CutOff, Refused::Layout, Refused::Protocol, Refused::State, Refused::NoRoom];
}

/// What a record is about: at most one connection or template has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A connection, by what its client's packets look like; source port 0 if it awaits its client's port.
    Connection(FlowKey),
    /// A template.
    Template(TemplateKey),
}

/// What a connection's status says besides its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It counts as active at its server.
    pub active: bool,
    /// Only the client's packets are seen so far.
    pub no_output: bool,
    /// Its client's port is not known yet.
    pub awaits_port: bool,
    /// Its server has not answered yet, where there is no handshake that would tell.
    pub unanswered: bool,
    /// A message of the synchronisation made it.
    pub synced: bool,
    /// It is the partner's. Only a process that is followed says so.
    pub borrowed: bool,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Client; port 0 if it is awaited.
    pub client: SocketAddr,
    /// Virtual address, of the client's family.
    pub virtual_address: SocketAddr,
    /// Place at the real server.
    pub server: SocketAddr,
    /// The server of a service that this is; `None` if it is in none.
    pub home: Option<Home>,
    /// How its packets reach the server.
    pub forward: Forward,
    /// The kernel's number of its state.
    pub state: u8,
    /// The rest of its status.
    pub marks: Marks,
    /// Seconds that its last packet gave it.
    pub timeout: u32,
    /// How long it lives on without a packet; bytes know milliseconds.
    pub remaining: Duration,
    /// Packets of the client so far.
    pub packets: u32,
    /// Acknowledgment numbers, of client and server, where they are kept.
    pub acknowledged: [Option<u32>; 2],
    /// The template that it was made by.
    pub template: Option<TemplateKey>,
    /// The control connection that it is a data connection of.
    pub parent: Option<FlowKey>,
    /// What the FTP helper knows, if it reads it.
    pub ftp: Option<FtpControl>,
}

/// A persistence template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRecord {
    /// What it is found by.
    pub key: TemplateKey,
    /// The server of a service that it leads to; `None` if it is in none.
    pub home: Option<Home>,
    /// How packets reach that server.
    pub forward: Forward,
    /// Where the server is, as listed.
    pub place: SocketAddr,
    /// Seconds that a new connection gives it.
    pub timeout: u32,
    /// How long it lives on without one; bytes know milliseconds.
    pub remaining: Duration,
    /// Packets counted at it.
    pub packets: u32,
    /// One of its connections proved to be alive both ways.
    pub assured: bool,
    /// Its service schedules packet by packet.
    pub one_packet: bool,
    /// A message of the synchronisation made it.
    pub synced: bool,
    /// It is the partner's. Only a process that is followed says so.
    pub borrowed: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A connection as it is.
    Connection(Box<ConnectionRecord>),
    /// A template as it is.
    Template(Box<TemplateRecord>),
    /// There is no such connection or template any more.
    End(Key),
}

impl Marks {
    /// How it has come to be there.
    pub fn told(self) -> Told {
        Told { synced: self.synced, borrowed: self.borrowed }
    }
}

impl ConnectionRecord {
    /// What its client's packets look like.
    pub fn flow(&self) -> FlowKey {
        FlowKey::new(self.protocol, self.client, self.virtual_address)
    }

    /// The home that goes without saying: the service is at the virtual address, its server at the server's.
    pub(super) fn usual_home(&self) -> Home {
        let (address, port) = (self.virtual_address.ip(), self.virtual_address.port());
        Home {
            service: ServiceId::Address { protocol: self.protocol, address, port },
            server: ServerId { address: self.server.ip(), port: self.server.port() },
        }
    }
}

impl Record {
    /// What it is about.
    pub fn key(&self) -> Key {
        match self {
            Record::Connection(record) => Key::Connection(record.flow()),
            Record::Template(record) => Key::Template(record.key.clone()),
            Record::End(key) => key.clone(),
        }
    }

    /// Adds its bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match self {
            Record::Connection(_) => CONNECTION,
            Record::Template(_) => TEMPLATE,
            Record::End(Key::Connection(_)) => CONNECTION_END,
            Record::End(Key::Template(_)) => TEMPLATE_END,
        };
        out.extend([kind, 0, 0]);
        match self {
            Record::Connection(record) => put_connection(out, record),
            Record::Template(record) => put_template(out, record),
            Record::End(Key::Connection(flow)) => put_flow(out, flow),
            Record::End(Key::Template(key)) => put_template_key(out, key),
        }
        let length = (out.len() - start - 3) as u16;
        out[start + 1..start + 3].copy_from_slice(&length.to_be_bytes());
    }

    /// The record that `bytes` begin with, and what follows. With an error that is not [`Refused::CutOff`] what follows can
    /// be read on from where [`Record::skip`] says.
    pub fn read(bytes: &[u8]) -> Result<(Record, &[u8]), Refused> {
        let (kind, mut body, rest) = frame(bytes)?;
        let body = &mut body;
        let record = match kind {
            CONNECTION => Record::Connection(Box::new(read_connection(body)?)),
            TEMPLATE => Record::Template(Box::new(read_template(body)?)),
            CONNECTION_END => Record::End(Key::Connection(read_flow(body)?)),
            TEMPLATE_END => Record::End(Key::Template(read_template_key(body)?)),
            _ => return Err(Refused::Layout),
        };
        Ok((record, rest))
    }

    /// What follows the record that `bytes` begin with, whatever that is.
    pub fn skip(bytes: &[u8]) -> Result<&[u8], Refused> {
        frame(bytes).map(|(_, _, rest)| rest)
    }
}

fn frame(bytes: &[u8]) -> Result<(u8, Reader<'_>, &[u8]), Refused> {
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    let length = reader.u16()?;
    let body = reader.take(length.into())?;
    Ok((kind, Reader(body), reader.0))
}

fn put_flow(out: &mut Vec<u8>, flow: &FlowKey) {
    out.push(flow.protocol.0);
    put_own_end(out, flow.source());
    put_own_end(out, flow.destination());
}

fn read_flow(body: &mut Reader<'_>) -> Result<FlowKey, Refused> {
    let protocol = Protocol(body.u8()?);
    let (source, destination) = (body.own_end()?, body.own_end()?);
    if source.is_ipv6() != destination.is_ipv6() {
        return Err(Refused::Layout);
    }
    Ok(FlowKey::new(protocol, source, destination))
}

pub(super) fn put_template_key(out: &mut Vec<u8>, key: &TemplateKey) {
    out.extend([key.protocol.0, key.client.is_ipv6().into()]);
    put_address(out, key.client);
    put_own_end(out, key.virtual_address);
    out.push(key.call_id.is_some().into());
    if let Some(call_id) = &key.call_id {
        put_text(out, call_id);
    }
}

fn read_template_key(body: &mut Reader<'_>) -> Result<TemplateKey, Refused> {
    let protocol = Protocol(body.u8()?);
    let ipv6 = body.flag()?;
    let client = body.address(ipv6)?;
    let virtual_address = body.own_end()?;
    if virtual_address.is_ipv6() != ipv6 {
        return Err(Refused::Layout);
    }
    let call_id = if body.flag()? { Some(Arc::from(body.text()?)) } else { None };
    Ok(TemplateKey { protocol, client, virtual_address, call_id })
}

fn put_numbers(out: &mut Vec<u8>, numbers: [u32; 3]) {
    numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
}

fn millis(remaining: Duration) -> u32 {
    u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX)
}

/// How the optional parts of a record are said to be there.
mod parts {
    pub const IPV6: u16 = 1 << 0;
    pub const SERVER_IPV6: u16 = 1 << 1;
    pub const NO_HOME: u16 = 1 << 2;
    pub const HOME: u16 = 1 << 3;
    pub const TEMPLATE: u16 = 1 << 4;
    pub const PARENT: u16 = 1 << 5;
    pub const FTP: u16 = 1 << 6;
    pub const ACKNOWLEDGED: u16 = 1 << 7;
    pub const ACTIVE: u16 = 1 << 8;
    pub const NO_OUTPUT: u16 = 1 << 9;
    pub const AWAITS_PORT: u16 = 1 << 10;
    pub const UNANSWERED: u16 = 1 << 11;
    pub const SYNCED: u16 = 1 << 12;
    pub const ASSURED: u16 = 1 << 13;
    pub const ONE_PACKET: u16 = 1 << 14;
    pub const BORROWED: u16 = 1 << 15;
}

/// Those bits whose condition holds.
fn bits<const N: usize>(conditions: [(bool, u16); N]) -> u16 {
    conditions.iter().filter(|(holds, _)| *holds).fold(0, |bits, (_, bit)| bits | bit)
}

fn put_connection(out: &mut Vec<u8>, record: &ConnectionRecord) {
    let marks = record.marks;
    let own_home = record.home.filter(|home| *home != record.usual_home());
    let said = bits([
        (record.client.is_ipv6(), parts::IPV6),
        (record.server.is_ipv6(), parts::SERVER_IPV6),
        (record.home.is_none(), parts::NO_HOME),
        (own_home.is_some(), parts::HOME),
        (record.template.is_some(), parts::TEMPLATE),
        (record.parent.is_some(), parts::PARENT),
        (record.ftp.is_some(), parts::FTP),
        (record.acknowledged != [None; 2], parts::ACKNOWLEDGED),
        (marks.active, parts::ACTIVE),
        (marks.no_output, parts::NO_OUTPUT),
        (marks.awaits_port, parts::AWAITS_PORT),
        (marks.unanswered, parts::UNANSWERED),
        (marks.synced, parts::SYNCED),
        (marks.borrowed, parts::BORROWED),
    ]);
    out.extend(said.to_be_bytes());
    out.extend([record.protocol.0, number_of(record.forward), record.state]);
    [record.client, record.virtual_address, record.server].into_iter().for_each(|end| put_end(out, end));
    put_numbers(out, [record.timeout, millis(record.remaining), record.packets]);
    own_home.iter().for_each(|home| put_home(out, home));
    record.template.iter().for_each(|key| put_template_key(out, key));
    record.parent.iter().for_each(|flow| put_flow(out, flow));
    record.ftp.iter().for_each(|ftp| put_control(out, ftp));
    if said & parts::ACKNOWLEDGED != 0 {
        for number in record.acknowledged {
            out.push(number.is_some().into());
            out.extend(number.unwrap_or(0).to_be_bytes());
        }
    }
}

fn read_connection(body: &mut Reader<'_>) -> Result<ConnectionRecord, Refused> {
    let said = body.u16()?;
    let has = |bit: u16| said & bit != 0;
    let protocol = Protocol(body.u8()?);
    let forward = forward_of(body.u8()?)?;
    let state = body.u8()?;
    check_state(protocol, state)?;
    let ipv6 = has(parts::IPV6);
    let (client, virtual_address) = (body.end(ipv6)?, body.end(ipv6)?);
    let server = body.end(has(parts::SERVER_IPV6))?;
    let (timeout, remaining, packets) = (body.u32()?, body.u32()?, body.u32()?);
    let mut record = ConnectionRecord {
        protocol,
        client,
        virtual_address,
        server,
        home: None,
        forward,
        state,
        marks: Marks {
            active: has(parts::ACTIVE),
            no_output: has(parts::NO_OUTPUT),
            awaits_port: has(parts::AWAITS_PORT),
            unanswered: has(parts::UNANSWERED),
            synced: has(parts::SYNCED),
            borrowed: has(parts::BORROWED),
        },
        timeout,
        remaining: Duration::from_millis(remaining.into()),
        packets,
        acknowledged: [None; 2],
        template: None,
        parent: None,
        ftp: None,
    };
    if record.marks.awaits_port && client.port() != 0 {
        return Err(Refused::Layout);
    }
    record.home = match (has(parts::NO_HOME), has(parts::HOME)) {
        (true, false) => None,
        (false, true) => Some(read_home(body)?),
        (false, false) => Some(record.usual_home()),
        (true, true) => return Err(Refused::Layout),
    };
    record.template = has(parts::TEMPLATE).then(|| read_template_key(body)).transpose()?;
    record.parent = has(parts::PARENT).then(|| read_flow(body)).transpose()?;
    record.ftp = has(parts::FTP).then(|| read_control(body)).transpose()?;
    if has(parts::ACKNOWLEDGED) {
        for number in &mut record.acknowledged {
            let known = body.flag()?;
            *number = Some(body.u32()?).filter(|_| known);
        }
    }
    Ok(record)
}

fn check_state(protocol: Protocol, state: u8) -> Result<(), Refused> {
    let states = match protocol {
        Protocol::TCP => tcp::STATES,
        Protocol::SCTP => sctp::STATES,
        Protocol::UDP => 1,
        _ => return Err(Refused::Protocol),
    };
    if usize::from(state) < states { Ok(()) } else { Err(Refused::State) }
}

fn put_template(out: &mut Vec<u8>, record: &TemplateRecord) {
    let said = bits([
        (record.home.is_some(), parts::HOME),
        (record.assured, parts::ASSURED),
        (record.one_packet, parts::ONE_PACKET),
        (record.synced, parts::SYNCED),
        (record.borrowed, parts::BORROWED),
    ]);
    out.extend(said.to_be_bytes());
    out.push(number_of(record.forward));
    put_template_key(out, &record.key);
    put_own_end(out, record.place);
    put_numbers(out, [record.timeout, millis(record.remaining), record.packets]);
    record.home.iter().for_each(|home| put_home(out, home));
}

fn read_template(body: &mut Reader<'_>) -> Result<TemplateRecord, Refused> {
    let said = body.u16()?;
    let has = |bit: u16| said & bit != 0;
    let forward = forward_of(body.u8()?)?;
    let key = read_template_key(body)?;
    let place = body.own_end()?;
    let (timeout, remaining, packets) = (body.u32()?, body.u32()?, body.u32()?);
    let home = has(parts::HOME).then(|| read_home(body)).transpose()?;
    Ok(TemplateRecord {
        key,
        home,
        forward,
        place,
        timeout,
        remaining: Duration::from_millis(remaining.into()),
        packets,
        assured: has(parts::ASSURED),
        one_packet: has(parts::ONE_PACKET),
        synced: has(parts::SYNCED),
        borrowed: has(parts::BORROWED),
    })
}

impl ConnectionRecord {
    /// Its state.
    pub fn state(&self) -> State {
        State::from_number(self.protocol, self.state)
    }
}

impl Key {
    /// Adds bytes that no other key has.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Key::Connection(flow) => {
                out.push(CONNECTION);
                put_flow(out, flow);
            }
            Key::Template(key) => {
                out.push(TEMPLATE);
                put_template_key(out, key);
            }
        }
    }
}
