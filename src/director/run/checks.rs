//! The running health checks, one task each.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::clock::Clock;
use crate::nanny::{self, Check, HealthReport};

/// Starts and stops checks; their reports go to one channel.
#[derive(Debug)]
pub struct Checks {
    clock: Clock,
    reports: mpsc::Sender<HealthReport>,
    running: Vec<(Arc<Check>, JoinHandle<()>)>,
}

impl Checks {
    /// No checks yet.
    pub fn new(clock: Clock, reports: mpsc::Sender<HealthReport>) -> Self {
        Checks { clock, reports, running: Vec::new() }
    }

    /// Starts one.
    pub fn start(&mut self, check: Arc<Check>) {
        let Check { virtual_server, server, endpoint, .. } = &*check;
        tracing::info!("starting LVS client monitor for {virtual_server} -> {endpoint} ({server})");
        if check.assumes_web() {
            tracing::info!("nanny: no monitor configured, assuming web service on port 80: {endpoint}");
        }
        let clock = self.clock;
        let task = tokio::spawn(nanny::run(Arc::clone(&check), move || clock.now(), self.reports.clone()));
        self.running.push((check, task));
    }

    /// Stops one; what it has under way is dropped.
    pub fn stop(&mut self, check: &Arc<Check>) {
        let stopped = self.running.extract_if(.., |(running, _)| Arc::ptr_eq(running, check));
        stopped.for_each(|(_, task)| task.abort());
    }

    /// Stops all.
    pub fn stop_all(&mut self) {
        self.running.drain(..).for_each(|(_, task)| task.abort());
    }
}
