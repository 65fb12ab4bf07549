//! Whether the kernel would take an edit, and its error number if not: the checks and their order are those of ipvs.md sections
//! 1.1, 1.2, 7.1 and 9.2. Whoever changes the tables comes by here, so all are refused alike.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::{ClientMask, Edit, Errno, Forward, Refusal, ServerId, ServerSpec, ServiceId, ServiceSpec};
use crate::ipvs::scheduler;
use crate::ipvs::sync::SyncRole;
use crate::net::addr::{Family, Protocol};
use crate::net::route::{HostNetwork, RouteTable, is_link_local};

/// `--set` accepts what fits the kernel's jiffies (`INT_MAX` / HZ with HZ = 100, as in `/proc/net/ip_vs`): all that ipvsadm does.
const TIMEOUT_MAX: u32 = i32::MAX as u32 / 100;

/// The persistence engines that there are.
pub const ENGINES: [&str; 1] = ["sip"];

/// What a check has to know of the tables.
pub trait Present {
    /// Whether the service is there.
    fn has_service(&self, id: &ServiceId) -> bool;

    /// Whether the server of a service is there.
    fn has_server(&self, id: &ServiceId, server: ServerId) -> bool;

    /// Whether some server is of another family than its service.
    fn mixes_families(&self) -> bool;

    /// Whether a synchronisation daemon of this role runs.
    fn has_daemon(&self, role: SyncRole) -> bool;
}

/// What a check has to know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Which addresses are its own.
    pub routes: &'a RouteTable,
    /// Which interfaces it has.
    pub network: &'a HostNetwork,
}

impl Edit {
    /// Whether the kernel would take it.
    pub fn check(&self, present: &impl Present, around: &Surroundings<'_>) -> Result<(), Errno> {
        match self {
            Edit::AddService(spec) => {
                check_service(spec)?;
                ensure(!present.has_service(&spec.id), Errno::EEXIST)?;
                check_names(spec)
            }
            Edit::EditService(spec) => {
                ensure(present.has_service(&spec.id), Errno::ESRCH)?;
                check_service(spec)?;
                check_names(spec)
            }
            Edit::DeleteService(id) | Edit::Zero(Some(id)) => ensure(present.has_service(id), Errno::ESRCH),
            Edit::Flush | Edit::Zero(None) => Ok(()),
            Edit::AddServer(id, spec) => {
                ensure(present.has_service(id), Errno::ESRCH)?;
                check_server(id, spec, present, around.routes)?;
                ensure(!present.has_server(id, spec.id), Errno::EEXIST)
            }
            Edit::EditServer(id, spec) => {
                ensure(present.has_service(id), Errno::ESRCH)?;
                check_server(id, spec, present, around.routes)?;
                ensure(present.has_server(id, spec.id), Errno::ENOENT)
            }
            Edit::DeleteServer(id, server) => {
                ensure(present.has_service(id), Errno::ESRCH)?;
                ensure(present.has_server(id, *server), Errno::ENOENT)
            }
            Edit::SetTimeouts { tcp, tcp_fin, udp } => {
                ensure([tcp, tcp_fin, udp].into_iter().all(|seconds| *seconds <= TIMEOUT_MAX), Errno::EINVAL)
            }
            Edit::StartDaemon(daemon) => {
                ensure(!present.mixes_families(), Errno::EINVAL)?;
                ensure(around.network.link_named(&daemon.interface).is_some(), Errno::ENODEV)?;
                ensure(!present.has_daemon(daemon.role), Errno::EEXIST)
            }
            Edit::StopDaemon(role) => ensure(present.has_daemon(*role), Errno::ESRCH),
        }
    }
}

fn ensure(condition: bool, errno: Errno) -> Result<(), Errno> {
    if condition { Ok(()) } else { Err(errno) }
}

/// Scheduler and persistence engine go by name.
fn check_names(spec: &ServiceSpec) -> Result<(), Errno> {
    let engine_is_known = spec.engine.as_deref().is_none_or(|engine| ENGINES.contains(&engine));
    ensure(scheduler::is_known(&spec.scheduler) && engine_is_known, Errno::ENOENT)
}

fn check_service(spec: &ServiceSpec) -> Result<(), Errno> {
    if let ServiceId::Address { protocol, .. } = spec.id
        && !matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    {
        return Err(Errno::EOPNOTSUPP);
    }
    // No mark is 0: the kernel takes it for an address.
    ensure(!matches!(spec.id, ServiceId::FwMark { mark: 0, .. }), Errno::EINVAL)?;
    match (spec.id.family(), spec.persistence.map(|persistence| persistence.mask)) {
        (_, None) | (Family::V4, Some(ClientMask::V4(_))) | (Family::V6, Some(ClientMask::V6(1..=128))) => {
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    }
}

fn check_server(
    service: &ServiceId,
    spec: &ServerSpec,
    present: &impl Present,
    routes: &RouteTable,
) -> Result<(), Errno> {
    let syncs = || [SyncRole::Master, SyncRole::Backup].into_iter().any(|role| present.has_daemon(role));
    let fits = !is_foreign(service, spec.id) || (spec.forward == Forward::Tunnel && !syncs());
    ensure(fits, Errno::EINVAL)?;
    ensure(spec.weight >= 0 && spec.lower_threshold <= spec.upper_threshold, Errno::ERANGE)?;
    let bounded = spec.upper_threshold <= i32::MAX as u32;
    ensure(bounded && is_unicast(spec.id.address, routes), Errno::EINVAL)
}

/// Whether a server is of another family than its service.
pub fn is_foreign(service: &ServiceId, server: ServerId) -> bool {
    Family::from(server.address) != service.family()
}

/// A link-local address may only be this machine's own (ipvs.md section 1.2). IPv4 in IPv6's clothes is of no scope at all.
fn is_unicast(address: IpAddr, routes: &RouteTable) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let to_many = v4.is_multicast() || v4.is_broadcast() || routes.is_broadcast(address);
            !to_many && !v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            let foreign_link = is_link_local(address) && !routes.is_local(address);
            let mapped = v6.to_ipv4_mapped().is_some();
            !v6.is_multicast() && !v6.is_unspecified() && !mapped && !foreign_link
        }
    }
}

/// What would be there after some edits: names only.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    services: HashMap<ServiceId, HashSet<ServerId, RandomState>, RandomState>,
    daemons: HashSet<SyncRole>,
    /// How many servers are of another family than their service.
    foreign: usize,
}

impl Outline {
    /// Checks edits that are to be made one after the other on what is in the outline.
    pub fn check_all(mut self, edits: &[Edit], around: &Surroundings<'_>) -> Result<(), Refusal> {
        for (index, edit) in edits.iter().enumerate() {
            edit.check(&self, around).map_err(|errno| Refusal { index, errno })?;
            self.follow(edit);
        }
        Ok(())
    }

    /// Adds a service without servers.
    pub fn add_service(&mut self, id: ServiceId) {
        self.services.insert(id, HashSet::default());
    }

    /// Adds a server to a service that is there.
    pub fn add_server(&mut self, id: &ServiceId, server: ServerId) {
        if let Some(servers) = self.services.get_mut(id)
            && servers.insert(server)
        {
            self.foreign += usize::from(is_foreign(id, server));
        }
    }

    /// Adds a synchronisation daemon.
    pub fn add_daemon(&mut self, role: SyncRole) {
        self.daemons.insert(role);
    }

    fn delete_service(&mut self, id: &ServiceId) {
        let servers = self.services.remove(id).unwrap_or_default();
        self.foreign -= servers.iter().filter(|server| is_foreign(id, **server)).count();
    }

    fn follow(&mut self, edit: &Edit) {
        match edit {
            Edit::AddService(spec) => self.add_service(spec.id),
            Edit::DeleteService(id) => self.delete_service(id),
            Edit::Flush => (self.services, self.foreign) = (HashMap::default(), 0),
            Edit::AddServer(id, spec) => self.add_server(id, spec.id),
            Edit::DeleteServer(id, server) => {
                if self.services.get_mut(id).is_some_and(|servers| servers.remove(server)) {
                    self.foreign -= usize::from(is_foreign(id, *server));
                }
            }
            Edit::StartDaemon(daemon) => self.add_daemon(daemon.role),
            Edit::StopDaemon(role) => drop(self.daemons.remove(role)),
            Edit::EditService(_) | Edit::EditServer(..) | Edit::Zero(_) | Edit::SetTimeouts { .. } => {}
        }
    }
}

impl Present for Outline {
    fn has_service(&self, id: &ServiceId) -> bool {
        self.services.contains_key(id)
    }

    fn has_server(&self, id: &ServiceId, server: ServerId) -> bool {
        self.services.get(id).is_some_and(|servers| servers.contains(&server))
    }

    fn mixes_families(&self) -> bool {
        self.foreign != 0
    }

    fn has_daemon(&self, role: SyncRole) -> bool {
        self.daemons.contains(&role)
    }
}
