//! Locality-based least-connection with replication: a destination address stays with a set of servers, which grows when
//! they are busy and shrinks when it has not changed for long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::locality::{LocalityCache, is_alive, is_busy, time};
use super::wlc::least_loaded;
use super::{Arrival, Scheduler, least_by_weight};
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// Which servers each destination has.
#[derive(Default)]
pub struct ReplicatedLocality {
    cache: Mutex<LocalityCache<Replicas>>,
}

struct Replicas {
    /// Newest first: a tie goes to the one added last (golden `edits-midcycle-lblcr`).
    servers: Vec<Arc<RealServer>>,
    changed: Instant,
}

impl Replicas {
    /// The least loaded of the set. One that has long been the same loses its most loaded member.
    fn least(&mut self, now: Instant, expiration: Duration) -> Option<Arc<RealServer>> {
        let alive = self.servers.iter().filter(|server| is_alive(server) && !server.is_overloaded());
        let least = least_by_weight(alive, RealServer::overhead).cloned();
        if self.servers.len() > 1 && now.saturating_since(self.changed) > expiration {
            self.drop_most_loaded();
            self.changed = now;
        }
        least
    }

    fn drop_most_loaded(&mut self) {
        let heavier = |server: &RealServer, than: &RealServer| {
            server.overhead() * i64::from(than.weight()) > than.overhead() * i64::from(server.weight())
        };
        let loaded = self.servers.iter().enumerate().filter(|(_, server)| server.weight() > 0);
        let most = loaded.reduce(|most, next| if heavier(next.1, most.1) { next } else { most });
        if let Some((position, _)) = most {
            self.servers.remove(position);
        }
    }

    fn add(&mut self, server: &Arc<RealServer>, now: Instant) {
        if !self.servers.iter().any(|member| Arc::ptr_eq(member, server)) {
            self.servers.insert(0, Arc::clone(server));
            self.changed = now;
        }
    }
}

impl Scheduler for ReplicatedLocality {
    fn schedule(&self, servers: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let (address, now) = (arrival.addressed, arrival.now);
        let expiration = time(arrival.sysctls.lblcr_expiration);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(replicas) = cache.get(address, now, expiration) else {
            let chosen = least_loaded(servers)?;
            let replicas = Replicas { servers: vec![Arc::clone(chosen)], changed: now };
            cache.insert(address, replicas, now);
            return Some(Arc::clone(chosen));
        };
        if let Some(server) = replicas.least(now, expiration)
            && !is_busy(&server, servers)
        {
            return Some(server);
        }
        let chosen = least_loaded(servers)?;
        replicas.add(chosen, now);
        Some(Arc::clone(chosen))
    }
}
