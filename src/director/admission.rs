//! New connections that workers refuse: what is to be seen of it from outside.

use std::sync::Arc;
use std::time::Duration;

use super::{Director, Level};
use crate::ipvs::admission::AdmissionCounts;
use crate::ipvs::beyond::{Switches, conn_max_of};
use crate::net::time::Instant;

/// During a flood there is one message in so long.
const MESSAGE_PERIOD: Duration = Duration::from_secs(60);
/// Of `conn_max`: from here on the templates of half-open connections end with them.
const TEMPLATES_CROWDED: u64 = 2;

/// What has been said about refused connections.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    reported: AdmissionCounts,
    next: Option<Instant>,
}

impl Director {
    /// The same on a machine with so many bytes of memory, which `conn_max` follows if nobody sets it.
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.conn_max = conn_max_of(bytes);
        self
    }

    /// Puts the number in place of 0.
    pub(super) fn settle_conn_max(&mut self) {
        let switches = &mut Arc::make_mut(&mut self.draft.beyond).switches;
        if switches.conn_max == 0 {
            switches.conn_max = self.conn_max;
        }
    }

    /// Counting templates takes too long for a worker.
    pub(super) fn watch_templates(&self) {
        let limit = u64::from(self.draft.beyond.switches.conn_max);
        let crowded = limit != 0 && self.tables.templates.len() as u64 >= limit / TEMPLATES_CROWDED;
        self.tables.admission.set_templates_crowded(crowded);
    }

    pub(super) fn report_refusals(&mut self, now: Instant) {
        let counts = self.tables.admission.counters.counts();
        let news = counts.since(self.refusals.reported);
        if news == AdmissionCounts::default() || self.refusals.next.is_some_and(|next| now < next) {
            return;
        }
        self.refusals = Refusals { reported: counts, next: Some(now + MESSAGE_PERIOD) };
        for text in messages(news, &self.draft.beyond.switches) {
            self.log(Level::Warn, text);
        }
    }
}

fn messages(news: AdmissionCounts, switches: &Switches) -> Vec<String> {
    let AdmissionCounts { evicted, table_full, source_refused } = news;
    let Switches { conn_max, source_rate, .. } = switches;
    let mut messages = Vec::new();
    if evicted + table_full != 0 {
        messages.push(format!(
            "the connection table is full: {evicted} half-open connections made room for new ones, {table_full} new ones \
             were refused. If this is no flood, raise conn_max in xlvs.toml, or now: xlvs sysctl xlvs.conn_max={}",
            conn_max.saturating_mul(2)
        ));
    }
    if source_refused != 0 {
        messages.push(format!(
            "{source_refused} new connections were refused, because their sources open more than {source_rate} a second. If \
             these are many clients behind one address, raise source_rate in xlvs.toml, or now: xlvs sysctl xlvs.source_rate={}",
            source_rate.saturating_mul(2)
        ));
    }
    messages
}
