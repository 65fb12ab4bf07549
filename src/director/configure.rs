//! A new configuration as a difference to the present one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Event, Happened};
use super::member::{Input, Kept, State};
use super::members::MemberId;
use super::part::Deadline;
use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::Edit;
use crate::ipvs::mark::MarkRules;
use crate::nanny::Check;
use crate::net::time::Instant;
use crate::pulse::Hook;

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
        self.go_over_to(now, Wanted::new(config), marks, deadline, HashMap::new());
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
    /// meanwhile is brought back to the wish, but for what is `kept`.
    pub(super) fn go_over_to(
        &mut self,
        now: Instant,
        mut next: Wanted,
        marks: Arc<MarkRules>,
        deadline: Deadline,
        kept: HashMap<MemberId, Kept>,
    ) {
        let former = std::mem::take(&mut self.wanted);
        next.adopt_checks(&former);
        self.tell_news(&former, &next, &marks);
        let moved = self.together(|director| {
            director.draft.marks = marks;
            director.set_timeouts(&next);
            next.services.retain(|service| director.begin_service(service));
            director.change_checks(&former, &next);
            let told = director.told_anew(&former, &next);
            director.begin_servers(&former, &next, kept);
            director.wanted = next;
            told.into_iter().for_each(|(id, health)| director.tell_member(id, health));
            director.note_overrides(&former);
            director.judge_groups();
            let moved = director.move_addresses(&former);
            director.close_addresses();
            if director.wanted.addresses != former.addresses {
                director.take_routes();
            }
            moved
        });
        self.effects.extend(moved);
        self.change_sync(former.sync.as_ref());
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
        let changed = |text: String| (Edit::EditService(spec.clone()), Effect::Log(Level::Info, text));
        let (edit, told) = match self.draft.services.get(&spec.id) {
            Some(present) if present.closing => changed(format!("virtual service {name} is back")),
            Some(present) if present.spec == *spec => return true,
            Some(_) => changed(format!("virtual service {name} changed")),
            None => {
                let started = Happened::VirtualStarted { port: *port };
                (Edit::AddService(spec.clone()), Effect::Event(Event::of_virtual(name, started)))
            }
        };
        let edited = self.edit(&edit);
        match edited {
            Ok(()) => self.effects.push(told),
            Err(errno) => {
                self.log(Level::Error, format!("ipvsadm failed for virtual server {name}! {errno}"))
            }
        }
        edited.is_ok()
    }

    fn begin_servers(&mut self, former: &Wanted, next: &Wanted, mut kept: HashMap<MemberId, Kept>) {
        for (service, server) in next.servers() {
            let id = (service.spec.id, server.spec.id);
            if former.service(&id.0).and_then(|known| known.server(id.1)).is_none() {
                self.log_start(service, server);
            }
            self.seat(service, server, kept.remove(&id));
        }
    }

    /// A check runs once, however many servers it is for.
    pub(super) fn change_checks(&mut self, former: &Wanted, next: &Wanted) {
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

    /// What brings the addresses, once the table is there. One that is in another place comes there before it goes here.
    fn move_addresses(&mut self, former: &Wanted) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.active {
            return effects;
        }
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

    fn log_start(&mut self, service: &WantedService, server: &WantedServer) {
        let WantedServer { name, endpoint, .. } = server;
        let text = format!("starting LVS client monitor for {} -> {endpoint} ({name})", service.name);
        self.log(Level::Info, text);
        if server.assumes_web {
            let text = format!("nanny: no monitor configured, assuming web service on port 80: {endpoint}");
            self.log(Level::Info, text);
        }
    }

    pub(super) fn run_hook(&mut self, hook: Hook) {
        match hook {
            Hook::Active => self.run_command("active_cmd", self.wanted.active_cmd.clone().as_deref()),
            Hook::Inactive => self.run_command("inactive_cmd", self.wanted.inactive_cmd.clone().as_deref()),
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

    /// Takes the addresses back for good. What is in the table goes on, so that nobody is refused while they are still there.
    pub(super) fn withdraw(&mut self) {
        self.take_addresses_away();
        self.wanted.addresses.clear();
    }

    /// Takes everything back in the opposite order of [`Director::configure`].
    pub(super) fn stop(&mut self) {
        self.withdraw();
        let wanted = std::mem::take(&mut self.wanted);
        self.change_checks(&wanted, &Wanted::default());
        self.members.clear();
        self.groups.clear();
        for WantedService { name, spec, .. } in &wanted.services {
            self.effects.push(Effect::Event(Event::of_virtual(name, Happened::VirtualStopped)));
            // Somebody may have deleted it by hand.
            let _ = self.edit(&Edit::DeleteService(spec.id));
        }
        self.close_all();
    }
}
