//! Connections and templates on their way from one process to the next: first all that there are, while packets still come and go,
//! and then, when they no longer do, what has changed meanwhile.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sdd::Shared;

use crate::host::clock::Clock;
use crate::ipvs::connection::Connection;
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::replica::{Key, Marks, Record, connection_for_successor, template_for_successor};
use crate::ipvs::snapshot::Tables;
use crate::net::time::Instant;

/// Bytes of records that are sent together.
const BATCH: usize = 64 * 1024;
/// An end that has moved by less than this part of the time that packets give is not told: the next packet moves it again.
const TOLERANCE: u32 = 16;

/// What has been told of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    status: u64,
    deadline: Instant,
}

impl Told {
    fn of_connection(connection: &Connection) -> Self {
        let marks = connection.marks();
        let Marks { active, no_output, awaits_port, unanswered, synced, borrowed } = marks;
        let bits = [active, no_output, awaits_port, unanswered, synced, borrowed];
        let state = u64::from(connection.state().number());
        let bits = bits.iter().fold(state, |bits, bit| bits << 1 | u64::from(*bit));
        Told { status: bits << 32 | u64::from(connection.timeout()), deadline: connection.life.deadline() }
    }

    fn of_template(template: &PersistenceTemplate) -> Self {
        let bits = u64::from(template.is_assured()) << 1 | u64::from(template.origin().borrowed);
        Told { status: bits << 32 | u64::from(template.timeout()), deadline: template.life.deadline() }
    }

    /// Whether what there is now need not be told.
    fn is_as(&self, now: &Told) -> bool {
        let timeout = Duration::from_secs(now.status & 0xffff_ffff);
        let moved = now.deadline.saturating_since(self.deadline);
        self.status == now.status && now.deadline >= self.deadline && moved < timeout / TOLERANCE
    }
}

/// What another process has been told of.
#[derive(Debug, Default)]
pub struct Ledger {
    connections: Vec<(Shared<Connection>, Told)>,
    templates: Vec<(Arc<PersistenceTemplate>, Told)>,
    known: HashSet<usize, foldhash::fast::RandomState>,
}

/// Records on their way.
struct Batches<'a> {
    bytes: Vec<u8>,
    count: usize,
    /// A large table takes a while, and what is told of it are durations.
    clock: Clock,
    send: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
}

impl Batches<'_> {
    fn add_connection(&mut self, tables: &Tables, connection: &Connection) -> io::Result<()> {
        let record = connection_for_successor(tables, connection, self.clock.now());
        self.add(&Record::Connection(Box::new(record)))
    }

    fn add_template(&mut self, tables: &Tables, template: &PersistenceTemplate) -> io::Result<()> {
        let record = template_for_successor(tables, template, self.clock.now());
        self.add(&Record::Template(Box::new(record)))
    }

    fn add(&mut self, record: &Record) -> io::Result<()> {
        record.put(&mut self.bytes);
        self.count += 1;
        if self.bytes.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { (self.send)(std::mem::take(&mut self.bytes)) }
    }
}

impl Ledger {
    /// Tells of what is new or different, and of what has ended; the first time of everything. Returns how many records that took.
    pub fn tell(
        &mut self,
        tables: &Tables,
        clock: Clock,
        send: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut batches = Batches { bytes: Vec::new(), count: 0, clock, send };
        // Templates come first, so that each connection finds its own.
        self.tell_templates(tables, &mut batches)?;
        self.tell_changes(tables, &mut batches)?;
        // Not before the connections that keep them.
        self.tell_ended_templates(tables, &mut batches)?;
        self.tell_new_connections(tables, &mut batches)?;
        batches.flush()?;
        Ok(batches.count)
    }

    /// How many connections are there that have been told of.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn tell_ended_templates(&mut self, tables: &Tables, batches: &mut Batches<'_>) -> io::Result<()> {
        let is_over = |template: &PersistenceTemplate| {
            template.is_gone() && tables.templates.find(&template.key).is_none()
        };
        for (template, _) in self.templates.extract_if(.., |(template, _)| is_over(template)) {
            self.known.remove(&Arc::as_ptr(&template).addr());
            batches.add(&Record::End(Key::Template(template.key.clone())))?;
        }
        Ok(())
    }

    fn tell_templates(&mut self, tables: &Tables, batches: &mut Batches<'_>) -> io::Result<()> {
        for (template, told) in self.templates.iter_mut().filter(|(template, _)| !template.is_gone()) {
            let present = Told::of_template(template);
            if !told.is_as(&present) {
                *told = present;
                batches.add_template(tables, template)?;
            }
        }
        let mut found = Vec::new();
        for walk in tables.templates.walks() {
            walk.for_each(|template| {
                if !template.is_gone() && self.known.insert(Arc::as_ptr(template).addr()) {
                    found.push(Arc::clone(template));
                }
            });
        }
        for template in found {
            let told = Told::of_template(&template);
            batches.add_template(tables, &template)?;
            self.templates.push((template, told));
        }
        Ok(())
    }

    /// Of those that are known. In a large table each is a wait for memory, so that they are looked at once.
    fn tell_changes(&mut self, tables: &Tables, batches: &mut Batches<'_>) -> io::Result<()> {
        let mut removed = Vec::new();
        for (place, (connection, told)) in self.connections.iter_mut().enumerate() {
            if connection.is_removed() {
                removed.push(place);
                continue;
            }
            tables.connections.refresh(connection);
            let present = Told::of_connection(connection);
            // What helpers know has no short form.
            if !told.is_as(&present) || connection.ftp().is_some() {
                *told = present;
                batches.add_connection(tables, connection)?;
            }
        }
        for place in removed.into_iter().rev() {
            self.tell_end(tables, place, batches)?;
        }
        Ok(())
    }

    /// One whose key another has by now is over by what is told of that, unless that ends before it has been told of: then it is
    /// still here.
    fn tell_end(&mut self, tables: &Tables, place: usize, batches: &mut Batches<'_>) -> io::Result<()> {
        let key = self.connections[place].0.request_key();
        if tables.connections.has_key(&key) {
            return Ok(());
        }
        let (connection, _) = self.connections.swap_remove(place);
        self.known.remove(&place_of(&connection));
        batches.add(&Record::End(Key::Connection(key)))
    }

    fn tell_new_connections(&mut self, tables: &Tables, batches: &mut Batches<'_>) -> io::Result<()> {
        for walk in tables.connections.walks() {
            let mut found = Vec::new();
            walk.for_each(|connection| {
                if !self.known.contains(&std::ptr::from_ref(connection.get()).addr()) {
                    found.extend(connection.share());
                }
            });
            for connection in found {
                self.tell_new(tables, connection, batches)?;
            }
        }
        Ok(())
    }

    /// One that is not known yet, behind the control connection that it belongs to.
    fn tell_new(
        &mut self,
        tables: &Tables,
        connection: Shared<Connection>,
        batches: &mut Batches<'_>,
    ) -> io::Result<()> {
        if connection.is_removed() || !self.known.insert(place_of(&connection)) {
            return Ok(());
        }
        if let Some(parent) = connection.parent() {
            self.tell_new(tables, parent.clone(), batches)?;
        }
        tables.connections.refresh(&connection);
        // Before the record: a packet may change it in between, which is told the next time then.
        let told = Told::of_connection(&connection);
        batches.add_connection(tables, &connection)?;
        self.connections.push((connection, told));
        Ok(())
    }
}

fn place_of(connection: &Shared<Connection>) -> usize {
    connection.as_ptr().addr()
}
