//! What the tables have and what `lvs.cf` wants, side by side; and what was changed by hand, so that it outlives changes of a
//! server's health.

use super::Director;
use super::member::{Input, Place};
use super::members::MemberId;
use super::protocol::{Difference, DrainStatus};
use super::wanted::Wanted;
use crate::ipvs::edit::{Edit, ServerId, ServerSpec, ServiceId};
use crate::ipvs::protocol::tcp::State;
use crate::net::time::Instant;

impl Director {
    /// The servers of `lvs.cf` in the table that `edits` may delete with all their service. One that is down is not among them: the
    /// hand does not know it.
    pub(super) fn cleared_by(&self, edits: &[Edit]) -> Vec<MemberId> {
        if !edits.iter().any(|edit| matches!(edit, Edit::Flush | Edit::DeleteService(_))) {
            return Vec::new();
        }
        let wanted = self.wanted.servers().map(|(service, server)| (service.spec.id, server.spec.id));
        wanted.filter(|(service, server)| self.is_present(service, *server)).collect()
    }

    /// Takes note of what an edit by hand makes of the servers that `lvs.cf` names; `cleared` is from before the edit.
    pub(super) fn remember(&mut self, edit: &Edit, cleared: &[MemberId]) {
        let (id, input) = match edit {
            Edit::Flush => return self.remember_deleted(cleared, |_| true),
            Edit::DeleteService(id) => return self.remember_deleted(cleared, |service| service == id),
            Edit::AddServer(service, spec) | Edit::EditServer(service, spec) => {
                ((*service, spec.id), Input::Edited(spec.clone()))
            }
            Edit::DeleteServer(service, server) => ((*service, *server), Input::Deleted),
            _ => return,
        };
        self.take_hand(id, input);
    }

    fn remember_deleted(&mut self, cleared: &[MemberId], is_deleted: impl Fn(&ServiceId) -> bool) {
        let members: Vec<MemberId> =
            self.members.keys().filter(|(service, _)| is_deleted(service)).copied().collect();
        for id in members {
            let input = if cleared.contains(&id) { Input::Deleted } else { Input::Forgotten };
            self.take_hand(id, input);
        }
    }

    /// The same, and what is drained.
    pub(super) fn all_differences(&self, now: Instant) -> Vec<Difference> {
        let mut differences = self.differences();
        for drain in self.drain_statuses(now) {
            let DrainStatus { service, server, cause, .. } = drain;
            let wanted = self.wanted.service(&service).and_then(|service| service.server(server));
            let table = format!("drained ({}), {}", cause.words(), drain.progress());
            differences.push(Difference {
                subject: format!("server {server} of {service}"),
                file: wanted.map(|wanted| wanted.spec.terms()),
                table: Some(table),
            });
        }
        differences
    }

    /// Everything in which the tables differ from `lvs.cf`, but for what a server's health and drains explain.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let mut differences = self.service_differences();
        let (wanted, present) = (self.timeouts_by(&self.wanted), self.present_timeouts());
        if wanted != present {
            let text = |(tcp, tcp_fin, udp)| Some(format!("{tcp} {tcp_fin} {udp}"));
            differences.push(Difference {
                subject: "timeouts (tcp tcpfin udp)".into(),
                file: text(wanted),
                table: text(present),
            });
        }
        differences
    }

    pub(super) fn present_timeouts(&self) -> (u32, u32, u32) {
        let timeouts = &self.draft.timeouts;
        (timeouts.tcp(State::Established), timeouts.tcp(State::FinWait), timeouts.udp())
    }

    /// What a file makes of the timeouts; where it says nothing, it leaves them as they are.
    pub(super) fn timeouts_by(&self, wanted: &Wanted) -> (u32, u32, u32) {
        let (tcp, tcp_fin, udp) = wanted.timeouts;
        let present = self.present_timeouts();
        let or = |wanted, present| if wanted == 0 { present } else { wanted };
        (or(tcp, present.0), or(tcp_fin, present.1), or(udp, present.2))
    }

    fn service_differences(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let present = &self.draft.services;
        let unknown = present.iter().filter(|service| !service.closing).map(|service| service.spec.id);
        let mut unknown: Vec<_> = unknown.filter(|id| self.wanted.service(id).is_none()).collect();
        unknown.sort_by_key(ToString::to_string);
        for id in self.wanted.services.iter().map(|service| service.spec.id).chain(unknown) {
            let file = self.wanted.service(&id).map(|service| service.spec.terms());
            let table = present.get(&id).map(|service| service.spec.terms());
            differences.extend(difference(format!("service {id}"), file, table));
            differences.extend(self.server_differences(&id));
        }
        differences
    }

    fn server_differences(&self, id: &ServiceId) -> Vec<Difference> {
        let wanted = self.wanted.service(id).into_iter().flat_map(|service| &service.servers);
        let mut servers: Vec<ServerId> = wanted.map(|server| server.spec.id).collect();
        servers.extend(self.sorry_in(id).map(|sorry| sorry.id));
        let present = self.draft.services.get(id).into_iter().flat_map(|service| &service.servers);
        let mut unknown: Vec<ServerId> = present.map(|server| server.id()).collect();
        unknown.retain(|server| !servers.contains(server));
        unknown.sort_by_key(ToString::to_string);
        servers.extend(unknown);
        let difference = |server: ServerId| {
            let present = self.draft.services.get(id).filter(|service| !service.is_leaving(server));
            let table = present.and_then(|service| service.server(server));
            let file = self.server_by_file(id, server).map(|spec| spec.terms());
            difference(format!("server {server} of {id}"), file, table.map(|server| server.spec().terms()))
        };
        servers.into_iter().filter_map(difference).collect()
    }

    /// What the file and the server's health make of a server; a sorry server is of the file, too.
    fn server_by_file(&self, id: &ServiceId, server: ServerId) -> Option<ServerSpec> {
        match self.members.get(&(*id, server)).map(|seat| seat.member.place_by_file()) {
            Some(Place::Present(spec)) => Some(self.as_ordered(*id, spec)),
            Some(Place::Absent) => None,
            None => self.sorry_in(id).filter(|sorry| sorry.id == server).cloned(),
        }
    }

    fn is_present(&self, id: &ServiceId, server: ServerId) -> bool {
        self.draft.services.get(id).is_some_and(|service| service.server(server).is_some())
    }
}

fn difference(subject: String, file: Option<String>, table: Option<String>) -> Option<Difference> {
    (file != table).then_some(Difference { subject, file, table })
}
