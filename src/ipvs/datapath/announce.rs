//! A master tells of its connections: what a packet or a timer gives reason to say is gathered in messages (ipvs.md section
//! 7.4).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::{Forward, ServiceId};
use crate::ipvs::lottery::mix;
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::Direction;
use crate::ipvs::server::RealServer;
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::sync::{self, Batch, Entry, Posted, Running, Standing, SyncRole, Version, flags};
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::timer::Fate;
use crate::net::time::Instant;

/// How long a message waits for more entries.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a part of the table is looked through for what the shortcut has forwarded: with 256 parts, all of it in 6.4 s.
const WALK_PERIOD: Duration = Duration::from_millis(25);
/// Parts that are made up for at once.
const PARTS_MAX: usize = 8;

/// What an announcement depends on besides its connection.
#[derive(Clone, Copy)]
pub(super) struct Occasion<'a> {
    pub(super) tables: &'a Tables,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Instant,
}

impl<'a> Occasion<'a> {
    fn master(&self) -> Option<&'a Running> {
        self.snapshot.sync.get(SyncRole::Master)
    }

    fn version(&self) -> Version {
        if self.snapshot.sysctls.sync_version == 0 { Version::V0 } else { Version::V1 }
    }

    fn threshold(&self) -> u32 {
        self.snapshot.sysctls.sync_threshold[0] as u32
    }
}

/// One worker's messages in the making, by port.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    batches: Vec<Option<Batch>>,
    next_walk: Instant,
}

impl Announcer {
    /// After a client's packet, the `packets`th of its connection, with this mark: tells of the connection if it is time, and
    /// of what keeps it.
    fn announce(&mut self, occasion: &Occasion<'_>, connection: &Connection, packets: u32, mark: u32) {
        let told = self.tell_connection(occasion, connection, packets, mark);
        if !told && occasion.version() == Version::V0 {
            return;
        }
        if let Some(parent) = connection.parent() {
            self.announce(occasion, parent, occasion.threshold(), mark);
        } else if let Some(template) = &connection.template {
            template.count_packet();
            self.tell_template(occasion, template, template.packets_in(), mark);
        }
    }

    /// A connection whose time was up lives on for its children.
    pub(super) fn announce_prolonged(&mut self, occasion: &Occasion<'_>, connection: &Connection) {
        if occasion.master().is_some() {
            self.announce(occasion, connection, occasion.threshold(), mark_of(&connection.server));
        }
    }

    /// Ends a template whose time is up, or prolongs it while it has connections, of which a backup is told.
    pub(super) fn expire_template(
        &mut self,
        occasion: &Occasion<'_>,
        template: &Arc<PersistenceTemplate>,
    ) -> Fate {
        let fate = occasion.tables.templates.expire(template, occasion.now);
        if fate == Fate::Again && occasion.master().is_some() {
            self.tell_template(occasion, template, occasion.threshold(), mark_of(&template.server));
        }
        fate
    }

    fn tell_connection(
        &mut self,
        occasion: &Occasion<'_>,
        connection: &Connection,
        packets: u32,
        mark: u32,
    ) -> bool {
        let sysctls = &occasion.snapshot.sysctls;
        if occasion.version() == Version::V0 && connection.client().is_ipv6() {
            return false;
        }
        let standing = Standing { packets, ..connection.standing() };
        let Some(told) = sync::needs_telling(&standing, sysctls, occasion.now) else { return false };
        let round = sync::round(connection.packets_in(), sysctls.sync_threshold);
        let kept = (sysctls.sync_refresh_period > 0).then_some(told);
        connection.set_told(connection.state(), round, kept);
        self.add(occasion, &entry_of_connection(connection, mark, sysctls));
        true
    }

    fn tell_template(
        &mut self,
        occasion: &Occasion<'_>,
        template: &PersistenceTemplate,
        packets: u32,
        mark: u32,
    ) {
        let sysctls = &occasion.snapshot.sysctls;
        if occasion.version() == Version::V0 && template.key.client.is_ipv6() {
            return;
        }
        let standing = Standing {
            state: None,
            told_state: 0,
            packets,
            timeout: template.timeout(),
            told: template.told(),
            persistent: false,
        };
        let Some(told) = sync::needs_telling(&standing, sysctls, occasion.now) else { return };
        template.set_told(told);
        self.add(occasion, &entry_of_template(template, mark, sysctls));
    }

    fn add(&mut self, occasion: &Occasion<'_>, entry: &Entry) {
        let (Some(running), version) = (occasion.master(), occasion.version()) else { return };
        let Some(bytes) = entry.bytes(version) else { return };
        let port = port_of(entry, running.ports);
        if self.batches.len() <= port {
            self.batches.resize_with(port + 1, || None);
        }
        let sync_id = running.daemon.sync_id;
        let batch = self.batches[port].take();
        let batch = match batch {
            Some(batch) if batch.takes(version, sync_id, bytes.len()) => Some(batch),
            Some(full) => {
                post(occasion, port, full);
                None
            }
            None => None,
        };
        let limit = usize::from(running.daemon.max_len);
        let mut batch = batch.unwrap_or_else(|| Batch::new(version, sync_id, limit, occasion.now));
        batch.push(&bytes);
        self.batches[port] = Some(batch);
    }

    /// Posts what has waited for long enough, and looks after what the shortcut forwards. What is left when the daemon is
    /// stopped is not sent.
    pub(super) fn advance(&mut self, occasion: &Occasion<'_>) {
        if occasion.master().is_none() {
            self.batches.clear();
            return;
        }
        for (port, slot) in self.batches.iter_mut().enumerate() {
            if let Some(batch) = slot.take_if(|batch| batch.since() + PATIENCE <= occasion.now) {
                post(occasion, port, batch);
            }
        }
        if occasion.tables.connections.shortcuts().is_some() {
            self.walk(occasion);
        }
    }

    /// Looks at lent connections, which pass the threshold unseen.
    fn walk(&mut self, occasion: &Occasion<'_>) {
        let walks = occasion.tables.connections.walks();
        let parts = walks.len();
        for _ in 0..PARTS_MAX {
            if self.next_walk > occasion.now {
                return;
            }
            self.next_walk = self.next_walk + WALK_PERIOD;
            let part = occasion.tables.sync.next_part() % parts;
            let mut lent = Vec::new();
            if let Some(walk) = occasion.tables.connections.walks().nth(part) {
                walk.for_each(|connection| {
                    if connection.lent().any(|direction| direction == Direction::In) {
                        lent.extend(connection.share());
                    }
                });
            }
            lent.iter().for_each(|connection| self.look_at_lent(occasion, connection));
        }
        self.next_walk = occasion.now;
    }

    /// As if its last packet came just now.
    fn look_at_lent(&mut self, occasion: &Occasion<'_>, connection: &Connection) {
        occasion.tables.connections.refresh(connection);
        let Sysctls { sync_threshold, sync_refresh_period, .. } = occasion.snapshot.sysctls;
        let counts = sync_threshold[1] > 0 || sync_refresh_period <= 0;
        if counts && sync::round(connection.packets_in(), sync_threshold) == connection.told_round() {
            return;
        }
        let timeout = Duration::from_secs(u64::from(connection.timeout())).as_nanos() as u64;
        let last = connection.life.deadline().as_nanos().saturating_sub(timeout);
        let occasion = Occasion { now: Instant::from_nanos(last), ..*occasion };
        self.announce(&occasion, connection, occasion.threshold(), mark_of(&connection.server));
    }
}

impl Datapath {
    /// After a client's packet.
    #[inline]
    pub(super) fn announce(&mut self, passage: &Passage<'_, '_>, connection: &Connection) {
        let snapshot = passage.burst.snapshot;
        if snapshot.sync.is_empty() || snapshot.sync.get(SyncRole::Master).is_none() {
            return;
        }
        let occasion = Occasion { tables: &self.tables, snapshot, now: passage.burst.now };
        self.announcer.announce(&occasion, connection, connection.packets_in(), passage.mark());
    }

    /// After a packet that has a connection for itself, which is never told of, but its template may be.
    pub(super) fn announce_one_packet(&mut self, passage: &Passage<'_, '_>, connection: &Connection) {
        let Some(template) = &connection.template else { return };
        let occasion =
            Occasion { tables: &self.tables, snapshot: passage.burst.snapshot, now: passage.burst.now };
        let master = occasion.master().is_some();
        if master && occasion.version() == Version::V0 {
            return;
        }
        template.count_packet();
        if master {
            self.announcer.tell_template(&occasion, template, template.packets_in(), passage.mark());
        }
    }
}

fn post(occasion: &Occasion<'_>, port: usize, batch: Batch) {
    let entries = batch.entries();
    let posted = Posted { port, bytes: batch.finish() };
    occasion.tables.sync.post(posted, entries, occasion.snapshot.sysctls.sync_qlen_max);
}

/// One of so many ports, the same for all that a client has.
fn port_of(entry: &Entry, ports: u16) -> usize {
    let address = match entry.client.ip() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let address = u128::from(address);
            mix((address >> 64) as u64) ^ address as u64
        }
    };
    (mix(address) % u64::from(ports.max(1))) as usize
}

/// The mark that a server's service goes by; 0 for none.
fn mark_of(server: &RealServer) -> u32 {
    match *server.service() {
        ServiceId::FwMark { mark, .. } => mark,
        ServiceId::Address { .. } => 0,
    }
}

/// The kernel tracks what its FTP helper reads, whatever `conntrack` says (golden `sync-master-ftp-no-conntrack`).
fn is_tracked(connection: &Connection) -> bool {
    connection.ftp().is_some() || connection.parent().is_some()
}

fn flags_of(forward: Forward, synced: bool, sysctls: &Sysctls) -> u32 {
    let method = match forward {
        Forward::Masquerade => 0,
        Forward::Local => 1,
        Forward::Tunnel => 2,
        Forward::Route => 3,
    };
    let origin = if synced { flags::SYNC } else { 0 };
    let tracked = if sysctls.conntrack != 0 { flags::CONNTRACK } else { 0 };
    method | origin | tracked
}

fn entry_of_connection(connection: &Connection, mark: u32, sysctls: &Sysctls) -> Entry {
    let mut flags = flags_of(connection.forward, connection.is_synced(), sysctls);
    let set = [
        (connection.has_no_output(), flags::NO_OUTPUT),
        (!connection.is_active(), flags::INACTIVE),
        (connection.awaits_port(), flags::NO_CLIENT_PORT),
        (is_tracked(connection), flags::CONNTRACK),
    ];
    set.iter().filter(|(on, _)| *on).for_each(|(_, flag)| flags |= flag);
    Entry {
        protocol: connection.protocol,
        flags,
        state: u16::from(connection.state().number()),
        client: connection.client(),
        virtual_address: connection.virtual_address(),
        server: connection.server_address(),
        mark,
        timeout: connection.timeout(),
        call_id: None,
    }
}

fn entry_of_template(template: &PersistenceTemplate, mark: u32, sysctls: &Sysctls) -> Entry {
    let forward = template.server.forward();
    let mut flags = flags_of(forward, template.is_synced(), sysctls) | flags::INACTIVE | flags::TEMPLATE;
    if forward != Forward::Masquerade {
        flags |= flags::NO_OUTPUT;
    }
    let key = &template.key;
    Entry {
        protocol: key.protocol,
        flags,
        state: u16::from(template.is_assured()),
        client: (key.client, 0).into(),
        virtual_address: key.virtual_address,
        server: template.place,
        mark,
        timeout: template.timeout(),
        call_id: key.call_id.clone(),
    }
}
