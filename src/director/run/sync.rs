//! The threads of the synchronisation daemons: between the workers' queues and the network.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::heart::AskSync;
use super::replicas::Replicas;
use crate::host::multicast::{Group, GroupReceiver, GroupSender};
use crate::ipvs::replica::{self, State};
use crate::ipvs::snapshot::Tables;
use crate::ipvs::sync::{Running, SyncRole};
use crate::pulse::SyncReport;

/// How soon a thread sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a thread rests after an error of its sockets, such as an interface that is gone.
const PAUSE: Duration = Duration::from_secs(1);

struct SyncThread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// The threads that run, one a role.
pub struct SyncThreads {
    tables: Arc<Tables>,
    threads: HashMap<SyncRole, SyncThread>,
}

impl SyncThreads {
    /// None.
    pub fn new(tables: Arc<Tables>) -> Self {
        SyncThreads { tables, threads: HashMap::new() }
    }

    /// Opens a daemon's sockets and starts its thread; the error says what is wrong and what to do.
    pub fn start(&mut self, running: &Running, buffer: usize) -> Result<(), String> {
        let role = running.daemon.role;
        self.stop(role);
        let started = self.try_start(running, buffer);
        let started = started.map_err(|error| explain(running, &error))?;
        self.threads.insert(role, started);
        Ok(())
    }

    fn try_start(&self, running: &Running, buffer: usize) -> io::Result<SyncThread> {
        let daemon = &running.daemon;
        let group = Group {
            interface: daemon.interface.clone(),
            address: daemon.group.ok_or(io::ErrorKind::InvalidInput)?,
            port: daemon.port,
            ports: running.ports,
            buffer,
        };
        let stop = Arc::<AtomicBool>::default();
        let (order, tables) = (Arc::clone(&stop), Arc::clone(&self.tables));
        let thread = std::thread::Builder::new();
        let handle = match daemon.role {
            SyncRole::Master => {
                let sender = GroupSender::open(&group, daemon.ttl)?;
                // What is left of one that ran before is old.
                while tables.sync.outgoing().try_recv().is_ok() {}
                thread.name("xlvs-sync-out".into()).spawn(move || send_all(&tables, &sender, &order))?
            }
            SyncRole::Backup => {
                let receiver = GroupReceiver::open(&group)?;
                let longest = usize::from(daemon.max_len);
                let run = move || receive_all(&tables, &receiver, longest, &order);
                thread.name("xlvs-sync-in".into()).spawn(run)?
            }
        };
        Ok(SyncThread { stop, handle })
    }

    /// Ends the thread of a role, if there is one.
    pub fn stop(&mut self, role: SyncRole) {
        let Some(SyncThread { stop, handle }) = self.threads.remove(&role) else { return };
        stop.store(true, Ordering::Relaxed);
        handle.thread().unpark();
        if handle.join().is_err() {
            tracing::error!("the thread of the {} sync daemon has panicked", role.name());
        }
    }

    /// Ends all.
    pub fn stop_all(&mut self) {
        [SyncRole::Master, SyncRole::Backup].into_iter().for_each(|role| self.stop(role));
    }
}

/// Tells how the synchronisation is.
pub fn reporter(tables: &Arc<Tables>, replicas: &Replicas) -> AskSync {
    let (tables, replica) = (Arc::clone(tables), replicas.ask());
    Arc::new(move || match replica() {
        Some(report) => Some(report_replica(&report, &tables)),
        None => report(&tables),
    })
}

fn report_replica(report: &replica::Report, tables: &Tables) -> SyncReport {
    let refused: u64 = report.refused.iter().map(|(_, count)| count).sum();
    let sends = report.state == State::Telling;
    let is_known = matches!(report.state, State::Telling | State::Told);
    SyncReport {
        by: "xlvs".to_owned(),
        sends,
        connections: tables.connections.len(),
        messages: if sends { report.sent } else { report.received },
        failed: report.records_refused + refused,
        in_sync: is_known.then_some(report.in_sync),
        lag_ms: sends.then_some(report.lag_ms),
    }
}

fn report(tables: &Tables) -> Option<SyncReport> {
    let snapshot = tables.snapshot.load();
    if snapshot.sync.is_empty() {
        return None;
    }
    let counts = tables.sync.counts();
    let sends = snapshot.sync.get(SyncRole::Master).is_some();
    let refused: u64 = counts.refused.iter().map(|(_, count)| count).sum();
    let (messages, failed) = if sends {
        (counts.messages_sent, counts.queue_full + counts.send_errors)
    } else {
        (counts.messages_received, counts.lost + refused)
    };
    let connections = tables.connections.len();
    Some(SyncReport {
        by: "ipvs".to_owned(),
        sends,
        connections,
        messages,
        failed,
        in_sync: None,
        lag_ms: None,
    })
}

fn explain(running: &Running, error: &io::Error) -> String {
    let (role, interface) = (running.daemon.role.name(), &running.daemon.interface);
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable => ": give the interface an IPv4 address first",
        _ => "",
    };
    format!("cannot start the {role} sync daemon on {interface}: {error}{remedy}")
}

fn send_all(tables: &Tables, sender: &GroupSender, stop: &AtomicBool) {
    let mut fine = true;
    while !stop.load(Ordering::Relaxed) {
        let Ok(posted) = tables.sync.outgoing().recv_timeout(PATIENCE) else { continue };
        let sent = sender.send(posted.port, &posted.bytes);
        tables.sync.count_sent(sent.is_ok());
        if let Err(error) = &sent
            && fine
        {
            tracing::warn!("a sync message cannot be sent: {error}");
        }
        fine = sent.is_ok();
    }
}

fn receive_all(tables: &Tables, receiver: &GroupReceiver, longest: usize, stop: &AtomicBool) {
    let mut buffer = vec![0; longest];
    while !stop.load(Ordering::Relaxed) {
        let received = receiver.receive(PATIENCE, &mut buffer, |bytes| tables.sync.receive(bytes.to_vec()));
        if let Err(error) = received {
            tracing::warn!("sync messages cannot be received: {error}");
            std::thread::park_timeout(PAUSE);
        }
    }
}
