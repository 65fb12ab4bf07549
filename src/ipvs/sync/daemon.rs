//! Synchronisation daemons as they were asked for (ipvs.md section 7.1).

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::net::addr::Family;

const DEFAULT_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const DEFAULT_PORT: u16 = 8848;
const DEFAULT_TTL: u8 = 1;
/// What a master takes for the interface's MTU, whatever that is.
const MASTER_MTU: u32 = 1500;
/// Shortest message that a backup takes the trouble to receive.
const BACKUP_LEAST: u16 = 1024;

/// Which end of the synchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncRole {
    /// Tells of its connections.
    Master,
    /// Is told of them.
    Backup,
}

impl SyncRole {
    /// `master` or `backup`.
    pub fn name(self) -> &'static str {
        match self {
            SyncRole::Master => "master",
            SyncRole::Backup => "backup",
        }
    }
}

/// A synchronisation daemon. What was not said is 0 or absent until [`SyncDaemon::completed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// Its role.
    pub role: SyncRole,
    /// Interface name.
    pub interface: String,
    /// Number of the synchronising cluster.
    pub sync_id: u8,
    /// Longest message in bytes, headers of IP and UDP not counted.
    pub max_len: u16,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Time to live of the messages.
    pub ttl: u8,
}

impl SyncDaemon {
    /// With the kernel's defaults where nothing was said, on an interface of this `mtu` (sample `11-sync-daemons`).
    pub fn completed(&self, mtu: u32) -> SyncDaemon {
        let group = self.group.unwrap_or(DEFAULT_GROUP);
        let headers = match Family::from(group) {
            Family::V4 => 28,
            Family::V6 => 48,
        };
        let fitting = |mtu: u32| (mtu.clamp(MASTER_MTU, u32::from(u16::MAX)) - headers) as u16;
        let most = fitting(u32::from(u16::MAX));
        let max_len = match (self.role, self.max_len) {
            (SyncRole::Master, 0) => fitting(MASTER_MTU),
            (SyncRole::Backup, 0) => fitting(mtu),
            (SyncRole::Backup, given) => given.max(BACKUP_LEAST).min(most),
            (SyncRole::Master, given) => given.min(most),
        };
        let or = |given: u16, default| if given == 0 { default } else { given };
        SyncDaemon {
            max_len,
            group: Some(group),
            port: or(self.port, DEFAULT_PORT),
            ttl: if self.ttl == 0 { DEFAULT_TTL } else { self.ttl },
            ..self.clone()
        }
    }
}

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// As it was asked for, completed.
    pub daemon: SyncDaemon,
    /// How many ports it uses, from its own on (`sync_ports` when it was started).
    pub ports: u16,
}

/// The daemons that run: at most one of each role, the master first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncDaemons(Vec<Running>);

/// The kernel starts no more threads for a daemon.
const PORTS_MAX: i64 = 64;

impl SyncDaemons {
    /// The one of a role.
    #[inline]
    pub fn get(&self, role: SyncRole) -> Option<&Running> {
        self.0.iter().find(|running| running.daemon.role == role)
    }

    /// Whether none runs.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that run.
    pub fn iter(&self) -> impl Iterator<Item = &SyncDaemon> {
        self.0.iter().map(|running| &running.daemon)
    }

    /// One more, in place of one of the same role, with `sync_ports` as it is.
    pub fn start(&mut self, daemon: SyncDaemon, sync_ports: i64) {
        self.stop(daemon.role);
        let ports = sync_ports.clamp(1, PORTS_MAX) as u16;
        self.0.push(Running { daemon, ports });
        self.0.sort_by_key(|running| running.daemon.role);
    }

    /// One less.
    pub fn stop(&mut self, role: SyncRole) {
        self.0.retain(|running| running.daemon.role != role);
    }
}
