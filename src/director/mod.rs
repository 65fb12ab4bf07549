//! Layer 3: the single writer. Commands in, effects out; [`run`] carries the effects out.

mod activity;
mod admission;
mod configure;
mod diff;
pub mod doctor;
mod drain;
mod ending;
mod estate;
pub mod event;
mod forced;
mod groups;
mod health_check;
pub mod member;
mod members;
pub mod names;
mod network;
pub mod notices;
mod part;
pub mod plan;
pub mod protocol;
mod publish;
mod requests;
pub mod run;
pub mod socket;
mod standing;
mod trial;
pub mod wanted;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub use crate::director::estate::{Estate, Values};
pub use crate::director::forced::OverrideRecord;

use crate::config::lvs::LvsConfig;
use crate::director::admission::Refusals;
use crate::director::drain::Drains;
use crate::director::event::Event;
use crate::director::groups::Post;
use crate::director::members::{MemberId, Seat};
use crate::director::part::Parting;
use crate::director::protocol::{Reply, Request};
use crate::director::trial::Trial;
use crate::director::wanted::{Wanted, WantedAddress};
use crate::ipvs::beyond::Beyond;
use crate::ipvs::defence;
use crate::ipvs::drop_entry;
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::estimator;
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::mark::MarkRules;
use crate::ipvs::service_table::ServiceTable;
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::steering::{Reach, Steering};
use crate::ipvs::sync::{Running, SyncRole};
use crate::ipvs::sysctl::Sysctls;
use crate::nanny::Check;
use crate::net::route::HostNetwork;
use crate::net::time::Instant;
use crate::pulse::Hook;

/// Time between two looks at the trash, at endpoints without use, and at neighbours.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);
/// So long after a change of the network addresses are looked at that may have vanished before they were seen.
const LOOK_DELAY: Duration = Duration::from_secs(1);

/// Time between two looks for synchronised connections whose packets do not come up, while a backup runs.
const STRANGER_PERIOD: Duration = Duration::from_millis(100);

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
    /// A configuration of another file is to be followed. Answer: [`Reply::Text`].
    Apply {
        /// Who is to have the answer.
        client: ClientId,
        /// `lvs.cf`.
        lvs: Box<LvsConfig>,
        /// The saved iptables marks; those that there are if absent.
        marks: Option<Arc<MarkRules>>,
        /// The file's name.
        source: String,
        /// How long it has to be confirmed in time; for good at once if absent.
        confirm: Option<Duration>,
    },
    /// The file that was applied last is the site's now.
    Installed,
    /// What single services have of their own, by `xlvs.toml` as it is now.
    ServiceOptions(Box<Beyond>),
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
    /// A synchronisation daemon of this role could not be started after all.
    SyncFailed(SyncRole),
    /// What a program said of a server's load, as asked for by [`Effect::ReadLoad`].
    Load {
        /// The service.
        service: ServiceId,
        /// Its server.
        server: ServerId,
        /// What the program printed, or why there is nothing.
        printed: Result<String, String>,
    },
    /// What operators decided about servers before the daemon was started again; to come before the first configuration.
    Overrides(Vec<OverrideRecord>),
    /// This router has the work: steering, addresses. So it is from the start, until it is told otherwise.
    Activate,
    /// This router leaves the work to its partner: the tables stay and servers are checked, but there are no addresses and no
    /// packets.
    Deactivate,
    /// Tell the neighbours again where the addresses are.
    AnnounceAgain,
    /// Run one of the commands of `lvs.cf`.
    RunHook(Hook),
    /// An address is on its interface, after [`Effect::AddAddress`] or [`Effect::MoveAddress`].
    AddressUp(Ipv4Addr),
    /// [`Director::next_deadline`] has come.
    Tick,
    /// The end is near: addresses are taken back, the table goes on meanwhile.
    Withdraw,
    /// The end: addresses and checks are taken back, and the table is emptied.
    Stop,
}

/// How much an administrator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks closely.
    Debug,
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
    /// Have the first address, which is on an interface, be as the second one says: there first, then no longer here.
    MoveAddress(WantedAddress, WantedAddress),
    /// Start a health check.
    StartCheck(Arc<Check>),
    /// Stop a health check.
    StopCheck(Arc<Check>),
    /// Have the kernel resolve these neighbours (interface index, address), or keep them resolved.
    Resolve(Vec<(u32, IpAddr)>),
    /// Start a synchronisation daemon's threads, with socket buffers of so many bytes (0: the system's default), in place of
    /// those of the same role.
    StartSync(Running, usize),
    /// End them.
    StopSync(SyncRole),
    /// An interface that the workers serve has gone: this run cannot serve it any more.
    PortGone(String),
    /// Have a program tell a server's load, and answer by [`Command::Load`] in any case.
    ReadLoad {
        /// The service.
        service: ServiceId,
        /// Its server.
        server: ServerId,
        /// The program and its arguments.
        words: Vec<String>,
        /// How long it may take.
        limit: Duration,
    },
    /// Run a command of `lvs.cf`, and do not wait for it.
    Run {
        /// The key that has it.
        key: &'static str,
        /// The program and its arguments.
        words: Vec<String>,
    },
    /// Keep this over a restart of the daemon.
    KeepOverrides(Vec<OverrideRecord>),
    /// A state has changed: tell the administrator, the journal, and the notify command.
    Event(Event),
    /// Tell the administrator.
    Log(Level, String),
    /// A configuration on trial is kept (true), or the former one is back.
    TrialEnded(bool),
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
    /// The moment of the present command.
    now: Instant,
    /// Whether this router has the work.
    active: bool,
    /// Addresses that have been put up.
    up: HashSet<Ipv4Addr>,
    members: HashMap<MemberId, Seat>,
    groups: HashMap<ServiceId, Post>,
    overrides: Vec<OverrideRecord>,
    slow_start: bool,
    drains: Drains,
    parting: Parting,
    /// The file that `wanted` is from, if it is not one of the site's.
    source: Option<String>,
    trial: Option<Trial>,
    /// Whether edits wait for others, to be published together.
    held: bool,
    steered: Reach,
    steering: Steering,
    effects: Vec<Effect>,
    free_pages: u64,
    /// When the first of the processes that have followed each other was started, and this one has followed.
    started: Instant,
    upgraded: Option<Instant>,
    next_sample: Instant,
    next_sweep: Instant,
    next_look: Option<Instant>,
    next_defence: Instant,
    next_strangers: Instant,
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
            now,
            active: true,
            up: HashSet::new(),
            members: HashMap::new(),
            groups: HashMap::new(),
            overrides: Vec::new(),
            slow_start: true,
            drains: Drains::default(),
            parting: Parting::default(),
            source: None,
            trial: None,
            held: false,
            steered: Reach::default(),
            steering: Steering::default(),
            effects: Vec::new(),
            free_pages: u64::MAX,
            started: now,
            upgraded: None,
            next_sample: now + estimator::PERIOD,
            next_sweep: now + SWEEP_PERIOD,
            next_look: None,
            next_defence: now + defence::PERIOD,
            next_strangers: now,
            conn_max: 0,
            refusals: Refusals::default(),
        }
    }

    /// When [`Command::Tick`] is due.
    pub fn next_deadline(&self) -> Instant {
        let next = self.next_sample.min(self.next_sweep);
        let other = [
            self.drains.next(),
            self.parting.next(),
            self.trial_end(),
            self.next_member_deadline(),
            self.next_look,
        ];
        let next = other.into_iter().flatten().fold(next, Instant::min);
        let next = if self.watches_memory() { next.min(self.next_defence) } else { next };
        if self.watches_strangers() { next.min(self.next_strangers) } else { next }
    }

    /// What it shares with the workers.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Whether the defence against floods is on, so that [`Command::FreeMemory`] is wanted before each tick.
    pub fn watches_memory(&self) -> bool {
        self.draft.sysctls.has_defence()
    }

    fn watches_strangers(&self) -> bool {
        self.draft.sync.get(SyncRole::Backup).is_some()
    }

    /// Handles one command. The shared tables are changed when it returns; the effects are to be carried out in order.
    pub fn handle(&mut self, now: Instant, command: Command) -> Vec<Effect> {
        self.now = now;
        match command {
            Command::Request { client, request } => {
                let reply = self.request(now, request);
                self.effects.push(Effect::Reply(client, reply));
            }
            Command::Configure { lvs, marks } => self.follow_site(now, &lvs, marks),
            Command::Apply { client, lvs, marks, source, confirm } => {
                let reply = self.apply(now, &lvs, marks, source, confirm);
                self.effects.push(Effect::Reply(client, reply));
            }
            Command::Installed => self.source = None,
            Command::ServiceOptions(beyond) => {
                Arc::make_mut(&mut self.draft.beyond).services = beyond.services;
                self.publish();
            }
            Command::Network(network) => {
                self.take_network(network);
                self.next_look = Some(now + LOOK_DELAY);
            }
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
            Command::SyncFailed(role) => {
                self.draft.sync.stop(role);
                self.publish();
            }
            Command::Load { service, server, printed } => self.take_load((service, server), printed),
            Command::Overrides(records) => self.take_overrides(records),
            Command::Activate => self.activate(),
            Command::Deactivate => self.deactivate(),
            Command::AnnounceAgain => self.announce_all(),
            Command::RunHook(hook) => self.run_hook(hook),
            Command::AddressUp(address) => drop(self.up.insert(address)),
            Command::Tick => self.tick(now),
            Command::Withdraw => self.withdraw(),
            Command::Stop => self.stop(),
        }
        self.end_trial(now);
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

    /// The same with the marks as they are.
    pub fn objection_to(&self, config: &LvsConfig) -> Option<String> {
        self.objection(config, &self.draft.marks)
    }

    fn tick(&mut self, now: Instant) {
        self.advance_members();
        if self.watches_memory() && self.next_defence <= now {
            if self.defend() {
                self.publish();
            }
            if self.draft.defence.drops_entries {
                drop_entry::drop_entries(&self.tables, now);
            }
            self.next_defence = now + defence::PERIOD;
        }
        if self.watches_strangers() && self.next_strangers <= now {
            self.steer_strangers();
            self.next_strangers = now + STRANGER_PERIOD;
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
        if self.next_look.is_some_and(|due| due <= now) {
            self.restore_all_addresses();
            self.next_look = None;
        }
        if self.next_sweep <= now {
            self.services.empty_trash(now);
            self.forget_unused();
            self.keep_neighbours();
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
