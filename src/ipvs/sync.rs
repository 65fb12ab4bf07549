//! Synchronisation daemons as they were asked for (ipvs.md section 7.1). Nothing is sent or received yet.

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

/// The daemons that run: at most one of each role, the master first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncDaemons(Vec<SyncDaemon>);

impl SyncDaemons {
    /// The one of a role.
    pub fn get(&self, role: SyncRole) -> Option<&SyncDaemon> {
        self.0.iter().find(|daemon| daemon.role == role)
    }

    /// All that run.
    pub fn iter(&self) -> impl Iterator<Item = &SyncDaemon> {
        self.0.iter()
    }

    /// One more, in place of one of the same role.
    pub fn start(&mut self, daemon: SyncDaemon) {
        self.stop(daemon.role);
        self.0.push(daemon);
        self.0.sort_by_key(|daemon| daemon.role);
    }

    /// One less.
    pub fn stop(&mut self, role: SyncRole) {
        self.0.retain(|daemon| daemon.role != role);
    }
}
