//! The tables: services, servers, connections, templates, and what time does to them (ipvs.md sections 1, 4 and 6).
//! Vectors that are searched from end to end, milliseconds as numbers, nothing in common with the engine.

use std::net::{IpAddr, SocketAddr};

use crate::model::schedulers::Scheduler;
use crate::model::{sctp, tcp};

/// The moment of a simulation, in milliseconds.
pub type Millis = u64;
/// Index into [`Model::servers`].
pub type ServerIndex = usize;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

const SAMPLE_PERIOD: Millis = 2000;
const TEMPLATE_TAIL: Millis = 60_000;
/// Ends closer together than this may come in either order.
const CLOSE: Millis = 200;

/// What identifies a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Protocol, virtual address and port.
    Address(u8, SocketAddr),
    /// Firewall mark.
    Mark(u32),
}

/// Options of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the scheduler.
    pub scheduler: &'static str,
    /// `sh-fallback` or `mh-fallback`.
    pub fallback: bool,
    /// `sh-port` or `mh-port`.
    pub with_port: bool,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// Seconds, and how many leading bits of a client's address count.
    pub persistence: Option<(u64, u8)>,
}

/// Weight and thresholds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub weight: i64,
    pub upper: u64,
    pub lower: u64,
}

/// Connections, packets and bytes both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub conns: u64,
    pub inpkts: u64,
    pub outpkts: u64,
    pub inbytes: u64,
    pub outbytes: u64,
}

/// Counters as they run, as last sampled, and as they stood when they were zeroed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub running: Traffic,
    sampled: Traffic,
    zero: Traffic,
}

impl Counters {
    fn sample(&mut self) {
        self.sampled = self.running;
    }

    /// What is shown now counts as zero.
    pub fn zero(&mut self) {
        self.zero = self.sampled;
    }

    /// What a listing shows.
    pub fn shown(&self) -> Traffic {
        Traffic {
            conns: self.sampled.conns - self.zero.conns,
            inpkts: self.sampled.inpkts - self.zero.inpkts,
            outpkts: self.sampled.outpkts - self.zero.outpkts,
            inbytes: self.sampled.inbytes - self.zero.inbytes,
            outbytes: self.sampled.outbytes - self.zero.outbytes,
        }
    }
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    pub key: Key,
    /// Tells it from a former service of the same key.
    pub instance: usize,
    pub options: Options,
    /// Newest first.
    pub servers: Vec<ServerIndex>,
    pub scheduler: Scheduler,
    pub counters: Counters,
}

/// A real server, in its service or in the trash.
#[derive(Debug)]
pub struct Server {
    pub key: Key,
    pub instance: usize,
    pub address: SocketAddr,
    pub terms: Terms,
    /// The latest weight that was not 0.
    pub last_weight: i64,
    pub available: bool,
    pub overloaded: bool,
    pub active: u64,
    pub total: u64,
    pub persistent: u64,
    pub counters: Counters,
    /// Since when nothing points at it.
    pub idle_since: Millis,
}

impl Server {
    /// Whether a scheduler may choose it.
    pub fn is_usable(&self) -> bool {
        self.terms.weight > 0 && !self.overloaded
    }

    /// As the reference's classic kernel counts it.
    pub fn overhead(&self) -> i64 {
        256 * self.active as i64 + (self.total - self.active) as i64
    }

    fn bind(&mut self) {
        self.total += 1;
        if self.terms.upper != 0 && self.total >= self.terms.upper {
            self.overloaded = true;
        }
    }

    fn unbind(&mut self, active: bool, now: Millis) {
        self.active -= u64::from(active);
        self.total -= 1;
        let below = match (self.terms.lower, self.terms.upper) {
            (0, 0) => true,
            (0, upper) => 4 * self.total < 3 * upper,
            (lower, _) => self.total < lower,
        };
        self.overloaded &= !below;
        self.idle_since = now;
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    pub protocol: u8,
    pub client: SocketAddr,
    pub target: SocketAddr,
    pub server_address: SocketAddr,
    pub server: ServerIndex,
    /// Number of the template it was made by.
    pub template: Option<usize>,
    pub state: usize,
    pub active: bool,
    pub deadline: Millis,
}

/// A persistence template.
#[derive(Debug)]
pub struct Template {
    pub number: usize,
    /// 0 for a mark.
    pub protocol: u8,
    /// Masked.
    pub client: IpAddr,
    pub target: SocketAddr,
    pub server_address: SocketAddr,
    pub server: ServerIndex,
    pub timeout: Millis,
    pub deadline: Millis,
    pub assured: bool,
    /// When time last ended one of its connections.
    pub child_ended: Millis,
    /// Renamed because it no longer counted.
    pub renamed: bool,
}

/// The settings that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub conn_reuse_mode: i32,
    pub expire_nodest_conn: i32,
    pub expire_quiescent_template: i32,
    pub nat_icmp_send: i32,
    pub sloppy_tcp: i32,
    pub sloppy_sctp: i32,
}

/// The whole balancer.
#[derive(Debug)]
pub struct Model {
    pub now: Millis,
    /// Newest first.
    pub services: Vec<Service>,
    /// Every server that ever was.
    pub servers: Vec<Server>,
    /// Oldest first.
    pub connections: Vec<Connection>,
    /// Oldest first.
    pub templates: Vec<Template>,
    pub settings: Settings,
    /// Seconds by TCP state.
    pub tcp_timeouts: [u64; 11],
    /// Seconds.
    pub udp_timeout: u64,
    /// How many services and templates there have been, to number them.
    pub made: usize,
    /// When time last ended a connection or a template, or prolonged one.
    pub last_end: Millis,
    /// A template and one of its connections came to their ends so close together that their order is anybody's guess.
    pub close_call: bool,
    next_sample: Millis,
}

impl Model {
    /// Empty, at time 0.
    pub fn new() -> Self {
        Model {
            now: 0,
            services: Vec::new(),
            servers: Vec::new(),
            connections: Vec::new(),
            templates: Vec::new(),
            settings: Settings {
                conn_reuse_mode: 1,
                expire_nodest_conn: 0,
                expire_quiescent_template: 0,
                nat_icmp_send: 0,
                sloppy_tcp: 0,
                sloppy_sctp: 0,
            },
            tcp_timeouts: tcp::TIMEOUTS,
            udp_timeout: 300,
            made: 0,
            last_end: 0,
            close_call: false,
            next_sample: SAMPLE_PERIOD,
        }
    }

    /// Index of the service of this key.
    pub fn service(&self, key: Key) -> Option<usize> {
        self.services.iter().position(|service| service.key == key)
    }

    /// Seconds that a connection lives after a packet that left it in `state`.
    pub fn timeout(&self, protocol: u8, state: usize) -> u64 {
        match protocol {
            TCP => self.tcp_timeouts[state],
            SCTP => sctp::TIMEOUTS[state],
            _ => self.udp_timeout,
        }
    }

    /// Lets `count` count at a server and its service, while the server is in it.
    pub fn count(&mut self, server: ServerIndex, count: impl Fn(&mut Traffic)) {
        let server = &mut self.servers[server];
        if !server.available {
            return;
        }
        count(&mut server.counters.running);
        let key = server.key;
        let service = self.services.iter_mut().find(|service| service.key == key);
        count(&mut service.expect("an available server is in a service").counters.running);
    }

    /// A new connection points at the server.
    pub fn bind(&mut self, connection: Connection) {
        self.servers[connection.server].bind();
        self.connections.push(connection);
    }

    /// Ends the connection at this index.
    pub fn end(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.servers[connection.server].unbind(connection.active, self.now);
    }

    /// Makes a new template, and returns its index.
    pub fn add_template(&mut self, template: Template) -> usize {
        self.servers[template.server].persistent += 1;
        self.templates.push(template);
        self.templates.len() - 1
    }

    /// Ends the template at this index.
    pub fn end_template(&mut self, index: usize) {
        let template = self.templates.remove(index);
        let server = &mut self.servers[template.server];
        server.persistent -= 1;
        server.idle_since = self.now;
    }

    /// Whether connections that a template made are alive.
    pub fn has_children(&self, template: usize) -> bool {
        self.connections.iter().any(|connection| connection.template == Some(template))
    }

    /// What servers count is what the tables hold.
    pub fn check_counts(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            let bound = || self.connections.iter().filter(|connection| connection.server == index);
            let templates = self.templates.iter().filter(|template| template.server == index).count() as u64;
            let active = bound().filter(|connection| connection.active).count() as u64;
            let held = (active, bound().count() as u64, templates);
            assert_eq!((server.active, server.total, server.persistent), held, "{server:?}");
        }
    }

    /// Lets time pass up to `to`: samples are taken, and whatever has come to its end ends, in the order of the ends.
    pub fn advance(&mut self, to: Millis) {
        while let Some((deadline, what)) = self.next_event().filter(|(deadline, _)| *deadline <= to) {
            self.now = deadline;
            match what {
                Event::Sample => self.sample(),
                Event::Connection(index) => self.connection_over(index),
                Event::Template(index) => self.template_over(index),
            }
        }
        self.now = to;
    }

    fn connection_over(&mut self, index: usize) {
        self.last_end = self.now;
        let parent = self.connections[index].template;
        for template in self.templates.iter_mut().filter(|template| Some(template.number) == parent) {
            template.child_ended = self.now;
        }
        self.end(index);
    }

    /// Its end, unless it has connections.
    fn template_over(&mut self, index: usize) {
        self.last_end = self.now;
        let template = &self.templates[index];
        let soon =
            |child: &Connection| child.template == Some(template.number) && child.deadline < self.now + CLOSE;
        self.close_call |= self.now < template.child_ended + CLOSE || self.connections.iter().any(soon);
        if self.has_children(template.number) {
            self.templates[index].timeout = TEMPLATE_TAIL;
            self.templates[index].deadline += TEMPLATE_TAIL;
        } else {
            self.end_template(index);
        }
    }

    fn next_event(&self) -> Option<(Millis, Event)> {
        let connections = self.connections.iter().enumerate();
        let templates = self.templates.iter().enumerate();
        connections
            .map(|(index, connection)| (connection.deadline, Event::Connection(index)))
            .chain(templates.map(|(index, template)| (template.deadline, Event::Template(index))))
            .chain([(self.next_sample, Event::Sample)])
            .min_by_key(|(deadline, _)| *deadline)
    }

    fn sample(&mut self) {
        self.next_sample += SAMPLE_PERIOD;
        for service in &mut self.services {
            service.counters.sample();
            for server in &service.servers {
                self.servers[*server].counters.sample();
            }
        }
    }
}

enum Event {
    Sample,
    Connection(usize),
    Template(usize),
}
