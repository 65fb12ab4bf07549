//! A new configuration as a difference to the present one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Event, Happened};
use super::member::{Input, State};
use super::members::MemberId;
use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::{Edit, Errno};
use crate::ipvs::mark::MarkRules;
use crate::nanny::Check;

impl Director {
    /// Goes over to a new configuration, and says what of what was changed by hand that has undone or left.
    pub(super) fn configure(&mut self, config: &LvsConfig, marks: Arc<MarkRules>) {
        let changed = self.differences();
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
        if !std::mem::replace(&mut self.is_active, true) {
            self.run_command("active_cmd", next.active_cmd.as_deref());
        }
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
        let told = self.told_anew(&former, &next);
        self.remove_addresses(&former, &next);
        self.set_timeouts(&next);
        for service in former.services.iter().filter(|service| next.service(&service.spec.id).is_none()) {
            self.end_service(service);
        }
        next.services.retain(|service| self.begin_service(&former, service));
        self.change_checks(&former, &next);
        self.change_servers(&former, &next);
        for address in &next.addresses {
            if !former.addresses.contains(address) || !address.is_on(&self.network) {
                self.effects.push(Effect::AddAddress(address.clone()));
            }
        }
        self.wanted = next;
        told.into_iter().for_each(|(id, health)| self.tell_member(id, health));
        self.note_overrides(&former);
        self.judge_groups();
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
        self.effects.push(Effect::Event(Event::of_virtual(&service.name, Happened::VirtualStopped)));
        self.groups.remove(&service.spec.id);
        for server in &service.servers {
            self.members.remove(&(service.spec.id, server.spec.id));
        }
        // Somebody may have deleted it by hand.
        let _ = self.edit(&Edit::DeleteService(service.spec.id));
    }

    /// Brings a service into the table, or up to date. False if the table refuses it.
    fn begin_service(&mut self, former: &Wanted, service: &WantedService) -> bool {
        let WantedService { name, spec, port, .. } = service;
        let known = former.service(&spec.id);
        let present = self.draft.services.get(&spec.id).map(|present| present.spec.clone());
        let (edit, told) = match present {
            Some(present) if present == *spec => return true,
            Some(_) => {
                let text = format!("virtual service {name} changed");
                (Edit::EditService(spec.clone()), Effect::Log(Level::Info, text))
            }
            None => {
                let started = Happened::VirtualStarted { port: *port };
                (Edit::AddService(spec.clone()), Effect::Event(Event::of_virtual(name, started)))
            }
        };
        match self.edit(&edit) {
            Ok(()) => self.effects.push(told),
            Err(errno) => {
                self.refuse_service(service, known, errno);
                return false;
            }
        }
        true
    }

    fn refuse_service(&mut self, service: &WantedService, known: Option<&WantedService>, errno: Errno) {
        self.log(Level::Error, format!("ipvsadm failed for virtual server {}! {errno}", service.name));
        if let Some(known) = known {
            self.end_service(known);
        }
    }

    fn change_servers(&mut self, former: &Wanted, next: &Wanted) {
        for (known, server) in former.servers() {
            let Some(service) = next.service(&known.spec.id) else { continue };
            if service.server(server.spec.id).is_none() {
                self.members.remove(&(service.spec.id, server.spec.id));
                // Somebody may have deleted it by hand.
                let _ = self.edit(&Edit::DeleteServer(service.spec.id, server.spec.id));
                self.log(Level::Info, format!("server {} removed from {}", server.spec.id, service.name));
            }
        }
        for (service, server) in next.servers() {
            let id = service.spec.id;
            if former.service(&id).and_then(|known| known.server(server.spec.id)).is_none() {
                self.log_start(service, server);
            }
            self.seat(service, server);
        }
    }

    /// A check runs once, however many servers it is for.
    fn change_checks(&mut self, former: &Wanted, next: &Wanted) {
        let (present, wanted) = (former.checks(), next.checks());
        let among = |checks: &[&Arc<Check>]| -> HashSet<_> {
            checks.iter().map(|check| Arc::as_ptr(check)).collect()
        };
        let (is_present, is_wanted) = (among(&present), among(&wanted));
        let gone = present.into_iter().filter(|check| !is_wanted.contains(&Arc::as_ptr(check)));
        self.effects.extend(gone.map(|check| Effect::StopCheck(Arc::clone(check))));
        let new = wanted.into_iter().filter(|check| !is_present.contains(&Arc::as_ptr(check)));
        self.effects.extend(new.map(|check| Effect::StartCheck(Arc::clone(check))));
    }

    /// What running checks have said, for servers that begin to go by them: such a check says no more until something changes.
    fn told_anew(&self, former: &Wanted, next: &Wanted) -> Vec<(MemberId, Input)> {
        let health = |(service, server): (&WantedService, &WantedServer)| {
            let member = &self.members.get(&(service.spec.id, server.spec.id))?.member;
            let up = match member.health() {
                State::Unknown => return None,
                state => state == State::Up,
            };
            Some((Arc::as_ptr(&server.check), (up, member.reason().to_owned())))
        };
        let said: HashMap<_, _> = former.servers().filter_map(health).collect();
        let is_new = |service: &WantedService, server: &WantedServer| {
            let known = former.service(&service.spec.id).and_then(|known| known.server(server.spec.id));
            known.is_none_or(|known| !Arc::ptr_eq(&known.check, &server.check))
        };
        let newcomers = next.servers().filter(|(service, server)| is_new(service, server));
        let told = newcomers.filter_map(|(service, server)| {
            let (up, reason) = said.get(&Arc::as_ptr(&server.check))?.clone();
            Some(((service.spec.id, server.spec.id), Input::Health { up, reason }))
        });
        told.collect()
    }

    fn log_start(&mut self, service: &WantedService, server: &WantedServer) {
        let WantedServer { name, endpoint, .. } = server;
        let text = format!("starting LVS client monitor for {} -> {endpoint} ({name})", service.name);
        self.log(Level::Info, text);
        if server.assumes_web {
            let text = format!("nanny: no monitor configured, assuming web service on port 80: {endpoint}");
            self.log(Level::Info, text);
        }
    }

    /// `active_cmd` or `inactive_cmd`: no shell, so it has to begin with a path (reference/piranha.md 4.8).
    fn run_command(&mut self, key: &'static str, command: Option<&str>) {
        let Some(command) = command else { return };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        match words.first() {
            Some(program) if program.starts_with('/') => self.effects.push(Effect::Run { key, words }),
            _ => self.log(
                Level::Warn,
                format!("{key} is not run: {command} does not begin with an absolute path"),
            ),
        }
    }

    /// Takes everything back in the opposite order of [`Director::configure`].
    pub(super) fn stop(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        if std::mem::take(&mut self.is_active) {
            self.run_command("inactive_cmd", wanted.inactive_cmd.as_deref());
        }
        self.remove_addresses(&wanted, &Wanted::default());
        self.change_checks(&wanted, &Wanted::default());
        for service in &wanted.services {
            self.end_service(service);
        }
    }
}
