//! A new configuration as a difference to the present one, and servers that come and go by their health.

use std::sync::Arc;

use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::{Edit, Errno, ServerSpec, ServiceId};
use crate::ipvs::mark::MarkRules;
use crate::nanny::Check;

impl Director {
    /// Goes over to a new configuration, and says what of what was changed by hand that has undone or left.
    pub(super) fn configure(&mut self, config: &LvsConfig, marks: Arc<MarkRules>) {
        let changed = self.differences();
        self.by_hand.clear();
        self.go_over_to(config, marks);
        let left = self.differences();
        for difference in changed {
            let end = if left.contains(&difference) { "stays" } else { "is as in lvs.cf again" };
            let text =
                format!("{} was changed by hand and {end}: {}", difference.subject, difference.change());
            self.effects.push(Effect::ChangedByHand(text));
        }
    }

    /// Table first, addresses second, so that no address attracts packets that nobody takes; what leaves goes in the opposite order.
    /// What was changed by hand meanwhile is brought back to the wish.
    fn go_over_to(&mut self, config: &LvsConfig, marks: Arc<MarkRules>) {
        let mut next = Wanted::new(config);
        let former = std::mem::take(&mut self.wanted);
        next.adopt_checks(&former);
        for refused in next.newly_refused(&former) {
            self.log(Level::Error, refused);
        }
        for note in next.notes.iter().filter(|note| !former.notes.contains(note)) {
            self.log(Level::Warn, note.clone());
        }
        let unmarked = former.unmarked(&self.draft.marks);
        for text in next.unmarked(&marks).into_iter().filter(|text| !unmarked.contains(text)) {
            self.log(Level::Warn, text);
        }
        self.draft.marks = marks;
        self.remove_addresses(&former, &next);
        self.set_timeouts(&next);
        for service in former.services.iter().filter(|service| next.service(&service.spec.id).is_none()) {
            self.end_service(service);
        }
        next.services.retain(|service| self.begin_service(&former, service));
        self.change_servers(&former, &next);
        for address in &next.addresses {
            if self.active && (!former.addresses.contains(address) || !address.is_on(&self.network)) {
                self.effects.push(Effect::AddAddress(address.clone()));
            }
        }
        self.change_sync(former.sync.as_ref(), next.sync.as_ref());
        self.wanted = next;
        self.publish();
        self.keep_neighbours();
    }

    fn remove_addresses(&mut self, former: &Wanted, next: &Wanted) {
        for address in former.addresses.iter().filter(|address| !next.addresses.contains(address)) {
            self.effects.push(Effect::RemoveAddress(address.clone()));
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

    fn end_service(&mut self, service: &WantedService) {
        self.log(Level::Info, format!("shutting down virtual service {}", service.name));
        for server in &service.servers {
            self.stop_check(&service.spec.id, server);
        }
        // Somebody may have deleted it by hand.
        let _ = self.edit(&Edit::DeleteService(service.spec.id));
    }

    /// Brings a service into the table, or up to date. False if the table refuses it.
    fn begin_service(&mut self, former: &Wanted, service: &WantedService) -> bool {
        let WantedService { name, spec, port, .. } = service;
        let known = former.service(&spec.id);
        let present = self.draft.services.get(&spec.id).map(|present| present.spec.clone());
        let (edit, text) = match present {
            Some(present) if present == *spec => return true,
            Some(_) => (Edit::EditService(spec.clone()), format!("virtual service {name} changed")),
            None => {
                (Edit::AddService(spec.clone()), format!("starting virtual service {name} active: {port}"))
            }
        };
        match self.edit(&edit) {
            Ok(()) => self.log(Level::Info, text),
            Err(errno) => {
                self.refuse_service(service, known, errno);
                return false;
            }
        }
        true
    }

    fn refuse_service(&mut self, service: &WantedService, known: Option<&WantedService>, errno: Errno) {
        self.log(Level::Error, format!("virtual server {} is refused: {errno}", service.name));
        if let Some(known) = known {
            self.end_service(known);
        }
    }

    fn change_servers(&mut self, former: &Wanted, next: &Wanted) {
        for (known, server) in former.servers() {
            let Some(service) = next.service(&known.spec.id) else { continue };
            if service.server(server.spec.id).is_none() {
                self.stop_check(&service.spec.id, server);
                // Somebody may have deleted it by hand.
                let _ = self.edit(&Edit::DeleteServer(service.spec.id, server.spec.id));
                self.log(Level::Info, format!("server {} removed from {}", server.spec.id, service.name));
            }
        }
        for (service, server) in next.servers() {
            let id = service.spec.id;
            match former.service(&id).and_then(|known| known.server(server.spec.id)) {
                None => self.effects.push(Effect::StartCheck(Arc::clone(&server.check))),
                Some(known) => self.change_check(known, server),
            }
            if self.health.get(&(id, server.spec.id)) == Some(&true) {
                self.bring_up_to_date(service, server);
            }
        }
    }

    fn change_check(&mut self, known: &WantedServer, server: &WantedServer) {
        if !Arc::ptr_eq(&known.check, &server.check) {
            self.effects.push(Effect::StopCheck(Arc::clone(&known.check)));
            self.effects.push(Effect::StartCheck(Arc::clone(&server.check)));
        }
    }

    /// A healthy server as the file wants it: one that is missing enters, another weight is changed.
    fn bring_up_to_date(&mut self, service: &WantedService, server: &WantedServer) {
        let present = self.draft.services.get(&service.spec.id);
        let present = present.and_then(|present| present.server(server.spec.id)).map(|server| server.spec());
        match present {
            Some(present) if present == server.spec => {}
            Some(present) => {
                let (from, to) = (present.weight, server.spec.weight);
                let text =
                    format!("server {} of {}: weight {from} becomes {to}", server.spec.id, service.name);
                self.log(Level::Info, text);
                self.enter(service.spec.id, server.spec.clone());
            }
            None => {
                self.log(Level::Info, format!("server {} enters {} again", server.spec.id, service.name));
                self.enter(service.spec.id, server.spec.clone());
            }
        }
    }

    fn stop_check(&mut self, id: &ServiceId, server: &WantedServer) {
        self.health.remove(&(*id, server.spec.id));
        self.effects.push(Effect::StopCheck(Arc::clone(&server.check)));
    }

    /// A server came up: it enters. It went down: it leaves, or goes to weight 0.
    pub(super) fn take_health(&mut self, check: &Arc<Check>, up: bool, reason: &str) {
        let mut servers = self.wanted.servers();
        let Some((service, server)) = servers.find(|(_, server)| Arc::ptr_eq(&server.check, check)) else {
            return;
        };
        let (id, quiesce, spec, name) =
            (service.spec.id, service.quiesce, server.spec.clone(), service.name.clone());
        drop(servers);
        let endpoint = check.endpoint;
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

    /// Takes everything back in the opposite order of [`Director::configure`].
    pub(super) fn stop(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        self.remove_addresses(&wanted, &Wanted::default());
        for service in &wanted.services {
            self.end_service(service);
        }
    }
}
