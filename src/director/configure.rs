//! A new configuration as a difference to the present one, and servers that come and go by their health.

use std::net::SocketAddr;
use std::sync::Arc;

use super::part::Deadline;
use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::{Edit, Errno, ServerSpec, ServiceId};
use crate::ipvs::mark::MarkRules;
use crate::nanny::Check;
use crate::net::time::Instant;

impl Director {
    /// Goes over to a new configuration, and says what of what was changed by hand that has undone or left.
    pub(super) fn configure(
        &mut self,
        now: Instant,
        config: &LvsConfig,
        marks: Arc<MarkRules>,
        deadline: Deadline,
    ) {
        let changed = self.differences();
        self.by_hand.clear();
        self.go_over_to(now, Wanted::new(config), marks, deadline);
        let left = self.differences();
        for difference in changed {
            let end = if left.contains(&difference) { "stays" } else { "is as in lvs.cf again" };
            let text =
                format!("{} was changed by hand and {end}: {}", difference.subject, difference.change());
            self.effects.push(Effect::ChangedByHand(text));
        }
    }

    /// What is new comes first, in the table and at once, so that no packet meets a half; then its addresses, so that none attracts
    /// packets that nobody takes. What leaves goes in the opposite order, when its connections have gone. What was changed by hand
    /// meanwhile is brought back to the wish.
    pub(super) fn go_over_to(
        &mut self,
        now: Instant,
        mut next: Wanted,
        marks: Arc<MarkRules>,
        deadline: Deadline,
    ) {
        let former = std::mem::take(&mut self.wanted);
        next.adopt_checks(&former);
        self.tell_news(&former, &next, &marks);
        let moved = self.together(|director| {
            director.draft.marks = marks;
            director.set_timeouts(&next);
            next.services.retain(|service| director.begin_service(service));
            director.change_checks(&former, &next);
            director.begin_servers(&former, &next);
            director.wanted = next;
            let moved = director.move_addresses(&former);
            director.close_addresses();
            if director.wanted.addresses != former.addresses {
                director.take_routes();
            }
            moved
        });
        self.effects.extend(moved);
        self.part_with(&former, now, deadline);
        self.keep_neighbours();
    }

    fn tell_news(&mut self, former: &Wanted, next: &Wanted, marks: &MarkRules) {
        for refused in next.newly_refused(former) {
            self.log(Level::Error, refused);
        }
        for note in next.notes.iter().filter(|note| !former.notes.contains(note)) {
            self.log(Level::Warn, note.clone());
        }
        let unmarked = former.unmarked(&self.draft.marks);
        for text in next.unmarked(marks).into_iter().filter(|text| !unmarked.contains(text)) {
            self.log(Level::Warn, text);
        }
    }

    fn set_timeouts(&mut self, next: &Wanted) {
        let (tcp, tcp_fin, udp) = self.timeouts_by(next);
        if (tcp, tcp_fin, udp) != self.present_timeouts()
            && let Err(errno) = self.edit(&Edit::SetTimeouts { tcp, tcp_fin, udp })
        {
            let text = format!("timeouts {tcp} {tcp_fin} {udp} are refused ({errno}); the present ones stay");
            self.log(Level::Error, text);
        }
    }

    /// Brings a service into the table, or up to date. False if the table refuses it.
    fn begin_service(&mut self, service: &WantedService) -> bool {
        let WantedService { name, spec, port, .. } = service;
        let present = self.draft.services.get(&spec.id);
        let (edit, text) = match present {
            Some(present) if present.closing => {
                (Edit::EditService(spec.clone()), format!("virtual service {name} is back"))
            }
            Some(present) if present.spec == *spec => return true,
            Some(_) => (Edit::EditService(spec.clone()), format!("virtual service {name} changed")),
            None => {
                (Edit::AddService(spec.clone()), format!("starting virtual service {name} active: {port}"))
            }
        };
        let edited = self.edit(&edit);
        match edited {
            Ok(()) => self.log(Level::Info, text),
            Err(errno) => self.log(Level::Error, format!("virtual server {name} is refused: {errno}")),
        }
        edited.is_ok()
    }

    /// Each check runs once, however many servers it is for.
    fn change_checks(&mut self, former: &Wanted, next: &Wanted) {
        let (known, wanted) = (former.checks(), next.checks());
        let is_in =
            |checks: &[&Arc<Check>], check: &Arc<Check>| checks.iter().any(|other| Arc::ptr_eq(other, check));
        let gone = known.iter().filter(|check| !is_in(&wanted, check));
        self.effects.extend(gone.map(|check| Effect::StopCheck(Arc::clone(check))));
        let new = wanted.iter().filter(|check| !is_in(&known, check));
        self.effects.extend(new.map(|check| Effect::StartCheck(Arc::clone(check))));
    }

    fn begin_servers(&mut self, former: &Wanted, next: &Wanted) {
        for (service, server) in next.servers() {
            let place = (service.spec.id, server.spec.id);
            let is_known = former.service(&place.0).is_some_and(|known| known.server(place.1).is_some());
            if !is_known && let Some(up) = self.known_health(former, service, server) {
                self.health.insert(place, up);
            }
            let is_leaving = self.is_leaving(service, server);
            match self.health.get(&place) {
                Some(true) => self.bring_up_to_date(service, server),
                Some(false) if is_leaving || !service.quiesce => {
                    self.leave(place.0, server.spec.clone(), service.quiesce);
                }
                // Only a hand can have put it in.
                None if is_leaving => self.bring_up_to_date(service, server),
                _ => {}
            }
        }
    }

    /// What is known of a server that is new at its place: it comes back before it had gone, or it is another's as well.
    fn known_health(
        &mut self,
        former: &Wanted,
        service: &WantedService,
        server: &WantedServer,
    ) -> Option<bool> {
        let removed = self.drains.take_back((service.spec.id, server.spec.id));
        removed.and_then(|removed| removed.health).or_else(|| {
            let same = former.servers().find(|(_, known)| Arc::ptr_eq(&known.check, &server.check));
            let (service, known) = same?;
            self.health.get(&(service.spec.id, known.spec.id)).copied()
        })
    }

    fn is_leaving(&self, service: &WantedService, server: &WantedServer) -> bool {
        self.draft.services.get(&service.spec.id).is_some_and(|present| present.is_leaving(server.spec.id))
    }

    /// A healthy server as the file wants it: one that is missing enters, another weight is changed.
    fn bring_up_to_date(&mut self, service: &WantedService, server: &WantedServer) {
        let is_leaving = self.is_leaving(service, server);
        let wanted = self.as_ordered(service.spec.id, server.spec.clone());
        let present = self.draft.services.get(&service.spec.id);
        let present = present.and_then(|present| present.server(server.spec.id)).map(|server| server.spec());
        let text = match present {
            Some(present) if present == wanted && !is_leaving => return,
            Some(_) if is_leaving => format!("server {} is back in {}", server.spec.id, service.name),
            Some(present) => {
                let (from, to) = (present.weight, wanted.weight);
                format!("server {} of {}: weight {from} becomes {to}", server.spec.id, service.name)
            }
            None => format!("server {} enters {} again", server.spec.id, service.name),
        };
        self.log(Level::Info, text);
        self.enter(service.spec.id, server.spec.clone());
    }

    /// What brings the addresses, once the table is there. One that is in another place comes there before it goes here.
    fn move_addresses(&mut self, former: &Wanted) -> Vec<Effect> {
        let mut effects = Vec::new();
        for address in self.wanted.addresses.clone() {
            let leaving = self.take_address_back(address.address);
            let known = leaving.as_ref().or_else(|| former.address(address.address));
            let effect = match known {
                Some(known) if *known == address && address.is_on(&self.network) => continue,
                Some(known) if *known != address => Effect::MoveAddress(known.clone(), address),
                _ => Effect::AddAddress(address),
            };
            effects.push(effect);
        }
        effects
    }

    /// A server came up: it enters. It went down: it leaves, or goes to weight 0.
    pub(super) fn take_health(&mut self, check: &Arc<Check>, up: bool, reason: &str) {
        let of_check = self.wanted.servers().filter(|(_, server)| Arc::ptr_eq(&server.check, check));
        let of_check = of_check.map(|(service, server)| {
            (service.spec.id, service.quiesce, server.spec.clone(), service.name.clone())
        });
        for server in of_check.collect::<Vec<_>>() {
            self.take_health_of(server, check.endpoint, up, reason);
        }
    }

    fn take_health_of(
        &mut self,
        (id, quiesce, spec, name): (ServiceId, bool, ServerSpec, String),
        endpoint: SocketAddr,
        up: bool,
        reason: &str,
    ) {
        let known = self.health.insert((id, spec.id), up);
        if up {
            self.log(Level::Info, format!("[ active ] making {endpoint} available ({name})"));
            return self.enter(id, spec);
        }
        let text = match known {
            Some(true) => {
                format!("[inactive] shutting down {endpoint} due to connection failure: {reason} ({name})")
            }
            _ => format!("[inactive] {endpoint} is not available: {reason} ({name})"),
        };
        self.log(Level::Warn, text);
        self.leave(id, spec, quiesce);
    }

    fn enter(&mut self, id: ServiceId, spec: ServerSpec) {
        let server = spec.id;
        let spec = match self.by_hand.get(&(id, server)) {
            None => spec,
            Some(Some(by_hand)) => by_hand.clone(),
            Some(None) => {
                let text = format!("server {server} stays out: it was deleted by hand; a reload restores it");
                return self.log(Level::Info, text);
            }
        };
        let mut result = self.edit(&Edit::AddServer(id, spec.clone()));
        if result == Err(Errno::EEXIST) {
            result = self.edit(&Edit::EditServer(id, spec));
        }
        match result {
            Ok(()) => self.keep_neighbours(),
            Err(Errno::ESRCH) => {
                let text = format!(
                    "server {server} cannot enter: its service was deleted by hand; a reload restores it"
                );
                self.log(Level::Warn, text);
            }
            Err(errno) => self.log(Level::Error, format!("server {server} is refused: {errno}")),
        }
    }

    fn leave(&mut self, id: ServiceId, spec: ServerSpec, quiesce: bool) {
        let edit = if quiesce {
            let by_hand = self.by_hand.get(&(id, spec.id)).cloned().flatten();
            Edit::EditServer(id, ServerSpec { weight: 0, ..by_hand.unwrap_or(spec) })
        } else {
            Edit::DeleteServer(id, spec.id)
        };
        // Absent if it was never up, or if somebody deleted it by hand.
        let _ = self.edit(&edit);
    }

    /// Takes the addresses back. What is in the table goes on, so that nobody is refused while they are still there.
    pub(super) fn withdraw(&mut self) {
        for address in self.all_addresses() {
            self.effects.push(Effect::RemoveAddress(address));
        }
        self.parting.addresses.clear();
        self.wanted.addresses.clear();
    }

    /// Takes everything back in the opposite order of [`Director::configure`].
    pub(super) fn stop(&mut self) {
        self.withdraw();
        let wanted = std::mem::take(&mut self.wanted);
        self.change_checks(&wanted, &Wanted::default());
        self.health.clear();
        for service in &wanted.services {
            self.log(Level::Info, format!("shutting down virtual service {}", service.name));
            // Somebody may have deleted it by hand.
            let _ = self.edit(&Edit::DeleteService(service.spec.id));
        }
        self.close_all();
    }
}
