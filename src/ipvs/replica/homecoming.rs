//! Connections and templates that were told of before their servers were in the services here: they get them once they are. A
//! router that starts is told of all before its first health checks are over.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::home::Home;
use super::install::{Origin, install};
use super::live::{PARTS, strangers};
use super::record::{Key, Record};
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::helper::ftp::CONTROL_PORT;
use crate::ipvs::persistence::{TemplateKey, mark_of};
use crate::ipvs::service::Services;
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
            if let Some(record) = self.at_home(&snapshot.services, record) {
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
    fn at_home(&self, services: &Services, record: Record) -> Option<Record> {
        let found = |home: Home| {
            services.get(&home.service).is_some_and(|service| service.server(home.server).is_some())
        };
        match record {
            Record::Connection(mut record) => {
                let usual = record.usual_home();
                let marked = |port: u16| {
                    let server = ServerId { port, ..usual.server };
                    let family = Family::from(record.client.ip());
                    let service = *self.marked.get(&(family, server))?;
                    Some(Home { service, server })
                };
                let home = Some(usual).filter(|home| found(*home));
                record.home = Some(home.or_else(|| marked(usual.server.port)).or_else(|| marked(0))?);
                Some(Record::Connection(record))
            }
            Record::Template(mut record) => {
                let server = ServerId { address: record.place.ip(), port: record.place.port() };
                let mut homes = services_of(&record.key).into_iter().map(|service| Home { service, server });
                record.home = Some(homes.find(|home| found(*home))?);
                Some(Record::Template(record))
            }
            Record::End(Key::Connection(_) | Key::Template(_)) => None,
        }
    }
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
