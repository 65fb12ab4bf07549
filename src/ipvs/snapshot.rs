//! What control publishes for the workers, and the tables that they share.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::ipvs::beyond::Beyond;
use crate::ipvs::connection::Connection;
use crate::ipvs::defence::{Defence, DropCounters};
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::mark::MarkRules;
use crate::ipvs::persistence::TemplateTable;
use crate::ipvs::protocol::Timeouts;
use crate::ipvs::service::Services;
use crate::ipvs::stats::Stats;
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::table::ConnectionTable;
use crate::ipvs::view::ConnectionView;
use crate::net::addr::PortIndex;
use crate::net::fragment::Reassembler;
use crate::net::route::RouteTable;
use crate::net::time::Instant;

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
    /// What the FTP helper reads.
    pub ftp_ports: FtpPorts,
    /// What goes beyond IPVS.
    pub beyond: Arc<Beyond>,
    /// What their defence modes come to.
    pub defence: Defence,
}

impl Snapshot {
    /// The name of a port's interface.
    pub fn interface(&self, port: PortIndex) -> &str {
        self.interfaces.get(usize::from(port.0)).map_or("", String::as_str)
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
    /// Counters of everything balanced.
    pub total: Stats,
    /// Datagrams of which fragments are missing.
    pub fragments: Mutex<Reassembler>,
    /// Counters of the defence.
    pub drop_counters: DropCounters,
}

impl Tables {
    /// Empty tables for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Tables {
            snapshot: Arc::default(),
            connections: ConnectionTable::default(),
            templates: TemplateTable::default(),
            total: Stats::new(workers),
            fragments: Mutex::default(),
            drop_counters: DropCounters::default(),
        }
    }

    /// Ends a connection before its time. Its template goes with it unless other connections were made by it or one proved
    /// to be alive both ways (ipvs.md section 6.2); so does the control connection of a last data connection.
    pub fn drop_connection(&self, connection: &Arc<Connection>) {
        self.connections.remove(connection);
        if let Some(template) = &connection.template
            && !template.is_assured()
        {
            self.templates.end(template);
        }
        if let Some(parent) = &connection.parent
            && !parent.has_children()
        {
            self.drop_connection(parent);
        }
    }

    /// All connections and templates that are alive at `now`, in no order.
    pub fn connection_views(&self, now: Instant) -> Vec<ConnectionView> {
        let mut views = Vec::new();
        self.templates.for_each(|template| views.push(template.view(now)));
        self.connections.for_each(|connection| {
            if !connection.life.is_over(now) {
                views.push(connection.view(now));
            }
        });
        views
    }
}
