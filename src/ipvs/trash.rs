//! Deleted servers to which something may still point. One that is added again goes on with its connections, and who learns of a
//! connection to one that is here already gives it that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// How long a deleted server that nothing points at can still be revived by adding it again.
const TRASH_TIME: Duration = Duration::from_secs(120);

/// A deleted server.
#[derive(Clone, Debug)]
pub struct Trashed {
    /// The server.
    pub server: Arc<RealServer>,
    /// Its service was deleted too, or has been since.
    pub bereft: bool,
    idle_since: Option<Instant>,
}

type Servers = HashMap<ServiceId, HashMap<ServerId, Trashed>>;

/// Deleted servers by service.
#[derive(Debug, Default)]
pub struct Trash(Mutex<Servers>);

impl Trash {
    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a server in.
    pub fn put(&self, server: Arc<RealServer>, bereft: bool) {
        let (service, id) = (*server.service(), server.id());
        let trashed = Trashed { server, bereft, idle_since: None };
        self.servers().entry(service).or_default().insert(id, trashed);
    }

    /// Takes one out.
    pub fn take(&self, service: &ServiceId, server: ServerId) -> Option<Trashed> {
        self.servers().get_mut(service)?.remove(&server)
    }

    /// One that is in.
    pub fn find(&self, service: &ServiceId, server: ServerId) -> Option<Arc<RealServer>> {
        self.servers().get(service)?.get(&server).map(|trashed| Arc::clone(&trashed.server))
    }

    /// The service of some of them has been deleted.
    pub fn bereave(&self, service: &ServiceId) {
        let mut servers = self.servers();
        servers.get_mut(service).into_iter().flat_map(HashMap::values_mut).for_each(|it| it.bereft = true);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Trashed> {
        self.servers().values().flat_map(HashMap::values).cloned().collect()
    }

    /// Frees those that have been idle for long enough.
    pub fn empty(&self, now: Instant) {
        let keep = |trashed: &mut Trashed| {
            if !trashed.server.is_idle() {
                trashed.idle_since = None;
                return true;
            }
            let since = *trashed.idle_since.get_or_insert(now);
            now.saturating_since(since) < TRASH_TIME
        };
        self.servers().retain(|_, servers| {
            servers.retain(|_, trashed| keep(trashed));
            !servers.is_empty()
        });
    }
}
