//! What `lvs.cf` wants, in the words of the tables; and the steps from one wish to the next.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health_check;
use crate::config::lvs::{
    DeviceAddress, LvsConfig, Network, RealServer, Service, VirtualServer, port_number,
};
use crate::director::member::{load, slow_start};
use crate::ipvs::edit::{
    ClientMask, Forward, Persistence, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use crate::ipvs::mark::MarkRules;
use crate::ipvs::scheduler;
use crate::nanny::Check;
use crate::net::addr::Family;
use crate::net::route::HostNetwork;
use crate::net::tunnel::Encapsulation;

/// An address that the director puts on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedAddress {
    /// Interface, without alias.
    pub interface: String,
    /// Label such as `eth0:1`, if the configuration names one.
    pub label: Option<String>,
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, if the configuration gives a netmask.
    pub prefix_len: Option<u8>,
}

impl WantedAddress {
    /// Whether the machine has the address.
    pub fn is_on(&self, network: &HostNetwork) -> bool {
        network.addresses.iter().any(|present| present.address == IpAddr::V4(self.address))
    }
}

/// A real server, and how its health is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedServer {
    /// Name in the file.
    pub name: String,
    /// Address and port in the file, which log lines name.
    pub endpoint: SocketAddr,
    /// As it enters the table.
    pub spec: ServerSpec,
    /// The check that lets it in; other servers may have the same one.
    pub check: Arc<Check>,
    /// Nothing is configured for it, and the port is 80: it is checked as a web server.
    pub assumes_web: bool,
    /// Time from one adjustment of its weight to the next.
    pub step: Duration,
    /// What is run to learn its load, if that counts.
    pub load: Option<Vec<String>>,
    /// How long that may take.
    pub patience: Duration,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedService {
    /// Name in the file.
    pub name: String,
    /// The service.
    pub spec: ServiceSpec,
    /// Port in the file, which log lines name.
    pub port: u16,
    /// A dead server goes to weight 0 instead of out.
    pub quiesce: bool,
    /// What stands in while no server is up.
    pub sorry: Option<ServerSpec>,
    /// Its active servers.
    pub servers: Vec<WantedServer>,
}

/// Everything a configuration wants of the director.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Active virtual servers in file order.
    pub services: Vec<WantedService>,
    /// Seconds for `--set`: TCP, TCP after a FIN, UDP; 0 leaves a value alone.
    pub timeouts: (u32, u32, u32),
    /// Virtual addresses in file order, then the gateway address of the real servers.
    pub addresses: Vec<WantedAddress>,
    /// The latter.
    pub gateway: Option<Ipv4Addr>,
    /// Interface and number of the connection synchronisation, if it is wanted.
    pub sync: Option<(String, u8)>,
    /// Virtual servers that cannot be run, and why.
    pub refused: Vec<String>,
    /// What else an administrator should know.
    pub notes: Vec<String>,
    /// What to run when the router becomes active.
    pub active_cmd: Option<String>,
    /// What to run when it ceases to be.
    pub inactive_cmd: Option<String>,
}

impl Wanted {
    /// The wishes of a configuration.
    pub fn new(config: &LvsConfig) -> Wanted {
        let sync = config.syncdaemon.then(|| (config.syncd_iface.clone(), config.syncd_id));
        let mut wanted = Wanted {
            timeouts: timeouts(config),
            sync,
            active_cmd: config.active_cmd.clone(),
            inactive_cmd: config.inactive_cmd.clone(),
            ..Wanted::default()
        };
        if config.service == Service::Fos {
            let text = "service = fos: failover of local services is not run, only lvs is; put the blocks of lvs \
                        in place, or run those services under a cluster manager";
            wanted.refused.push(text.into());
            return wanted;
        }
        for block in config.virtuals.iter().filter(|block| block.active) {
            wanted.add_virtual(block, config);
        }
        wanted.share_checks([]);
        if let Some(router) = &config.nat_router
            && config.network == Network::Nat
        {
            let is_virtual = wanted.address(router.address).is_some();
            wanted.gateway = (!is_virtual).then_some(router.address);
            wanted.add_address(router, config.nat_nmask);
        }
        wanted
    }

    fn add_virtual(&mut self, block: &VirtualServer, config: &LvsConfig) {
        let service = match service(block, config) {
            Ok(service) => service,
            Err(why) => return self.refused.push(format!("virtual {}: {why}; it is not run", block.name)),
        };
        if self.services.iter().any(|other| other.spec.id == service.spec.id) {
            let text = "another virtual server has the same mark or address, protocol and port";
            return self.refused.push(format!("virtual {}: {text}; it is not run", block.name));
        }
        if block.sorry_server.is_some() && service.sorry.is_none() {
            let text = format!("virtual {}: sorry_server is one of its servers, and is not used", block.name);
            self.notes.push(text);
        }
        self.services.push(service);
        if let Some(address) = &block.address {
            self.add_address(address, block.vip_nmask);
        }
    }

    /// The first block in file order that names an address supplies its device and mask.
    fn add_address(&mut self, place: &DeviceAddress, mask: Option<Ipv4Addr>) {
        if self.addresses.iter().any(|present| present.address == place.address) {
            return;
        }
        self.addresses.push(WantedAddress {
            interface: place.interface().to_owned(),
            label: place.is_alias().then(|| place.device.clone()),
            address: place.address,
            prefix_len: mask.map(|mask| u32::from(mask).leading_ones() as u8),
        });
    }

    /// The wish for an address.
    pub fn address(&self, address: Ipv4Addr) -> Option<&WantedAddress> {
        self.addresses.iter().find(|wanted| wanted.address == address)
    }

    /// Virtual servers that go by a mark which no rule gives, so that no packet reaches them.
    pub fn unmarked(&self, marks: &MarkRules) -> Vec<String> {
        let given = marks.destinations();
        let is_given = |mark: u32, family: Family| {
            given.iter().any(|(given, (prefix, _))| {
                let of_family = prefix.is_none_or(|prefix| Family::from(prefix.addr()) == family);
                of_family && given.is_none_or(|given| given == mark)
            })
        };
        let unmarked = self.services.iter().filter_map(|service| match service.spec.id {
            ServiceId::FwMark { mark, family } if !is_given(mark, family) => Some((&service.name, mark)),
            _ => None,
        });
        let text = |(name, mark): (&String, u32)| {
            format!("virtual {name}: no saved iptables rule gives mark {mark}, so no packet reaches it")
        };
        unmarked.map(text).collect()
    }

    /// What this refuses that `former` did not.
    pub fn newly_refused(&self, former: &Wanted) -> Vec<String> {
        self.refused.iter().filter(|text| !former.refused.contains(text)).cloned().collect()
    }

    /// The wish for a service.
    pub fn service(&self, id: &ServiceId) -> Option<&WantedService> {
        self.services.iter().find(|service| service.spec.id == *id)
    }

    /// Goes on with the checks of `former` that there are here too: they keep running, whoever they are for now.
    pub fn adopt_checks(&mut self, former: &Wanted) {
        self.share_checks(former.checks());
    }

    /// Equal checks become one, that of `known` if it is there.
    fn share_checks<'a>(&mut self, known: impl IntoIterator<Item = &'a Arc<Check>>) {
        let of = |check: &Arc<Check>| (Arc::clone(check), Arc::clone(check));
        let mut shared: HashMap<Arc<Check>, Arc<Check>> = known.into_iter().map(of).collect();
        for server in self.services.iter_mut().flat_map(|service| &mut service.servers) {
            let first = shared.entry(Arc::clone(&server.check)).or_insert_with_key(Arc::clone);
            server.check = Arc::clone(first);
        }
    }

    /// Its checks in file order, each once.
    pub fn checks(&self) -> Vec<&Arc<Check>> {
        let mut seen = HashSet::new();
        let checks = self.servers().map(|(_, server)| &server.check);
        checks.filter(|check| seen.insert(Arc::as_ptr(check))).collect()
    }

    /// Every server with its service.
    pub fn servers(&self) -> impl Iterator<Item = (&WantedService, &WantedServer)> {
        self.services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)))
    }
}

impl WantedService {
    /// The wish for a server of the service.
    pub fn server(&self, id: ServerId) -> Option<&WantedServer> {
        self.servers.iter().find(|server| server.spec.id == id)
    }
}

fn timeouts(config: &LvsConfig) -> (u32, u32, u32) {
    let seconds = |value: i32| u32::try_from(value).unwrap_or(0);
    (seconds(config.tcp_timeout), seconds(config.tcpfin_timeout), seconds(config.udp_timeout))
}

fn service(block: &VirtualServer, config: &LvsConfig) -> Result<WantedService, String> {
    let place = block.address.as_ref().ok_or("it has no address")?;
    let port = port_number(block.port).ok_or_else(|| format!("port {} is not a port", block.port))?;
    if scheduler::by_name(block.scheduler.word()).is_none() {
        return Err(format!("there is no scheduler {}", block.scheduler.word()));
    }
    let protocol = block.protocol.number();
    let id = match block.fwmark {
        0 => ServiceId::Address { protocol, address: place.address.into(), port },
        mark => ServiceId::FwMark { mark, family: Family::V4 },
    };
    let persistence = u32::try_from(block.persistent).ok().filter(|seconds| *seconds > 0);
    let mask = ClientMask::V4(block.pmask.map_or(u32::MAX, u32::from));
    let spec = ServiceSpec {
        id,
        scheduler: block.scheduler.word().to_owned(),
        flags: SchedulerFlags::default(),
        one_packet: false,
        persistence: persistence.map(|timeout| Persistence { timeout, mask }),
        engine: None,
    };
    let mut service = WantedService {
        name: block.name.clone(),
        spec,
        port,
        quiesce: block.quiesce_server,
        sorry: None,
        servers: Vec::new(),
    };
    for server in block.servers.iter().filter(|server| server.active) {
        let wanted = wanted_server(config, block, server, port)
            .map_err(|why| format!("server {}: {why}", server.name))?;
        if service.server(wanted.spec.id).is_none() {
            service.servers.push(wanted);
        }
    }
    let sorry = block.sorry_server.map(|address| sorry_server(address, port, config.network));
    service.sorry = sorry.filter(|sorry| service.server(sorry.id).is_none());
    Ok(service)
}

fn wanted_server(
    config: &LvsConfig,
    block: &VirtualServer,
    server: &RealServer,
    virtual_port: u16,
) -> Result<WantedServer, String> {
    let address = IpAddr::V4(server.address.ok_or("it has no address")?);
    let port = port_number(server.port).ok_or_else(|| format!("port {} is not a port", server.port))?;
    let endpoint = SocketAddr::new(address, port);
    let check = health_check::check(config, block, server, endpoint, virtual_port)?;
    let forward = forward(config.network);
    // Only NAT can change a port, so that ipvsadm, which Piranha called, takes the service's.
    let keeps_port = forward != Forward::Masquerade && block.fwmark == 0;
    let spec = ServerSpec {
        id: ServerId { address, port: if keeps_port { virtual_port } else { port } },
        forward,
        tunnel: Encapsulation::Ipip,
        weight: server.weight,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let timeout = u32::try_from(block.timeout).unwrap_or(0).max(1);
    Ok(WantedServer {
        name: server.name.clone(),
        endpoint,
        step: slow_start::step(timeout),
        load: load::command(block.load_monitor.as_deref(), &config.rsh_command, address),
        patience: Duration::from_secs(timeout.into()),
        spec,
        check: Arc::new(check),
        assumes_web: health_check::assumes_web(config, block, server, virtual_port),
    })
}

fn forward(network: Network) -> Forward {
    match network {
        Network::Nat => Forward::Masquerade,
        Network::Direct => Forward::Route,
        Network::Tunnel => Forward::Tunnel,
    }
}

/// At the virtual port, with weight 1 and the forwarding method of all (reference/piranha.md 3.5).
fn sorry_server(address: Ipv4Addr, port: u16, network: Network) -> ServerSpec {
    ServerSpec {
        id: ServerId { address: address.into(), port },
        forward: forward(network),
        tunnel: Encapsulation::Ipip,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}
