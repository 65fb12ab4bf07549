//! How the virtual servers of `lvs.cf` and their servers stand, for `xlvs status`.

use super::Director;
use super::member::Place;
use super::protocol::{ServerStatus, SorryStatus, VirtualStatus};
use super::wanted::{WantedServer, WantedService};

impl Director {
    pub(super) fn standings(&self) -> Vec<VirtualStatus> {
        self.wanted.services.iter().map(|service| self.virtual_standing(service)).collect()
    }

    fn virtual_standing(&self, service: &WantedService) -> VirtualStatus {
        let sorry = service.sorry.as_ref().map(|sorry| SorryStatus {
            endpoint: sorry.id.to_string(),
            active: self.sorry_in(&service.spec.id).is_some(),
        });
        let since = self.groups.get(&service.spec.id).map_or(self.now, |post| post.group.since());
        VirtualStatus {
            name: service.name.clone(),
            service: service.spec.id.to_string(),
            up: self.count_members(service).up,
            since: self.now.saturating_since(since).as_secs(),
            sorry,
            servers: service.servers.iter().filter_map(|server| self.standing(service, server)).collect(),
        }
    }

    fn standing(&self, service: &WantedService, server: &WantedServer) -> Option<ServerStatus> {
        let id = (service.spec.id, server.spec.id);
        let member = &self.members.get(&id)?.member;
        let present = self.draft.services.get(&id.0).and_then(|service| service.server(id.1));
        Some(ServerStatus {
            name: server.name.clone(),
            endpoint: server.endpoint.to_string(),
            state: member.state(),
            since: self.now.saturating_since(member.since()).as_secs(),
            check: member.health(),
            reason: member.reason().to_owned(),
            forced: member.forced(),
            weight: present.map(|server| server.weight()),
            full_weight: member.full().weight,
            slow_start: member.is_climbing(),
            by_hand: member.is_by_hand(),
            deleted: member.is_deleted() && member.place() == Place::Absent,
            connections: present.map_or(0, |server| server.total()),
        })
    }
}
