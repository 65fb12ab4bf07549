//! Layer 2: the failover pair, as Piranha's pulse keeps it (reference/piranha.md 4): who of two directors is active.
//!
//! [`Pulse`] decides and knows neither clock nor socket: [`Event`]s in, [`Action`]s out. [`wire`] turns its words into
//! datagrams and back, [`claim`] judges what became of the question whether an address is in use.

pub mod account;
pub mod claim;
mod machine;
mod report;
pub mod wire;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use account::{Account, SyncReport};
pub use machine::Pulse;
pub use report::{Partner, PartnerReport, Report, State};
pub use wire::{Path, Role, Word};

/// What a director knows of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Which one this is.
    pub role: Role,
    /// Whether there is another one.
    pub pair: bool,
    /// Time from one heartbeat to the next.
    pub keepalive: Duration,
    /// Silence that means that the partner is dead.
    pub deadtime: Duration,
    /// Whether a link without carrier is a reason to leave the work to the partner.
    pub monitor_links: bool,
    /// Whether a silent partner is fenced before this one becomes active.
    pub fence: bool,
    /// Whether this one stays inactive when fencing fails, and tries again; else it becomes active all the same.
    pub fence_required: bool,
    /// For how long this one stays inactive at most because its partner has connections of which it has not been told; zero if
    /// connections are not told of.
    pub wait: Duration,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Become active.
    Takeover,
    /// Leave the work to the partner.
    Standby,
}

/// What happened to a [`Pulse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The partner was heard.
    Heartbeat(Path, Word),
    /// [`Pulse::next_deadline`] has come.
    Tick,
    /// The link that carries a path has carrier, or has none.
    Link(Path, bool),
    /// Packets cannot be forwarded any more, as long as this process runs.
    LocalFailure,
    /// All of [`Action::Activate`] is done.
    Activated,
    /// All of [`Action::Deactivate`] is done: no address is left.
    Deactivated,
    /// Whether the partner has connections of which this one has not been told. So it is after a start, unless
    /// [`Settings::wait`] is zero.
    Joining(bool),
    /// What became of [`Action::Fence`]; a failure says why.
    Fenced(Result<(), String>),
    /// An operator asks. Answered by [`Action::Answer`].
    Wish(Wish),
    /// The configuration was read again.
    Settings(Settings),
    /// The end, by a signal of this number.
    Terminate(i32),
}

/// How much an administrator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An event of normal life.
    Info,
    /// Something to look at.
    Warn,
    /// Something that does not work.
    Error,
}

/// Which command of `lvs.cf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `active_cmd`.
    Active,
    /// `inactive_cmd`.
    Inactive,
}

/// What a [`Pulse`] wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the partner, by all paths.
    Send(Word),
    /// Take the work: table, addresses, announcements. [`Event::Activated`] at the end.
    Activate,
    /// Leave it: addresses first. [`Event::Deactivated`] at the end.
    Deactivate,
    /// Announce the addresses again.
    AnnounceAgain,
    /// Start a command, and do not wait for it.
    Run(Hook),
    /// Fence the partner. [`Event::Fenced`] at the end.
    Fence,
    /// Answer the operator's wish: done, or why not.
    Answer(Result<String, String>),
    /// Tell the administrator.
    Log(Level, String),
    /// Nothing more comes: the process may end.
    Exit,
}
