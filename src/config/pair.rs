//! The part of `xlvs.toml` about the failover pair.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest time for fencing in seconds.
const FENCE_TIMEOUT_MAX: u32 = 300;

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
}

impl Default for PulseSettings {
    fn default() -> Self {
        PulseSettings {
            key_file: PathBuf::new(),
            fence: String::new(),
            fence_timeout: 10,
            fence_required: false,
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
        None
    }
}
