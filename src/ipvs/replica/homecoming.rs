//! Connections and templates that were told of before their servers were in the services here: they get them once they are. A
//! router that starts is told of all before its first health checks are over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use sdd::Guard;

use super::home::Home;
use super::install::{Origin, install, server_at};
use super::live::{PARTS, find, home_of, strangers};
use super::record::{ConnectionRecord, Key, Record};
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::helper::ftp::CONTROL_PORT;
use crate::ipvs::persistence::{TemplateKey, mark_of};
use crate::ipvs::server::RealServer;
use crate::ipvs::service::{Services, VirtualService};
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::net::addr::{Family, Protocol};
use crate::net::time::Instant;

/// A look goes through all tables: not more often than this.
const PERIOD: Duration = Duration::from_millis(500);

/// Looks for them, a part of the tables at a time, when the services have changed.
#[derive(Debug)]
pub struct Homecoming {
    /// The snapshot that the last look was for, or the present one is.
    generation: u32,
    next_part: usize,
    next_look: Instant,
    /// Servers of marks, which a connection does not tell.
    marked: HashMap<(Family, ServerId), ServiceId, RandomState>,
}

impl Default for Homecoming {
    fn default() -> Self {
        Homecoming { generation: 0, next_part: PARTS, next_look: Instant::START, marked: HashMap::default() }
    }
}

impl Homecoming {
    /// Whether a look is going on.
    pub fn has_work(&self) -> bool {
        self.next_part < PARTS
    }

    /// Looks through a part, if there is anything to be looked for.
    pub fn work(&mut self, tables: &Tables, now: Instant) {
        let snapshot = tables.snapshot.load();
        if !self.has_work() {
            let changed = snapshot.generation != self.generation;
            if !changed || now < self.next_look || !tables.sync.has_strangers() {
                return;
            }
            self.begin(&snapshot, now);
        }
        for record in strangers(tables, self.next_part, now) {
            if let Some(record) = self.at_home(tables, &snapshot.services, record) {
                // A table that is full is so by others: this one makes room for itself.
                let _ = install(tables, &snapshot, Origin::Predecessor, &record, now);
            }
        }
        self.next_part += 1;
    }

    fn begin(&mut self, snapshot: &Snapshot, now: Instant) {
        (self.generation, self.next_part, self.next_look) = (snapshot.generation, 0, now + PERIOD);
        let marked = snapshot.services.iter().filter(|service| service.address().is_none());
        self.marked = marked
            .flat_map(|service| {
                let id = service.spec.id;
                service.servers.iter().map(move |server| ((id.family(), server.id()), id))
            })
            .collect();
    }

    /// The same with the home that it has by now, if there is one.
    fn at_home(&self, tables: &Tables, services: &Services, record: Record) -> Option<Record> {
        match record {
            Record::Connection(mut record) => {
                let ServerId { address, port } = record.usual_home().server;
                let marked = |port| {
                    let (family, server) = (Family::from(record.client.ip()), ServerId { address, port });
                    self.marked.get(&(family, server)).map(|service| Home { service: *service, server })
                };
                let home = parents_home(tables, &record);
                let home = home.or_else(|| home_of(server_at(services, &record)?));
                record.home = Some(home.or_else(|| marked(port)).or_else(|| marked(0))?);
                Some(Record::Connection(record))
            }
            Record::Template(mut record) => {
                let services = services_of(&record.key).into_iter().filter_map(|id| services.get(&id));
                let mut servers = services.filter_map(|service| listed_at(service, record.place));
                record.home = Some(servers.find_map(|server| home_of(server))?);
                Some(Record::Template(record))
            }
            Record::End(Key::Connection(_) | Key::Template(_)) => None,
        }
    }
}

/// A data connection is where its control connection is: its port is no service's.
fn parents_home(tables: &Tables, record: &ConnectionRecord) -> Option<Home> {
    let guard = Guard::new();
    home_of(&find(tables, record.parent.as_ref()?, &guard)?.server)
}

/// FTP's templates are for any port, and those of a service that is not have none of their server's.
fn listed_at(service: &VirtualService, place: SocketAddr) -> Option<&Arc<RealServer>> {
    let (address, port) = (place.ip(), place.port());
    let listed = service.server(ServerId { address, port });
    let mut servers = service.servers.iter();
    listed.or_else(|| servers.find(|server| port == 0 && server.id().address == address))
}

/// The services that may have such a template.
fn services_of(key: &TemplateKey) -> Vec<ServiceId> {
    if key.protocol == Protocol::IP {
        let (mark, family) = mark_of(key.virtual_address.ip());
        return vec![ServiceId::FwMark { mark, family }];
    }
    let (address, port) = (key.virtual_address.ip(), key.virtual_address.port());
    let at = |port| ServiceId::Address { protocol: key.protocol, address, port };
    if port == 0 { vec![at(0), at(CONTROL_PORT)] } else { vec![at(port)] }
}
