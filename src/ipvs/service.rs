//! A virtual service, and how a packet finds its own.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::ipvs::edit::{ClientMask, Forward, ServerId, ServiceId, ServiceSpec};
use crate::ipvs::helper::PASSIVE_PORTS;
use crate::ipvs::helper::ftp::{CONTROL_PORT, DATA_PORT};
use crate::ipvs::scheduler::Scheduler;
use crate::ipvs::server::RealServer;
use crate::ipvs::stats::Stats;
use crate::ipvs::view::ServiceView;
use crate::net::addr::{Family, Protocol};

/// A virtual service as one snapshot shows it. What lives longer (servers, scheduler state, counters) is shared with the
/// snapshots before and after.
pub struct VirtualService {
    /// As asked for.
    pub spec: ServiceSpec,
    /// Servers in scheduling order: newest first.
    pub servers: Vec<Arc<RealServer>>,
    /// Servers that get nothing new any more while their connections go on.
    pub leaving: Vec<Arc<RealServer>>,
    /// Whether packets without a connection do not find it any more; its servers are leaving then.
    pub closing: bool,
    /// The scheduler with its state.
    pub scheduler: Arc<dyn Scheduler>,
    /// Counters.
    pub stats: Arc<Stats>,
}

impl fmt::Debug for VirtualService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualService")
            .field("spec", &self.spec)
            .field("servers", &self.servers)
            .field("leaving", &self.leaving)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

impl VirtualService {
    /// The same service, to be given other servers.
    pub fn another(&self) -> Self {
        VirtualService {
            spec: self.spec.clone(),
            servers: self.servers.clone(),
            leaving: self.leaving.clone(),
            closing: self.closing,
            scheduler: Arc::clone(&self.scheduler),
            stats: Arc::clone(&self.stats),
        }
    }

    /// Its servers and those that are leaving it.
    pub fn all_servers(&self) -> impl Iterator<Item = &Arc<RealServer>> {
        self.servers.iter().chain(&self.leaving)
    }

    /// The server of this identity, also if it is leaving.
    pub fn server(&self, id: ServerId) -> Option<&Arc<RealServer>> {
        self.all_servers().find(|server| server.id() == id)
    }

    /// Whether the server of this identity is leaving.
    pub fn is_leaving(&self, id: ServerId) -> bool {
        self.leaving.iter().any(|server| server.id() == id)
    }

    /// Virtual address and port; `None` for a mark.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.spec.id {
            ServiceId::Address { address, port, .. } => Some(SocketAddr::new(address, port)),
            ServiceId::FwMark { .. } => None,
        }
    }

    /// The virtual port; `None` for a mark.
    pub fn port(&self) -> Option<u16> {
        self.address().map(|address| address.port())
    }

    /// For a listing.
    pub fn view(&self) -> ServiceView {
        let estimator = *self.stats.estimator();
        ServiceView {
            spec: self.spec.clone(),
            servers: self.all_servers().map(|server| server.view()).collect(),
            stats: estimator.stats(),
            rates: estimator.rates(),
        }
    }
}

/// A client address under a persistence mask.
pub fn mask_client(client: IpAddr, mask: ClientMask) -> IpAddr {
    match (client, mask) {
        (IpAddr::V4(client), ClientMask::V4(mask)) => IpAddr::V4((u32::from(client) & mask).into()),
        (IpAddr::V6(client), ClientMask::V6(prefix)) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(client) & mask).into())
        }
        (client, _) => client,
    }
}

/// The services of one snapshot.
#[derive(Debug, Default, Clone)]
pub struct Services {
    by_id: HashMap<ServiceId, Arc<VirtualService>, RandomState>,
    of_family: [usize; 2],
    any_port: usize,
    ftp: usize,
    engines: usize,
    marks: usize,
    /// How many services have a server at an address and port, by protocol; a mark's servers stand for any.
    servers: HashMap<(Option<Protocol>, ServerId), usize, RandomState>,
}

impl Services {
    /// Puts a service in, in place of one of the same identity.
    pub fn insert(&mut self, service: Arc<VirtualService>) {
        let (id, port) = (service.spec.id, service.port());
        self.count_servers(&service, 1);
        self.engines += usize::from(service.spec.engine.is_some());
        if let Some(former) = self.by_id.insert(id, service) {
            self.count_servers(&former, -1);
            self.engines -= usize::from(former.spec.engine.is_some());
        } else {
            self.of_family[id.family() as usize] += 1;
            self.any_port += usize::from(port == Some(0));
            self.ftp += usize::from(port == Some(CONTROL_PORT));
            self.marks += usize::from(port.is_none());
        }
    }

    /// Takes a service out.
    pub fn remove(&mut self, id: &ServiceId) -> Option<Arc<VirtualService>> {
        let service = self.by_id.remove(id)?;
        self.count_servers(&service, -1);
        self.engines -= usize::from(service.spec.engine.is_some());
        self.of_family[id.family() as usize] -= 1;
        self.any_port -= usize::from(service.port() == Some(0));
        self.ftp -= usize::from(service.port() == Some(CONTROL_PORT));
        self.marks -= usize::from(service.port().is_none());
        Some(service)
    }

    fn count_servers(&mut self, service: &VirtualService, change: isize) {
        let protocol = match service.spec.id {
            ServiceId::Address { protocol, .. } => Some(protocol),
            ServiceId::FwMark { .. } => None,
        };
        for server in service.all_servers() {
            let count = self.servers.entry((protocol, server.id())).or_default();
            *count = count.saturating_add_signed(change);
            if *count == 0 {
                self.servers.remove(&(protocol, server.id()));
            }
        }
    }

    /// Whether some service has a real server here that it reaches by NAT.
    pub fn has_server(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let id = ServerId { address, port };
        let known =
            self.servers.contains_key(&(Some(protocol), id)) || self.servers.contains_key(&(None, id));
        known && self.has_masqueraded(protocol, id)
    }

    /// The method may change under the count, so that it is looked at only here, where a server is known to be.
    fn has_masqueraded(&self, protocol: Protocol, id: ServerId) -> bool {
        self.iter().any(|service| {
            let fits =
                !matches!(service.spec.id, ServiceId::Address { protocol: own, .. } if own != protocol);
            fits && service.server(id).is_some_and(|server| server.forward() == Forward::Masquerade)
        })
    }

    /// The UDP service with a persistence engine, and the server of it that is here, port 0 excepted at either (ipvs.md section
    /// 4.5). Of several services it is the one that listings show first.
    pub fn speaking_server(&self, source: SocketAddr) -> Option<(&Arc<VirtualService>, &Arc<RealServer>)> {
        let id = ServerId { address: source.ip(), port: source.port() };
        if self.engines == 0 || id.port == 0 || !self.has_server(Protocol::UDP, id.address, id.port) {
            return None;
        }
        let speaks = |service: &&Arc<VirtualService>| {
            let address =
                matches!(service.spec.id, ServiceId::Address { protocol: Protocol::UDP, port: 1.., .. });
            address && service.spec.engine.is_some()
        };
        let speaker =
            |service: &'_ VirtualService| service.servers.iter().position(|server| server.id() == id);
        let servers = self
            .iter()
            .filter(speaks)
            .filter_map(|service| Some((service, &service.servers[speaker(service)?])));
        let servers = servers.filter(|(_, server)| server.forward() == Forward::Masquerade);
        servers.min_by_key(|(service, _)| service.address())
    }

    /// The service of this identity.
    pub fn get(&self, id: &ServiceId) -> Option<&Arc<VirtualService>> {
        self.by_id.get(id)
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.by_id.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is one for packets of a family.
    pub fn serve(&self, family: Family) -> bool {
        self.of_family[family as usize] != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether a service goes by marks, so that a packet's mark has to be known.
    pub fn has_marks(&self) -> bool {
        self.marks != 0
    }

    /// The service a packet belongs to: by its mark, else by protocol, address and port, else as FTP data, else by address for
    /// any port (ipvs.md section 1.1). One that is closing is none, so that it does not hide what has come in its place.
    pub fn find(
        &self,
        mark: u32,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    ) -> Option<&Arc<VirtualService>> {
        let marked = ServiceId::FwMark { mark, family: Family::from(address) };
        if mark != 0
            && let Some(service) = self.open(&marked)
        {
            return Some(service);
        }
        let at = |port| self.open(&ServiceId::Address { protocol, address, port });
        let is_ftp_data = protocol == Protocol::TCP && (port == DATA_PORT || PASSIVE_PORTS.contains(&port));
        at(port)
            .or_else(|| if self.ftp != 0 && is_ftp_data { at(CONTROL_PORT) } else { None })
            .or_else(|| if self.any_port != 0 { at(0) } else { None })
    }
    fn open(&self, id: &ServiceId) -> Option<&Arc<VirtualService>> {
        self.by_id.get(id).filter(|service| !service.closing)
    }
}
