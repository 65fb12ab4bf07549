//! Locality-based least-connection: a destination address stays with one server until that is busy.

use std::sync::{Arc, Mutex, PoisonError};

use super::locality::{LocalityCache, is_alive, is_busy, time};
use super::wlc::least_loaded;
use super::{Arrival, Scheduler};
use crate::ipvs::server::RealServer;

/// Which server each destination has.
#[derive(Default)]
pub struct Locality {
    cache: Mutex<LocalityCache<Arc<RealServer>>>,
}

impl Scheduler for Locality {
    fn schedule(&self, servers: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let (address, now) = (arrival.addressed, arrival.now);
        let expiration = time(arrival.sysctls.lblc_expiration);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = cache.get(address, now, expiration)
            && is_alive(server)
            && !is_busy(server, servers)
        {
            return Some(Arc::clone(server));
        }
        let chosen = least_loaded(servers)?;
        cache.insert(address, Arc::clone(chosen), now);
        Some(Arc::clone(chosen))
    }
}
