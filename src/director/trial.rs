//! A configuration of another file than the site's, for good or on trial: unless it is confirmed in time, the former one comes
//! back, with what was changed by hand. Until then nothing is lost that could not come back: what the trial removes only rests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::drain::{Cause, Place};
use super::member::Kept;
use super::part::{Deadline, Leaving};
use super::protocol::Reply;
use super::wanted::Wanted;
use super::{Director, Effect, Level};
use crate::config::lvs::LvsConfig;
use crate::ipvs::edit::{Edit, ServerId, ServerSpec, ServiceId, ServiceSpec};
use crate::ipvs::mark::MarkRules;
use crate::net::time::Instant;

/// A configuration on trial.
#[derive(Debug)]
pub(super) struct Trial {
    source: String,
    end: Instant,
    before: Before,
    /// The table right after the change.
    after: Table,
}

/// What comes back.
#[derive(Debug)]
struct Before {
    wanted: Wanted,
    marks: Arc<MarkRules>,
    source: Option<String>,
    members: HashMap<Place, Kept>,
    table: Table,
    /// Servers that were leaving, and when their connections were to end.
    leaving: HashMap<Place, Option<Instant>>,
    addresses: Vec<Leaving>,
}

/// Services and timeouts at a moment. What leaves is not there any more.
#[derive(Clone, Debug, Default, PartialEq)]
struct Table {
    services: HashMap<ServiceId, (ServiceSpec, Vec<ServerSpec>)>,
    timeouts: (u32, u32, u32),
}

impl Table {
    fn service(&self, id: &ServiceId) -> Option<&ServiceSpec> {
        self.services.get(id).map(|(spec, _)| spec)
    }

    fn servers(&self, id: &ServiceId) -> &[ServerSpec] {
        self.services.get(id).map_or(&[], |(_, servers)| servers)
    }

    fn server(&self, (id, server): Place) -> Option<&ServerSpec> {
        self.servers(&id).iter().find(|spec| spec.id == server)
    }
}

impl Director {
    /// Follows what the site's files say. Not during a trial: whoever reads the files asks for that first.
    pub(super) fn follow_site(&mut self, now: Instant, lvs: &LvsConfig, marks: Arc<MarkRules>) {
        if let Some(why) = self.on_trial(now) {
            return self.log(Level::Error, why);
        }
        if let Some(source) = self.source.take() {
            self.log(Level::Warn, format!("the configuration of {source} gives way to that of lvs.cf"));
        }
        let deadline = self.removal_deadline(now);
        self.configure(now, lvs, marks, deadline);
    }

    /// Follows another file.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        lvs: &LvsConfig,
        marks: Option<Arc<MarkRules>>,
        source: String,
        confirm: Option<Duration>,
    ) -> Reply {
        if let Some(why) = self.on_trial(now) {
            return Reply::Failed(why);
        }
        let marks = marks.unwrap_or_else(|| Arc::clone(&self.draft.marks));
        if let Some(objection) = self.objection(lvs, &marks) {
            return Reply::Failed(objection);
        }
        let Some(time) = confirm else {
            let deadline = self.removal_deadline(now);
            self.configure(now, lvs, marks, deadline);
            self.log(Level::Warn, format!("the configuration is that of {source}, not of lvs.cf"));
            let text = format!("applied {source}, for as long as nobody reloads or restarts");
            self.source = Some(source);
            return Reply::Text(text);
        };
        let before = self.before();
        self.configure(now, lvs, marks, Deadline::Held);
        let (seconds, end) = (time.as_secs(), now + time);
        self.log(
            Level::Warn,
            format!(
                "the configuration of {source} is on trial: without xlvs confirm it goes back in {seconds} s"
            ),
        );
        let text = format!(
            "applied {source}; it goes back by itself in {seconds} s, unless you say: xlvs confirm\n\
             (xlvs apply --abort goes back at once; if the daemon is restarted before that, it reads lvs.cf)"
        );
        self.trial = Some(Trial { source: source.clone(), end, before, after: self.table() });
        self.source = Some(source);
        Reply::Text(text)
    }

    /// What speaks against another configuration now: there is one on trial.
    pub fn on_trial(&self, now: Instant) -> Option<String> {
        let Trial { source, end, .. } = self.trial.as_ref()?;
        let left = end.saturating_since(now).as_secs();
        Some(format!(
            "the configuration of {source} is on trial for {left} s still: say xlvs confirm or xlvs apply --abort first"
        ))
    }

    /// When the trial ends by itself.
    pub(super) fn trial_end(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.end)
    }

    /// The file that the configuration is from, if it is not the site's, and how long it is on trial still, in seconds.
    pub(super) fn source(&self, now: Instant) -> Option<(String, Option<u64>)> {
        let left = |trial: &Trial| trial.end.saturating_since(now).as_secs();
        Some((self.source.clone()?, self.trial.as_ref().map(left)))
    }

    pub(super) fn confirm(&mut self, now: Instant) -> Reply {
        let Some(trial) = self.trial.take() else { return no_trial() };
        self.release_held(self.removal_deadline(now));
        self.log(Level::Info, format!("the configuration of {} is confirmed", trial.source));
        self.effects.push(Effect::TrialEnded(true));
        Reply::Text(format!("confirmed {}", trial.source))
    }

    pub(super) fn abort(&mut self, now: Instant) -> Reply {
        let Some(trial) = self.trial.take() else { return no_trial() };
        let text = format!("back from {} to the configuration before", trial.source);
        self.log(Level::Warn, text.clone());
        self.go_back(now, trial);
        Reply::Text(text)
    }

    /// Goes back if nobody has confirmed in time.
    pub(super) fn end_trial(&mut self, now: Instant) {
        if let Some(trial) = self.trial.take_if(|trial| trial.end <= now) {
            let text =
                format!("nobody has confirmed the configuration of {}: the one before is back", trial.source);
            self.log(Level::Warn, text);
            self.go_back(now, trial);
        }
    }

    fn before(&self) -> Before {
        let leaving = self.drains.going.iter().filter(|drain| drain.removed().is_some());
        Before {
            wanted: self.wanted.clone(),
            marks: Arc::clone(&self.draft.marks),
            source: self.source.clone(),
            members: self.members.iter().map(|(id, seat)| (*id, seat.member.kept())).collect(),
            table: self.table(),
            leaving: leaving.map(|drain| (drain.place(), drain.end)).collect(),
            addresses: self.parting.addresses.clone(),
        }
    }

    fn table(&self) -> Table {
        let services = self.draft.services.iter().filter(|service| !service.closing).map(|service| {
            let servers = service.servers.iter().map(|server| server.spec()).collect();
            (service.spec.id, (service.spec.clone(), servers))
        });
        Table { services: services.collect(), timeouts: self.present_timeouts() }
    }

    fn go_back(&mut self, now: Instant, trial: Trial) {
        let Trial { before, after, .. } = trial;
        let present = self.table();
        // What was changed by hand during the trial stays so.
        let known = |(service, server): &Place| {
            before.wanted.service(service).is_some_and(|service| service.server(*server).is_some())
        };
        let by_hand = self.members.iter().map(|(id, seat)| (*id, seat.member.kept()));
        let mut kept = before.members;
        kept.extend(by_hand.filter(|(place, kept)| kept.is_by_hand() && known(place)));
        let deadline = self.removal_deadline(now);
        self.go_over_to(now, before.wanted, before.marks, deadline, kept);
        self.source = before.source;
        self.together(|director| director.restore_services(&before.table, &after, &present));
        self.retire_deleted(now);
        self.restore_deadlines(&before.leaving, &before.addresses);
        self.effects.push(Effect::TrialEnded(false));
    }

    /// Services, timeouts and orders of servers as they were, but for what somebody has changed since.
    fn restore_services(&mut self, before: &Table, after: &Table, present: &Table) {
        for (id, (spec, servers)) in &before.services {
            let untouched = present.service(id) == after.service(id);
            let now = self.draft.services.get(id);
            if untouched && now.is_some_and(|now| now.closing || now.spec != *spec) {
                // It was in the table, so the table takes it.
                let _ = self.edit(&Edit::EditService(spec.clone()));
            }
            for server in servers {
                let place = (*id, server.id);
                if present.server(place) == after.server(place) && after.server(place) != Some(server) {
                    self.restore_server(place.0, server);
                }
            }
            self.draft
                .services
                .arrange(id, &servers.iter().map(|server| server.id).collect::<Vec<ServerId>>());
        }
        if present.timeouts == after.timeouts && self.present_timeouts() != before.timeouts {
            let (tcp, tcp_fin, udp) = before.timeouts;
            let _ = self.edit(&Edit::SetTimeouts { tcp, tcp_fin, udp });
        }
    }

    /// One that the trial took out or changed. What the file names, its sorry server included, is back by itself.
    fn restore_server(&mut self, service: ServiceId, spec: &ServerSpec) {
        let present = self.draft.services.get(&service);
        let present = present.filter(|present| !present.is_leaving(spec.id));
        let now = present.and_then(|present| present.server(spec.id)).map(|server| server.spec());
        let sorry = self.wanted.service(&service).and_then(|service| service.sorry.as_ref());
        let is_wanted =
            self.members.contains_key(&(service, spec.id)) || sorry.is_some_and(|sorry| sorry.id == spec.id);
        if is_wanted || now.as_ref() == Some(spec) {
            return;
        }
        if self.edit(&Edit::EditServer(service, spec.clone())).is_err() {
            // It had gone meanwhile.
            let _ = self.edit(&Edit::AddServer(service, spec.clone()));
        }
    }

    /// Servers that the table did not have, because somebody had deleted them by hand, leave again.
    fn retire_deleted(&mut self, now: Instant) {
        let deleted = self.members.iter().filter(|(_, seat)| seat.member.is_deleted());
        let extra: Vec<Place> = deleted.map(|(place, _)| *place).collect();
        self.retire(now, &extra);
    }

    /// What had been leaving before leaves when it would have.
    fn restore_deadlines(&mut self, leaving: &HashMap<Place, Option<Instant>>, addresses: &[Leaving]) {
        for drain in &mut self.drains.going {
            if let Cause::Removed(_) = drain.cause
                && let Some(end) = leaving.get(&drain.place())
            {
                drain.end = *end;
            }
        }
        for known in addresses {
            let same = |leaving: &&mut Leaving| leaving.address == known.address;
            if let Some(leaving) = self.parting.addresses.iter_mut().find(same) {
                *leaving = known.clone();
            }
        }
    }
}

fn no_trial() -> Reply {
    Reply::Failed("no configuration is on trial".into())
}
