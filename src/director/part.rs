//! What a configuration does not name any more goes in peace: first nothing new comes to it, then it loses its connections, or
//! these end at a deadline, and last it goes itself: server, service, and the address that they needed until then.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drain::{Cause, Drain, LOOK_PERIOD, Place, Removed};
use super::ending::{ASKING_TIME, asking_time};
use super::event::{Event, Happened};
use super::wanted::{Wanted, WantedAddress};
use super::{Director, Effect, Level};
use crate::ipvs::edit::{Edit, ServiceId};
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// Connections of an address are counted less often where there are many.
const MANY: u64 = 100_000;
const LOOKS_OF_MANY: u32 = 10;

/// A service that is closing.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Closing {
    id: ServiceId,
    name: String,
    held: bool,
}

/// An address that is to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) address: WantedAddress,
    /// The real servers' gateway, which connections do not name.
    gateway: bool,
    end: Option<Instant>,
    held: bool,
    /// Whether the ends of its connections have been asked for their numbers.
    asked: bool,
    /// When to count its connections again.
    next_count: Instant,
}

/// All that is about to go, servers apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parting {
    closing: Vec<Closing>,
    /// Sorry servers that are to leave their services.
    pub(super) sorry: Vec<Place>,
    pub(super) addresses: Vec<Leaving>,
    next_look: Option<Instant>,
}

impl Parting {
    pub(super) fn next(&self) -> Option<Instant> {
        self.next_look
    }
}

/// When connections end of what is removed now: at a moment, or not before a trial is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    At(Instant),
    Held,
}

impl Deadline {
    fn end(self) -> Option<Instant> {
        match self {
            Deadline::At(end) => Some(end),
            Deadline::Held => None,
        }
    }
}

impl Director {
    /// When the connections end of what the configuration loses now.
    pub(super) fn removal_deadline(&self, now: Instant) -> Deadline {
        Deadline::At(now + Duration::from_secs(u64::from(self.draft.beyond.switches.drain_removed)))
    }

    /// Parts with what was wanted and is not any more. Everything new is in the published table by now.
    pub(super) fn part_with(&mut self, former: &Wanted, now: Instant, deadline: Deadline) {
        let mut leaving = Vec::new();
        self.together(|director| {
            for service in &former.services {
                if director.wanted.service(&service.spec.id).is_none() {
                    let stopped = Event::of_virtual(&service.name, Happened::VirtualStopped);
                    director.effects.push(Effect::Event(stopped));
                    leaving.extend(director.close(service.spec.id, &service.name, deadline));
                } else {
                    leaving.extend(director.retire_servers(former, service.spec.id, &service.name));
                }
            }
            for (service, server) in std::mem::take(&mut director.parting.sorry) {
                leaving.extend(director.draft.services.retire_server(&service, server));
            }
            let gone =
                former.addresses.iter().filter(|address| director.wanted.address(address.address).is_none());
            let gone: Vec<_> = gone.map(|address| director.leaving(former, address, now, deadline)).collect();
            director.parting.addresses.extend(gone);
            director.close_addresses();
        });
        for server in &leaving {
            let place = (*server.service(), server.id());
            let (health, reason) = self.unseat(place);
            let removed = Removed { health, reason, held: deadline == Deadline::Held };
            server.retire();
            let end = self.end_of_removed(place, deadline);
            self.begin_drain(Level::Info, server, Cause::Removed(removed), end);
        }
        if deadline != Deadline::Held {
            self.end_templates(&leaving);
        }
        self.recall_shortcuts();
        self.forget_members(former);
    }

    /// When a removed server's connections end. An order to drain it may have made it shorter.
    fn end_of_removed(&self, place: Place, deadline: Deadline) -> Option<Instant> {
        match deadline {
            Deadline::At(end) => Some(self.drains.ordered_end(place).map_or(end, |ordered| ordered.min(end))),
            Deadline::Held => None,
        }
    }

    /// Has servers leave that the file names and the table is not to have.
    pub(super) fn retire(&mut self, now: Instant, places: &[Place]) {
        let deadline = self.removal_deadline(now);
        let leaving: Vec<_> = self.together(|director| {
            let services = &mut director.draft.services;
            places.iter().filter_map(|(service, server)| services.retire_server(service, *server)).collect()
        });
        for server in &leaving {
            server.retire();
            let removed = Removed { health: None, reason: String::new(), held: false };
            self.begin_drain(Level::Info, server, Cause::Removed(removed), deadline.end());
        }
        self.end_templates(&leaving);
        self.recall_shortcuts();
    }

    fn close(&mut self, id: ServiceId, name: &str, deadline: Deadline) -> Vec<Arc<RealServer>> {
        // Somebody may have deleted it by hand.
        if self.draft.services.get(&id).is_none() {
            return Vec::new();
        }
        let closing = Closing { id, name: name.to_owned(), held: deadline == Deadline::Held };
        self.parting.closing.retain(|known| known.id != id);
        self.parting.closing.push(closing);
        self.draft.services.close(&id)
    }

    fn retire_servers(&mut self, former: &Wanted, id: ServiceId, name: &str) -> Vec<Arc<RealServer>> {
        let mut leaving = Vec::new();
        let known = former.service(&id).into_iter().flat_map(|service| &service.servers);
        for server in known.map(|server| server.spec.id) {
            let stands_in = self.sorry_in(&id).is_some_and(|sorry| sorry.id == server);
            if self.wanted.service(&id).is_some_and(|service| service.server(server).is_none()) && !stands_in
            {
                // Somebody may have deleted it by hand.
                leaving.extend(self.draft.services.retire_server(&id, server));
                self.log(Level::Info, format!("server {server} removed from {name}"));
            }
        }
        leaving
    }

    /// Servers that are not wanted any more and have not entered.
    fn forget_members(&mut self, former: &Wanted) {
        for (service, server) in former.servers() {
            let place = (service.spec.id, server.spec.id);
            if self.wanted.service(&place.0).is_none_or(|service| service.server(place.1).is_none()) {
                self.members.remove(&place);
            }
        }
    }

    fn leaving(&self, former: &Wanted, address: &WantedAddress, now: Instant, deadline: Deadline) -> Leaving {
        Leaving {
            address: address.clone(),
            gateway: former.gateway == Some(address.address),
            end: deadline.end(),
            held: deadline == Deadline::Held,
            asked: false,
            next_count: now,
        }
    }

    /// An address that is wanted again stays, or moves from where it still is.
    pub(super) fn take_address_back(&mut self, address: Ipv4Addr) -> Option<WantedAddress> {
        let position =
            self.parting.addresses.iter().position(|leaving| leaving.address.address == address)?;
        Some(self.parting.addresses.remove(position).address)
    }

    /// Has packets know which addresses are about to go.
    pub(super) fn close_addresses(&mut self) {
        let virtual_ones = self.parting.addresses.iter().filter(|leaving| !leaving.gateway);
        self.draft.closed = virtual_ones.map(|leaving| IpAddr::V4(leaving.address.address)).collect();
    }

    /// Virtual addresses whose connections end soon, so that both their ends are to be asked for their numbers.
    pub(super) fn addresses_to_ask(&mut self, now: Instant) -> Vec<IpAddr> {
        let connections = self.tables.connections.len();
        let mut asking = Vec::new();
        for leaving in self.parting.addresses.iter_mut().filter(|leaving| !leaving.asked && !leaving.gateway)
        {
            if leaving.end.is_some_and(|end| asking_time(end, connections) <= now) && connections != 0 {
                leaving.asked = true;
                leaving.end = leaving.end.map(|end| end.max(now + ASKING_TIME));
                asking.push(IpAddr::V4(leaving.address.address));
            }
        }
        asking
    }

    /// Virtual addresses whose connections are to end now.
    pub(super) fn due_addresses(&self, now: Instant) -> Vec<IpAddr> {
        let due = self.parting.addresses.iter().filter(|leaving| !leaving.gateway);
        let due = due.filter(|leaving| leaving.end.is_some_and(|end| end <= now));
        due.map(|leaving| IpAddr::V4(leaving.address.address)).collect()
    }

    /// Lets go of what nothing needs any more.
    pub(super) fn let_go(&mut self, now: Instant) {
        self.let_servers_go();
        self.let_services_go();
        self.let_addresses_go(now);
        let removed = self.drains.going.iter().filter_map(|drain| drain.removed());
        let waits = removed
            .map(|removed| removed.held)
            .chain(self.parting.closing.iter().map(|closing| closing.held));
        let waits = waits.chain(self.parting.addresses.iter().map(|leaving| leaving.held));
        self.parting.next_look = waits.into_iter().any(|held| !held).then(|| now + LOOK_PERIOD);
    }

    fn let_servers_go(&mut self) {
        let idle =
            |drain: &Drain| drain.removed().is_some_and(|removed| !removed.held) && drain.server.total() == 0;
        let gone: Vec<_> = self.drains.going.extract_if(.., |drain| idle(drain)).collect();
        for drain in gone {
            let (service, server) = drain.place();
            self.drains.forget_order((service, server));
            // Whoever deleted it by hand has been faster.
            let _ = self.edit(&Edit::DeleteServer(service, server));
            self.log(Level::Info, format!("server {server} has left {service}"));
        }
    }

    fn let_services_go(&mut self) {
        let services = &self.draft.services;
        self.parting
            .closing
            .retain(|closing| services.get(&closing.id).is_some_and(|service| service.closing));
        let empty = |closing: &Closing| {
            !closing.held && services.get(&closing.id).is_some_and(|service| service.leaving.is_empty())
        };
        let gone: Vec<_> = self.parting.closing.extract_if(.., |closing| empty(closing)).collect();
        for Closing { id, name, .. } in gone {
            // It has been looked at just now.
            let _ = self.edit(&Edit::DeleteService(id));
            self.log(Level::Info, format!("virtual service {name} has ended"));
        }
    }

    fn let_addresses_go(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for index in 0..self.parting.addresses.len() {
            if self.is_left(index, now) {
                gone.push(self.parting.addresses[index].address.address);
            }
        }
        for address in &gone {
            if let Some(address) = self.take_address_back(*address) {
                self.effects.push(Effect::RemoveAddress(address));
            }
        }
        if !gone.is_empty() {
            self.close_addresses();
            self.take_routes();
            self.publish();
        }
    }

    /// Whether nobody needs an address any more. To count its connections takes a look at all that there are.
    fn is_left(&mut self, index: usize, now: Instant) -> bool {
        let Leaving { ref address, gateway, end, held, next_count, .. } = self.parting.addresses[index];
        let ip = IpAddr::V4(address.address);
        let served =
            |closing: &Closing| matches!(closing.id, ServiceId::Address { address, .. } if address == ip);
        if held || self.parting.closing.iter().any(served) {
            return false;
        }
        let connections = &self.tables.connections;
        if connections.is_empty() || end.is_some_and(|end| end <= now) {
            return true;
        }
        if gateway || now < next_count {
            return false;
        }
        let mut used = false;
        connections.for_each(|connection| used |= connection.virtual_address().ip() == ip);
        let looks = if connections.len() > MANY { LOOKS_OF_MANY } else { 1 };
        self.parting.addresses[index].next_count = now + LOOK_PERIOD * looks;
        !used
    }

    /// What a trial held back ends from now on as everything that is removed.
    pub(super) fn release_held(&mut self, deadline: Deadline) {
        let held = |drain: &Drain| drain.removed().is_some_and(|removed| removed.held);
        let places: Vec<Place> =
            self.drains.going.iter().filter(|drain| held(drain)).map(Drain::place).collect();
        let ends: Vec<_> = places.into_iter().map(|place| self.end_of_removed(place, deadline)).collect();
        let mut released = Vec::new();
        for (drain, end) in self.drains.going.iter_mut().filter(|drain| held(drain)).zip(ends) {
            if let Cause::Removed(removed) = &mut drain.cause {
                removed.held = false;
            }
            drain.end = end;
            released.push(Arc::clone(&drain.server));
        }
        self.end_templates(&released);
        self.parting.closing.iter_mut().for_each(|closing| closing.held = false);
        for leaving in self.parting.addresses.iter_mut().filter(|leaving| leaving.held) {
            (leaving.held, leaving.end) = (false, deadline.end());
        }
    }

    /// The end of all that is about to go.
    pub(super) fn close_all(&mut self) {
        for Closing { id, .. } in std::mem::take(&mut self.parting.closing) {
            // Somebody may have deleted it by hand.
            let _ = self.edit(&Edit::DeleteService(id));
        }
    }

    /// All addresses that the director has put on interfaces, those first that are about to go.
    pub(super) fn all_addresses(&self) -> Vec<WantedAddress> {
        let leaving = self.parting.addresses.iter().map(|leaving| leaving.address.clone());
        leaving.chain(self.wanted.addresses.iter().cloned()).collect()
    }
}
