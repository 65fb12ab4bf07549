//! How drains end: both ends of connections are asked for what a reset needs, then reset; and what is idle leaves.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::drain::{Cause, Drain};
use super::{Director, Level};
use crate::ipvs::datapath::is_believed;
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// The ends of connections are asked for what a reset needs so long before, and a while longer for each connection.
pub(super) const ASKING_TIME: Duration = Duration::from_secs(1);
const ASKING_RATE: u64 = 4000;

/// When to ask the ends of so many connections that end at a moment.
pub(super) fn asking_time(end: Instant, connections: u64) -> Instant {
    let lead = ASKING_TIME + Duration::from_secs(connections / ASKING_RATE);
    Instant::START + end.saturating_since(Instant::START + lead)
}

impl Director {
    /// Does what is due about all drains: asks, ends, and deletes what has left.
    pub(super) fn end_drains(&mut self, now: Instant) {
        self.forget_undone_drains();
        self.drain_again();
        self.ask_ends(now);
        let due = |drain: &Drain| drain.end.is_some_and(|end| end <= now);
        let servers: HashSet<_> = self
            .drains
            .going
            .iter()
            .filter(|drain| due(drain))
            .map(|drain| Arc::as_ptr(&drain.server))
            .collect();
        let addresses = self.due_addresses(now);
        if !servers.is_empty() || !addresses.is_empty() {
            self.end_connections(now, &servers, &addresses);
        }
        for drain in self.drains.going.iter_mut().filter(|drain| due(drain)) {
            drain.end = None;
        }
        self.let_go(now);
        self.tables.farewells.forget(now);
    }

    /// Whoever got a weight, or is not in the table any more, is not drained.
    fn forget_undone_drains(&mut self) {
        let services = &self.draft.services;
        self.drains.going.retain(|drain| {
            let (service, id) = drain.place();
            let present = services.get(&service).and_then(|service| service.server(id));
            drain.server.is_draining() && present.is_some_and(|present| Arc::ptr_eq(present, &drain.server))
        });
    }

    /// A server that came back into the table while there is an order for it is drained again.
    fn drain_again(&mut self) {
        let services = &self.draft.services;
        let undrained = self.drains.orders.iter().filter_map(|((service, id), order)| {
            let server = services.get(service)?.server(*id)?;
            (!server.is_draining() && server.weight() == 0).then(|| (Arc::clone(server), order.end))
        });
        let undrained: Vec<_> = undrained.collect();
        for (server, end) in undrained {
            // The order has been told; the server may come and go often.
            self.begin_drain(Level::Debug, &server, Cause::Order, end);
            self.end_templates(&[server]);
            self.recall_shortcuts();
        }
    }

    fn ask_ends(&mut self, now: Instant) {
        let mut asked = HashSet::new();
        let addresses = self.addresses_to_ask(now);
        for drain in &mut self.drains.going {
            if drain.asking().is_some_and(|at| at <= now) {
                drain.asked = true;
                if drain.server.total() != 0 {
                    // Their answers take a while, also where there is no time.
                    drain.end = drain.end.map(|end| end.max(now + ASKING_TIME));
                    asked.insert(Arc::as_ptr(&drain.server));
                }
            }
        }
        if asked.is_empty() && addresses.is_empty() {
            return;
        }
        self.tables.connections.for_each(|connection| {
            let at =
                || addresses.contains(&connection.virtual_address().ip()) && !connection.server.is_draining();
            if (asked.contains(&Arc::as_ptr(&connection.server)) || at()) && is_believed(&connection) {
                connection.share().into_iter().for_each(|connection| self.tables.farewells.ask(connection));
            }
        });
    }

    fn end_connections(&mut self, now: Instant, servers: &HashSet<*const RealServer>, addresses: &[IpAddr]) {
        let mut ending = Vec::new();
        self.tables.connections.for_each(|connection| {
            let at = || addresses.contains(&connection.virtual_address().ip());
            if servers.contains(&Arc::as_ptr(&connection.server)) || at() {
                ending.extend(connection.share());
            }
        });
        let mut ended: HashMap<*const RealServer, usize> = HashMap::new();
        for connection in ending {
            let believed = is_believed(&connection);
            if self.tables.connections.remove(&connection) {
                *ended.entry(Arc::as_ptr(&connection.server)).or_default() += 1;
                if believed {
                    self.tables.farewells.reset(connection, now);
                }
            }
        }
        self.tables.templates.end_of(servers);
        let drained = self.drains.going.iter().filter(|drain| servers.contains(&Arc::as_ptr(&drain.server)));
        let told = drained.map(|Drain { server, .. }| {
            let count = ended.get(&Arc::as_ptr(server)).copied().unwrap_or(0);
            format!("drained {} of {}: {count} connections ended", server.id(), server.service())
        });
        let told: Vec<String> = told.collect();
        told.into_iter().for_each(|text| self.log(Level::Info, text));
    }
}
