//! What control publishes for the workers, and the tables that they share.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::ipvs::admission::Admission;
use crate::ipvs::beyond::Beyond;
use crate::ipvs::connection::Connection;
use crate::ipvs::defence::{Defence, DropCounters};
use crate::ipvs::edit::{self, Outline, Present, ServerId, ServiceId};
use crate::ipvs::farewell::Farewells;
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::mark::MarkRules;
use crate::ipvs::persistence::TemplateTable;
use crate::ipvs::protocol::Timeouts;
use crate::ipvs::replica::Replication;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::Services;
use crate::ipvs::stats::Stats;
use crate::ipvs::sync::{Exchange, SyncDaemons, SyncRole};
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::table::ConnectionTable;
use crate::ipvs::trash::Trash;
use crate::ipvs::view::ConnectionView;
use crate::net::addr::PortIndex;
use crate::net::fragment::Reassembler;
use crate::net::route::RouteTable;
use crate::net::time::Instant;

/// A page of a listing has at least so many rows, if there are more pages.
const PAGE: usize = 1000;

/// Everything that a decision about a packet depends on, as of one moment. Never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Virtual services.
    pub services: Services,
    /// Firewall marks.
    pub marks: Arc<MarkRules>,
    /// Next hops and own addresses.
    pub routes: Arc<RouteTable>,
    /// Names of the ports' interfaces, by [`PortIndex`].
    pub interfaces: Vec<String>,
    /// State timeouts.
    pub timeouts: Timeouts,
    /// `net.ipv4.vs` settings.
    pub sysctls: Sysctls,
    /// Synchronisation daemons.
    pub sync: SyncDaemons,
    /// What the FTP helper reads.
    pub ftp_ports: FtpPorts,
    /// Virtual addresses that nobody may open connections to any more while those that there are go on.
    pub closed: Vec<IpAddr>,
    /// What goes beyond IPVS.
    pub beyond: Arc<Beyond>,
    /// What their defence modes come to.
    pub defence: Defence,
    /// How many snapshots there were before; shortcuts follow from one of them.
    pub generation: u32,
}

impl Snapshot {
    /// The name of a port's interface.
    pub fn interface(&self, port: PortIndex) -> &str {
        self.interfaces.get(usize::from(port.0)).map_or("", String::as_str)
    }

    /// Whether only what servers send is balanced: a backup runs, and `backup_only` is on.
    #[inline]
    pub fn is_passive(&self) -> bool {
        !self.sync.is_empty() && self.sysctls.backup_only != 0 && self.sync.get(SyncRole::Backup).is_some()
    }
}

impl Snapshot {
    /// Its services, servers and daemons by name.
    pub fn outline(&self) -> Outline {
        let mut outline = Outline::default();
        for service in self.services.iter() {
            outline.add_service(service.spec.id);
            service.all_servers().for_each(|server| outline.add_server(&service.spec.id, server.id()));
        }
        self.sync.iter().for_each(|daemon| outline.add_daemon(daemon.role));
        outline
    }
}

impl Present for Snapshot {
    fn has_service(&self, id: &ServiceId) -> bool {
        self.services.get(id).is_some()
    }

    fn has_server(&self, id: &ServiceId, server: ServerId) -> bool {
        self.services.get(id).is_some_and(|service| service.server(server).is_some())
    }

    fn mixes_families(&self) -> bool {
        self.services.iter().any(|service| {
            service.all_servers().any(|server| edit::is_foreign(&service.spec.id, server.id()))
        })
    }

    fn has_daemon(&self, role: SyncRole) -> bool {
        self.sync.get(role).is_some()
    }
}

/// What all workers and the control side share.
#[derive(Debug)]
pub struct Tables {
    /// The current snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Connections.
    pub connections: ConnectionTable,
    /// Persistence templates.
    pub templates: TemplateTable,
    /// Deleted servers that connections may still point at.
    pub trash: Trash,
    /// Counters of everything balanced.
    pub total: Stats,
    /// Datagrams of which fragments are missing.
    pub fragments: Mutex<Reassembler>,
    /// Counters of the defence.
    pub drop_counters: DropCounters,
    /// Whom new connections are refused.
    pub admission: Admission,
    /// Messages of the synchronisation.
    pub sync: Exchange,
    /// What is told to another process, and by it.
    pub replication: Arc<Replication>,
    /// Connections whose ends are to be told.
    pub farewells: Farewells,
}

impl Tables {
    /// Empty tables for `workers` workers.
    pub fn new(workers: usize) -> Self {
        let replication = Arc::<Replication>::default();
        Tables {
            snapshot: Arc::default(),
            connections: ConnectionTable::default().replicated_by(Arc::clone(&replication)),
            templates: TemplateTable::default().replicated_by(Arc::clone(&replication)),
            trash: Trash::default(),
            total: Stats::new(workers),
            fragments: Mutex::default(),
            drop_counters: DropCounters::default(),
            admission: Admission::default(),
            sync: Exchange::default(),
            replication,
            farewells: Farewells::default(),
        }
    }

    /// The server of this identity that is in a service, or was.
    pub fn server_of(
        &self,
        services: &Services,
        service: &ServiceId,
        server: ServerId,
    ) -> Option<Arc<RealServer>> {
        let present = services.get(service).and_then(|service| service.server(server));
        present.cloned().or_else(|| self.trash.find(service, server))
    }

    /// Ends a connection before its time. Its template goes with it unless other connections were made by it or one proved
    /// to be alive both ways (ipvs.md section 6.2); so does the control connection of a last data connection.
    pub fn drop_connection(&self, connection: &Connection) {
        self.connections.remove(connection);
        self.end_template_of(connection);
        if let Some(parent) = connection.parent()
            && !parent.has_children()
        {
            self.drop_connection(parent);
        }
    }

    /// A connection in a listing, if it is alive.
    fn view(&self, connection: &Connection, now: Instant) -> Option<ConnectionView> {
        self.connections.refresh(connection);
        (!connection.life.is_over(now)).then(|| connection.view(now))
    }

    /// The same of one that is half open still; returns whether it was. Its control connection stays.
    pub fn drop_half_open(&self, connection: &Connection) -> bool {
        let dropped = self.connections.remove_half_open(connection);
        if dropped {
            self.end_template_of(connection);
        }
        dropped
    }

    fn end_template_of(&self, connection: &Connection) {
        if let Some(template) = &connection.template
            && !template.is_assured()
        {
            self.templates.end(template);
        }
    }

    /// Some of the connections and templates that are alive at `now`, in no order; the first ones at `place` 0, and the place to
    /// go on at, if there are more. The page is of a size that does not depend on how many there are.
    pub fn connection_page(&self, place: usize, now: Instant) -> (Vec<ConnectionView>, Option<usize>) {
        let mut views = Vec::new();
        let templates = self.templates.walks().map(Ok);
        let walks = templates.chain(self.connections.walks().map(Err)).enumerate();
        for (place, walk) in walks.skip(place) {
            if views.len() >= PAGE {
                return (views, Some(place));
            }
            match walk {
                Ok(walk) => walk.for_each(|template| views.push(template.view(now))),
                Err(walk) => {
                    let mut connections = Vec::new();
                    walk.for_each(|connection| connections.extend(connection.share()));
                    views.extend(connections.iter().filter_map(|connection| self.view(connection, now)));
                }
            }
        }
        (views, None)
    }
}
