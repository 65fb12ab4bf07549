//! What the two processes of an upgrade say to each other.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::director::event::journal::Journal;
use crate::director::run::files::SiteTexts;
use crate::director::{Estate, Values};
use crate::host::channel::{Channel, Message};
use crate::ipvs::service_table::Counters;
use crate::ipvs::verdict::PacketTotals;
use crate::net::time::Instant;
use crate::pulse::Pulse;

/// Version of all this. Processes of different versions do not follow each other.
pub const VERSION: u32 = 1;

/// How the successor begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Its [`VERSION`].
    pub version: u32,
    /// The program's.
    pub program: String,
    /// Its process, if that is not the one that was started.
    #[serde(default)]
    pub process: Option<u32>,
}

/// What the predecessor leaves, but for descriptors, connections and what is counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bequest {
    /// The moment.
    pub now: Instant,
    /// The configuration that it follows.
    pub texts: SiteTexts,
    /// What its `xlvs.toml` said of settings that can be changed while it runs.
    pub settings: Values,
    /// Where its control socket is.
    pub control_socket: PathBuf,
    /// Whether its NICs used the packet memory directly.
    pub zero_copy: bool,
    /// The events that it has kept.
    pub events: Journal,
    /// What its director leaves.
    pub estate: Estate,
}

/// What is known only when nothing happens any more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastWill {
    /// Of services and servers.
    pub counters: Counters,
    /// What became of all packets.
    pub packets: PacketTotals,
    /// The heart's state, if there is one.
    pub pulse: Option<Pulse>,
}

/// One of the messages, in the order in which they come.
#[derive(Debug)]
pub enum Word {
    /// Successor: it has started, and has read the site's files.
    Hello(Hello),
    /// Predecessor: what it leaves.
    Bequest(Box<Bequest>),
    /// Predecessor: what holds the XDP program at an interface; one for each.
    Link(OwnedFd),
    /// Predecessor: the listening control socket.
    Listener(OwnedFd),
    /// Predecessor: connections and templates, several times.
    Records(Vec<u8>),
    /// Predecessor: that is all for now.
    All,
    /// Successor: everything is there that can be before the queues are free.
    Ready,
    /// Predecessor: it has stopped, these are the last words, and the queues are or will be free in a moment. Records that have
    /// changed have come before.
    Switch(Box<LastWill>),
    /// Successor: packets come and go.
    Serving,
    /// Either: it gives up, for this reason.
    GivesUp(String),
}

const HELLO: u8 = 1;
const BEQUEST: u8 = 2;
const LINK: u8 = 3;
const LISTENER: u8 = 4;
const RECORDS: u8 = 5;
const ALL: u8 = 6;
const READY: u8 = 7;
const SWITCH: u8 = 8;
const SERVING: u8 = 9;
const GIVES_UP: u8 = 10;

/// Says something.
pub fn say(channel: &Channel, word: &Word) -> io::Result<()> {
    let plain = |kind, body: &[u8]| channel.send(kind, body, None);
    match word {
        Word::Hello(hello) => plain(HELLO, &serde_json::to_vec(hello)?),
        Word::Bequest(bequest) => plain(BEQUEST, &serde_json::to_vec(bequest)?),
        Word::Link(link) => channel.send(LINK, &[], Some(link.as_fd())),
        Word::Listener(listener) => channel.send(LISTENER, &[], Some(listener.as_fd())),
        Word::Records(records) => plain(RECORDS, records),
        Word::All => plain(ALL, &[]),
        Word::Ready => plain(READY, &[]),
        Word::Switch(last) => plain(SWITCH, &serde_json::to_vec(last)?),
        Word::Serving => plain(SERVING, &[]),
        Word::GivesUp(reason) => plain(GIVES_UP, reason.as_bytes()),
    }
}

/// The next thing that is said; `None` if the other process has ended.
pub fn hear(channel: &Channel) -> io::Result<Option<Word>> {
    channel.receive()?.map(understand).transpose()
}

fn understand(message: Message) -> io::Result<Word> {
    let Message { kind, body, descriptor } = message;
    let descriptor = descriptor.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
    Ok(match kind {
        HELLO => Word::Hello(read(&body)?),
        BEQUEST => Word::Bequest(Box::new(read(&body)?)),
        LINK => Word::Link(descriptor?),
        LISTENER => Word::Listener(descriptor?),
        RECORDS => Word::Records(body),
        ALL => Word::All,
        READY => Word::Ready,
        SWITCH => Word::Switch(Box::new(read(&body)?)),
        SERVING => Word::Serving,
        GIVES_UP => Word::GivesUp(String::from_utf8_lossy(&body).into_owned()),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(body)?)
}
