//! What workers and director share about new connections that are refused, and about those that made room for others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::ipvs::source_limit::SourceLimit;

/// Shared by all.
#[derive(Debug, Default)]
pub struct Admission {
    /// How fast sources open connections.
    pub sources: SourceLimit,
    /// What has been refused.
    pub counters: AdmissionCounters,
    crowded: AtomicBool,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct AdmissionCounters {
    evicted: AtomicU64,
    table_full: AtomicU64,
    source_refused: AtomicU64,
}

/// What they were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// Half-open connections that made room for others.
    pub evicted: u64,
    /// Packets that opened no connection because the table was full.
    pub table_full: u64,
    /// Packets that opened no connection because their source had opened too many.
    pub source_refused: u64,
}

impl Admission {
    /// Whether there are so many templates that those of half-open connections end with them.
    pub fn are_templates_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_templates_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::Relaxed);
    }
}

impl AdmissionCounters {
    /// One more half-open connection made room.
    pub fn add_evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// One more packet found the table full.
    pub fn add_table_full(&self) {
        self.table_full.fetch_add(1, Ordering::Relaxed);
    }

    /// One more packet came of a source that had opened too many connections.
    pub fn add_source_refused(&self) {
        self.source_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn counts(&self) -> AdmissionCounts {
        AdmissionCounts {
            evicted: self.evicted.load(Ordering::Relaxed),
            table_full: self.table_full.load(Ordering::Relaxed),
            source_refused: self.source_refused.load(Ordering::Relaxed),
        }
    }
}

impl AdmissionCounts {
    /// What has come since they were `before`.
    pub fn since(self, before: AdmissionCounts) -> AdmissionCounts {
        AdmissionCounts {
            evicted: self.evicted - before.evicted,
            table_full: self.table_full - before.table_full,
            source_refused: self.source_refused - before.source_refused,
        }
    }
}
