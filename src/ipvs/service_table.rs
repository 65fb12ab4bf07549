//! The single writer's side of the services: edits with the kernel's checks, in the kernel's order (ipvs.md sections 1 and 9.2).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::ipvs::edit::{ClientMask, Edit, Errno, Forward, ServerId, ServerSpec, ServiceId, ServiceSpec};
use crate::ipvs::scheduler::{self, Change};
use crate::ipvs::server::RealServer;
use crate::ipvs::service::{Services, VirtualService};
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::stats::Stats;
use crate::ipvs::view::ServiceView;
use crate::net::addr::{Family, Protocol};
use crate::net::route::{RouteTable, is_link_local};
use crate::net::time::Instant;

/// How long a deleted server that nothing points at can still be revived by adding it again.
const TRASH_TIME: Duration = Duration::from_secs(120);
/// `--set` accepts what fits the kernel's jiffies (`INT_MAX` / HZ with HZ = 1000).
const TIMEOUT_MAX: u32 = i32::MAX as u32 / 1000;

/// A deleted server.
#[derive(Debug)]
struct Trashed {
    service: ServiceId,
    server: Arc<RealServer>,
    /// Its service was deleted too, or has been since.
    bereft: bool,
    idle_since: Option<Instant>,
}

/// The services as the writer keeps them; workers see them through [`Snapshot::services`].
#[derive(Debug)]
pub struct ServiceTable {
    tables: Arc<Tables>,
    workers: usize,
    /// Newest first.
    order: Vec<ServiceId>,
    trash: Vec<Trashed>,
    /// Counters of deleted services that a deleted server still counts at: a service of the same identity goes on with them,
    /// since the server may be revived in it.
    former_stats: HashMap<ServiceId, Weak<Stats>>,
}

impl ServiceTable {
    /// No services, on tables made for `workers` workers.
    pub fn new(tables: Arc<Tables>, workers: usize) -> Self {
        ServiceTable { tables, workers, order: Vec::new(), trash: Vec::new(), former_stats: HashMap::new() }
    }

    /// Applies one command to the draft of the next snapshot.
    pub fn apply(&mut self, draft: &mut Snapshot, edit: &Edit) -> Result<(), Errno> {
        match edit {
            Edit::AddService(spec) => self.add_service(&mut draft.services, spec),
            Edit::EditService(spec) => edit_service(&mut draft.services, spec),
            Edit::DeleteService(id) => self.delete_service(draft, id),
            Edit::Flush => self.flush(draft),
            Edit::AddServer(id, spec) => self.add_server(draft, id, spec),
            Edit::EditServer(id, spec) => edit_server(draft, id, spec),
            Edit::DeleteServer(id, server) => self.delete_server(draft, id, *server),
            Edit::Zero(id) => self.zero(&draft.services, id.as_ref()),
            Edit::SetTimeouts { tcp, tcp_fin, udp } => {
                if [tcp, tcp_fin, udp].into_iter().any(|seconds| *seconds > TIMEOUT_MAX) {
                    return Err(Errno::EINVAL);
                }
                draft.timeouts.set(*tcp, *tcp_fin, *udp);
                Ok(())
            }
        }
    }

    fn add_service(&mut self, services: &mut Services, spec: &ServiceSpec) -> Result<(), Errno> {
        check_service(spec)?;
        if services.get(&spec.id).is_some() {
            return Err(Errno::EEXIST);
        }
        let scheduler = scheduler::by_name(&spec.scheduler).ok_or(Errno::ENOENT)?;
        check_engine(spec)?;
        let stats = self.former_stats.remove(&spec.id).and_then(|stats| stats.upgrade());
        let stats = stats.unwrap_or_else(|| Arc::new(Stats::new(self.workers)));
        stats.estimator().restart(stats.totals());
        services.insert(Arc::new(VirtualService {
            spec: spec.clone(),
            servers: Vec::new(),
            scheduler,
            stats,
        }));
        self.order.insert(0, spec.id);
        Ok(())
    }

    fn delete_service(&mut self, draft: &mut Snapshot, id: &ServiceId) -> Result<(), Errno> {
        let service = draft.services.remove(id).ok_or(Errno::ESRCH)?;
        self.order.retain(|present| present != id);
        self.former_stats.insert(*id, Arc::downgrade(&service.stats));
        for server in &service.servers {
            self.throw_away(*id, server);
        }
        for trashed in self.trash.iter_mut().filter(|trashed| trashed.service == *id) {
            trashed.bereft = true;
        }
        self.expire_orphans(draft);
        Ok(())
    }

    fn flush(&mut self, draft: &mut Snapshot) -> Result<(), Errno> {
        for id in std::mem::take(&mut self.order) {
            self.delete_service(draft, &id)?;
        }
        Ok(())
    }

    fn add_server(&mut self, draft: &mut Snapshot, id: &ServiceId, spec: &ServerSpec) -> Result<(), Errno> {
        let service = draft.services.get(id).ok_or(Errno::ESRCH)?;
        check_server(id, spec, &draft.routes)?;
        if service.server(spec.id).is_some() {
            return Err(Errno::EEXIST);
        }
        let server = self.revive(id, spec).unwrap_or_else(|| {
            Arc::new(RealServer::new(spec, *id, self.workers, Arc::clone(&service.stats)))
        });
        let mut servers = vec![server];
        servers.extend(service.servers.iter().cloned());
        service.scheduler.servers_changed(&servers, Change::Added);
        let service = service.with_servers(servers);
        draft.services.insert(Arc::new(service));
        Ok(())
    }

    fn delete_server(&mut self, draft: &mut Snapshot, id: &ServiceId, server: ServerId) -> Result<(), Errno> {
        let service = draft.services.get(id).ok_or(Errno::ESRCH)?;
        let position = service.servers.iter().position(|present| present.id() == server);
        let position = position.ok_or(Errno::ENOENT)?;
        let mut servers = service.servers.clone();
        let server = servers.remove(position);
        let before = position.checked_sub(1).map(|before| &servers[before]);
        service.scheduler.servers_changed(&servers, Change::Deleted { server: &server, before });
        let service = service.with_servers(servers);
        draft.services.insert(Arc::new(service));
        self.throw_away(*id, &server);
        self.expire_orphans(draft);
        Ok(())
    }

    fn zero(&self, services: &Services, id: Option<&ServiceId>) -> Result<(), Errno> {
        let zero = |service: &VirtualService| {
            service.stats.estimator().zero();
            service.servers.iter().for_each(|server| server.stats().estimator().zero());
        };
        match id {
            Some(id) => zero(services.get(id).ok_or(Errno::ESRCH)?),
            None => {
                services.iter().for_each(|service| zero(service));
                self.tables.total.estimator().zero();
            }
        }
        Ok(())
    }

    fn throw_away(&mut self, service: ServiceId, server: &Arc<RealServer>) {
        server.set_available(false);
        self.trash.push(Trashed { service, server: Arc::clone(server), bereft: false, idle_since: None });
    }

    /// The server of this identity out of the trash, with its connections, and its counters unless the service is another
    /// one now (golden `service-readded-stats`).
    fn revive(&mut self, service: &ServiceId, spec: &ServerSpec) -> Option<Arc<RealServer>> {
        let same = |trashed: &Trashed| trashed.service == *service && trashed.server.id() == spec.id;
        let index = self.trash.iter().position(same)?;
        let Trashed { server, bereft, .. } = self.trash.remove(index);
        if bereft {
            server.stats().estimator().zero();
        }
        server.revive(spec);
        Some(server)
    }

    /// `expire_nodest_conn`: connections of deleted servers end at once, and then their templates.
    fn expire_orphans(&self, draft: &Snapshot) {
        if draft.sysctls.expire_nodest_conn == 0 {
            return;
        }
        let mut orphans = Vec::new();
        self.tables.connections.for_each(|connection| {
            if !connection.server.is_available() {
                orphans.push(Arc::clone(connection));
            }
        });
        for connection in &orphans {
            self.tables.connections.remove(connection);
        }
        self.tables.templates.remove_orphans();
    }

    /// Frees deleted servers that have been idle for long enough. To be called about once a minute.
    pub fn empty_trash(&mut self, now: Instant) {
        self.trash.retain_mut(|trashed| {
            if !trashed.server.is_idle() {
                trashed.idle_since = None;
                return true;
            }
            let since = *trashed.idle_since.get_or_insert(now);
            now.saturating_since(since) < TRASH_TIME
        });
        self.former_stats.retain(|_, stats| stats.strong_count() > 0);
    }

    /// Takes the estimators' sample, every [`crate::ipvs::estimator::PERIOD`].
    pub fn sample(&self, services: &Services) {
        self.tables.total.sample();
        for service in services.iter() {
            service.stats.sample();
            service.servers.iter().for_each(|server| server.stats().sample());
        }
    }

    /// All services for a listing, newest first.
    pub fn views(&self, services: &Services) -> Vec<ServiceView> {
        self.order.iter().filter_map(|id| services.get(id)).map(|service| service.view()).collect()
    }
}

/// Scheduler and persistence engine go by name; `sip` is the one engine that there is.
fn check_engine(spec: &ServiceSpec) -> Result<(), Errno> {
    match spec.engine.as_deref() {
        None | Some("sip") => Ok(()),
        Some(_) => Err(Errno::ENOENT),
    }
}

fn check_service(spec: &ServiceSpec) -> Result<(), Errno> {
    if let ServiceId::Address { protocol, .. } = spec.id
        && !matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    {
        return Err(Errno::EOPNOTSUPP);
    }
    match (spec.id.family(), spec.persistence.map(|persistence| persistence.mask)) {
        (_, None) | (Family::V4, Some(ClientMask::V4(_))) | (Family::V6, Some(ClientMask::V6(1..=128))) => {
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    }
}

fn edit_service(services: &mut Services, spec: &ServiceSpec) -> Result<(), Errno> {
    let service = Arc::clone(services.get(&spec.id).ok_or(Errno::ESRCH)?);
    check_service(spec)?;
    check_engine(spec)?;
    let scheduler = if service.spec.scheduler == spec.scheduler {
        Arc::clone(&service.scheduler)
    } else {
        let scheduler = scheduler::by_name(&spec.scheduler).ok_or(Errno::ENOENT)?;
        scheduler.servers_changed(&service.servers, Change::Added);
        scheduler
    };
    services.insert(Arc::new(VirtualService {
        spec: spec.clone(),
        servers: service.servers.clone(),
        scheduler,
        stats: Arc::clone(&service.stats),
    }));
    Ok(())
}

fn edit_server(draft: &Snapshot, id: &ServiceId, spec: &ServerSpec) -> Result<(), Errno> {
    let service = draft.services.get(id).ok_or(Errno::ESRCH)?;
    check_server(id, spec, &draft.routes)?;
    service.server(spec.id).ok_or(Errno::ENOENT)?.update(spec);
    service.scheduler.servers_changed(&service.servers, Change::Edited);
    Ok(())
}

fn check_server(service: &ServiceId, spec: &ServerSpec, routes: &RouteTable) -> Result<(), Errno> {
    if spec.weight < 0 || spec.lower_threshold > spec.upper_threshold {
        return Err(Errno::ERANGE);
    }
    if spec.upper_threshold > i32::MAX as u32
        || (Family::from(spec.id.address) != service.family() && spec.forward != Forward::Tunnel)
        || !is_unicast(spec.id.address, routes)
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// A link-local address may only be this machine's own (ipvs.md section 1.2).
fn is_unicast(address: IpAddr, routes: &RouteTable) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
        }
        IpAddr::V6(v6) => {
            let foreign_link = is_link_local(address) && !routes.is_local(address);
            !v6.is_multicast() && !v6.is_unspecified() && !foreign_link
        }
    }
}
