//! Servers that are drained: nothing new comes to them, not by templates either, and at a deadline what they still have ends.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ending::asking_time;
use super::member::State;
use super::protocol::{DrainCause, DrainStatus, Reply};
use super::{Director, Level};
use crate::ipvs::edit::{Edit, Errno, ServerId, ServerSpec, ServiceId};
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// How often it is looked whether a leaving server has become idle.
pub(super) const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A server in a service.
pub(super) type Place = (ServiceId, ServerId);

/// A server that is drained.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) server: Arc<RealServer>,
    pub(super) cause: Cause,
    /// When its connections end.
    pub(super) end: Option<Instant>,
    /// Whether both ends of these have been asked for their numbers.
    pub(super) asked: bool,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Somebody has ordered it.
    Order,
    /// Its weight is 0, and [`crate::ipvs::beyond::Switches::drain_quiesced`] is on.
    Quiesced,
    /// The configuration does not name it any more.
    Removed(Removed),
}

/// What there is to know of a removed server in case it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    /// Its health when it was removed.
    pub(super) health: Option<bool>,
    /// Why.
    pub(super) reason: String,
    /// Whether the removal is on trial, so that nothing of it may be lost.
    pub(super) held: bool,
}

/// What somebody has ordered. It outlives the server's coming and going, and changes of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) end: Option<Instant>,
    /// The weight before, if the server was in the table.
    weight: Option<i32>,
}

/// All that is drained.
#[derive(Debug, Default)]
pub(super) struct Drains {
    pub(super) going: Vec<Drain>,
    pub(super) orders: HashMap<Place, Order>,
}

impl Drain {
    pub(super) fn new(server: &Arc<RealServer>, cause: Cause, end: Option<Instant>) -> Self {
        Drain { server: Arc::clone(server), cause, end, asked: false }
    }

    pub(super) fn place(&self) -> Place {
        (*self.server.service(), self.server.id())
    }

    pub(super) fn removed(&self) -> Option<&Removed> {
        match &self.cause {
            Cause::Removed(removed) => Some(removed),
            Cause::Order | Cause::Quiesced => None,
        }
    }

    /// When to ask the ends of its connections.
    pub(super) fn asking(&self) -> Option<Instant> {
        self.end.filter(|_| !self.asked).map(|end| asking_time(end, u64::from(self.server.total())))
    }

    fn next(&self) -> Option<Instant> {
        self.asking().or(self.end)
    }
}

impl Drains {
    fn of(&self, place: Place) -> Option<&Drain> {
        self.going.iter().find(|drain| drain.place() == place)
    }

    /// Ends the draining of a server that is taken back; what was known of it, if it had been removed.
    pub(super) fn take_back(&mut self, place: Place) -> Option<Removed> {
        let position =
            self.going.iter().position(|drain| drain.place() == place && drain.removed().is_some())?;
        self.going.remove(position).removed().cloned()
    }

    /// When something is to be done about them.
    pub(super) fn next(&self) -> Option<Instant> {
        self.going.iter().filter_map(Drain::next).min()
    }

    /// The order for a server.
    fn order(&self, place: Place) -> Option<Order> {
        self.orders.get(&place).copied()
    }

    /// Whether a server is drained by order.
    pub(super) fn is_ordered(&self, place: Place) -> bool {
        self.orders.contains_key(&place)
    }

    /// When the connections of a server end by order.
    pub(super) fn ordered_end(&self, place: Place) -> Option<Instant> {
        self.order(place)?.end
    }

    /// Somebody has taken the server back, or it has gone for good.
    pub(super) fn forget_order(&mut self, place: Place) -> Option<Order> {
        self.orders.remove(&place)
    }

    /// That was not so after all.
    pub(super) fn restore_order(&mut self, place: Place, order: Order) {
        self.orders.insert(place, order);
    }
}

impl Director {
    /// Drains one server of one service.
    pub(super) fn drain(&mut self, now: Instant, place: Place, deadline: Option<u32>) -> Reply {
        match self.order_drain(now, place, deadline) {
            Ok(status) => Reply::Text(format!(
                "draining {} of {}: {} connections{}",
                status.server,
                status.service,
                status.left,
                deadline.map_or(String::new(), |seconds| format!(", which end after {seconds} s"))
            )),
            Err(reply) => reply,
        }
    }

    /// Drains a server in all its services, or in one.
    pub(super) fn drain_named(
        &mut self,
        now: Instant,
        name: &str,
        service: Option<&ServiceId>,
        deadline: Option<u32>,
    ) -> Reply {
        let places = match self.places_of(name, service) {
            Ok(places) => places,
            Err(why) => return Reply::Failed(why),
        };
        let mut begun = Vec::new();
        for place in places {
            match self.order_drain(now, place, deadline) {
                Ok(status) => begun.push(status),
                Err(reply) => return reply,
            }
        }
        Reply::Drains(begun)
    }

    /// Takes a server back into service in all its services, or in one.
    pub(super) fn undo_drains(&mut self, name: &str, service: Option<&ServiceId>) -> Reply {
        let places = match self.places_of(name, service) {
            Ok(places) => places,
            Err(why) => return Reply::Failed(why),
        };
        let mut told = Vec::new();
        for (service, server) in places {
            let Some((order, present)) = self.undo_order((service, server)) else { continue };
            if let Some(present) = present
                && let Err(errno) = self.give_weight_back((service, server), present, order)
            {
                return Reply::Refused(errno);
            }
            let text = format!("{server} of {service} takes new connections again");
            self.log(Level::Info, text.clone());
            told.push(text);
        }
        match told.is_empty() {
            true => Reply::Failed(format!("{name} is not drained by anybody's order; see xlvs status")),
            false => Reply::Text(told.join("\n")),
        }
    }

    /// Ends an order. What there was; and the server, if it was drained by it and is still to get a weight.
    pub(super) fn undo_order(&mut self, place: Place) -> Option<(Order, Option<ServerSpec>)> {
        let order = self.drains.orders.remove(&place)?;
        self.drains.going.retain(|drain| drain.place() != place || drain.removed().is_some());
        let (service, server) = place;
        let staying = self.draft.services.get(&service).filter(|found| !found.is_leaving(server));
        let present = staying.and_then(|found| found.server(server)).filter(|present| present.is_draining());
        // Weight 0 would not end it.
        present.into_iter().for_each(|present| present.end_drain());
        Some((order, present.map(|present| present.spec())))
    }

    /// The weight that its state, the hand or the file gives it, else the one that it had.
    fn give_weight_back(&mut self, place: Place, present: ServerSpec, order: Order) -> Result<(), Errno> {
        if self.members.contains_key(&place) {
            return self.settle(place);
        }
        let spec = ServerSpec { weight: order.weight.unwrap_or(1), ..present };
        self.edit(&Edit::EditServer(place.0, spec))
    }

    /// Where a server is: by its address, with or without a port, or by its name in the file.
    fn places_of(&self, name: &str, only: Option<&ServiceId>) -> Result<Vec<Place>, String> {
        let fits = |server: ServerId, known: Option<&str>| {
            known == Some(name)
                || name.parse().is_ok_and(|address: IpAddr| address == server.address)
                || name.parse() == Ok(SocketAddr::new(server.address, server.port))
        };
        let present = self.draft.services.iter().flat_map(|service| service.all_servers());
        let present = present.map(|server| (*server.service(), server.id(), None));
        let wanted = self.wanted.servers();
        let wanted = wanted.map(|(service, server)| (service.spec.id, server.spec.id, Some(&*server.name)));
        let mut seen = HashSet::new();
        let places = wanted.chain(present).filter(|(_, server, known)| fits(*server, *known));
        let places = places.map(|(service, server, _)| (service, server));
        let places = places.filter(|(service, _)| only.is_none_or(|only| only == service));
        let places: Vec<Place> = places.filter(|place| seen.insert(*place)).collect();
        match places.is_empty() {
            true => Err(format!(
                "there is no server {name}{}: neither one of that name in lvs.cf nor one of that address in the table",
                only.map_or(String::new(), |only| format!(" of {only}"))
            )),
            false => Ok(places),
        }
    }

    fn order_drain(
        &mut self,
        now: Instant,
        place: Place,
        deadline: Option<u32>,
    ) -> Result<DrainStatus, Reply> {
        let (service, server) = place;
        let wanted = self.wanted.service(&service).and_then(|service| service.server(server)).is_some();
        let present = self.draft.services.get(&service).and_then(|found| found.server(server)).cloned();
        if !wanted && present.is_none() {
            let why = match self.draft.services.get(&service) {
                None => format!("there is no service {service}"),
                Some(_) => format!("{service} has no server {server}"),
            };
            return Err(Reply::Failed(why));
        }
        let end = deadline.map(|seconds| now + Duration::from_secs(u64::from(seconds)));
        let weight = match self.drains.order(place) {
            Some(former) => former.weight,
            None => present.as_ref().map(|present| present.weight()),
        };
        let is_leaving = self.drains.of(place).is_some_and(|drain| drain.removed().is_some());
        if let Some(present) = present.as_ref().filter(|_| !is_leaving) {
            let edit = Edit::EditServer(service, ServerSpec { weight: 0, ..present.spec() });
            self.edit(&edit).map_err(Reply::Refused)?;
        }
        self.drains.orders.insert(place, Order { end, weight });
        match present {
            Some(present) if is_leaving => {
                // It is drained as it is; an order may make it shorter.
                let drain = self.drains.going.iter_mut().find(|drain| drain.place() == place);
                if let Some(drain) = drain {
                    drain.end = drain.end.into_iter().chain(end).min();
                }
                Ok(self.status_of(now, &present, DrainCause::Order, end))
            }
            Some(present) => {
                self.begin_drain(Level::Info, &present, Cause::Order, end);
                self.end_templates(std::slice::from_ref(&present));
                self.recall_shortcuts();
                Ok(self.status_of(now, &present, DrainCause::Order, end))
            }
            None => {
                self.log(Level::Info, format!("draining {server} of {service}, which is down"));
                Ok(self.status_without(now, place, DrainCause::Order, end))
            }
        }
    }

    /// The edit as it is to be made: a server that is drained by order gets weight 0, whoever edits it. A hand that gives it
    /// another weight has ended the order before.
    pub(super) fn edit_as_ordered<'a>(&self, edit: &'a Edit) -> Cow<'a, Edit> {
        match edit {
            Edit::AddServer(id, spec) if self.drains.order((*id, spec.id)).is_some() => {
                Cow::Owned(Edit::AddServer(*id, self.as_ordered(*id, spec.clone())))
            }
            Edit::EditServer(id, spec) if self.drains.order((*id, spec.id)).is_some() => {
                Cow::Owned(Edit::EditServer(*id, self.as_ordered(*id, spec.clone())))
            }
            other => Cow::Borrowed(other),
        }
    }

    /// A server as the director is to put it into the table: with weight 0 if it is drained by order.
    pub(super) fn as_ordered(&self, service: ServiceId, spec: ServerSpec) -> ServerSpec {
        match self.drains.order((service, spec.id)) {
            Some(_) => ServerSpec { weight: 0, ..spec },
            None => spec,
        }
    }

    /// Templates are the caller's to end.
    pub(super) fn begin_drain(
        &mut self,
        level: Level,
        server: &Arc<RealServer>,
        cause: Cause,
        end: Option<Instant>,
    ) {
        server.drain();
        self.drains.going.retain(|known| !Arc::ptr_eq(&known.server, server));
        self.drains.going.push(Drain::new(server, cause, end));
        self.log(level, format!("draining {} of {}", server.id(), server.service()));
    }

    /// Begins with every server that has got weight 0, if asked to.
    pub(super) fn drain_quiesced(&mut self, now: Instant) {
        let switches = self.draft.beyond.switches;
        if !switches.drain_quiesced {
            return;
        }
        let servers = self.draft.services.iter().flat_map(|service| &service.servers);
        let quiesced = servers.filter(|server| server.weight() == 0 && !server.is_draining());
        let quiesced: Vec<_> = quiesced.cloned().collect();
        let seconds = Duration::from_secs(u64::from(switches.drain_deadline));
        let end = (switches.drain_deadline != 0).then(|| now + seconds);
        for server in &quiesced {
            // What its check does has been told, as often as that is to be told.
            let seat = self.members.get(&(*server.service(), server.id()));
            let is_down = seat.is_some_and(|seat| seat.member.state() == State::Down);
            self.begin_drain(if is_down { Level::Debug } else { Level::Info }, server, Cause::Quiesced, end);
        }
        self.end_templates(&quiesced);
        if !quiesced.is_empty() {
            self.recall_shortcuts();
        }
    }

    /// Ends the templates of servers that are drained.
    pub(super) fn end_templates(&self, servers: &[Arc<RealServer>]) {
        self.tables.templates.end_of(&servers.iter().map(Arc::as_ptr).collect());
    }

    /// From now on packets of drained servers come by the engine, which notes what their ends await.
    pub(super) fn recall_shortcuts(&mut self) {
        if self.tables.connections.shortcuts().is_some() {
            self.store();
        }
    }

    /// Everything that is drained.
    pub(super) fn drain_statuses(&self, now: Instant) -> Vec<DrainStatus> {
        let going = self.drains.going.iter().map(|drain| {
            let cause = match &drain.cause {
                Cause::Order => DrainCause::Order,
                Cause::Quiesced => DrainCause::Quiesced,
                Cause::Removed(Removed { held: false, .. }) => DrainCause::Removed,
                Cause::Removed(Removed { held: true, .. }) => DrainCause::OnTrial,
            };
            self.status_of(now, &drain.server, cause, drain.end)
        });
        let waiting = self.drains.orders.iter().filter(|(place, _)| self.drains.of(**place).is_none());
        let waiting =
            waiting.map(|(place, order)| self.status_without(now, *place, DrainCause::Order, order.end));
        let mut statuses: Vec<_> = going.chain(waiting).collect();
        statuses.sort_by_key(|status| (status.service.to_string(), status.server.to_string()));
        statuses
    }

    fn status_of(
        &self,
        now: Instant,
        server: &RealServer,
        cause: DrainCause,
        end: Option<Instant>,
    ) -> DrainStatus {
        let left = server.total();
        DrainStatus { left, ..self.status_without(now, (*server.service(), server.id()), cause, end) }
    }

    fn status_without(
        &self,
        now: Instant,
        (service, server): Place,
        cause: DrainCause,
        end: Option<Instant>,
    ) -> DrainStatus {
        let ends_in = end.map(|end| end.saturating_since(now).as_millis().div_ceil(1000) as u64);
        DrainStatus { service, server, cause, left: 0, ends_in }
    }
}
