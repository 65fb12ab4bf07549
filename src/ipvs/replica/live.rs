//! Records of what is in the tables.

use std::sync::PoisonError;

use sdd::Guard;

use super::home::Home;
use super::machine::Source;
use super::mirror::Buckets;
use super::record::{ConnectionRecord, Key, Record, TemplateRecord};
use crate::ipvs::connection::{Connection, Told};
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::Direction;
use crate::ipvs::server::RealServer;
use crate::ipvs::snapshot::Tables;
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// Parts of the tables: those of templates come first, so that who installs them in order finds each connection's template.
pub const PARTS: usize = 512;
const TEMPLATE_PARTS: usize = PARTS / 2;

/// The service and server that a server is of.
pub(super) fn home_of(server: &RealServer) -> Option<Home> {
    (!server.is_stranger()).then(|| Home { service: *server.service(), server: server.id() })
}

/// A connection as it is at `now`.
fn of_connection(connection: &Connection, now: Instant) -> ConnectionRecord {
    let ftp = connection.ftp().map(|ftp| ftp.lock().unwrap_or_else(PoisonError::into_inner).clone());
    ConnectionRecord {
        protocol: connection.protocol,
        client: connection.client(),
        virtual_address: connection.virtual_address(),
        server: connection.server_address(),
        home: home_of(&connection.server),
        forward: connection.forward,
        state: connection.state().number(),
        marks: connection.marks(),
        timeout: connection.timeout(),
        remaining: connection.life.deadline().saturating_since(now),
        packets: connection.packets_in(),
        acknowledged: [Direction::In, Direction::Out].map(|way| connection.acknowledged(way)),
        template: connection.template.as_ref().map(|template| template.key.clone()),
        parent: connection.parent().map(|parent| parent.request_key()),
        ftp,
    }
}

/// A template as it is at `now`.
fn of_template(template: &PersistenceTemplate, now: Instant) -> TemplateRecord {
    TemplateRecord {
        key: template.key.clone(),
        home: home_of(&template.server),
        forward: template.server.forward(),
        place: template.place,
        timeout: template.timeout(),
        remaining: template.life.deadline().saturating_since(now),
        packets: template.packets_in(),
        assured: template.is_assured(),
        one_packet: template.is_of_one_packet_service(),
        synced: template.is_synced(),
        borrowed: template.origin().borrowed,
    }
}

/// A connection as the next process on this machine is to have it: nobody holds there what this one does not let end by itself.
pub fn connection_for_successor(tables: &Tables, connection: &Connection, now: Instant) -> ConnectionRecord {
    let mut record = of_connection(connection, now);
    if let Some(end) = tables.replication.postponed(connection.told(), connection.timeout(), now) {
        record.remaining = record.remaining.max(end.saturating_since(now));
    }
    record
}

/// The same of a template.
pub fn template_for_successor(
    tables: &Tables,
    template: &PersistenceTemplate,
    now: Instant,
) -> TemplateRecord {
    let mut record = of_template(template, now);
    if !template.is_retired()
        && let Some(end) = tables.replication.postponed(template.origin(), template.timeout(), now)
    {
        record.remaining = record.remaining.max(end.saturating_since(now));
    }
    record
}

/// Whether it is worth being told of: a connection whose handshake is not over may be a flood's, and its client begins anew.
fn is_worthwhile(connection: &Connection) -> bool {
    !connection.state().is_half_open() && !connection.is_removed()
}

fn add_template(records: &mut Vec<Record>, template: &PersistenceTemplate, now: Instant) {
    records.push(Record::Template(Box::new(of_template(template, now))));
}

/// A connection, behind the control connection that it needs.
fn add_connection(tables: &Tables, records: &mut Vec<Record>, connection: &Connection, now: Instant) {
    if let Some(parent) = connection.parent()
        && !parent.is_removed()
    {
        add_connection(tables, records, parent, now);
    }
    tables.connections.refresh(connection);
    records.push(Record::Connection(Box::new(of_connection(connection, now))));
}

/// The same as [`part`] of what is the partner's alone, but of all of that.
pub fn borrowed_part(tables: &Tables, number: usize, now: Instant) -> Vec<Record> {
    let mut records = Vec::new();
    if number < TEMPLATE_PARTS {
        if let Some(walk) = tables.templates.valid_walks().nth(number) {
            walk.for_each(|template| {
                if template.origin().borrowed {
                    add_template(&mut records, template, now);
                }
            });
        }
    } else if let Some(walk) = tables.connections.walks().nth(number - TEMPLATE_PARTS) {
        walk.for_each(|connection| {
            if connection.is_borrowed() {
                records.push(Record::Connection(Box::new(of_connection(&connection, now))));
            }
        });
    }
    records
}

/// What in a part leads to a server that is in no service. A data connection comes behind its control connection, which is another
/// one once it has come home.
pub(super) fn strangers(tables: &Tables, number: usize, now: Instant) -> Vec<Record> {
    let mut records = Vec::new();
    if number < TEMPLATE_PARTS {
        if let Some(walk) = tables.templates.valid_walks().nth(number) {
            walk.for_each(|template| {
                if template.server.is_stranger() {
                    add_template(&mut records, template, now);
                }
            });
        }
    } else if let Some(walk) = tables.connections.walks().nth(number - TEMPLATE_PARTS) {
        walk.for_each(|connection| {
            if connection.server.is_stranger() && !connection.is_removed() {
                let parent = connection.parent().filter(|parent| !parent.is_removed());
                let parent = parent.filter(|parent| parent.server.is_stranger());
                records.extend(parent.map(|parent| Record::Connection(Box::new(of_connection(parent, now)))));
                records.push(Record::Connection(Box::new(of_connection(&connection, now))));
            }
        });
    }
    records
}

/// The part that has what has this key, and what of it is the partner's alone.
pub fn part_of(tables: &Tables, key: &Key) -> usize {
    match key {
        Key::Template(key) => tables.templates.part_of(key),
        Key::Connection(flow) => TEMPLATE_PARTS + tables.connections.part_of(flow.into()),
    }
}

/// What has this key, if it is the partner's alone.
pub(super) fn borrowed(tables: &Tables, key: &Key, now: Instant) -> Option<Record> {
    match key {
        Key::Template(key) => {
            let template = tables.templates.find(key).filter(|template| template.origin().borrowed)?;
            Some(Record::Template(Box::new(of_template(&template, now))))
        }
        Key::Connection(flow) => {
            let guard = Guard::new();
            let connection = find(tables, flow, &guard).filter(|connection| connection.is_borrowed())?;
            Some(Record::Connection(Box::new(of_connection(connection, now))))
        }
    }
}

/// Nothing is the partner's any more: this machine does the work.
pub fn keep_all(tables: &Tables) {
    let own = |template: &PersistenceTemplate| {
        template.set_origin(Told { borrowed: false, ..template.origin() });
    };
    tables.templates.for_each(|template| own(template));
    tables.connections.for_each(|connection| connection.keep());
}

/// All records of the part with this number below [`PARTS`]; what changes meanwhile may be in it or not. Only for a short
/// time something is locked.
pub fn part(tables: &Tables, number: usize, now: Instant) -> Vec<Record> {
    let mut records = Vec::new();
    if number < TEMPLATE_PARTS {
        if let Some(walk) = tables.templates.valid_walks().nth(number) {
            walk.for_each(|template| add_template(&mut records, template, now));
        }
        return records;
    }
    let Some(walk) = tables.connections.walks().nth(number - TEMPLATE_PARTS) else { return records };
    let mut connections = Vec::new();
    walk.for_each(|connection| {
        if is_worthwhile(&connection) {
            connections.extend(connection.share());
        }
    });
    for connection in &connections {
        add_connection(tables, &mut records, connection, now);
    }
    records
}

/// What has become of a key: the records of it and of what it needs, itself last, or its end. Of a connection whose handshake
/// is not over also its end, unless `known` says that it has been told of.
pub fn current(tables: &Tables, key: Key, known: bool, now: Instant) -> Vec<Record> {
    let mut records = Vec::new();
    match &key {
        Key::Template(template) => {
            let template = tables.templates.find(template);
            template.iter().for_each(|template| add_template(&mut records, template, now));
        }
        Key::Connection(flow) => {
            let guard = Guard::new();
            if let Some(connection) = find(tables, flow, &guard)
                && (known || is_worthwhile(connection))
            {
                let family = [connection.parent().map(|parent| &**parent), Some(connection)];
                let templates = family.into_iter().flatten().filter_map(|member| member.template.as_ref());
                templates
                    .filter(|template| !template.is_gone() && !template.is_retired())
                    .for_each(|template| add_template(&mut records, template, now));
                add_connection(tables, &mut records, connection, now);
            }
        }
    }
    if records.is_empty() {
        records.push(Record::End(key));
    }
    records
}

impl Source for Tables {
    fn next_changed(&self) -> Option<Key> {
        self.replication.next()
    }

    fn lost(&self) -> Buckets {
        self.replication.lost()
    }

    fn current(&self, key: Key, known: bool, now: Instant) -> Vec<Record> {
        current(self, key, known, now)
    }

    fn part(&self, number: usize, now: Instant) -> Vec<Record> {
        part(self, number, now)
    }
}

/// The connection whose client's packets look so; with port 0 also one that awaits its client's port.
pub(super) fn find<'g>(tables: &Tables, flow: &FlowKey, guard: &'g Guard) -> Option<&'g Connection> {
    let (found, direction) = tables.connections.find(&tables.connections.hashed(flow.into()), guard)?;
    (direction == Direction::In && !found.is_removed()).then(|| found.get())
}
