//! Services and servers as one process leaves them to the next.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ServiceTable;
use crate::ipvs::edit::{ServerId, ServerSpec, ServiceId, ServiceSpec};
use crate::ipvs::scheduler::{self, Change};
use crate::ipvs::server::RealServer;
use crate::ipvs::service::{Services, VirtualService};
use crate::ipvs::stats::{CounterEstate, Stats};
use crate::ipvs::trash::Trashed;

/// A server, but for what is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEstate {
    /// As it is in the table.
    pub spec: ServerSpec,
    /// The last weight that was not 0.
    pub last_weight: i32,
    /// Whether it is drained.
    pub draining: bool,
    /// Whether a threshold keeps schedulers away.
    pub overloaded: bool,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEstate {
    /// As it is in the table.
    pub spec: ServiceSpec,
    /// Whether packets without a connection do not find it any more.
    pub closing: bool,
    /// Its servers in scheduling order.
    pub servers: Vec<ServerEstate>,
    /// Servers that get nothing new any more.
    pub leaving: Vec<ServerEstate>,
}

/// A deleted server to which something may still point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashedEstate {
    /// Its service.
    pub service: ServiceId,
    /// Whether that has been deleted since.
    pub bereft: bool,
    /// The server.
    pub server: ServerEstate,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEstate {
    /// Services, newest first.
    pub services: Vec<ServiceEstate>,
    /// Deleted servers.
    pub trash: Vec<TrashedEstate>,
}

/// What has been counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Of everything balanced.
    pub total: CounterEstate,
    /// Of services.
    pub services: Vec<(ServiceId, CounterEstate)>,
    /// Of servers, deleted ones included.
    pub servers: Vec<(ServiceId, ServerId, CounterEstate)>,
}

impl ServerEstate {
    fn of(server: &RealServer) -> Self {
        ServerEstate {
            spec: server.spec(),
            last_weight: server.last_weight(),
            draining: server.is_draining(),
            overloaded: server.is_overloaded(),
        }
    }

    fn server(&self, service: ServiceId, workers: usize, stats: &Arc<Stats>) -> Arc<RealServer> {
        let server = RealServer::new(&self.spec, service, workers, Arc::clone(stats));
        Arc::new(server.inheriting(self.last_weight, self.draining, self.overloaded))
    }
}

impl ServiceTable {
    /// What there is, for another process.
    pub fn estate(&self, services: &Services) -> TableEstate {
        let estates = |servers: &[Arc<RealServer>]| servers.iter().map(|it| ServerEstate::of(it)).collect();
        let present = self.order.iter().filter_map(|id| services.get(id));
        let service = |service: &Arc<VirtualService>| ServiceEstate {
            spec: service.spec.clone(),
            closing: service.closing,
            servers: estates(&service.servers),
            leaving: estates(&service.leaving),
        };
        let trashed = |Trashed { server, bereft, .. }: Trashed| TrashedEstate {
            service: *server.service(),
            bereft,
            server: ServerEstate::of(&server),
        };
        let trash = self.tables.trash.all().into_iter().map(trashed).collect();
        TableEstate { services: present.map(service).collect(), trash }
    }

    /// Makes the empty table what another process's was.
    pub fn inherit(&mut self, services: &mut Services, estate: &TableEstate) {
        for ServiceEstate { spec, closing, servers, leaving } in &estate.services {
            let Some(scheduler) = scheduler::by_name(&spec.scheduler) else { continue };
            let stats = Arc::new(Stats::new(self.workers));
            let made = |estates: &[ServerEstate]| -> Vec<_> {
                estates.iter().map(|estate| estate.server(spec.id, self.workers, &stats)).collect()
            };
            let (servers, leaving) = (made(servers), made(leaving));
            scheduler.servers_changed(&servers, Change::Added);
            let spec = spec.clone();
            self.order.push_back(spec.id);
            let closing = *closing;
            services.insert(Arc::new(VirtualService { spec, servers, leaving, closing, scheduler, stats }));
        }
        for TrashedEstate { service, bereft, server } in &estate.trash {
            let stats = match services.get(service) {
                Some(present) => Arc::clone(&present.stats),
                None => self.former_stats_of(*service),
            };
            let server = server.server(*service, self.workers, &stats);
            server.set_available(false);
            self.tables.trash.put(server, *bereft);
        }
    }

    fn former_stats_of(&mut self, service: ServiceId) -> Arc<Stats> {
        let known = self.former_stats.get(&service).and_then(|stats| stats.upgrade());
        known.unwrap_or_else(|| {
            let stats = Arc::new(Stats::new(self.workers));
            self.former_stats.insert(service, Arc::downgrade(&stats));
            stats
        })
    }

    /// What has been counted, for another process. To be asked for when nothing is counted any more.
    pub fn counters(&self, services: &Services) -> Counters {
        let trashed = self.tables.trash.all();
        let trashed = trashed.iter().map(|trashed| &trashed.server);
        let servers = services.iter().flat_map(|service| service.all_servers()).chain(trashed);
        let of_server = |server: &Arc<RealServer>| (*server.service(), server.id(), server.stats().estate());
        Counters {
            total: self.tables.total.estate(),
            services: services.iter().map(|service| (service.spec.id, service.stats.estate())).collect(),
            servers: servers.map(of_server).collect(),
        }
    }

    /// Goes on with what another process has counted. To be called before anything is counted here.
    pub fn continue_counters(&self, services: &Services, counters: &Counters) {
        self.tables.total.inherit(&counters.total);
        for (id, estate) in &counters.services {
            if let Some(service) = services.get(id) {
                service.stats.inherit(estate);
            }
        }
        for (service, id, estate) in &counters.servers {
            if let Some(server) = self.tables.server_of(services, service, *id) {
                server.stats().inherit(estate);
            }
        }
    }
}
