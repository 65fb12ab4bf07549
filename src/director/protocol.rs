//! The control socket's language: one JSON value a line, a request up, a reply down.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::event::journal::Entry;
use super::member::{Override, State};
use super::plan::Plan;
use crate::ipvs::edit::{Edit, Errno, Refusal, ServerId, ServiceId};
use crate::ipvs::sync::{SyncCounts, SyncDaemon};
use crate::ipvs::verdict::PacketTotals;
use crate::ipvs::view::{ConnectionView, ServiceView, TableInfo, TimeoutView, TotalsView};

/// What a client of the control socket asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Change the tables.
    Edit(Edit),
    /// All services. Answer: [`Reply::Services`].
    ListServices,
    /// One service. Answer: [`Reply::Services`] with one element, or `ESRCH`.
    ListService(ServiceId),
    /// Make several changes, all or none. Answer: [`Reply::Done`] or [`Reply::RefusedOne`].
    EditAll(Vec<Edit>),
    /// Connections and templates from a place on, at first 0. Answer: [`Reply::Connections`].
    ListConnections {
        /// Where to go on.
        place: usize,
    },
    /// Answer: [`Reply::Daemons`].
    ListDaemons,
    /// Answer: [`Reply::Totals`].
    GetTotals,
    /// Answer: [`Reply::Timeouts`].
    GetTimeouts,
    /// Compare the tables with `lvs.cf`. Answer: [`Reply::Differences`].
    Diff,
    /// Answer: [`Reply::Status`].
    Status,
    /// Read all files again and apply the difference. Answer: [`Reply::Text`] with what changed.
    Reload,
    /// Have another process take over, which runs this program. Answer: [`Reply::Text`], once it serves.
    Upgrade {
        /// Its absolute path.
        program: PathBuf,
    },
    /// Have this router of a pair become active. Answer: [`Reply::Text`].
    Takeover,
    /// Have this router of a pair leave the work to the other. Answer: [`Reply::Text`].
    Standby,
    /// Drain a server: weight 0, its templates end, and after `deadline` seconds, if there is one, its connections.
    /// Answer: [`Reply::Text`].
    Drain {
        /// The service.
        service: ServiceId,
        /// Its server.
        server: ServerId,
        /// Seconds from now.
        deadline: Option<u32>,
    },
    /// Decide about a server in place of its checks, or leave it to them again. Answer: [`Reply::Text`], a line for each server.
    Override {
        /// Its name in `lvs.cf`, its address, or its address and port.
        server: String,
        /// The virtual server by its name in `lvs.cf`; all if absent.
        virtual_server: Option<String>,
        /// Who decides what.
        to: Override,
    },
    /// Events after that of a number, as far as they are kept. Answer: [`Reply::Events`].
    Events {
        /// The number; 0 for all.
        after: u64,
        /// Whether to wait some seconds for one if there is none.
        wait: bool,
    },

    /// Drain a server in all its services, or in one. Answer: [`Reply::Drains`] with what has begun.
    DrainServer {
        /// Its name in `lvs.cf`, or its address with or without a port.
        server: String,
        /// The one service.
        #[serde(default)]
        service: Option<ServiceId>,
        /// Seconds from now.
        deadline: Option<u32>,
    },
    /// Take a server back that was drained by order. Answer: [`Reply::Text`].
    UndoDrain {
        /// As for [`Request::DrainServer`].
        server: String,
        /// The one service, if it is not all.
        #[serde(default)]
        service: Option<ServiceId>,
    },
    /// Everything that is drained. Answer: [`Reply::Drains`].
    ListDrains,
    /// What other files would do. Answer: [`Reply::Plan`].
    Plan(SiteFiles),
    /// Follow other files than the site's. Answer: [`Reply::Text`].
    Apply {
        /// The files.
        files: SiteFiles,
        /// Seconds to confirm it in; else the former configuration comes back. Absent: for good at once.
        confirm: Option<u32>,
        /// Whether the file is to replace the site's `lvs.cf` once it counts for good.
        install: bool,
    },
    /// Keep what is on trial. Answer: [`Reply::Text`].
    Confirm,
    /// Go back from what is on trial. Answer: [`Reply::Text`].
    Abort,
    /// All IPVS sysctls. Answer: [`Reply::Text`], a line each.
    ListSysctls,
    /// Read one (`value` absent) or set one IPVS sysctl by its name without `net.ipv4.vs.`, or a switch
    /// beyond IPVS by its name with `xlvs.`. Answer: [`Reply::Text`].
    Sysctl {
        /// Name such as `expire_nodest_conn`.
        name: String,
        /// New value.
        value: Option<String>,
    },
}

impl Request {
    /// Whether it only asks, so that it does not matter which of two processes with the same tables answers.
    pub fn is_question(&self) -> bool {
        match self {
            Request::ListServices
            | Request::ListService(_)
            | Request::ListConnections { .. }
            | Request::ListDaemons
            | Request::GetTotals
            | Request::GetTimeouts
            | Request::Diff
            | Request::Status
            | Request::Events { wait: false, .. }
            | Request::ListDrains
            | Request::Plan(_)
            | Request::ListSysctls
            | Request::Sysctl { value: None, .. } => true,
            Request::Edit(_)
            | Request::EditAll(_)
            | Request::Reload
            | Request::Takeover
            | Request::Standby
            | Request::Upgrade { .. }
            | Request::Drain { .. }
            | Request::Override { .. }
            | Request::Events { wait: true, .. }
            | Request::DrainServer { .. }
            | Request::UndoDrain { .. }
            | Request::Apply { .. }
            | Request::Confirm
            | Request::Abort
            | Request::Sysctl { value: Some(_), .. } => false,
        }
    }
}

/// Files in place of the site's, by what is in them: the daemon need not be able to read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFiles {
    /// `lvs.cf`.
    pub lvs: FileText,
    /// Saved iptables rules; absent: the marks stay as they are, beside `marks6` those of the site.
    #[serde(default)]
    pub marks: Option<FileText>,
    /// Saved ip6tables rules; absent beside `marks`: those of the site.
    #[serde(default)]
    pub marks6: Option<FileText>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, nothing to say.
    Done,
    /// Not carried out: another process serves this socket now, and is to be asked.
    Again,
    /// The tables refused.
    Refused(Errno),
    /// Anything else that went wrong, in words for a person.
    Failed(String),
    /// Services in the kernel's unsorted order.
    Services {
        /// For the title line.
        info: TableInfo,
        /// The services.
        services: Vec<ServiceView>,
    },
    /// The tables refused one of several changes, so that none was made.
    RefusedOne(Refusal),
    /// Connections and templates in no order.
    Connections {
        /// Some of them.
        connections: Vec<ConnectionView>,
        /// Where to go on, if there are more.
        next: Option<usize>,
    },
    /// Where the tables and `lvs.cf` differ.
    Differences(Vec<Difference>),
    /// What is drained.
    Drains(Vec<DrainStatus>),
    /// What other files would do.
    Plan(Box<Plan>),
    /// Counters and rates of everything balanced.
    Totals(TotalsView),
    /// Synchronisation daemons that run.
    Daemons(Vec<SyncDaemon>),
    /// Timeouts.
    Timeouts(TimeoutView),
    /// State of the daemon.
    Status(Box<Status>),
    /// Events in order.
    Events {
        /// The events.
        entries: Vec<Entry>,
        /// The number of the last one that there was.
        last: u64,
    },
    /// Text for a person.
    Text(String),
}

/// Something in which the tables and `lvs.cf` differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What differs, such as `server 10.8.8.33:80 of FWM 80`.
    pub subject: String,
    /// How `lvs.cf` has it, if it does.
    pub file: Option<String>,
    /// How the tables have it, if they do.
    pub table: Option<String>,
}

impl Difference {
    /// From the one to the other, in words.
    pub fn change(&self) -> String {
        self.change_from("lvs.cf")
    }

    /// The same with another file's name.
    pub fn change_from(&self, name: &str) -> String {
        match (&self.file, &self.table) {
            (Some(file), Some(table)) => format!("{table} in the table, {file} in {name}"),
            (Some(file), None) => format!("not in the table, {file} in {name}"),
            (None, Some(table)) => format!("{table} in the table, not in {name}"),
            (None, None) => "in neither".into(),
        }
    }
}

/// Why a server is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainCause {
    /// `xlvs drain`.
    Order,
    /// Its weight is 0.
    Quiesced,
    /// It is not in the configuration any more.
    Removed,
    /// The same, but the configuration is on trial.
    OnTrial,
}

impl DrainCause {
    /// For a person.
    pub fn words(self) -> &'static str {
        match self {
            DrainCause::Order => "by order",
            DrainCause::Quiesced => "weight 0",
            DrainCause::Removed => "removed",
            DrainCause::OnTrial => "removed on trial",
        }
    }
}

/// One server that is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Its service.
    pub service: ServiceId,
    /// The server.
    pub server: ServerId,
    /// Why.
    pub cause: DrainCause,
    /// Connections that it still has.
    pub left: u32,
    /// Seconds until these end; absent: they may stay.
    pub ends_in: Option<u64>,
}

impl DrainStatus {
    /// How far it is, in words.
    pub fn progress(&self) -> String {
        let (connections, end) = if self.left == 1 { ("connection", "ends") } else { ("connections", "end") };
        let when = match self.ends_in {
            Some(seconds) if self.left != 0 => format!(", which {end} in {seconds} s"),
            _ => String::new(),
        };
        format!("{} {connections} left{when}", self.left)
    }
}

/// State of the daemon for `xlvs status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Seconds since the start; upgrades are none.
    pub uptime: u64,
    /// Seconds since the last upgrade, if there was one: since then this process has served.
    #[serde(default)]
    pub upgraded: Option<u64>,
    /// Attached NICs.
    pub ports: Vec<PortStatus>,
    /// Workers.
    pub workers: usize,
    /// Packets of all workers together.
    pub packets: PacketTotals,
    /// Packets that the NICs could not deliver because a receive ring was full.
    pub ring_full: u64,
    /// Packets that the NICs could not deliver because no frame was free.
    pub no_frame: u64,
    /// What the shortcut does.
    pub shortcut: ShortcutStatus,
    /// Connections in the table.
    pub connections: u64,
    /// Persistence templates.
    pub templates: u64,
    /// Connections that may be in the table; 0 for any number.
    pub conn_max: u32,
    /// Half-open connections that made room for others.
    pub evicted: u64,
    /// What was sent and received of connections.
    #[serde(default)]
    pub sync: SyncCounts,
    /// Health of the configured servers.
    pub checks: Vec<CheckStatus>,
    /// Role and state in the pair; absent without `lvs.cf`.
    #[serde(default)]
    pub pulse: Option<crate::pulse::Report>,
    /// How the connections of a pair are kept the same; absent where they are not.
    #[serde(default)]
    pub replica: Option<crate::ipvs::replica::Report>,
    /// The virtual servers of `lvs.cf`.
    #[serde(default)]
    pub virtuals: Vec<VirtualStatus>,
    /// Runs of the notify command that were left out because too many waited.
    #[serde(default)]
    pub notices_lost: u64,
    /// What is drained.
    #[serde(default)]
    pub drains: Vec<DrainStatus>,
    /// The file that the configuration is from, if that is not the site's `lvs.cf`.
    #[serde(default)]
    pub source: Option<String>,
    /// Seconds until the former configuration comes back, if this one is on trial.
    #[serde(default)]
    pub trial: Option<u64>,
}

/// A virtual server of `lvs.cf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualStatus {
    /// Its name.
    pub name: String,
    /// What it is in the table, such as `FWM 80`.
    pub service: String,
    /// Servers that are up.
    pub up: usize,
    /// Seconds since it got its first server, or lost its last one.
    pub since: u64,
    /// Its sorry server, if it has one.
    pub sorry: Option<SorryStatus>,
    /// Its active servers in the order of the file.
    pub servers: Vec<ServerStatus>,
}

/// A sorry server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SorryStatus {
    /// `address:port`.
    pub endpoint: String,
    /// Whether it stands in.
    pub active: bool,
}

/// A real server of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name in `lvs.cf`.
    pub name: String,
    /// `address:port`.
    pub endpoint: String,
    /// Whether it serves.
    pub state: State,
    /// Seconds since when.
    pub since: u64,
    /// What its check says, whether or not that decides.
    pub check: State,
    /// Why it says so; empty before its first result.
    pub reason: String,
    /// Whether an operator decides.
    #[serde(rename = "override")]
    pub forced: Override,
    /// Its weight in the table, if it is there.
    pub weight: Option<i32>,
    /// What that is to become.
    pub full_weight: i32,
    /// Whether it is in its slow start.
    pub slow_start: bool,
    /// Whether it was edited by hand.
    pub by_hand: bool,
    /// Whether it is out because it was deleted by hand.
    pub deleted: bool,
    /// Its connections.
    pub connections: u32,
}

/// The shortcut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutStatus {
    /// Whether it is on, and why not or not everywhere, for a person.
    pub state: String,
    /// Packets that took it; the other counts include them.
    pub packets: u64,
    /// Directions of connections that are in its tables.
    pub flows: u64,
    /// How often there was no room in them.
    pub refused: u64,
}

/// One attached NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Interface name.
    pub name: String,
    /// `native` or `skb`.
    pub mode: String,
    /// `zero-copy` or `copy`.
    pub copy: String,
    /// Queues served.
    pub queues: u32,
    /// Why it is not better, and what does not come up.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Health of one configured server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Virtual server's name in lvs.cf.
    pub virtual_server: String,
    /// Real server's name in lvs.cf.
    pub server: String,
    /// `address:port` that is checked.
    pub endpoint: String,
    /// `up`, `down` or `unknown` before the first check has ended.
    pub health: String,
}
