//! The thread that keeps the connections of a pair the same: between the tables and the partner.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::peers::{PeerWay, Peers};
use crate::host::clock::Clock;
use crate::ipvs::replica::{self, Homecoming, Installed, Path, Refusal, Replica, Report, Settings};
use crate::ipvs::snapshot::Tables;
use crate::net::time::Instant;

/// How often an active router looks for changes: so much later the partner hears of one.
const POLL: Duration = Duration::from_millis(5);
/// How soon a thread sees what it is told.
const PATIENCE: Duration = Duration::from_millis(20);
/// Datagrams that are taken in at once.
const AT_ONCE: usize = 256;
/// Longer ones are none of ours.
const DATAGRAM_LEN_MAX: usize = 2048;
/// How long a thread rests when it cannot wait for datagrams.
const PAUSE: Duration = Duration::from_secs(1);

/// Told whether this router would take over less than there is.
pub type Joining = Box<dyn Fn(bool) + Send>;

/// Says how far it is.
pub type Reporter = Box<dyn Fn() -> Report + Send>;

/// What daemon and thread tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    active: AtomicBool,
    /// How often the daemon has asked whether all is acknowledged, and the last of these questions that was answered.
    asked: AtomicU64,
    answered: AtomicU64,
    report: Mutex<Report>,
}

/// The running thread.
pub struct ReplicaThread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl ReplicaThread {
    /// Begins as a standby, by the paths that can be used; `session` is a random number other than 0.
    pub fn start(
        tables: Arc<Tables>,
        clock: Clock,
        settings: Settings,
        ways: &[PeerWay],
        session: u64,
        joining: Joining,
    ) -> io::Result<Self> {
        let now = clock.now();
        let shared = Arc::<Shared>::default();
        let inside = Inside {
            replica: Replica::new(now, settings, session),
            peers: Peers::new(now, ways),
            tables,
            clock,
            shared: Arc::clone(&shared),
            homecoming: Homecoming::default(),
            joining,
            was_joining: false,
            watched: false,
            path: None,
            told_version: false,
        };
        let handle = std::thread::Builder::new().name("xlvs-replica".into()).spawn(|| inside.run())?;
        Ok(ReplicaThread { shared, handle: Some(handle) })
    }

    /// Says whether this router does the work.
    pub fn set_active(&self, active: bool) {
        self.shared.active.store(active, Ordering::SeqCst);
    }

    /// For the administrator.
    pub fn report(&self) -> Report {
        lock(&self.shared.report).clone()
    }

    /// The same for others to ask, now and later.
    pub fn reporter(&self) -> Reporter {
        let shared = Arc::clone(&self.shared);
        Box::new(move || lock(&shared.report).clone())
    }

    /// Waits until the partner has acknowledged all that there is, but no longer than `limit`. False if it has not.
    pub async fn settle(&self, limit: Duration) -> bool {
        let question = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let settled = async {
            while self.shared.answered.load(Ordering::SeqCst) < question {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(limit, settled).await.is_ok()
    }
}

impl Drop for ReplicaThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let Some(handle) = self.handle.take() else { return };
        handle.thread().unpark();
        if handle.join().is_err() {
            tracing::error!("the thread of the replica has panicked");
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Inside {
    replica: Replica,
    tables: Arc<Tables>,
    clock: Clock,
    peers: Peers,
    shared: Arc<Shared>,
    homecoming: Homecoming,
    joining: Joining,
    was_joining: bool,
    watched: bool,
    /// By which path the partner is told.
    path: Option<Path>,
    /// Whether it has been said that the partner speaks another version of the protocol.
    told_version: bool,
}

impl Inside {
    fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.turn();
            let now = self.clock.now();
            let patience = if self.replica.is_telling() { POLL } else { PATIENCE };
            let patience = patience.min(self.replica.next_deadline(now).saturating_since(now));
            let has_work = self.replica.has_work() || self.homecoming.has_work();
            let patience = if has_work { Duration::ZERO } else { patience };
            if let Err(error) = self.peers.wait(patience) {
                tracing::warn!("the partner's connections cannot be received: {error}");
                std::thread::park_timeout(PAUSE);
            }
            Path::ALL.iter().for_each(|path| self.receive_all(*path, &mut buffer));
        }
        self.watch(false);
        self.tables.replication.release(self.clock.now());
    }

    fn turn(&mut self) {
        let question = self.shared.asked.load(Ordering::SeqCst);
        let now = self.clock.now();
        self.peers.bind(now);
        let active = self.shared.active.load(Ordering::SeqCst);
        let takes_over = active && !self.replica.is_active();
        let mut installed = Installed { tables: &self.tables, now };
        if takes_over {
            self.replica.finish(&mut installed);
        } else {
            self.replica.work(&mut installed);
        }
        self.homecoming.work(&self.tables, now);
        self.replica.set_active(now, active);
        self.hold(now);
        if takes_over {
            replica::keep_all(&self.tables);
        }
        self.watch(self.replica.is_telling());
        self.replica.pump(now, &*self.tables);
        for datagram in self.replica.take_outgoing(now) {
            self.peers.send(datagram.path, &datagram.bytes);
        }
        if self.replica.is_settled() && self.tables.replication.waiting() == 0 {
            self.shared.answered.store(question, Ordering::SeqCst);
        }
        let report = self.replica.report(now);
        self.tell_path(report.path);
        *lock(&self.shared.report) = report;
    }

    fn watch(&mut self, watched: bool) {
        if std::mem::replace(&mut self.watched, watched) != watched {
            self.tables.replication.watch(watched);
        }
    }

    fn hold(&mut self, now: Instant) {
        match self.replica.is_holding(now) {
            true => self.tables.replication.hold(),
            false => self.tables.replication.release(now),
        }
        let joining = self.replica.is_joining(now);
        if std::mem::replace(&mut self.was_joining, joining) != joining {
            (self.joining)(joining);
        }
    }

    fn tell_path(&mut self, path: Option<Path>) {
        match std::mem::replace(&mut self.path, path).zip(path) {
            Some((Path::Private, Path::Public)) => {
                tracing::warn!(
                    "the private path to the partner is broken: connections are told by the public one"
                );
            }
            Some((Path::Public, Path::Private)) => {
                tracing::info!("connections are told by the private path to the partner again");
            }
            _ => {}
        }
    }

    fn receive_all(&mut self, path: Path, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let now = self.clock.now();
            let Some((from_partner, bytes)) = self.peers.receive(now, path, buffer) else { break };
            if !from_partner {
                self.replica.refuse(Refusal::Stranger);
                continue;
            }
            let mut installed = Installed { tables: &self.tables, now };
            // It is counted.
            let received = self.replica.receive(now, path, bytes, &mut installed);
            if received == Err(Refusal::Version) && !std::mem::replace(&mut self.told_version, true) {
                tracing::error!(
                    "the partner's xlvs tells of connections by another version of the protocol, which this one does not \
                     understand: until both routers run the same xlvs the connections are lost at a takeover"
                );
            }
        }
    }
}
