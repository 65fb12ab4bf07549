//! The single writer's side of the services: edits, once they have passed the checks of [`crate::ipvs::edit`].

mod estate;

pub use estate::{Counters, ServerEstate, ServiceEstate, TableEstate, TrashedEstate};

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::ipvs::edit::{Edit, Errno, Refusal, ServerId, ServerSpec, ServiceId, ServiceSpec, Surroundings};
use crate::ipvs::scheduler::{self, Change};
use crate::ipvs::server::RealServer;
use crate::ipvs::service::{Services, VirtualService};
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::stats::Stats;
use crate::ipvs::trash::Trashed;
use crate::ipvs::view::ServiceView;
use crate::net::route::HostNetwork;
use crate::net::time::Instant;

/// The services as the writer keeps them; workers see them through [`Snapshot::services`].
#[derive(Debug)]
pub struct ServiceTable {
    tables: Arc<Tables>,
    workers: usize,
    /// Newest first.
    order: VecDeque<ServiceId>,
    /// Servers that have just been thrown away, and whether anything was deleted.
    leaving: Vec<Arc<RealServer>>,
    deleted: bool,
    /// Counters of deleted services that a deleted server still counts at: a service of the same identity goes on with them,
    /// since the server may be revived in it.
    former_stats: HashMap<ServiceId, Weak<Stats>>,
}

impl ServiceTable {
    /// No services, on tables made for `workers` workers.
    pub fn new(tables: Arc<Tables>, workers: usize) -> Self {
        ServiceTable {
            tables,
            workers,
            order: VecDeque::new(),
            leaving: Vec::new(),
            deleted: false,
            former_stats: HashMap::new(),
        }
    }

    /// Applies one command to the draft of the next snapshot.
    pub fn apply(&mut self, draft: &mut Snapshot, network: &HostNetwork, edit: &Edit) -> Result<(), Errno> {
        edit.check(draft, &Surroundings { routes: &draft.routes, network })?;
        self.carry_out(draft, network, edit);
        self.part_with_deleted(draft);
        Ok(())
    }

    /// Applies commands one after the other, or none of them if one is refused.
    pub fn apply_all(
        &mut self,
        draft: &mut Snapshot,
        network: &HostNetwork,
        edits: &[Edit],
    ) -> Result<(), Refusal> {
        draft.outline().check_all(edits, &Surroundings { routes: &draft.routes, network })?;
        edits.iter().for_each(|edit| self.carry_out(draft, network, edit));
        self.part_with_deleted(draft);
        Ok(())
    }

    /// Does what has been checked.
    fn carry_out(&mut self, draft: &mut Snapshot, network: &HostNetwork, edit: &Edit) {
        match edit {
            Edit::AddService(spec) => self.add_service(&mut draft.services, spec),
            Edit::EditService(spec) => edit_service(&mut draft.services, spec),
            Edit::DeleteService(id) => self.delete_services(draft, &[*id]),
            Edit::Flush => {
                let all = Vec::from(std::mem::take(&mut self.order));
                self.delete_services(draft, &all);
            }
            Edit::AddServer(id, spec) => self.add_server(&mut draft.services, id, spec),
            Edit::EditServer(id, spec) => edit_server(&mut draft.services, id, spec),
            Edit::DeleteServer(id, server) => self.delete_server(draft, id, *server),
            Edit::Zero(id) => self.zero(&draft.services, id.as_ref()),
            Edit::SetTimeouts { tcp, tcp_fin, udp } => draft.timeouts.set(*tcp, *tcp_fin, *udp),
            Edit::StartDaemon(daemon) => {
                let mtu = network.link_named(&daemon.interface).map_or(0, |link| link.mtu);
                draft.sync.start(daemon.completed(mtu), draft.sysctls.sync_ports);
            }
            Edit::StopDaemon(role) => draft.sync.stop(*role),
        }
    }

    fn add_service(&mut self, services: &mut Services, spec: &ServiceSpec) {
        let Some(scheduler) = scheduler::by_name(&spec.scheduler) else { return };
        let stats = self.former_stats.remove(&spec.id).and_then(|stats| stats.upgrade());
        let stats = stats.unwrap_or_else(|| Arc::new(Stats::new(self.workers)));
        stats.estimator().restart(stats.totals());
        services.insert(Arc::new(VirtualService {
            spec: spec.clone(),
            servers: Vec::new(),
            leaving: Vec::new(),
            closing: false,
            scheduler,
            stats,
        }));
        self.order.push_front(spec.id);
    }

    fn delete_services(&mut self, draft: &mut Snapshot, ids: &[ServiceId]) {
        for id in ids {
            let Some(service) = draft.services.remove(id) else { continue };
            self.order.retain(|present| present != id);
            self.former_stats.insert(*id, Arc::downgrade(&service.stats));
            for server in service.all_servers() {
                self.throw_away(server);
            }
            self.tables.trash.bereave(id);
        }
        self.deleted |= !ids.is_empty();
    }

    fn add_server(&mut self, services: &mut Services, id: &ServiceId, spec: &ServerSpec) {
        let Some(service) = services.get(id) else { return };
        let server = self.revive(id, spec).unwrap_or_else(|| {
            Arc::new(RealServer::new(spec, *id, self.workers, Arc::clone(&service.stats)))
        });
        let mut servers = vec![server];
        servers.extend(service.servers.iter().cloned());
        service.scheduler.servers_changed(&servers, Change::Added);
        services.insert(Arc::new(VirtualService { servers, closing: false, ..service.another() }));
    }

    fn delete_server(&mut self, draft: &mut Snapshot, id: &ServiceId, server: ServerId) {
        let Some(service) = draft.services.get(id) else { return };
        let Some((service, server)) = service.without(server) else { return };
        draft.services.insert(Arc::new(service));
        self.throw_away(&server);
        self.deleted = true;
    }

    fn zero(&self, services: &Services, id: Option<&ServiceId>) {
        let zero = |service: &VirtualService| {
            service.stats.estimator().zero();
            service.all_servers().for_each(|server| server.stats().estimator().zero());
        };
        match id {
            Some(id) => services.get(id).into_iter().for_each(|service| zero(service)),
            None => {
                services.iter().for_each(|service| zero(service));
                self.tables.total.estimator().zero();
            }
        }
    }

    fn throw_away(&mut self, server: &Arc<RealServer>) {
        self.leaving.push(Arc::clone(server));
        self.tables.trash.put(Arc::clone(server), false);
    }

    /// The server of this identity out of the trash, with its connections, and its counters unless the service is another
    /// one now (golden `service-readded-stats`).
    fn revive(&self, service: &ServiceId, spec: &ServerSpec) -> Option<Arc<RealServer>> {
        let Trashed { server, bereft, .. } = self.tables.trash.take(service, spec.id)?;
        if bereft {
            server.stats().estimator().zero();
        }
        server.revive(spec);
        Some(server)
    }

    /// Only now do packets see that servers have gone: some of them may have come back by a later edit of the same moment.
    fn part_with_deleted(&mut self, draft: &Snapshot) {
        for server in std::mem::take(&mut self.leaving) {
            if self.tables.trash.find(server.service(), server.id()).is_some() {
                server.set_available(false);
            }
        }
        if std::mem::take(&mut self.deleted) {
            self.expire_orphans(draft);
        }
    }

    /// `expire_nodest_conn`: connections of deleted servers end at once, and then their templates.
    fn expire_orphans(&self, draft: &Snapshot) {
        if draft.sysctls.expire_nodest_conn == 0 {
            return;
        }
        let mut orphans = Vec::new();
        self.tables.connections.for_each(|connection| {
            if !connection.server.is_available() && !connection.server.is_stranger() {
                orphans.extend(connection.share());
            }
        });
        for connection in &orphans {
            self.tables.connections.remove(connection);
        }
        self.tables.templates.remove_orphans();
    }

    /// Frees deleted servers that have been idle for long enough. To be called about once a minute.
    pub fn empty_trash(&mut self, now: Instant) {
        self.tables.trash.empty(now);
        self.former_stats.retain(|_, stats| stats.strong_count() > 0);
    }

    /// Takes the estimators' sample, every [`crate::ipvs::estimator::PERIOD`].
    pub fn sample(&self, services: &Services) {
        self.tables.total.sample();
        for service in services.iter() {
            service.stats.sample();
            service.all_servers().for_each(|server| server.stats().sample());
        }
    }

    /// All services for a listing, newest first.
    pub fn views(&self, services: &Services) -> Vec<ServiceView> {
        self.order.iter().filter_map(|id| services.get(id)).map(|service| service.view()).collect()
    }
}

/// A closing service is open again thereby.
fn edit_service(services: &mut Services, spec: &ServiceSpec) {
    let Some(service) = services.get(&spec.id) else { return };
    let mut scheduler = Arc::clone(&service.scheduler);
    if service.spec.scheduler != spec.scheduler
        && let Some(other) = scheduler::by_name(&spec.scheduler)
    {
        other.servers_changed(&service.servers, Change::Added);
        scheduler = other;
    }
    let (spec, closing) = (spec.clone(), false);
    services.insert(Arc::new(VirtualService { spec, scheduler, closing, ..service.another() }));
}

/// A leaving server stays thereby.
fn edit_server(services: &mut Services, id: &ServiceId, spec: &ServerSpec) {
    let Some(service) = services.get(id) else { return };
    let Some(server) = service.server(spec.id) else { return };
    server.update(spec);
    if service.is_leaving(spec.id) {
        let service = service.taking_back(spec.id);
        services.insert(Arc::new(service));
    } else {
        service.scheduler.servers_changed(&service.servers, Change::Edited);
    }
}
