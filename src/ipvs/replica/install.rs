//! Connections and templates made of records. Installing a record again changes nothing, and the one that comes last holds.

use std::sync::Arc;

use sdd::{Guard, Shared};

use super::home::Home;
use super::live::{borrowed, borrowed_part, find, home_of, part_of};
use super::receiver::Store;
use super::record::{ConnectionRecord, Key, Record, Refused, TemplateRecord};
use crate::ipvs::connection::{Connection, Told};
use crate::ipvs::persistence::{PersistenceTemplate, TemplateKey};
use crate::ipvs::protocol::Direction;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::Services;
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// The tables of a standby, as a [`Replica`](super::Replica) fills them.
#[derive(Debug)]
pub struct Installed<'a> {
    /// The tables.
    pub tables: &'a Tables,
    /// The time.
    pub now: Instant,
}

impl Store for Installed<'_> {
    fn install(&mut self, record: &Record) -> Result<(), Refused> {
        let snapshot = self.tables.snapshot.load();
        install(self.tables, &snapshot, Origin::Partner, record, self.now).map(drop)
    }

    fn told(&mut self, key: &Key) -> Option<Record> {
        borrowed(self.tables, key, self.now)
    }

    fn visit(&mut self, part: usize, visit: &mut dyn FnMut(&Record)) {
        borrowed_part(self.tables, part, self.now).iter().for_each(visit);
    }

    fn part_of(&mut self, key: &Key) -> usize {
        part_of(self.tables, key)
    }
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The other router: what it tells of counts as synchronised.
    Partner,
    /// The process before this one: what it tells of is as it was there.
    Predecessor,
}

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is one more.
    Made,
    /// One that was there is as the record says.
    Updated,
    /// One that was there has made room.
    Replaced,
    /// One that was there has ended.
    Ended,
    /// There was nothing to end.
    Absent,
}

/// Takes a record in. `snapshot` tells which servers there are; a connection to one that is not among them lives on all the
/// same.
pub fn install(
    tables: &Tables,
    snapshot: &Snapshot,
    origin: Origin,
    record: &Record,
    now: Instant,
) -> Result<Outcome, Refused> {
    let installation = Installation { tables, snapshot, origin, now };
    match record {
        Record::Connection(record) => installation.connection(record),
        Record::Template(record) => Ok(installation.template(record)),
        Record::End(Key::Connection(flow)) => Ok(installation.end_connection(flow)),
        Record::End(Key::Template(key)) => Ok(installation.end_template(key)),
    }
}

struct Installation<'a> {
    tables: &'a Tables,
    snapshot: &'a Snapshot,
    origin: Origin,
    now: Instant,
}

impl Installation<'_> {
    fn connection(&self, record: &ConnectionRecord) -> Result<Outcome, Refused> {
        let guard = Guard::new();
        let present = find(self.tables, &record.flow(), &guard);
        if let Some(present) = present
            && self.is_same(present, record)
        {
            self.tables.connections.take_back(present);
            present.adopt(record, self.told(record.marks.told()));
            present.life.set_deadline(self.now + record.remaining);
            self.file_again(present, &guard);
            return Ok(Outcome::Updated);
        }
        let removed = present.is_some_and(|present| self.tables.connections.remove(present));
        let limit = u64::from(self.snapshot.beyond.switches.conn_max);
        if limit != 0 && self.tables.connections.len() >= limit {
            return Err(Refused::NoRoom);
        }
        let connection = self.make(record, &guard);
        connection.life.set_deadline(self.now + record.remaining);
        let connection = Shared::new(connection);
        self.tables.connections.insert(&connection);
        self.tables.replication.file_connection(connection);
        Ok(if removed { Outcome::Replaced } else { Outcome::Made })
    }

    /// Whether a connection that is there is the one that the record tells of, and nothing of it would have to be made anew.
    fn is_same(&self, present: &Connection, record: &ConnectionRecord) -> bool {
        let moves_home = self.server(record).is_some_and(|server| !Arc::ptr_eq(&server, &present.server));
        let gets_template = present.template.is_none()
            && record.template.as_ref().is_some_and(|key| self.template_of(key, &present.server).is_some());
        present.server_address() == record.server
            && present.forward == record.forward
            && present.awaits_port() == record.marks.awaits_port
            && present.ftp().is_some() == record.ftp.is_some()
            && !moves_home
            && !gets_template
    }

    fn make(&self, record: &ConnectionRecord, guard: &Guard) -> Connection {
        let server = self.server(record);
        let server = server.unwrap_or_else(|| Arc::clone(self.tables.sync.stranger(record.forward)));
        let template = record.template.as_ref().and_then(|key| self.template_of(key, &server));
        let parent = record.parent.as_ref().and_then(|flow| self.parent(flow, guard));
        Connection::restored(record, server, template, parent, self.told(record.marks.told()))
    }

    fn told(&self, there: Told) -> Told {
        match self.origin {
            Origin::Partner => Told { synced: true, borrowed: true },
            Origin::Predecessor => there,
        }
    }

    /// The server of a connection; one that has been deleted may come back, and its connections with it. Of one that is in no service
    /// there it may be in one here.
    fn server(&self, record: &ConnectionRecord) -> Option<Arc<RealServer>> {
        let home = record.home.and_then(|home| self.known(home));
        home.or_else(|| server_at(&self.snapshot.services, record).map(Arc::clone))
    }

    fn known(&self, home: Home) -> Option<Arc<RealServer>> {
        self.tables.server_of(&self.snapshot.services, &home.service, home.server)
    }

    /// A connection keeps a template alive only if it leads to the connection's server.
    fn template_of(&self, key: &TemplateKey, server: &Arc<RealServer>) -> Option<Arc<PersistenceTemplate>> {
        self.tables.templates.find(key).filter(|template| Arc::ptr_eq(&template.server, server))
    }

    fn parent(&self, flow: &FlowKey, guard: &Guard) -> Option<Shared<Connection>> {
        let connections = &self.tables.connections;
        let (parent, way) = connections.find(&connections.hashed(flow.into()), guard)?;
        (way == Direction::In && !parent.is_removed()).then(|| parent.share()).flatten()
    }

    /// A connection whose end has come nearer is one that no worker would look at in time.
    fn file_again(&self, present: &Connection, guard: &Guard) {
        if !present.life.needs_filing() {
            return;
        }
        let connections = &self.tables.connections;
        let key = connections.hashed((&present.request_key()).into());
        if let Some(connection) = connections.find(&key, guard).and_then(|(found, _)| found.share()) {
            self.tables.replication.file_connection(connection);
        }
    }

    fn template(&self, record: &TemplateRecord) -> Outcome {
        let templates = &self.tables.templates;
        let server = record.home.and_then(|home| self.known(home));
        let present = templates.find(&record.key);
        let (template, outcome) = match present {
            Some(present) if is_same(&present, record, server.as_ref()) => (present, Outcome::Updated),
            former => {
                let stranger = || Arc::clone(self.tables.sync.stranger(record.forward));
                let server = server.unwrap_or_else(stranger);
                let template =
                    PersistenceTemplate::new(record.key.clone(), server, record.place.port(), record.timeout);
                let template = template.of_one_packet_service(record.one_packet).at(record.place);
                let template = Arc::new(template);
                self.replace(former.as_ref(), &template);
                (template, if former.is_some() { Outcome::Replaced } else { Outcome::Made })
            }
        };
        template.set_origin(self.told(Told { synced: record.synced, borrowed: record.borrowed }));
        template.update(record.assured, record.timeout, record.packets, self.now);
        template.life.set_deadline(self.now + record.remaining);
        if template.life.needs_filing() {
            self.tables.replication.file_template(template);
        }
        outcome
    }

    /// One that has connections goes on with them, apart from the others.
    fn replace(&self, former: Option<&Arc<PersistenceTemplate>>, template: &Arc<PersistenceTemplate>) {
        former.iter().for_each(|former| self.tables.templates.end(former));
        self.tables.templates.insert(Arc::clone(template));
    }

    fn end_connection(&self, flow: &FlowKey) -> Outcome {
        let guard = Guard::new();
        let ended = find(self.tables, flow, &guard)
            .is_some_and(|connection| self.tables.connections.remove(connection));
        if ended { Outcome::Ended } else { Outcome::Absent }
    }

    fn end_template(&self, key: &TemplateKey) -> Outcome {
        let templates = &self.tables.templates;
        let Some(template) = templates.find(key) else { return Outcome::Absent };
        templates.end(&template);
        if !template.is_gone() {
            templates.retire(&template);
        }
        Outcome::Ended
    }
}

/// The server to which the connection's addresses lead. A service for any port, or FTP's that takes its data's ports, has it with
/// another port than the connection.
pub(super) fn server_at<'a>(
    services: &'a Services,
    record: &ConnectionRecord,
) -> Option<&'a Arc<RealServer>> {
    let (address, port) = (record.virtual_address.ip(), record.virtual_address.port());
    let service = services.find(0, record.protocol, address, port)?;
    let usual = record.usual_home();
    if service.spec.id == usual.service {
        return service.server(usual.server);
    }
    service.servers.iter().find(|server| server.id().address == usual.server.address)
}

/// Whether a template that is there leads where the record says, and to the server that is known by now.
fn is_same(present: &PersistenceTemplate, record: &TemplateRecord, server: Option<&Arc<RealServer>>) -> bool {
    let leads_there = match server {
        Some(server) => Arc::ptr_eq(server, &present.server),
        None => home_of(&present.server).is_none_or(|home| Some(home) == record.home),
    };
    leads_there && present.place == record.place
}
