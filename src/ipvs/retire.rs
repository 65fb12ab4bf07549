//! Servers and services that leave in peace: nothing new comes to them, their connections go on, and whoever names them again
//! takes them back as they are. It is for the control side to end them.

use std::sync::Arc;

use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::scheduler::Change;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::{Services, VirtualService};

impl VirtualService {
    /// The service without one of its servers, leaving or not, and that server.
    pub fn without(&self, id: ServerId) -> Option<(VirtualService, Arc<RealServer>)> {
        if let Some(position) = self.leaving.iter().position(|server| server.id() == id) {
            let mut leaving = self.leaving.clone();
            let server = leaving.remove(position);
            return Some((VirtualService { leaving, ..self.another() }, server));
        }
        let position = self.servers.iter().position(|server| server.id() == id)?;
        let mut servers = self.servers.clone();
        let server = servers.remove(position);
        let before = position.checked_sub(1).map(|before| &servers[before]);
        self.scheduler.servers_changed(&servers, Change::Deleted { server: &server, before });
        Some((VirtualService { servers, ..self.another() }, server))
    }

    /// The service with a server that was leaving among those that stay, as the newest; open again if it was closing.
    pub fn taking_back(&self, id: ServerId) -> VirtualService {
        let mut service = VirtualService { closing: false, ..self.another() };
        if let Some(position) = service.leaving.iter().position(|server| server.id() == id) {
            let server = service.leaving.remove(position);
            server.end_drain();
            service.servers.insert(0, server);
            service.scheduler.servers_changed(&service.servers, Change::Added);
        }
        service
    }
}

impl Services {
    /// Has a server leave its service: schedulers do not see it any more. To be published before [`RealServer::retire`] is
    /// called, so that nobody who still sees it among the others is refused. Returns it, if it was there and stayed.
    pub fn retire_server(&mut self, id: &ServiceId, server: ServerId) -> Option<Arc<RealServer>> {
        let service = self.get(id).filter(|service| !service.is_leaving(server))?;
        let (mut service, server) = service.without(server)?;
        service.leaving.push(Arc::clone(&server));
        self.insert(Arc::new(service));
        Some(server)
    }

    /// Has all servers of a service leave it, and packets without a connection not find it any more. Returns those that stayed.
    pub fn close(&mut self, id: &ServiceId) -> Vec<Arc<RealServer>> {
        let Some(service) = self.get(id).filter(|service| !service.closing) else { return Vec::new() };
        let mut service = VirtualService { closing: true, ..service.another() };
        let staying = std::mem::take(&mut service.servers);
        service.leaving.extend(staying.iter().cloned());
        service.scheduler.servers_changed(&[], Change::Edited);
        self.insert(Arc::new(service));
        staying
    }

    /// Puts the servers of a service in the order of `ids`; others stay behind those.
    pub fn arrange(&mut self, id: &ServiceId, ids: &[ServerId]) {
        let Some(service) = self.get(id) else { return };
        let place = |server: &Arc<RealServer>| ids.iter().position(|id| *id == server.id());
        if service.servers.is_sorted_by_key(|server| place(server).unwrap_or(usize::MAX)) {
            return;
        }
        let mut service = service.another();
        service.servers.sort_by_key(|server| place(server).unwrap_or(usize::MAX));
        service.scheduler.servers_changed(&service.servers, Change::Edited);
        self.insert(Arc::new(service));
    }
}
