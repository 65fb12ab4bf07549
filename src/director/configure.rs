//! A new configuration as a difference to the present one, and servers that come and go by their health.

use std::sync::Arc;

use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::{Edit, Errno, ServerSpec, ServiceId};
use crate::ipvs::mark::MarkRules;
use crate::nanny::Check;

impl Director {
    /// Goes over to a new configuration. Table first, addresses second, so that no address attracts packets that nobody
    /// takes; what leaves goes in the opposite order.
    pub(super) fn configure(&mut self, config: &LvsConfig, marks: Arc<MarkRules>) {
        let mut next = Wanted::new(config);
        let former = std::mem::take(&mut self.wanted);
        next.adopt_checks(&former);
        for objection in std::mem::take(&mut next.objections) {
            self.log(Level::Warn, objection);
        }
        self.draft.marks = marks;
        self.remove_addresses(&former, &next);
        self.set_timeouts(&former, &next);
        for service in former.services.iter().filter(|service| next.service(&service.spec.id).is_none()) {
            self.end_service(service);
        }
        next.services.retain(|service| self.begin_service(&former, service));
        self.change_servers(&former, &next);
        for address in next.addresses.iter().filter(|address| !former.addresses.contains(address)) {
            self.effects.push(Effect::AddAddress(address.clone()));
        }
        self.wanted = next;
        self.publish();
        self.keep_neighbours();
    }

    fn remove_addresses(&mut self, former: &Wanted, next: &Wanted) {
        for address in former.addresses.iter().filter(|address| !next.addresses.contains(address)) {
            self.effects.push(Effect::RemoveAddress(address.clone()));
        }
    }

    fn set_timeouts(&mut self, former: &Wanted, next: &Wanted) {
        let (tcp, tcp_fin, udp) = next.timeouts;
        if former.timeouts != next.timeouts
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
        let known = former.service(&service.spec.id);
        if known.is_some_and(|known| known.spec == service.spec) {
            return true;
        }
        let mut result = self.edit(&Edit::AddService(service.spec.clone()));
        if result == Err(Errno::EEXIST) {
            result = self.edit(&Edit::EditService(service.spec.clone()));
        }
        match result {
            Ok(()) if known.is_some() => {
                self.log(Level::Info, format!("virtual service {} changed", service.name));
            }
            Ok(()) => {
                let text = format!("starting virtual service {} active: {}", service.name, service.port);
                self.log(Level::Info, text);
            }
            Err(errno) => self.refuse_service(service, known, errno),
        }
        result.is_ok()
    }

    fn refuse_service(&mut self, service: &WantedService, known: Option<&WantedService>, errno: Errno) {
        let why = match errno {
            Errno::ENOENT => format!("there is no scheduler {}", service.spec.scheduler),
            other => other.to_string(),
        };
        self.log(Level::Error, format!("virtual server {} is refused: {why}", service.name));
        if let Some(known) = known {
            self.end_service(known);
        }
    }

    fn change_servers(&mut self, former: &Wanted, next: &Wanted) {
        for (service, server) in former.servers() {
            let Some(service) = next.service(&service.spec.id) else { continue };
            if service.server(server.spec.id).is_none() {
                self.stop_check(&service.spec.id, server);
                let _ = self.edit(&Edit::DeleteServer(service.spec.id, server.spec.id));
            }
        }
        for (service, server) in next.servers() {
            let id = &service.spec.id;
            match former.service(id).and_then(|known| known.server(server.spec.id)) {
                None => self.effects.push(Effect::StartCheck(Arc::clone(&server.check))),
                Some(known) => self.change_server(service, known, server),
            }
        }
    }

    fn change_server(&mut self, service: &WantedService, known: &WantedServer, server: &WantedServer) {
        if !Arc::ptr_eq(&known.check, &server.check) {
            self.effects.push(Effect::StopCheck(Arc::clone(&known.check)));
            self.effects.push(Effect::StartCheck(Arc::clone(&server.check)));
        }
        let up = self.health.get(&(service.spec.id, server.spec.id)) == Some(&true);
        if known.spec != server.spec && up {
            // Absent only if somebody deleted it by hand.
            let _ = self.edit(&Edit::EditServer(service.spec.id, server.spec.clone()));
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
        let (id, quiesce, spec) = (service.spec.id, service.quiesce, server.spec.clone());
        drop(servers);
        let endpoint = check.endpoint;
        let known = self.health.insert((id, spec.id), up);
        if up {
            self.log(Level::Info, format!("[ active ] making {endpoint} available"));
            self.enter(&id, spec);
        } else if known == Some(true) {
            let text = format!("[inactive] shutting down {endpoint} due to connection failure: {reason}");
            self.log(Level::Warn, text);
            self.leave(&id, spec, quiesce);
        } else {
            self.log(Level::Warn, format!("[inactive] {endpoint} is not available: {reason}"));
            self.leave(&id, spec, quiesce);
        }
    }

    fn enter(&mut self, id: &ServiceId, spec: ServerSpec) {
        let endpoint = format!("{}:{}", spec.id.address, spec.id.port);
        let mut result = self.edit(&Edit::AddServer(*id, spec.clone()));
        if result == Err(Errno::EEXIST) {
            result = self.edit(&Edit::EditServer(*id, spec));
        }
        match result {
            Ok(()) => self.keep_neighbours(),
            Err(errno) => self.log(Level::Error, format!("server {endpoint} is refused: {errno}")),
        }
    }

    fn leave(&mut self, id: &ServiceId, spec: ServerSpec, quiesce: bool) {
        let edit = if quiesce {
            Edit::EditServer(*id, ServerSpec { weight: 0, ..spec })
        } else {
            Edit::DeleteServer(*id, spec.id)
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
