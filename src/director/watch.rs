//! When changes of files are followed: once they have been left alone for a moment, and once for each content.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::net::time::Instant;

/// How long files have to be left alone. Editors write, rename and touch several times within it.
pub const QUIET: Duration = Duration::from_secs(1);

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// Somebody is writing to it.
    Written,
    /// It is complete: whoever wrote to it has closed it, or another file has taken its place.
    Complete,
    /// It has gone.
    Gone,
}

/// Decides when to read files again. Pure: it is told what happens, and what is in the files.
#[derive(Debug, Default)]
pub struct Watch {
    /// Files that somebody has written to and not closed since.
    open: HashSet<PathBuf>,
    due: Option<Instant>,
    /// What was in the files when they were read last, whatever became of that.
    known: HashMap<PathBuf, Option<u64>>,
}

impl Watch {
    /// These files have been read, with contents that hash to this; `None`: not there.
    pub fn has_read(&mut self, contents: HashMap<PathBuf, Option<u64>>) {
        self.known = contents;
    }

    /// Something has happened to a file.
    pub fn happened(&mut self, now: Instant, file: PathBuf, event: FileEvent) {
        match event {
            FileEvent::Written => drop(self.open.insert(file)),
            FileEvent::Complete | FileEvent::Gone => drop(self.open.remove(&file)),
        }
        self.due = Some(now + QUIET);
    }

    /// When [`Watch::is_time`] is to be asked; never while somebody has a file half written.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.open.is_empty())
    }

    /// Whether the files are to be looked at now.
    pub fn is_time(&mut self, now: Instant) -> bool {
        let due = self.next_deadline().is_some_and(|due| due <= now);
        if due {
            self.due = None;
        }
        due
    }

    /// Whether these contents are news; the same ones are none the next time, be they good or bad.
    pub fn is_news(&mut self, contents: HashMap<PathBuf, Option<u64>>) -> bool {
        let news = self.known != contents;
        self.known = contents;
        news
    }
}
