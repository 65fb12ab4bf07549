//! The site's files.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::lvs::LvsConfig;
use crate::ipvs::mark::MarkRules;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// `lvs.cf`; `None` to run without one.
    pub lvs: Option<PathBuf>,
    /// Saved iptables rules.
    pub marks: PathBuf,
}

/// What was in them.
#[derive(Debug)]
pub struct Configuration {
    /// `lvs.cf`.
    pub lvs: LvsConfig,
    /// Marks.
    pub marks: Arc<MarkRules>,
    /// Warnings about both, for the log.
    pub warnings: Vec<String>,
}
