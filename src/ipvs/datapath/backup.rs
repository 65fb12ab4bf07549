//! A backup makes connections of what it is told (ipvs.md section 7.5).

use std::sync::Arc;
use std::time::Duration;

use sdd::{Guard, Shared};

use super::{Burst, Datapath, ftp};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::{Forward, ServerId};
use crate::ipvs::persistence::{PersistenceTemplate, TemplateKey};
use crate::ipvs::protocol::{Direction, State};
use crate::ipvs::server::RealServer;
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::sync::{Entry, Message, Refused, SyncRole, flags};
use crate::ipvs::table::Found;
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// Messages that are taken in at once, so that packets need not wait for long.
const AT_ONCE: usize = 16;
/// Seconds that a template gets when the message does not say.
const TEMPLATE_TIME: u32 = 180;

impl Datapath {
    /// Takes in some of the messages that have come.
    pub(super) fn take_in_messages(&mut self, now: Instant) {
        if !self.tables.sync.has_received() {
            return;
        }
        let snapshot = Arc::clone(self.snapshot.load());
        let guard = Guard::new();
        let burst = Burst { now, snapshot: &snapshot, guard: &guard };
        for _ in 0..AT_ONCE {
            let Some(message) = self.tables.sync.next_received() else { return };
            if let Err(refused) = self.take_in(&burst, &message) {
                self.tables.sync.count_entry(Err(refused));
            }
        }
    }

    fn take_in(&mut self, burst: &Burst<'_>, bytes: &[u8]) -> Result<(), Refused> {
        let backup = burst.snapshot.sync.get(SyncRole::Backup).ok_or(Refused::NoDaemon)?;
        let message = Message::read(bytes)?;
        if backup.daemon.sync_id != 0 && backup.daemon.sync_id != message.sync_id {
            return Err(Refused::SyncId);
        }
        for entry in message.entries() {
            let outcome = entry.and_then(|entry| self.take_entry(burst, &entry));
            self.tables.sync.count_entry(outcome);
        }
        Ok(())
    }

    fn take_entry(&mut self, burst: &Burst<'_>, entry: &Entry) -> Result<(), Refused> {
        if entry.is_template() {
            self.take_template(burst, entry);
            Ok(())
        } else {
            self.take_connection(burst, entry)
        }
    }

    /// A connection to another server is one that has been replaced since; if the message says that it is over, it is about
    /// the former one (golden `sync-backup-changed-server`).
    fn take_connection(&mut self, burst: &Burst<'_>, entry: &Entry) -> Result<(), Refused> {
        let flow = FlowKey::new(entry.protocol, entry.client, entry.virtual_address);
        let inactive = entry.flags & flags::INACTIVE != 0;
        match self.present(burst, &flow) {
            Some(present) if present.server_address() == entry.server => {
                self.update(burst, present, entry);
                return Ok(());
            }
            Some(_) if inactive => return Ok(()),
            Some(former) if !former.has_children() => drop(self.tables.connections.remove(&former)),
            Some(_) | None => {}
        }
        if !self.has_room(burst) {
            return Err(Refused::NoRoom);
        }
        let server = self.server_of(burst.snapshot, entry);
        let state = state_of(entry);
        let mut connection = Connection::synced(&flow, server, entry.server, state, entry.flags);
        if ftp::reads(burst, &connection) {
            connection = connection.read_by_ftp();
        }
        self.start(burst, entry, &connection);
        let connection = Shared::new(connection);
        self.tables.connections.insert(&connection);
        self.tell_on(&connection);
        self.wheel.file(connection);
        Ok(())
    }

    /// What the kernel takes for the same connection: its flow's, or one that awaits its client's port.
    fn present<'b>(&mut self, burst: &Burst<'b>, flow: &FlowKey) -> Option<Found<'b>> {
        let key = self.tables.connections.hashed(flow.into());
        loop {
            let connections = &self.tables.connections;
            let found = connections.find(&key, burst.guard).filter(|(found, direction)| {
                *direction == Direction::In && (flow.source_port == 0) == found.awaits_port()
            });
            let found = found.map(|(found, _)| found);
            let found = found.or_else(|| connections.find_awaiting(&key, burst.guard))?;
            if self.is_alive(burst, &found) {
                return Some(found);
            }
        }
    }

    /// Of a connection that is there, whose server may be known by now.
    fn update(&mut self, burst: &Burst<'_>, present: Found<'_>, entry: &Entry) {
        let known = if present.server.is_stranger() { find_server(burst.snapshot, entry) } else { None };
        let Some(server) = known else {
            let former = present.state();
            self.start(burst, entry, &present);
            if present.state() != former {
                self.tell_on(&present);
            }
            self.tables.connections.take_back(&present);
            return self.file(present);
        };
        let mut bound = present.bound_to(server);
        if ftp::reads(burst, &bound) {
            bound = bound.read_by_ftp();
        }
        if !self.tables.connections.remove(&present) {
            bound.unbind();
            return;
        }
        self.start(burst, entry, &bound);
        let bound = Shared::new(bound);
        self.tables.connections.insert(&bound);
        self.tell_on(&bound);
        self.wheel.file(bound);
    }

    /// Another xlvs is told of what a message has told.
    fn tell_on(&self, connection: &Connection) {
        if !connection.state().is_half_open() {
            self.tables.connections.note(connection);
        }
    }

    /// State, time and count as the message has them.
    fn start(&self, burst: &Burst<'_>, entry: &Entry, connection: &Connection) {
        let state = state_of(entry);
        let timeout = if entry.timeout == 0 { burst.snapshot.timeouts.of(state) } else { entry.timeout };
        let threshold = burst.snapshot.sysctls.sync_threshold[0] as u32;
        connection.update(state, entry.flags & flags::INACTIVE == 0, timeout, threshold);
        connection.life.set_deadline(burst.now + Duration::from_secs(u64::from(timeout)));
    }

    fn take_template(&mut self, burst: &Burst<'_>, entry: &Entry) {
        let key = TemplateKey {
            protocol: entry.protocol,
            client: entry.client.ip(),
            virtual_address: entry.virtual_address,
            call_id: entry.call_id.clone(),
        };
        let templates = &self.tables.templates;
        let present = templates.find(&key).filter(|present| {
            let known = present.server.is_stranger() && find_server(burst.snapshot, entry).is_some();
            if known {
                templates.end(present);
            }
            !known
        });
        let template = present.unwrap_or_else(|| {
            let server = self.server_of(burst.snapshot, entry);
            let port = entry.server.port();
            let template = PersistenceTemplate::new(key, server, port, TEMPLATE_TIME).synced(entry.server);
            let template = Arc::new(template);
            self.tables.templates.insert(Arc::clone(&template));
            template
        });
        let timeout = if entry.timeout == 0 { TEMPLATE_TIME } else { entry.timeout };
        let threshold = burst.snapshot.sysctls.sync_threshold[0] as u32;
        template.update(entry.state & 1 != 0, timeout, threshold, burst.now);
        if template.life.needs_filing() {
            self.template_wheel.file(template);
        }
    }

    fn server_of(&self, snapshot: &Snapshot, entry: &Entry) -> Arc<RealServer> {
        let known = find_server(snapshot, entry);
        known.unwrap_or_else(|| Arc::clone(self.tables.sync.stranger(forward_of(entry.flags))))
    }
}

fn state_of(entry: &Entry) -> State {
    State::from_number(entry.protocol, entry.state as u8)
}

/// What a message says of the method. One that passes balancing by is left to the machine's stack.
fn forward_of(flags: u32) -> Forward {
    match flags & flags::FORWARD {
        0 => Forward::Masquerade,
        2 => Forward::Tunnel,
        3 => Forward::Route,
        _ => Forward::Local,
    }
}

/// The server that a message names, of the service that takes such packets here. With a mark a server that is not reached by
/// NAT keeps the packet's port.
fn find_server(snapshot: &Snapshot, entry: &Entry) -> Option<Arc<RealServer>> {
    let Entry { virtual_address, server, mark, .. } = *entry;
    let service =
        snapshot.services.find(mark, entry.protocol, virtual_address.ip(), virtual_address.port())?;
    let keeps_port = mark != 0 && entry.flags & flags::FORWARD != 0;
    let ports = if keeps_port { [0, server.port()] } else { [server.port(), 0] };
    let found = ports.iter().find_map(|port| service.server(ServerId { address: server.ip(), port: *port }));
    found.map(Arc::clone)
}
