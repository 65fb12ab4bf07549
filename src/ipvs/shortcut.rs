//! The shortcut: established NAT flows whose plain packets something faster forwards, without the engine seeing them.
//!
//! The engine stays the owner of all state. It only lends a flow while its packets change nothing but counters and timers
//! ([`Shortcuts::lend`]), asks how it was used before it relies on a deadline ([`Shortcuts::refresh`]), and takes it back with
//! the first packet that says more ([`Shortcuts::take_back`]). A change of the tables ends all loans at once: each is good for
//! one generation of the snapshot only.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::ipvs::connection::Connection;
use crate::ipvs::protocol::Direction;
use crate::ipvs::server::RealServer;
use crate::ipvs::stats::Stats;
use crate::ipvs::verdict::PacketCounters;
use crate::net::addr::{MacAddr, PortIndex};
use crate::net::flow::FlowKey;
use crate::net::rewrite::End;
use crate::net::route::Egress;
use crate::net::time::Instant;

/// How long nothing is lent after the tables were full.
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of the plain packets of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// The generation of the snapshot that it follows from; it ends with it.
    pub generation: u32,
    /// The port that the packets come by.
    pub ingress: PortIndex,
    /// Our hardware address there, which they have to be sent to.
    pub addressed: MacAddr,
    /// Which end is replaced.
    pub end: End,
    /// By what.
    pub new: SocketAddr,
    /// The way out.
    pub egress: Egress,
    /// Where the packets are counted.
    pub account: Account,
    /// The number that they are counted from.
    pub packets: u64,
}

/// Counters of one direction at one server, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account(pub u32);

impl Account {
    fn of(slot: usize, direction: Direction) -> Self {
        Account(slot as u32 * 2 + direction as u32)
    }
}

/// Packets, and their bytes with IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    fn since(self, before: Traffic) -> Traffic {
        Traffic {
            packets: self.packets.wrapping_sub(before.packets),
            bytes: self.bytes.wrapping_sub(before.bytes),
        }
    }
}

/// How a shortcut has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// When last; `None` if never.
    pub last: Option<Instant>,
    /// Packets, and those that it was told to count from.
    pub packets: u64,
}

/// Why there is no shortcut for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShortcut {
    /// There is no room; there may be later.
    Full,
    /// Nothing can be sent from the one port to the other.
    Impossible,
}

/// What forwards the packets of lent flows.
pub trait FastPath: Debug + Send + Sync {
    /// Forwards the flow's plain packets from now on, in place of what it did with them before.
    fn install(&self, flow: &FlowKey, shortcut: &Shortcut) -> Result<(), NoShortcut>;

    /// Leaves the flow's packets to the engine again.
    fn remove(&self, flow: &FlowKey);

    /// How the flow has been used; `None` if it is not there.
    fn usage(&self, flow: &FlowKey) -> Option<Usage>;

    /// What has been counted there so far.
    fn traffic(&self, account: Account) -> Traffic;

    /// How many accounts there are.
    fn accounts(&self) -> usize;

    /// Makes this the one generation whose shortcuts count; with 0 none does.
    fn set_generation(&self, generation: u32);
}

/// A server with its accounts, and what of them has been passed on.
#[derive(Debug)]
struct Client {
    server: Arc<RealServer>,
    collected: [Traffic; 2],
}

/// All that has been lent.
#[derive(Debug)]
pub struct Shortcuts {
    path: Box<dyn FastPath>,
    /// Packets of a client's after which its connection is lent.
    after: u32,
    /// The cell of all counters that only this writes.
    cell: usize,
    books: Arc<PacketCounters>,
    /// By slot; slot 0 is nobody's.
    clients: Mutex<Vec<Option<Client>>>,
    /// Whether anything has been lent in the present generation.
    lent: AtomicBool,
    paused_until: AtomicU64,
    flows: AtomicI64,
    refused: AtomicU64,
}

impl Shortcuts {
    /// Nothing lent yet. A connection is lent after so many packets of its client; `cell` is the number of a worker that does
    /// not exist otherwise, in tables that were made for it.
    pub fn new(path: Box<dyn FastPath>, after: u32, cell: usize) -> Self {
        Shortcuts {
            path,
            after,
            cell,
            books: Arc::default(),
            clients: Mutex::new(vec![None]),
            lent: AtomicBool::new(false),
            paused_until: AtomicU64::new(0),
            flows: AtomicI64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// What became of the packets, as of the last [`Shortcuts::collect`].
    pub fn books(&self) -> &Arc<PacketCounters> {
        &self.books
    }

    /// How many directions of flows are lent, those of earlier generations included.
    pub fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed).max(0) as u64
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether this direction of the connection is to be lent once so many more packets of its client have been counted. Cheap,
    /// for every packet asks.
    #[inline]
    pub fn wants(
        &self,
        connection: &Connection,
        direction: Direction,
        generation: u32,
        packets: u32,
    ) -> bool {
        connection.packets_in().wrapping_add(packets) > self.after
            && !connection.is_offered(direction, generation)
    }

    /// Lends one direction of a connection, whose packets are `flow` when they come.
    pub fn lend(&self, connection: &Connection, direction: Direction, shortcut: Shortcut, now: Instant) {
        if now.as_nanos() < self.paused_until.load(Ordering::Relaxed) {
            return;
        }
        self.refresh(connection);
        if connection.lend(direction, shortcut.generation) {
            self.flows.fetch_add(1, Ordering::Relaxed);
        }
        self.lent.store(true, Ordering::Release);
        let Err(refusal) = self.install(connection, direction, shortcut) else { return };
        if refusal == NoShortcut::Full {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.paused_until.store((now + PAUSE).as_nanos(), Ordering::Relaxed);
        }
        if connection.fail_to_lend(direction, refusal == NoShortcut::Full) {
            self.path.remove(&connection.key(direction));
            self.flows.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn install(
        &self,
        connection: &Connection,
        direction: Direction,
        shortcut: Shortcut,
    ) -> Result<(), NoShortcut> {
        let Some(slot) = self.slot(&connection.server) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(NoShortcut::Impossible);
        };
        let packets = if direction == Direction::In { connection.lent_packets() } else { 0 };
        let account = Account::of(slot, direction);
        let shortcut = Shortcut { account, packets: packets.into(), ..shortcut };
        self.path.install(&connection.key(direction), &shortcut)
    }

    /// Takes note of what a connection's packets have done meanwhile: its deadline, and how many its client has sent.
    pub fn refresh(&self, connection: &Connection) {
        for direction in connection.lent() {
            self.refresh_one(connection, direction);
        }
    }

    fn refresh_one(&self, connection: &Connection, direction: Direction) {
        let Some(usage) = self.path.usage(&connection.key(direction)) else { return };
        if let Some(last) = usage.last {
            connection.life.postpone(last + Duration::from_secs(u64::from(connection.timeout())));
        }
        if direction == Direction::In {
            connection.count_lent_packets(usage.packets as u32);
        }
    }

    /// Takes back what is lent of a connection.
    pub fn take_back(&self, connection: &Connection) {
        // Whoever lends it now sees that it has left the table, or that another one is in its place.
        fence(Ordering::SeqCst);
        self.refresh(connection);
        for direction in connection.end_loan() {
            self.path.remove(&connection.key(direction));
            self.flows.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes back what is lent of a connection that is no longer to be, one direction of which has just been lent. Who ended it
    /// may have taken it back before the direction's flow was there, and so have left that.
    pub fn call_off(&self, connection: &Connection, direction: Direction) {
        self.take_back(connection);
        self.path.remove(&connection.key(direction));
    }

    /// Ends all loans of generations before this one, and counts what they did at servers, services and in `total`.
    pub fn begin(&self, generation: u32, total: &Stats) {
        self.path.set_generation(generation);
        if self.lent.swap(false, Ordering::Acquire) {
            self.collect(total);
        }
    }

    /// Ends all loans for good.
    pub fn end(&self) {
        self.path.set_generation(0);
    }

    /// Goes back to the generation before, whose loans are good again.
    pub fn resume(&self, generation: u32) {
        self.path.set_generation(generation);
        self.lent.store(true, Ordering::Release);
    }

    /// Counts what lent flows did at their servers and services, and in `total`.
    pub fn collect(&self, total: &Stats) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, place) in clients.iter_mut().enumerate() {
            let Some(client) = place else { continue };
            for direction in [Direction::In, Direction::Out] {
                let traffic = self.path.traffic(Account::of(slot, direction));
                let before = std::mem::replace(&mut client.collected[direction as usize], traffic);
                self.count(&client.server, direction, traffic.since(before), total);
            }
            if !client.server.is_available() && client.server.is_idle() {
                client.server.set_slot(0);
                *place = None;
            }
        }
    }

    fn count(&self, server: &RealServer, direction: Direction, traffic: Traffic, total: &Stats) {
        if traffic.packets == 0 {
            return;
        }
        self.books.add_shortcut(traffic.packets);
        if server.is_available() {
            server.count(self.cell, |cell| cell.add_traffic(direction, traffic));
            total.cell(self.cell).add_traffic(direction, traffic);
        }
    }

    /// The place of a server's accounts, its first one now if it has none yet; `None` if all are taken.
    fn slot(&self, server: &Arc<RealServer>) -> Option<usize> {
        match server.slot() {
            0 => self.enter(server),
            slot => Some(slot as usize),
        }
    }

    fn enter(&self, server: &Arc<RealServer>) -> Option<usize> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if server.slot() != 0 {
            return Some(server.slot() as usize);
        }
        let free = clients.iter().skip(1).position(Option::is_none).map(|position| position + 1);
        let slot = free.unwrap_or(clients.len());
        if slot >= self.path.accounts() / 2 {
            return None;
        }
        let collected = [Direction::In, Direction::Out].map(|way| self.path.traffic(Account::of(slot, way)));
        let client = Some(Client { server: Arc::clone(server), collected });
        match clients.get_mut(slot) {
            Some(place) => *place = client,
            None => clients.push(client),
        }
        server.set_slot(slot as u32);
        Some(slot)
    }
}
