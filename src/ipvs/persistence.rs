//! Persistence: a client's template remembers its server (ipvs.md section 4).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ipvs::connection::Told;
use crate::ipvs::edit::{Persistence, ServiceId};
use crate::ipvs::helper::ftp;
use crate::ipvs::parted::{Part, PartedMap};
use crate::ipvs::replica::{Key, Replication};
use crate::ipvs::server::RealServer;
use crate::ipvs::service::mask_client;
use crate::ipvs::sync::Announced;
use crate::ipvs::timer::{Fate, Life};
use crate::ipvs::view::ConnectionView;
use crate::net::addr::{Family, Protocol};
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// Seconds that a template lives on, again and again, while connections made by it are alive.
const TAIL: u32 = 60;
/// Port that a template without use shows, as the kernel renames it.
const RETIRED_PORT: u16 = 0xffff;

/// What a template is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// Protocol of the packets; [`Protocol::IP`] for a mark, whose template all protocols share.
    pub protocol: Protocol,
    /// Client address under the service's mask.
    pub client: IpAddr,
    /// Virtual address and port; for a mark the mark as an address, port 0.
    pub virtual_address: SocketAddr,
    /// The Call-ID, with the `sip` engine.
    pub call_id: Option<Arc<[u8]>>,
}

impl TemplateKey {
    /// The key for a new flow to a service (ipvs.md section 4.1): port 0 when all ports of the address share it,
    /// as the control and data connections of an FTP service do.
    pub fn new(id: &ServiceId, persistence: &Persistence, flow: &FlowKey) -> Self {
        let client = mask_client(flow.source, persistence.mask);
        let (protocol, virtual_address) = match *id {
            // Packets to port 0 are as if for the service's own port, which a mark's is 0 (golden `destination-port-0`).
            ServiceId::FwMark { mark, family } if flow.destination_port != 0 => {
                (Protocol::IP, SocketAddr::new(mark_address(mark, family), 0))
            }
            ServiceId::Address { port, .. } if port == flow.destination_port && port != ftp::CONTROL_PORT => {
                (flow.protocol, flow.destination())
            }
            ServiceId::Address { .. } | ServiceId::FwMark { .. } => {
                (flow.protocol, SocketAddr::new(flow.destination, 0))
            }
        };
        TemplateKey { protocol, client, virtual_address, call_id: None }
    }
}

/// A mark in the place of an address: in the first four bytes, as the kernel keeps and shows it.
fn mark_address(mark: u32, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(mark).into(),
        Family::V6 => Ipv6Addr::from(u128::from(mark) << 96).into(),
    }
}

/// The mark that stands as this address, and the family of its service.
pub fn mark_of(address: IpAddr) -> (u32, Family) {
    match address {
        IpAddr::V4(address) => (address.into(), Family::V4),
        IpAddr::V6(address) => ((u128::from(address) >> 96) as u32, Family::V6),
    }
}

/// A client's bond to a server.
#[derive(Debug)]
pub struct PersistenceTemplate {
    /// What it is found by.
    pub key: TemplateKey,
    /// The server.
    pub server: Arc<RealServer>,
    /// Where the server is, as listed; port 0 when connections keep the packet's port.
    pub place: SocketAddr,
    /// Deadline.
    pub life: Life,
    timeout: AtomicU32,
    children: AtomicU32,
    packets_in: AtomicU32,
    one_packet: bool,
    synced: AtomicBool,
    borrowed: AtomicBool,
    told: AtomicU64,
    assured: AtomicBool,
    retired: AtomicBool,
    gone: AtomicBool,
}

impl PersistenceTemplate {
    /// A template bound to `server`; `timeout` in seconds.
    pub fn new(key: TemplateKey, server: Arc<RealServer>, server_port: u16, timeout: u32) -> Self {
        server.count_template(true);
        PersistenceTemplate {
            key,
            place: SocketAddr::new(server.id().address, server_port),
            server,
            life: Life::default(),
            timeout: AtomicU32::new(timeout),
            children: AtomicU32::new(0),
            packets_in: AtomicU32::new(0),
            one_packet: false,
            synced: AtomicBool::new(false),
            borrowed: AtomicBool::new(false),
            told: AtomicU64::new(0),
            assured: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// The same of a service that schedules packet by packet, or not.
    pub fn of_one_packet_service(self, one_packet: bool) -> Self {
        PersistenceTemplate { one_packet, ..self }
    }

    /// The same as a message told of it, with the server at `place`.
    pub fn synced(self, place: SocketAddr) -> Self {
        self.set_origin(Told { synced: true, borrowed: false });
        self.at(place)
    }

    /// The same with the server at `place`.
    pub fn at(self, place: SocketAddr) -> Self {
        PersistenceTemplate { place, ..self }
    }

    /// Whether a message told of it.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// How it has come to be here.
    pub fn origin(&self) -> Told {
        Told { synced: self.is_synced(), borrowed: self.borrowed.load(Ordering::Relaxed) }
    }

    /// Notes that.
    pub fn set_origin(&self, told: Told) {
        self.synced.store(told.synced, Ordering::Relaxed);
        self.borrowed.store(told.borrowed, Ordering::Relaxed);
    }

    /// Whether it makes no more connections, and ends after those that it has made.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Takes over what a message says.
    pub fn update(&self, assured: bool, timeout: u32, packets: u32, now: Instant) {
        self.assured.store(assured, Ordering::Relaxed);
        self.timeout.store(timeout, Ordering::Relaxed);
        self.packets_in.store(packets, Ordering::Relaxed);
        self.refresh(now);
    }

    /// What is remembered of its last announcement.
    pub fn told(&self) -> Announced {
        Announced(self.told.load(Ordering::Relaxed))
    }

    /// Remembers another one.
    pub fn set_told(&self, told: Announced) {
        self.told.store(told.0, Ordering::Relaxed);
    }

    /// Whether its service schedules packet by packet.
    pub fn is_of_one_packet_service(&self) -> bool {
        self.one_packet
    }

    /// One more packet, of a service that schedules packet by packet or where it may be told of; others are counted at their
    /// connections alone.
    pub fn count_packet(&self) {
        self.packets_in.fetch_add(1, Ordering::Relaxed);
    }

    /// Packets counted here.
    pub fn packets_in(&self) -> u32 {
        self.packets_in.load(Ordering::Relaxed)
    }

    /// Life after a new connection, in seconds.
    pub fn timeout(&self) -> u32 {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Whether connections made by it are alive.
    pub fn has_children(&self) -> bool {
        self.children.load(Ordering::Relaxed) != 0
    }

    /// Whether one of its connections proved to be alive both ways.
    pub fn is_assured(&self) -> bool {
        self.assured.load(Ordering::Relaxed)
    }

    /// A connection was made by it.
    pub fn add_child(&self) {
        self.children.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a connection ended.
    pub fn remove_child(&self) {
        self.children.fetch_sub(1, Ordering::Relaxed);
    }

    /// One of its connections proved to be alive both ways.
    pub fn assure(&self) {
        if !self.assured.load(Ordering::Relaxed) {
            self.assured.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Starts its time again, at each new connection.
    pub fn refresh(&self, now: Instant) {
        let timeout = self.timeout();
        self.life.set_deadline(now + Duration::from_secs(u64::from(timeout)));
    }

    /// Whether new connections may still be made by it.
    pub fn is_valid(&self, expire_quiescent: bool) -> bool {
        self.server.is_available()
            && !self.server.is_draining()
            && !(expire_quiescent && self.server.weight() == 0)
    }

    /// Ends it unless it has connections; returns whether it did. A packet and a wheel may both find that its time is up: the
    /// server is told once.
    fn end(&self) -> bool {
        let ends = !self.has_children();
        if ends && !self.gone.swap(true, Ordering::Relaxed) {
            self.server.count_template(false);
        }
        ends
    }

    /// Its time is up: it lives on in steps of 60 s, for good, while it has connections.
    fn expire(&self, now: Instant) -> Fate {
        if self.end() {
            return Fate::Gone;
        }
        self.timeout.store(TAIL, Ordering::Relaxed);
        self.life.prolong(Duration::from_secs(u64::from(TAIL)), now);
        Fate::Again
    }

    /// Whether there is a reason to keep it once its server may have been deleted; if not, it has ended.
    fn outlives_server(&self) -> bool {
        self.server.is_available() || self.server.is_stranger() || !self.end()
    }

    /// For a listing at `now`.
    pub fn view(&self, now: Instant) -> ConnectionView {
        let retired = self.retired.load(Ordering::Relaxed);
        let port = |port| if retired { RETIRED_PORT } else { port };
        let TemplateKey { protocol, client, virtual_address, ref call_id } = self.key;
        ConnectionView {
            protocol,
            state: if self.is_assured() { "ASSURED" } else { "NONE" }.to_owned(),
            client: SocketAddr::new(client, 0),
            virtual_address: SocketAddr::new(virtual_address.ip(), port(virtual_address.port())),
            server: SocketAddr::new(self.place.ip(), port(self.place.port())),
            expires: self.life.deadline().saturating_since(now).as_secs(),
            synced: self.is_synced(),
            call_id: call_id.as_deref().map(|id| id.iter().copied().map(char::from).collect()),
        }
    }
}

/// All templates. Those that no longer count are kept apart until their time is up.
#[derive(Debug, Default)]
pub struct TemplateTable {
    valid: PartedMap<TemplateKey, Arc<PersistenceTemplate>>,
    retired: Mutex<Vec<Arc<PersistenceTemplate>>>,
    replication: Arc<Replication>,
}

impl TemplateTable {
    /// With its changes noted where `replication` says.
    pub fn replicated_by(self, replication: Arc<Replication>) -> Self {
        TemplateTable { replication, ..self }
    }

    fn note(&self, template: &PersistenceTemplate) {
        self.replication.note(|| Key::Template(template.key.clone()));
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<PersistenceTemplate>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The template of a key, whatever its worth.
    pub fn find(&self, key: &TemplateKey) -> Option<Arc<PersistenceTemplate>> {
        self.valid.of(key).get(key).map(|template| Arc::clone(&template))
    }

    /// Puts a new one in.
    pub fn insert(&self, template: Arc<PersistenceTemplate>) {
        let former = self.valid.of(&template.key).insert(template.key.clone(), Arc::clone(&template));
        former.into_iter().for_each(|former| self.set_aside(former));
        self.note(&template);
    }

    /// Takes one that no longer counts out of the way.
    pub fn retire(&self, template: &Arc<PersistenceTemplate>) {
        if let Some(template) = self.take_out(template) {
            self.set_aside(template);
        }
    }

    /// Out of the valid ones, if it is among them.
    fn take_out(&self, template: &Arc<PersistenceTemplate>) -> Option<Arc<PersistenceTemplate>> {
        let same = |_: &TemplateKey, present: &Arc<_>| Arc::ptr_eq(present, template);
        let taken = self.valid.of(&template.key).remove_if(&template.key, same);
        taken.map(|(_, template)| template).inspect(|template| self.note(template))
    }

    fn set_aside(&self, template: Arc<PersistenceTemplate>) {
        template.retired.store(true, Ordering::Relaxed);
        self.retired().push(template);
    }

    /// Ends one whose time is up, or prolongs it while it has connections.
    pub fn expire(&self, template: &Arc<PersistenceTemplate>, now: Instant) -> Fate {
        if let Some(end) = self.postponed(template, now) {
            template.life.set_deadline(end);
            return Fate::Again;
        }
        let fate = template.expire(now);
        if fate == Fate::Gone {
            self.remove(template);
        }
        fate
    }

    /// When one ends whose time is up, if the one who told of it has not said that it does.
    fn postponed(&self, template: &PersistenceTemplate, now: Instant) -> Option<Instant> {
        let counts = !template.is_retired();
        counts.then(|| self.replication.postponed(template.origin(), template.timeout(), now)).flatten()
    }

    /// Ends one before its time, unless it has connections.
    pub fn end(&self, template: &Arc<PersistenceTemplate>) {
        if template.end() {
            self.remove(template);
        }
    }

    fn remove(&self, template: &Arc<PersistenceTemplate>) {
        self.take_out(template);
        self.retired().retain(|present| !Arc::ptr_eq(present, template));
    }

    /// Ends those of deleted servers that have no connection (golden `expire-nodest-templates`).
    pub fn remove_orphans(&self) {
        self.valid.parts().iter().for_each(|part| {
            part.retain(|_, template| {
                let keep = template.outlives_server();
                if !keep {
                    self.note(template);
                }
                keep
            });
        });
        self.retired().retain(|template| template.outlives_server());
    }

    /// Ends those of some servers; those that have connections make no more, and end after these.
    pub fn end_of(&self, servers: &HashSet<*const RealServer>) {
        if servers.is_empty() {
            return;
        }
        let is_ending = |template: &PersistenceTemplate| servers.contains(&Arc::as_ptr(&template.server));
        let mut ending = Vec::new();
        for part in self.valid.parts() {
            part.retain(|_, template| {
                let keep = !is_ending(template);
                if !keep {
                    self.note(template);
                    ending.push(Arc::clone(template));
                }
                keep
            });
        }
        ending.into_iter().for_each(|template| self.set_aside(template));
        self.retired().retain(|template| !(is_ending(template) && template.end()));
    }

    /// Shows every template to `visit`.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<PersistenceTemplate>)) {
        self.walks().for_each(|walk| walk.for_each(&mut visit));
    }

    /// The same of those that count, in many walks.
    pub fn valid_walks(&self) -> impl Iterator<Item = Walk<'_>> {
        self.valid.parts().iter().map(Walk::Valid)
    }

    /// The same in many walks, between which nothing is locked.
    pub fn walks(&self) -> impl Iterator<Item = Walk<'_>> {
        self.valid_walks().chain(std::iter::once(Walk::Retired(&self.retired)))
    }

    /// The number of the valid walk that shows the template with this key.
    pub fn part_of(&self, key: &TemplateKey) -> usize {
        self.valid.number_of(key)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.valid.parts().iter().map(Part::len).sum::<usize>() + self.retired().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A walk through some of the templates.
#[derive(Debug)]
pub enum Walk<'a> {
    /// Some of those that count.
    Valid(&'a Part<TemplateKey, Arc<PersistenceTemplate>>),
    /// Those that do not.
    Retired(&'a Mutex<Vec<Arc<PersistenceTemplate>>>),
}

impl Walk<'_> {
    /// Shows them to `visit`.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<PersistenceTemplate>)) {
        match self {
            Walk::Valid(part) => part.iter().for_each(|template| visit(&template)),
            Walk::Retired(retired) => {
                retired.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(visit);
            }
        }
    }
}
