//! The part of `xlvs.toml` about the failover pair.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::settings::Auto;

/// Longest time for fencing in seconds.
const FENCE_TIMEOUT_MAX: u32 = 300;
/// Longest times of the replica in seconds.
const REPLICA_TIME_MAX: u32 = 3600;

/// `replica`: a switch, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReplicaSwitch {
    /// On or off.
    Switch(bool),
    /// On where both routers must be xlvs: they have a key, and lvs.cf asks for no sync daemon.
    Word(Auto),
}

/// `[pulse]`: what `lvs.cf` cannot say of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PulseSettings {
    /// File with the key of authenticated heartbeats; empty: none, heartbeats are Piranha's.
    pub key_file: PathBuf,
    /// Program with arguments that takes a silent partner off the network; empty: none.
    pub fence: String,
    /// Seconds that it may take.
    pub fence_timeout: u32,
    /// Whether a router whose fencing fails stays inactive and tries again.
    pub fence_required: bool,
    /// Whether the routers keep the same connections by xlvs's own protocol.
    pub replica: ReplicaSwitch,
    /// UDP port of that.
    pub replica_port: u16,
    /// Seconds for which a router that is still being told of connections stays a standby.
    pub replica_wait: u32,
    /// Seconds from one comparison of the connections to the next.
    pub replica_compare: u32,
}

impl Default for PulseSettings {
    fn default() -> Self {
        PulseSettings {
            key_file: PathBuf::new(),
            fence: String::new(),
            fence_timeout: 10,
            fence_required: false,
            replica: ReplicaSwitch::Word(Auto::Auto),
            replica_port: 5390,
            replica_wait: 30,
            replica_compare: 10,
        }
    }
}

impl PulseSettings {
    /// The first key that cannot be used, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let key_file = &self.key_file;
        if !key_file.as_os_str().is_empty() && !key_file.is_absolute() {
            return Some(("key_file", format!("'{}' is not an absolute path", key_file.display())));
        }
        let program = self.fence.split_ascii_whitespace().next();
        if let Some(program) = program.filter(|program| !program.starts_with('/')) {
            return Some(("fence", format!("'{program}' is not an absolute path")));
        }
        if !(1..=FENCE_TIMEOUT_MAX).contains(&self.fence_timeout) {
            let text = format!("{} is not from 1 to {FENCE_TIMEOUT_MAX} seconds", self.fence_timeout);
            return Some(("fence_timeout", text));
        }
        self.replica_fault()
    }

    fn replica_fault(&self) -> Option<(&'static str, String)> {
        if self.replica_port == 0 {
            return Some(("replica_port", "0 is no port".to_owned()));
        }
        if self.replica == ReplicaSwitch::Switch(true) && self.key_file.as_os_str().is_empty() {
            return Some(("replica", "it needs a key_file, the same on both routers".to_owned()));
        }
        let times = [("replica_wait", self.replica_wait, 0), ("replica_compare", self.replica_compare, 1)];
        let (key, seconds, least) =
            times.into_iter().find(|(_, seconds, least)| !(*least..=REPLICA_TIME_MAX).contains(seconds))?;
        Some((key, format!("{seconds} is not from {least} to {REPLICA_TIME_MAX} seconds")))
    }
}
