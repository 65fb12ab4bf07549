//! The daemon's side of the replica: when its thread runs, and for whom.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::heart::Heart;
use super::pair::boot_number;
use super::pair_plan::{ReplicaPlan, read_key};
use super::replica::{ReplicaThread, Reporter, lock};
use crate::config::pair::PulseSettings;
use crate::host::clock::Clock;
use crate::ipvs::replica::{LEAST_LIMIT, Path, Report, Settings, State};
use crate::ipvs::snapshot::Tables;
use crate::pulse::Event;

/// How long the partner may take to acknowledge the last changes before it is told that it may take over.
const FAREWELL: Duration = Duration::from_millis(150);

/// The replica of a router, which runs or not.
pub struct Replicas {
    tables: Arc<Tables>,
    clock: Clock,
    key: Option<Vec<u8>>,
    plan: Option<ReplicaPlan>,
    thread: Option<ReplicaThread>,
    active: bool,
    reporter: Arc<Mutex<Option<Reporter>>>,
}

impl Replicas {
    /// None yet; the error says what is wrong with the key.
    pub fn new(tables: Arc<Tables>, clock: Clock, settings: &PulseSettings) -> Result<Self, String> {
        let key = read_key(settings)?.map(|key| key.bytes().to_vec());
        Ok(Replicas { tables, clock, key, plan: None, thread: None, active: false, reporter: Arc::default() })
    }

    /// Goes by the heart's plan. What cannot be started is no reason to stop.
    pub fn follow(&mut self, heart: &Heart) {
        let plan = heart.plan().replica.clone();
        if plan == self.plan {
            return;
        }
        self.stop();
        self.plan = plan;
        let Some(plan) = &self.plan else { return };
        match self.start(plan, heart) {
            Ok(thread) => {
                thread.set_active(self.active);
                *lock(&self.reporter) = Some(thread.reporter());
                self.thread = Some(thread);
            }
            Err(error) => {
                tracing::error!("connections are not told to the partner: {error}");
                heart.tell(Event::Joining(false));
            }
        }
    }

    fn start(&self, plan: &ReplicaPlan, heart: &Heart) -> std::io::Result<ReplicaThread> {
        let settings = Settings {
            side: plan.side,
            key: self.key.clone().unwrap_or_default(),
            private: plan.ways.iter().any(|way| way.path == Path::Private),
            limit: LEAST_LIMIT,
            silence: plan.silence,
            compare: plan.compare,
        };
        let tell = heart.teller();
        let joining = Box::new(move |joining| tell(Event::Joining(joining)));
        let tables = Arc::clone(&self.tables);
        ReplicaThread::start(tables, self.clock, settings, &plan.ways, boot_number()?, joining)
    }

    /// Says whether this router does the work.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
        self.thread.iter().for_each(|thread| thread.set_active(active));
    }

    /// This router does the work no more: what is left to tell is told first.
    pub async fn leave(&mut self) {
        if let Some(thread) = &self.thread
            && thread.report().state == State::Telling
            && !thread.settle(FAREWELL).await
        {
            tracing::warn!(
                "the partner has not acknowledged all connections within {} ms",
                FAREWELL.as_millis()
            );
        }
        self.set_active(false);
    }

    /// Whether the partner is still being told of all that there is.
    pub fn is_telling_anew(&self) -> bool {
        self.report().is_some_and(|report| report.state == State::Telling && !report.in_sync)
    }

    /// Whether there is nobody who is told, though somebody should be.
    pub fn is_alone(&self) -> bool {
        self.active && self.report().is_some_and(|report| report.state == State::Alone)
    }

    /// For the administrator; `None` if no thread runs.
    pub fn report(&self) -> Option<Report> {
        self.thread.as_ref().map(ReplicaThread::report)
    }

    /// Says to others how far it is, now and later.
    pub fn ask(&self) -> impl Fn() -> Option<Report> + Send + Sync + use<> {
        let reporter = Arc::clone(&self.reporter);
        move || lock(&reporter).as_ref().map(|report| report())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        *lock(&self.reporter) = None;
        self.thread = None;
    }
}
