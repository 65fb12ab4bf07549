//! What operators decided about servers, in a file that is there after a restart of the daemon, and not after one of the machine.

use std::io;
use std::path::PathBuf;

use crate::director::OverrideRecord;

/// The file.
#[derive(Debug)]
pub struct OverrideFile(PathBuf);

impl OverrideFile {
    /// It need not exist.
    pub fn new(path: PathBuf) -> Self {
        OverrideFile(path)
    }

    /// What an earlier run has kept.
    pub fn read(&self) -> Vec<OverrideRecord> {
        let text = match std::fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => return self.unread(&error),
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| self.unread(&error))
    }

    fn unread(&self, error: &dyn std::error::Error) -> Vec<OverrideRecord> {
        let path = self.0.display();
        tracing::error!("{path}: {error}; servers that were up or down by hand are left to their checks");
        Vec::new()
    }

    /// Keeps this in place of what was kept, all of it or nothing.
    pub fn write(&self, records: &[OverrideRecord]) {
        let draft = self.0.with_extension("new");
        let write = || -> io::Result<()> {
            std::fs::write(&draft, serde_json::to_vec(records)?)?;
            std::fs::rename(&draft, &self.0)
        };
        if let Err(error) = write() {
            let path = self.0.display();
            tracing::warn!("{path}: {error}; after a restart of xlvs the checks of all servers would decide");
        }
    }
}
