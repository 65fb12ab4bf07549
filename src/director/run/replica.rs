//! The thread that keeps the connections of a pair the same: between the tables and the partner.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::host::clock::Clock;
use crate::host::peer::PeerSocket;
use crate::ipvs::replica::{self, Installed, Refusal, Replica, Report, Settings};
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
/// How long a thread rests after an error of its socket, such as an address that is gone.
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
    /// Binds `here` and begins as a standby; `session` is a random number other than 0.
    pub fn start(
        tables: Arc<Tables>,
        clock: Clock,
        settings: Settings,
        (here, there): (SocketAddr, SocketAddr),
        session: u64,
        joining: Joining,
    ) -> io::Result<Self> {
        let socket = PeerSocket::bind(here, there)?;
        let shared = Arc::<Shared>::default();
        let inside = Inside {
            replica: Replica::new(clock.now(), settings, session),
            tables,
            clock,
            socket,
            shared: Arc::clone(&shared),
            joining,
            was_joining: false,
            watched: false,
            fine: true,
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
    socket: PeerSocket,
    shared: Arc<Shared>,
    joining: Joining,
    was_joining: bool,
    watched: bool,
    fine: bool,
}

impl Inside {
    fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.turn();
            let now = self.clock.now();
            let patience = if self.replica.is_telling() { POLL } else { PATIENCE };
            let patience = patience.min(self.replica.next_deadline(now).saturating_since(now));
            let received = self.socket.wait(patience).and_then(|()| self.receive_all(&mut buffer));
            if let Err(error) = received {
                tracing::warn!("the partner's connections cannot be received: {error}");
                std::thread::park_timeout(PAUSE);
            }
        }
        self.watch(false);
        self.tables.replication.release(self.clock.now());
    }

    fn turn(&mut self) {
        let question = self.shared.asked.load(Ordering::SeqCst);
        let now = self.clock.now();
        let active = self.shared.active.load(Ordering::SeqCst);
        let takes_over = active && !self.replica.is_active();
        self.replica.set_active(now, active);
        self.hold(now);
        if takes_over {
            replica::keep_all(&self.tables);
        }
        self.watch(self.replica.is_telling());
        self.replica.pump(now, &*self.tables);
        for bytes in self.replica.take_outgoing(now) {
            self.send(&bytes);
        }
        if self.replica.is_settled() && self.tables.replication.waiting() == 0 {
            self.shared.answered.store(question, Ordering::SeqCst);
        }
        *lock(&self.shared.report) = self.replica.report(now);
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

    fn send(&mut self, bytes: &[u8]) {
        let sent = self.socket.send(bytes);
        // What does not leave now is sent again.
        if let Err(error) = &sent
            && self.fine
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::warn!("the partner cannot be told of connections: {error}");
        }
        self.fine = sent.is_ok();
    }

    fn receive_all(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            let Some((from_partner, bytes)) = self.socket.receive(buffer)? else { break };
            if !from_partner {
                self.replica.refuse(Refusal::Stranger);
                continue;
            }
            let now = self.clock.now();
            let mut installed = Installed { tables: &self.tables, now };
            // It is counted.
            let _ = self.replica.receive(now, bytes, &mut installed);
        }
        Ok(())
    }
}
