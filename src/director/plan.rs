//! What a new configuration would do, before it does it: services and servers that come, change and go, and what becomes of
//! their connections. [`Director::forecast`] looks at the director and is quick; [`Forecast::count`] looks at all connections and
//! templates, and needs no director.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Director;
use super::member::{Input, Member, Place, State};
use super::wanted::{Wanted, WantedServer, WantedService};
use crate::config::lvs::LvsConfig;
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::{ServerSpec, ServiceId};
use crate::ipvs::mark::MarkRules;
use crate::ipvs::persistence::{PersistenceTemplate, Walk};
use crate::ipvs::server::RealServer;
use crate::ipvs::snapshot::Tables;
use crate::nanny::Check;

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It comes.
    Added,
    /// It stays, otherwise.
    Changed,
    /// It goes.
    Removed,
}

/// What becomes of connections and templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toll {
    /// Connections that go on.
    pub kept: u64,
    /// Connections that go on until the deadline of what is removed.
    pub drained: u64,
    /// Connections that end at once.
    pub broken: u64,
    /// Persistence templates that end.
    pub templates: u64,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happens.
    pub step: Step,
    /// To what, such as `server 10.8.8.33:80 of FWM 80`.
    pub subject: String,
    /// What it is like now, if it is there.
    pub from: Option<String>,
    /// What it is like afterwards, if it is there.
    pub to: Option<String>,
    /// What it costs.
    pub toll: Toll,
}

/// All that a configuration would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Changes: services with their servers in the order of the file, then the rest.
    pub changes: Vec<Change>,
    /// All together, connections that no change concerns included.
    pub total: Toll,
    /// Of the connections that are kept, those that are drained already, for other reasons.
    pub draining: u64,
    /// Seconds until the connections of what is removed end; 0: at once.
    pub deadline: u32,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Kept,
    /// It goes on until the deadline.
    Drained,
    /// It ends at once.
    Broken,
}

/// What happens to a server.
#[derive(Clone, Copy, Debug)]
struct Concern {
    change: usize,
    fate: Fate,
    ends_templates: bool,
}

/// A plan without its numbers, and how to come by them.
#[derive(Debug)]
pub struct Forecast {
    plan: Plan,
    /// Servers by their place in memory, where `servers` keeps them.
    by_server: HashMap<usize, Concern>,
    /// The change that takes a virtual address away.
    by_address: HashMap<IpAddr, usize>,
    /// Services whose templates are not found any more.
    forgetful: HashMap<ServiceId, usize>,
    /// What connections of removed things come to.
    removal: Fate,
    servers: Vec<Arc<RealServer>>,
}

impl Director {
    /// What this configuration would do to what there is now. With `None` the marks stay as they are.
    pub fn forecast(&self, config: &LvsConfig, marks: Option<&MarkRules>) -> Forecast {
        let mut next = Wanted::new(config);
        next.adopt_checks(&self.wanted);
        let deadline = self.draft.beyond.switches.drain_removed;
        let mut forecast = Forecast {
            plan: Plan { deadline, ..Plan::default() },
            by_server: HashMap::new(),
            by_address: HashMap::new(),
            forgetful: HashMap::new(),
            removal: if deadline == 0 { Fate::Broken } else { Fate::Drained },
            servers: Vec::new(),
        };
        for service in &next.services {
            self.foresee_service(&mut forecast, service);
        }
        for service in &self.wanted.services {
            if next.service(&service.spec.id).is_none() {
                self.foresee_end(&mut forecast, service);
            }
        }
        self.foresee_rest(&mut forecast, &next, marks);
        forecast
    }

    fn foresee_service(&self, forecast: &mut Forecast, service: &WantedService) {
        let id = service.spec.id;
        let present = self.draft.services.get(&id);
        let from = present.filter(|present| !present.closing).map(|present| present.spec.terms());
        let subject = format!("virtual {} ({id})", service.name);
        let change = forecast.note(subject, from, Some(service.spec.terms()));
        if let (Some(change), Some(present)) = (change, present) {
            let keys = |persistence: Option<crate::ipvs::edit::Persistence>| persistence.map(|it| it.mask);
            if present.spec.persistence.is_some()
                && keys(present.spec.persistence) != keys(service.spec.persistence)
            {
                forecast.forgetful.insert(id, change);
            }
        }
        for server in &service.servers {
            self.foresee_server(forecast, service, server);
        }
        self.foresee_sorry(forecast, service);
        let known = self.wanted.service(&id).into_iter().flat_map(|known| &known.servers);
        for server in known.filter(|server| service.server(server.spec.id).is_none()) {
            let staying = present.filter(|present| !present.is_leaving(server.spec.id));
            let present = staying.and_then(|present| present.server(server.spec.id));
            let sorry = service.sorry.as_ref().filter(|sorry| sorry.id == server.spec.id);
            if let (Some(sorry), Some(present)) = (sorry.filter(|_| !self.will_serve(service)), present) {
                let terms = [present.spec().terms(), sorry.terms()].map(Some);
                let [from, to] = terms;
                if let Some(change) = forecast.note(format!("server {} of {id}", server.spec.id), from, to) {
                    forecast.concern(present, change, Fate::Kept, false);
                }
                continue;
            }
            let from = present.map_or("not in the table".into(), |present| present.spec().terms());
            let change = forecast.note(format!("server {} of {id}", server.spec.id), Some(from), None);
            if let (Some(change), Some(present)) = (change, present) {
                forecast.part_with(present, change);
            }
        }
    }

    fn foresee_server(&self, forecast: &mut Forecast, service: &WantedService, server: &WantedServer) {
        let id = service.spec.id;
        let found = self.draft.services.get(&id);
        let present = found.and_then(|found| found.server(server.spec.id));
        let staying = present.filter(|_| found.is_some_and(|found| !found.is_leaving(server.spec.id)));
        let known = self.wanted.service(&id).and_then(|known| known.server(server.spec.id));
        let to = self.foreseen_spec(service, server, present.is_some());
        let from = staying.map(|staying| staying.spec().terms());
        let text = match &to {
            Some(spec) => Some(spec.terms()),
            None if known.is_some() && staying.is_none() => None,
            None => Some(format!("{}, when its check succeeds", server.spec.terms())),
        };
        let subject = format!("server {} of {id}", server.spec.id);
        let is_waiting = known.is_some() && staying.is_none() && to.is_none();
        let change = if is_waiting { None } else { forecast.note(subject, from, text) };
        if let (Some(change), Some(present)) = (change, present) {
            let drains = self.draft.beyond.switches.drain_quiesced
                && staying.is_some_and(|staying| !staying.is_draining())
                && to.as_ref().is_some_and(|spec| spec.weight == 0);
            // Without a deadline only its templates end.
            let fate = match (&to, drains, self.draft.beyond.switches.drain_deadline) {
                // It is down, and nothing keeps it in the table any more.
                (None, ..) => Fate::Broken,
                (Some(_), true, 1..) => Fate::Drained,
                _ => Fate::Kept,
            };
            forecast.concern(present, change, fate, drains);
        }
        if known.is_some_and(|known| !Arc::ptr_eq(&known.check, &server.check)) {
            let subject = format!("health check of {} in virtual {}", server.spec.id, service.name);
            forecast.note(subject, Some("as it is".into()), Some("started anew".into()));
        }
    }

    /// How a server will be in the table; `None` if it is not there before its check has succeeded. One that enters is foreseen
    /// with its full weight.
    fn foreseen_spec(
        &self,
        service: &WantedService,
        server: &WantedServer,
        present: bool,
    ) -> Option<ServerSpec> {
        let place = (service.spec.id, server.spec.id);
        let member = self.foreseen_member(service, server);
        let spec = match member.place() {
            Place::Present(spec) if self.members.contains_key(&place) => spec,
            Place::Present(_) if member.state() == State::Up => member.full().clone(),
            Place::Present(spec) => spec,
            Place::Absent if present && member.state() == State::Unknown => server.spec.clone(),
            Place::Absent => return None,
        };
        Some(self.as_ordered(place.0, spec))
    }

    /// What will be known of a server right after the change.
    fn foreseen_member(&self, service: &WantedService, server: &WantedServer) -> Member {
        let place = (service.spec.id, server.spec.id);
        let terms = self.terms(service, server);
        let told = |up| Input::Health { up, reason: String::new() };
        let mut member = match self.members.get(&place) {
            Some(seat) => {
                let mut member = seat.member.clone();
                member.handle(self.now, Input::Terms(terms));
                member
            }
            None => {
                let mut member = Member::new(self.now, terms);
                if self.is_leaving(&place.0, place.1) {
                    member = member.found_in_table();
                }
                let removed = self.drains.going.iter().find(|drain| drain.place() == place);
                if let Some(up) = removed.and_then(|drain| drain.removed()?.health) {
                    member.handle(self.now, told(up));
                }
                if let Some(known) = self.overrides.iter().find(|known| known.is_of(service, server)) {
                    member.handle(self.now, Input::Override(known.to));
                }
                member
            }
        };
        let known = self.wanted.service(&place.0).and_then(|known| known.server(place.1));
        if known.is_none_or(|known| !Arc::ptr_eq(&known.check, &server.check))
            && let Some(up) = self.said_by(&server.check)
        {
            member.handle(self.now, told(up));
        }
        member
    }

    /// What a running check has said; `None` if nothing yet, or if it does not run.
    fn said_by(&self, check: &Arc<Check>) -> Option<bool> {
        let (known, same) = self.wanted.servers().find(|(_, known)| Arc::ptr_eq(&known.check, check))?;
        match self.members.get(&(known.spec.id, same.spec.id))?.member.health() {
            State::Unknown => None,
            health => Some(health == State::Up),
        }
    }

    fn will_serve(&self, service: &WantedService) -> bool {
        service.servers.iter().any(|server| self.foreseen_member(service, server).state() == State::Up)
    }

    /// A sorry server that stands in: it is drained if the file does not name it any more, and cut off if a server takes over.
    fn foresee_sorry(&self, forecast: &mut Forecast, service: &WantedService) {
        let id = service.spec.id;
        let own = self.sorry_in(&id).filter(|own| service.server(own.id).is_none());
        let present = own.and_then(|own| self.draft.services.get(&id)?.server(own.id));
        let Some(present) = present else { return };
        let is_named = service.sorry.as_ref().is_some_and(|sorry| sorry.id == present.id());
        let takes_over = self.will_serve(service);
        if is_named && !takes_over {
            return;
        }
        let subject = format!("sorry server {} of {id}", present.id());
        let Some(change) = forecast.note(subject, Some(present.spec().terms()), None) else { return };
        let fate = if takes_over { Fate::Broken } else { forecast.removal };
        forecast.concern(present, change, fate, true);
    }

    fn foresee_end(&self, forecast: &mut Forecast, service: &WantedService) {
        let id = service.spec.id;
        let present = self.draft.services.get(&id).filter(|present| !present.closing);
        let from = present.map_or("not in the table".into(), |present| present.spec.terms());
        let change = forecast.note(format!("virtual {} ({id})", service.name), Some(from), None);
        if let (Some(change), Some(present)) = (change, present) {
            present.servers.iter().for_each(|server| forecast.part_with(server, change));
        }
    }

    fn foresee_rest(&self, forecast: &mut Forecast, next: &Wanted, marks: Option<&MarkRules>) {
        let text = |(tcp, tcp_fin, udp)| Some(format!("{tcp} {tcp_fin} {udp}"));
        let (from, to) = (text(self.present_timeouts()), text(self.timeouts_by(next)));
        forecast.note("timeouts (tcp tcpfin udp)".into(), from, to);
        let place = |address: &super::wanted::WantedAddress| {
            let label = address.label.as_ref().unwrap_or(&address.interface);
            let prefix = address.prefix_len.map_or(String::new(), |prefix| format!("/{prefix}"));
            format!("{}{prefix} on {label}", address.address)
        };
        for address in &next.addresses {
            let from = self.wanted.address(address.address).map(place);
            forecast.note(format!("address {}", address.address), from, Some(place(address)));
        }
        for address in self.wanted.addresses.iter().filter(|it| next.address(it.address).is_none()) {
            let change = forecast.note(format!("address {}", address.address), Some(place(address)), None);
            if let Some(change) = change.filter(|_| self.wanted.gateway != Some(address.address)) {
                forecast.by_address.insert(IpAddr::V4(address.address), change);
            }
        }
        if let Some(marks) = marks.filter(|marks| **marks != *self.draft.marks) {
            let rules = |marks: &MarkRules| {
                Some(format!("{} rules", marks.chains.iter().map(Vec::len).sum::<usize>()))
            };
            let (from, mut to) = (rules(&self.draft.marks), rules(marks));
            if from == to {
                to = to.map(|text| text + ", others");
            }
            forecast.note("firewall marks".into(), from, to);
        }
    }
}

impl Forecast {
    /// Takes note of a change, if it is one; returns its place.
    fn note(&mut self, subject: String, from: Option<String>, to: Option<String>) -> Option<usize> {
        let step = match (&from, &to) {
            (Some(from), Some(to)) if from == to => return None,
            (None, None) => return None,
            (Some(_), Some(_)) => Step::Changed,
            (Some(_), None) => Step::Removed,
            (None, Some(_)) => Step::Added,
        };
        self.plan.changes.push(Change { step, subject, from, to, toll: Toll::default() });
        Some(self.plan.changes.len() - 1)
    }

    fn part_with(&mut self, server: &Arc<RealServer>, change: usize) {
        self.concern(server, change, self.removal, true);
    }

    fn concern(&mut self, server: &Arc<RealServer>, change: usize, fate: Fate, ends_templates: bool) {
        self.by_server.insert(place_of(server), Concern { change, fate, ends_templates });
        self.servers.push(Arc::clone(server));
    }

    /// What becomes of a connection, and the change that concerns it.
    pub fn fate(&self, connection: &Connection) -> (Fate, Option<usize>) {
        match self.by_server.get(&place_of(&connection.server)) {
            Some(concern) if concern.fate != Fate::Kept => (concern.fate, Some(concern.change)),
            known => match self.by_address.get(&connection.virtual_address().ip()) {
                Some(change) => (self.removal, Some(*change)),
                None => (Fate::Kept, known.map(|concern| concern.change)),
            },
        }
    }

    /// The change that ends a template.
    fn end_of(&self, template: &PersistenceTemplate) -> Option<usize> {
        match self.by_server.get(&place_of(&template.server)) {
            Some(concern) if concern.ends_templates => Some(concern.change),
            _ => self.forgetful.get(template.server.service()).copied(),
        }
    }

    /// Counts. Looks at every connection and every template once, a few at a time.
    pub fn count(self, tables: &Tables) -> Plan {
        let mut plan = self.plan.clone();
        tables.connections.for_each(|connection| {
            let (fate, change) = self.fate(&connection);
            plan.draining += u64::from(fate == Fate::Kept && connection.server.is_draining());
            let change = change.map(|change| &mut plan.changes[change].toll);
            for toll in [Some(&mut plan.total), change].into_iter().flatten() {
                match fate {
                    Fate::Kept => toll.kept += 1,
                    Fate::Drained => toll.drained += 1,
                    Fate::Broken => toll.broken += 1,
                }
            }
        });
        let valid = tables.templates.walks().filter(|walk| matches!(walk, Walk::Valid(_)));
        valid.for_each(|walk| {
            walk.for_each(|template| {
                if let Some(change) = self.end_of(template) {
                    plan.changes[change].toll.templates += 1;
                    plan.total.templates += 1;
                }
            });
        });
        plan
    }
}

/// Stays the same as long as somebody has the server.
fn place_of(server: &Arc<RealServer>) -> usize {
    Arc::as_ptr(server) as usize
}
