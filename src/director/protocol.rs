//! The control socket's language: one JSON value a line, a request up, a reply down.

use serde::{Deserialize, Serialize};

use crate::ipvs::edit::{Edit, Errno, Refusal, ServerId, ServiceId};
use crate::ipvs::sync::SyncDaemon;
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

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, nothing to say.
    Done,
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
    /// Counters and rates of everything balanced.
    Totals(TotalsView),
    /// Synchronisation daemons that run.
    Daemons(Vec<SyncDaemon>),
    /// Timeouts.
    Timeouts(TimeoutView),
    /// State of the daemon.
    Status(Box<Status>),
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
        match (&self.file, &self.table) {
            (Some(file), Some(table)) => format!("{table} in the table, {file} in lvs.cf"),
            (Some(file), None) => format!("not in the table, {file} in lvs.cf"),
            (None, Some(table)) => format!("{table} in the table, not in lvs.cf"),
            (None, None) => "in neither".into(),
        }
    }
}

/// State of the daemon for `xlvs status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Seconds since the start.
    pub uptime: u64,
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
    /// Health of the configured servers.
    pub checks: Vec<CheckStatus>,
    /// Role and state in the pair; absent without `lvs.cf`.
    #[serde(default)]
    pub pulse: Option<crate::pulse::Report>,
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
