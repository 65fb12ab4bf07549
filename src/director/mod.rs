//! Layer 3: the single writer. Commands in, effects out; [`run`] carries the effects out.

mod activity;
mod admission;
mod configure;
mod diff;
pub mod doctor;
mod drain;
pub mod names;
mod network;
pub mod protocol;
mod requests;
pub mod run;
pub mod socket;
pub mod wanted;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::lvs::LvsConfig;
use crate::director::admission::Refusals;
use crate::director::drain::Draining;
use crate::director::protocol::{Reply, Request};
use crate::director::wanted::{Wanted, WantedAddress};
use crate::ipvs::beyond::Beyond;
use crate::ipvs::defence;
use crate::ipvs::drop_entry;
use crate::ipvs::edit::{Edit, Errno, Refusal, ServerId, ServerSpec, ServiceId};
use crate::ipvs::estimator;
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::mark::MarkRules;
use crate::ipvs::service_table::ServiceTable;
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::steering::{Reach, Steering};
use crate::ipvs::sysctl::Sysctls;
use crate::nanny::Check;
use crate::net::route::HostNetwork;
use crate::net::time::Instant;

/// Time between two looks at the trash, at endpoints without use, and at neighbours.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);

/// Which client of the control socket asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub u64);

/// What the director is told.
#[derive(Debug)]
pub enum Command {
    /// A client of the control socket asks.
    Request {
        /// Who is to have the answer.
        client: ClientId,
        /// What.
        request: Request,
    },
    /// The site's files have been read, at the start or again.
    Configure {
        /// `lvs.cf`.
        lvs: Box<LvsConfig>,
        /// The saved iptables marks.
        marks: Arc<MarkRules>,
    },
    /// The kernel's view of the network has changed.
    Network(HostNetwork),
    /// IPVS settings that the site's files ask for, once at the start.
    Sysctls(Box<Sysctls>),
    /// What the FTP helper reads, once at the start.
    FtpPorts(FtpPorts),
    /// Pages of memory that are free or in buffers; wanted whenever [`Director::watches_memory`].
    FreeMemory(u64),
    /// A check's server came up or went down.
    Health {
        /// The check, as started by [`Effect::StartCheck`].
        check: Arc<Check>,
        /// Whether the server is healthy now.
        up: bool,
        /// Why, for the log.
        reason: String,
    },
    /// This router has the work: steering, addresses. So it is from the start, until it is told otherwise.
    Activate,
    /// This router leaves the work to its partner: the tables stay and servers are checked, but there are no addresses and no
    /// packets.
    Deactivate,
    /// Tell the neighbours again where the addresses are.
    AnnounceAgain,
    /// [`Director::next_deadline`] has come.
    Tick,
    /// The end: addresses and checks are taken back.
    Stop,
}

/// How much an administrator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An event of normal life.
    Info,
    /// Something to look at.
    Warn,
    /// Something that does not work.
    Error,
}

/// What has to be done outside.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Answer a client.
    Reply(ClientId, Reply),
    /// Give this to the XDP program.
    Steer(Steering),
    /// Put an address on an interface and announce it.
    AddAddress(WantedAddress),
    /// Take an address back.
    RemoveAddress(WantedAddress),
    /// Start a health check.
    StartCheck(Arc<Check>),
    /// Stop a health check.
    StopCheck(Arc<Check>),
    /// Have the kernel resolve these neighbours (interface index, address), or keep them resolved.
    Resolve(Vec<(u32, IpAddr)>),
    /// An interface that the workers serve has gone: this run cannot serve it any more.
    PortGone(String),
    /// Tell the administrator.
    Log(Level, String),
    /// Tell the administrator, and whoever asked for a reload, what became of something that was changed by hand.
    ChangedByHand(String),
}

/// A NIC that the workers serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
}

/// The single writer of everything that changes by command. Pure: it changes the shared tables, and says what else to do.
#[derive(Debug)]
pub struct Director {
    tables: Arc<Tables>,
    services: ServiceTable,
    draft: Snapshot,
    former: Vec<Arc<Snapshot>>,
    ports: Vec<Port>,
    network: HostNetwork,
    wanted: Wanted,
    active: bool,
    draining: Vec<Draining>,
    health: HashMap<(ServiceId, ServerId), bool>,
    /// What was made by hand of servers that the file names, since it was last read; `None` of a deleted one.
    by_hand: HashMap<(ServiceId, ServerId), Option<ServerSpec>>,
    steered: Reach,
    steering: Steering,
    effects: Vec<Effect>,
    free_pages: u64,
    started: Instant,
    next_sample: Instant,
    next_sweep: Instant,
    next_defence: Instant,
    /// What `conn_max` is if nobody says.
    conn_max: u32,
    refusals: Refusals,
}

impl Director {
    /// The director of tables made for `workers` workers that serve `ports`, by [`crate::net::addr::PortIndex`].
    pub fn new(now: Instant, tables: Arc<Tables>, workers: usize, ports: Vec<Port>) -> Self {
        let draft = Snapshot {
            interfaces: ports.iter().map(|port| port.name.clone()).collect(),
            ..Snapshot::default()
        };
        Director {
            services: ServiceTable::new(Arc::clone(&tables), workers),
            tables,
            draft,
            former: Vec::new(),
            ports,
            network: HostNetwork::default(),
            wanted: Wanted::default(),
            active: true,
            draining: Vec::new(),
            health: HashMap::new(),
            by_hand: HashMap::new(),
            steered: Reach::default(),
            steering: Steering::default(),
            effects: Vec::new(),
            free_pages: u64::MAX,
            started: now,
            next_sample: now + estimator::PERIOD,
            next_sweep: now + SWEEP_PERIOD,
            next_defence: now + defence::PERIOD,
            conn_max: 0,
            refusals: Refusals::default(),
        }
    }

    /// When [`Command::Tick`] is due.
    pub fn next_deadline(&self) -> Instant {
        let next = self.next_sample.min(self.next_sweep);
        let next = self.next_drain_end().map_or(next, |end| end.min(next));
        if self.watches_memory() { next.min(self.next_defence) } else { next }
    }

    /// Whether the defence against floods is on, so that [`Command::FreeMemory`] is wanted before each tick.
    pub fn watches_memory(&self) -> bool {
        self.draft.sysctls.has_defence()
    }

    /// Handles one command. The shared tables are changed when it returns; the effects are to be carried out in order.
    pub fn handle(&mut self, now: Instant, command: Command) -> Vec<Effect> {
        match command {
            Command::Request { client, request } => {
                let reply = self.request(now, request);
                self.effects.push(Effect::Reply(client, reply));
            }
            Command::Configure { lvs, marks } => self.configure(&lvs, marks),
            Command::Network(network) => self.take_network(network),
            Command::Sysctls(sysctls) => {
                self.draft.sysctls = *sysctls;
                self.defend();
                self.publish();
            }
            Command::FtpPorts(ports) => {
                self.draft.ftp_ports = ports;
                self.publish();
            }
            Command::FreeMemory(pages) => self.free_pages = pages,
            Command::Health { check, up, reason } => self.take_health(&check, up, &reason),
            Command::Activate => self.activate(),
            Command::Deactivate => self.deactivate(),
            Command::AnnounceAgain => self.announce_all(),
            Command::Tick => self.tick(now),
            Command::Stop => self.stop(),
        }
        self.drain_quiesced(now);
        self.end_drains(now);
        std::mem::take(&mut self.effects)
    }

    /// The same with what goes beyond IPVS.
    pub fn with_beyond(mut self, beyond: Beyond) -> Self {
        self.draft.beyond = Arc::new(beyond);
        self.settle_conn_max();
        self.publish();
        self
    }

    /// One edit of the tables, published at once.
    fn edit(&mut self, edit: &Edit) -> Result<(), Errno> {
        self.suspend_shortcuts();
        let applied = self.services.apply(&mut self.draft, &self.network, edit);
        applied.inspect_err(|_| self.resume_shortcuts())?;
        self.store();
        self.steer_added(edit);
        Ok(())
    }

    /// Several edits, all of them or none, published at once.
    fn edit_all(&mut self, edits: &[Edit]) -> Result<(), Refusal> {
        self.suspend_shortcuts();
        let applied = self.services.apply_all(&mut self.draft, &self.network, edits);
        applied.inspect_err(|_| self.resume_shortcuts())?;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        self.store();
        self.steer();
    }

    /// The former snapshot is kept until no worker has it any more: freeing ten thousand services takes time that the workers'
    /// packets do not have.
    fn store(&mut self) {
        self.suspend_shortcuts();
        self.draft.generation = self.draft.generation.wrapping_add(1);
        self.former.push(self.tables.snapshot.swap(Arc::new(self.draft.clone())));
        self.free_former();
    }

    /// Leaves all packets to the workers, until they see the next snapshot and lend flows anew: nothing goes on by what is
    /// about to change. What was done so far counts as done before.
    fn suspend_shortcuts(&mut self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.begin(self.draft.generation.wrapping_add(1), &self.tables.total);
        }
    }

    /// Nothing has changed after all.
    fn resume_shortcuts(&mut self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.resume(self.draft.generation);
        }
    }

    /// Has what lent flows did counted.
    fn collect_shortcuts(&self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.collect(&self.tables.total);
        }
    }

    fn free_former(&mut self) {
        self.former.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Steers what the snapshot needs, and still what it no longer needs: connections may use that.
    fn steer(&mut self) {
        let own = self.own_addresses();
        let wanted = Reach::of(&self.draft, &own);
        self.steered.extend(&wanted);
        self.give_steering(own);
    }

    /// The same after one edit: most need nothing that is not steered already, which is quickly found out however many services
    /// there are.
    fn steer_added(&mut self, edit: &Edit) {
        let id = match edit {
            Edit::AddServer(id, _) | Edit::EditServer(id, _) => id,
            Edit::AddService(spec) => &spec.id,
            _ => return,
        };
        let Some(service) = self.draft.services.get(id) else { return };
        let own = self.own_addresses();
        let wanted = Reach::of_service(&self.draft, service, &own);
        if !self.steered.missing_from(&wanted).is_empty() {
            self.steered.extend(&wanted);
            self.give_steering(own);
        }
    }

    fn give_steering(&mut self, own: Vec<IpAddr>) {
        // An inactive router takes no packets, whatever its neighbours still believe.
        let steering = if self.active { self.steered.steering(&own) } else { Steering::default() };
        if steering != self.steering {
            self.steering = steering.clone();
            self.effects.push(Effect::Steer(steering));
        }
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let mut own: Vec<_> = self.network.addresses.iter().map(|address| address.address).collect();
        own.sort();
        own.dedup();
        own
    }

    /// Why a configuration must not replace the present one: a virtual server in it cannot be run, or gets no packets any
    /// more. At the start, when there is nothing to lose, only if none can be run.
    pub fn objection(&self, config: &LvsConfig, marks: &MarkRules) -> Option<String> {
        let next = Wanted::new(config);
        let mut objections = next.newly_refused(&self.wanted);
        if self.wanted.services.is_empty() {
            return (next.services.is_empty() && !objections.is_empty()).then(|| objections.join("\n"));
        }
        let known = self.wanted.unmarked(&self.draft.marks);
        objections.extend(next.unmarked(marks).into_iter().filter(|text| !known.contains(text)));
        (!objections.is_empty()).then(|| objections.join("\n"))
    }

    fn tick(&mut self, now: Instant) {
        if self.watches_memory() && self.next_defence <= now {
            if self.defend() {
                self.publish();
            }
            if self.draft.defence.drops_entries {
                drop_entry::drop_entries(&self.tables, now);
            }
            self.next_defence = now + defence::PERIOD;
        }
        if self.next_sample <= now {
            self.free_former();
            self.collect_shortcuts();
            if self.draft.sysctls.run_estimation != 0 {
                self.services.sample(&self.draft.services);
            }
            self.ask_for_direct_servers();
            self.watch_templates();
            self.report_refusals(now);
            self.next_sample = now + estimator::PERIOD;
        }
        if self.next_sweep <= now {
            self.services.empty_trash(now);
            self.forget_unused();
            self.keep_neighbours();
            self.restore_all_addresses();
            self.next_sweep = now + SWEEP_PERIOD;
        }
    }

    /// Judges the defence anew. Returns whether anything in the draft has changed.
    fn defend(&mut self) -> bool {
        let former = (self.draft.sysctls.clone(), self.draft.defence);
        let counters = &self.tables.drop_counters;
        self.draft.defence = defence::judge(&mut self.draft.sysctls, self.free_pages, counters);
        former != (self.draft.sysctls.clone(), self.draft.defence)
    }

    /// Stops steering what neither the snapshot nor any connection needs.
    fn forget_unused(&mut self) {
        let wanted = Reach::of(&self.draft, &self.own_addresses());
        let mut lingering = wanted.missing_from(&self.steered);
        if lingering.is_empty() {
            return;
        }
        lingering.retain_used(&self.tables.connections);
        self.steered = lingering;
        self.steer();
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.effects.push(Effect::Log(level, text.into()));
    }
}
