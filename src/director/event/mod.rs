//! Changes of state that an administrator hears of: one line of the log each, one entry of `xlvs events`, and perhaps one run of
//! the notify command. The words at the beginning are those that Piranha's programs logged, as far as there are any
//! (reference/piranha.md 2.6, 3.1, 3.5); what is known besides follows as fields.

pub mod journal;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Level;
use super::member::Override;
use super::member::calm::WINDOW;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// A virtual server begins.
    VirtualStarted {
        /// Its port in `lvs.cf`.
        port: u16,
    },
    /// A virtual server ends.
    VirtualStopped,
    /// A server serves.
    Up,
    /// A server has failed.
    Down,
    /// A server is taken out by an operator.
    TakenOut,
    /// A server was found not to serve when it was looked at for the first time.
    Unavailable,
    /// A server or virtual server has changed so often that not all of it was told.
    Flapping {
        /// Changes that were not told.
        more: u32,
    },
    /// The slow start of a server has ended.
    FullWeight {
        /// Its weight.
        weight: i32,
    },
    /// An operator decides that a server serves.
    ForcedUp,
    /// An operator decides that it does not.
    ForcedDown,
    /// The checks decide again.
    Unforced,
    /// A virtual server has no server that serves.
    NoServers,
    /// A virtual server has servers again.
    ServersBack {
        /// How many.
        up: usize,
    },
    /// A server's load could not be asked for.
    LoadUnread,
    /// What was to tell a server's load did not.
    BadLoad {
        /// What it said.
        returned: String,
    },
}

impl Happened {
    /// An operator decides.
    pub fn forced(to: Override) -> Self {
        match to {
            Override::Auto => Happened::Unforced,
            Override::Up => Happened::ForcedUp,
            Override::Down => Happened::ForcedDown,
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What has happened.
    #[serde(flatten)]
    pub happened: Happened,
    /// The virtual server's name in `lvs.cf`.
    #[serde(rename = "virtual")]
    pub virtual_server: String,
    /// The server's name in `lvs.cf`; empty if the event is about the virtual server.
    pub server: String,
    /// Its address and port; the address of the sorry server where one begins or ends; else empty.
    pub endpoint: String,
    /// Why, for a person; may be empty.
    pub reason: String,
    /// Seconds that the former state lasted, if there was one.
    pub lasted: Option<u64>,
}

impl Event {
    /// What happened to a virtual server.
    pub fn of_virtual(virtual_server: &str, happened: Happened) -> Self {
        let (server, endpoint, reason) = Default::default();
        Event { happened, virtual_server: virtual_server.to_owned(), server, endpoint, reason, lasted: None }
    }

    /// The same with a reason.
    pub fn because(self, reason: impl Into<String>) -> Self {
        Event { reason: reason.into(), ..self }
    }

    /// The same with the time that the former state lasted.
    pub fn after(self, lasted: Option<Duration>) -> Self {
        Event { lasted: lasted.map(|lasted| lasted.as_secs()), ..self }
    }

    /// How much an administrator cares.
    pub fn level(&self) -> Level {
        match self.happened {
            Happened::Down
            | Happened::Unavailable
            | Happened::Flapping { .. }
            | Happened::NoServers
            | Happened::LoadUnread
            | Happened::BadLoad { .. } => Level::Warn,
            Happened::VirtualStarted { .. }
            | Happened::VirtualStopped
            | Happened::Up
            | Happened::TakenOut
            | Happened::FullWeight { .. }
            | Happened::ForcedUp
            | Happened::ForcedDown
            | Happened::Unforced
            | Happened::ServersBack { .. } => Level::Info,
        }
    }

    /// What the notify command is told first; `None` if it is not run for this.
    pub fn notice(&self) -> Option<&'static str> {
        Some(match self.happened {
            Happened::Up => "up",
            Happened::Down | Happened::TakenOut | Happened::Unavailable => "down",
            Happened::Flapping { .. } => "flapping",
            Happened::ForcedUp => "forced_up",
            Happened::ForcedDown => "forced_down",
            Happened::Unforced => "unforced",
            Happened::NoServers => "no_servers",
            Happened::ServersBack { .. } => "servers_back",
            _ => return None,
        })
    }

    /// The words of the line, without fields.
    pub fn words(&self) -> String {
        let Event { virtual_server, endpoint, .. } = self;
        let sorry = |verb| match endpoint.is_empty() {
            true => String::new(),
            false => format!("; {verb} sorry_server {endpoint}"),
        };
        match &self.happened {
            Happened::VirtualStarted { port } => {
                format!("starting virtual service {virtual_server} active: {port}")
            }
            Happened::VirtualStopped => format!("shutting down virtual service {virtual_server}"),
            Happened::Up => format!("[ active ] making {endpoint} available"),
            Happened::Down => format!("[inactive] shutting down {endpoint} due to connection failure"),
            Happened::TakenOut => format!("[inactive] shutting down {endpoint} by hand"),
            Happened::Unavailable => format!("[inactive] {endpoint} is not available"),
            Happened::Flapping { more } => {
                let subject = if endpoint.is_empty() { virtual_server } else { endpoint };
                let changes = if *more == 1 { "change" } else { "changes" };
                format!("{subject}: ... and {more} {changes} more in the last {} s", WINDOW.as_secs())
            }
            Happened::FullWeight { weight } => format!("{endpoint} has its full weight {weight}"),
            Happened::ForcedUp => format!("rose-colored glasses on: {endpoint} is up by hand"),
            Happened::ForcedDown => format!("opaque glasses on: {endpoint} is down by hand"),
            Happened::Unforced => format!("removing glasses: the checks of {endpoint} decide again"),
            Happened::NoServers => {
                format!("Virtual Server {virtual_server}: No real servers{}", sorry("activate"))
            }
            Happened::ServersBack { up } => {
                format!("Virtual Server {virtual_server}: {up} real servers{}", sorry("deactivate"))
            }
            Happened::LoadUnread => "failed to read remote load".to_owned(),
            Happened::BadLoad { returned } => format!("bad load average returned: {returned}"),
        }
    }

    /// What the time of the former state is called.
    fn lasted_as(&self) -> &'static str {
        match self.happened {
            Happened::Up | Happened::ServersBack { .. } => "down_for",
            _ => "up_for",
        }
    }
}

impl fmt::Display for Event {
    /// The line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} virtual={}", self.words(), Quoted(&self.virtual_server))?;
        if !self.server.is_empty() {
            write!(f, " server={}", Quoted(&self.server))?;
        }
        if !self.words().contains(&self.endpoint) {
            write!(f, " endpoint={}", self.endpoint)?;
        }
        if !self.reason.is_empty() {
            write!(f, " reason={}", Quoted(&self.reason))?;
        }
        match self.lasted {
            Some(seconds) => write!(f, " {}={seconds}s", self.lasted_as()),
            None => Ok(()),
        }
    }
}

/// A value of a field, in quotes if it would else not be one word.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_word = |letter: char| letter.is_alphanumeric() || "-_.:/@%+,".contains(letter);
        match !self.0.is_empty() && self.0.chars().all(is_word) {
            true => f.write_str(self.0),
            false => write!(f, "{:?}", self.0),
        }
    }
}
