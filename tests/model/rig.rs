//! The engine beside the model: both are told the same, and whatever can be seen of them is compared.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use xlvs::admin::client::Transport as _;
use xlvs::config::lvs::LvsConfig;
use xlvs::config::mark_command::apply_command;
use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{
    self, ClientMask, Forward, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::verdict::{DropReason, Verdict};
use xlvs::net::addr::{Family, PortIndex, Protocol};
use xlvs::net::tunnel::Encapsulation;

use crate::model::edits::Edit;
use crate::model::listing;
use crate::model::packets::{Fate, Packet};
use crate::model::sequence::{CLIENTS, Op, SETTINGS};
use crate::model::tables::{Connection, Key, Millis, Model, Options, TCP, Terms, UDP};
use crate::support::device::Side;
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{self, PacketSpec};

const MARK: u32 = 7;
const MARKED_PORT: u16 = 443;
/// Nothing is looked at sooner than this after something came to its end: the engine may be that late.
const LATENESS: Millis = 200;

/// Protocol and port of what clients ask for.
const TARGETS: [(u8, u16); 6] =
    [(TCP, 80), (UDP, 53), (TCP, MARKED_PORT), (UDP, MARKED_PORT), (TCP, 8080), (UDP, 54)];

static MARKS: LazyLock<Arc<MarkRules>> = LazyLock::new(|| {
    let mut saved = String::new();
    for (program, world) in [("iptables", World::V4), ("ip6tables", World::V6)] {
        for protocol in ["tcp", "udp"] {
            let rule = format!(
                "{program} -t mangle -A PREROUTING -d {} -p {protocol} -m {protocol} --dport {MARKED_PORT} -j MARK --set-mark {MARK}",
                world.virtual_address()
            );
            saved = apply_command(&saved, &rule).expect("a rule");
        }
    }
    Arc::new(parse_marks(&saved, Names::NONE).expect("rules"))
});

static SPECS: LazyLock<[PacketSpec; 2]> = LazyLock::new(|| {
    let any = World::V4.virtual_address();
    ["tcp", "udp"].map(|protocol| PacketSpec::new(any, any, protocol))
});

/// Which addresses everybody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    V4,
    V6,
}

impl World {
    fn virtual_address(self) -> IpAddr {
        match self {
            World::V4 => [10, 10, 1, 30].into(),
            World::V6 => [0xfd00, 0x10, 0, 0, 0, 0, 0, 0x30].into(),
        }
    }

    /// Every other one is alone in its network.
    fn client(self, number: usize) -> IpAddr {
        let host = (number % CLIENTS) as u8;
        let word = u16::from(host);
        match (self, host % 2) {
            (World::V4, 0) => [192, 0, 2, host].into(),
            (World::V4, _) => [198, 51, host, 1].into(),
            (World::V6, 0) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, word].into(),
            (World::V6, _) => [0x2001, 0xdb8 + word, 0, word, 0, 0, 0, 1].into(),
        }
    }

    fn server(self, service: usize, number: usize, port: usize) -> SocketAddr {
        let port = [[80, 53, MARKED_PORT, 80, 54][service], 8080, 0][port];
        match self {
            World::V4 => SocketAddr::new([10, 8, 8, 33 + number as u8].into(), port),
            World::V6 => SocketAddr::new([0xfd00, 8, 0, 0, 0, 0, 0, 0x33 + number as u16].into(), port),
        }
    }

    /// All services that sequences use.
    fn key(self, service: usize) -> Key {
        let address = |port| SocketAddr::new(self.virtual_address(), port);
        match service {
            0 => Key::Address(TCP, address(80)),
            1 => Key::Address(UDP, address(53)),
            2 => Key::Mark(MARK),
            3 => Key::Address(TCP, address(0)),
            _ => Key::Address(UDP, address(54)),
        }
    }

    /// Protocol, type and code of the error.
    fn port_unreachable(self) -> (u8, u8, u8) {
        match self {
            World::V4 => (1, 3, 3),
            World::V6 => (58, 1, 4),
        }
    }

    /// How long a prefix is when 32 bits would be everything.
    fn prefix(self, bits: u8) -> u8 {
        match self {
            World::V4 => bits,
            World::V6 => bits * 4,
        }
    }

    fn mask(self, bits: u8) -> ClientMask {
        match self {
            World::V4 => ClientMask::V4(u32::MAX << (32 - bits)),
            World::V6 => ClientMask::V6(bits),
        }
    }

    /// Only persistence makes sense of a service for any port.
    fn options(self, service: usize, options: &Options) -> Options {
        let persistence = options.persistence.or((service == 3).then_some((77, 32)));
        let persistence = persistence.map(|(timeout, bits)| (timeout, self.prefix(bits)));
        Options { persistence, ..options.clone() }
    }

    fn service_id(self, key: Key) -> ServiceId {
        match key {
            Key::Address(protocol, target) => {
                ServiceId::Address { protocol: Protocol(protocol), address: target.ip(), port: target.port() }
            }
            Key::Mark(mark) => ServiceId::FwMark { mark, family: Family::from(self.virtual_address()) },
        }
    }

    fn service_spec(self, key: Key, options: &Options) -> ServiceSpec {
        let persistence = options
            .persistence
            .map(|(timeout, bits)| edit::Persistence { timeout: timeout as u32, mask: self.mask(bits) });
        ServiceSpec {
            id: self.service_id(key),
            scheduler: options.scheduler.to_owned(),
            flags: SchedulerFlags { flag1: options.fallback, flag2: options.with_port, flag3: false },
            one_packet: options.one_packet,
            persistence,
            engine: None,
        }
    }

    fn request(self, edit: &Edit) -> edit::Edit {
        let id = |key: &Key| self.service_id(*key);
        match edit {
            Edit::AddService(key, options) => edit::Edit::AddService(self.service_spec(*key, options)),
            Edit::EditService(key, options) => edit::Edit::EditService(self.service_spec(*key, options)),
            Edit::DeleteService(key) => edit::Edit::DeleteService(id(key)),
            Edit::Flush => edit::Edit::Flush,
            Edit::AddServer(key, address, terms) => {
                edit::Edit::AddServer(id(key), server_spec(*address, *terms))
            }
            Edit::EditServer(key, address, terms) => {
                edit::Edit::EditServer(id(key), server_spec(*address, *terms))
            }
            Edit::DeleteServer(key, address) => edit::Edit::DeleteServer(id(key), server_id(*address)),
            Edit::Zero(key) => edit::Edit::Zero(key.as_ref().map(id)),
            Edit::SetTimeouts(tcp, tcp_fin, udp) => {
                edit::Edit::SetTimeouts { tcp: *tcp, tcp_fin: *tcp_fin, udp: *udp }
            }
        }
    }
}

/// How a sequence went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events that happened.
    pub events: usize,
    /// Packets that were given to a server or a client.
    pub translated: usize,
    /// It ended early, because the reference does not say what comes next.
    pub open_end: bool,
}

/// Both of them, and what has happened to them.
pub struct Rig {
    world: World,
    model: Model,
    router: Router,
    story: String,
    progress: Progress,
}

/// Plays a sequence; the error is the story up to the first difference.
pub fn play(world: World, ops: &[Op]) -> Result<Progress, String> {
    let mut rig = Rig::new(world);
    for op in ops {
        rig.progress.events += 1;
        let applied = rig.apply(op);
        if rig.model.close_call {
            rig.progress.open_end = true;
            break;
        }
        if let Err(difference) = applied.and_then(|()| rig.compare()) {
            return Err(format!("{}{difference}", rig.story));
        }
    }
    Ok(rig.progress)
}

impl Rig {
    fn new(world: World) -> Self {
        let mut router = Router::new();
        router.configure(LvsConfig::default(), Arc::clone(&MARKS));
        Rig { world, model: Model::new(), router, story: String::new(), progress: Progress::default() }
    }

    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.story, "{:>8} ms  {line}", self.model.now);
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        let world = self.world;
        let key = |service: &usize| world.key(*service);
        let server = |service: &usize, number: &usize, port: &usize| world.server(*service, *number, *port);
        let options = |service: &usize, wanted| world.options(*service, wanted);
        match op {
            Op::AddService(service, wanted) => {
                self.edit(&Edit::AddService(key(service), options(service, wanted)))
            }
            Op::EditService(service, wanted) => {
                self.edit(&Edit::EditService(key(service), options(service, wanted)))
            }
            Op::DeleteService(service) => self.edit(&Edit::DeleteService(key(service))),
            Op::Flush => self.edit(&Edit::Flush),
            Op::AddServer(service, number, port, terms) => {
                self.edit(&Edit::AddServer(key(service), server(service, number, port), *terms))
            }
            Op::EditServer(service, number, port, terms) => {
                self.edit(&Edit::EditServer(key(service), server(service, number, port), *terms))
            }
            Op::DeleteServer(service, number, port) => {
                self.edit(&Edit::DeleteServer(key(service), server(service, number, port)))
            }
            Op::Zero(service) => self.edit(&Edit::Zero(service.as_ref().map(key))),
            Op::SetTimeouts(tcp, tcp_fin, udp) => self.edit(&Edit::SetTimeouts(*tcp, *tcp_fin, *udp)),
            Op::Set(setting, value) => self.set(SETTINGS[*setting], *value),
            Op::Open(number, port, target, flags, len) => {
                let (protocol, target) = TARGETS[*target];
                let source = SocketAddr::new(world.client(*number), *port);
                let destination = SocketAddr::new(world.virtual_address(), target);
                self.send(Side::Client, protocol, source, destination, flags, *len)
            }
            Op::Follow(pick, from_client, flags, len) => self.follow(*pick, *from_client, flags, *len),
            Op::Wait(time) => {
                self.wait(*time);
                Ok(())
            }
        }
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), String> {
        if self.model.is_open_question(edit) {
            return Ok(());
        }
        let expected = self.model.edit(edit);
        self.tell(&format!("{edit:?} {expected:?}"));
        let reply = self.router.call(Request::Edit(self.world.request(edit)));
        let outcome = match reply {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Refused(errno)) => Err(format!("{errno:?}")),
            other => Err(format!("{other:?}")),
        };
        differ("the answer", &expected.map_err(str::to_owned), &outcome)
    }

    fn set(&mut self, name: &str, value: i32) -> Result<(), String> {
        self.tell(&format!("{name} = {value}"));
        let settings = &mut self.model.settings;
        let slot = match name {
            "conn_reuse_mode" => &mut settings.conn_reuse_mode,
            "expire_nodest_conn" => &mut settings.expire_nodest_conn,
            "expire_quiescent_template" => &mut settings.expire_quiescent_template,
            "nat_icmp_send" => &mut settings.nat_icmp_send,
            _ => &mut settings.sloppy_tcp,
        };
        *slot = value;
        match self.router.call(Request::Sysctl { name: name.into(), value: Some(value.to_string()) }) {
            Ok(Reply::Text(_)) => Ok(()),
            other => Err(format!("refused: {other:?}")),
        }
    }

    fn wait(&mut self, time: Millis) {
        let start = self.model.now;
        self.model.advance(start + time);
        while self.model.now < self.model.last_end + LATENESS {
            self.model.advance(self.model.now + LATENESS);
        }
        let passed = self.model.now - start;
        self.tell(&format!("{passed} ms later"));
        self.router.pass(Duration::from_millis(passed), Duration::from_secs(3600));
    }

    fn follow(
        &mut self,
        pick: usize,
        from_client: bool,
        flags: &'static str,
        len: usize,
    ) -> Result<(), String> {
        let connections = &self.model.connections;
        let Some(connection) = connections.get(pick % connections.len().max(1)) else { return Ok(()) };
        let Connection { protocol, client, target, server_address, .. } = *connection;
        if from_client {
            self.send(Side::Client, protocol, client, target, flags, len)
        } else {
            self.send(Side::Server, protocol, server_address, client, flags, len)
        }
    }

    fn send(
        &mut self,
        side: Side,
        protocol: u8,
        source: SocketAddr,
        destination: SocketAddr,
        flags: &'static str,
        len: usize,
    ) -> Result<(), String> {
        let mut spec = SPECS[usize::from(protocol == UDP)].clone();
        (spec.src, spec.sport, spec.dst, spec.dport) =
            (source.ip(), source.port(), destination.ip(), destination.port());
        (spec.len, spec.flags) = (len, flags.to_owned());
        let bytes = packet::build(&spec, None).remove(0);
        let marked = destination.ip() == self.world.virtual_address() && destination.port() == MARKED_PORT;
        let packet = Packet { protocol, source, destination, flags, bytes: bytes.len() as u64 };
        let fate = self.model.packet(&packet, if marked { MARK } else { 0 });
        self.tell(&format!("{side} {protocol} {source} > {destination} {flags} {len}: {fate:?}"));
        self.progress.translated += usize::from(matches!(fate, Fate::ToServer(_) | Fate::ToClient(_)));
        let (verdict, frame) = self.router.process(side, &ethernet::frame(side, &bytes));
        self.judge(side, fate, &spec, verdict, ethernet::packet(&frame).unwrap_or_default())
    }

    /// Whether verdict and packet are what a fate means.
    fn judge(
        &self,
        side: Side,
        fate: Fate,
        spec: &PacketSpec,
        verdict: Verdict,
        after: &[u8],
    ) -> Result<(), String> {
        let mut expected = spec.clone();
        let wanted = match fate {
            Fate::ToServer(server) => {
                (expected.dst, expected.dport) = (server.ip(), server.port());
                Verdict::Transmit(PortIndex(1))
            }
            Fate::ToClient(target) => {
                (expected.src, expected.sport) = (target.ip(), target.port());
                Verdict::Transmit(PortIndex(0))
            }
            Fate::Pass => Verdict::Pass,
            Fate::Unreachable if verdict == Verdict::Drop(DropReason::IcmpLimit) => return Ok(()),
            Fate::Unreachable => {
                let port = PortIndex(u8::from(side == Side::Server));
                differ("the verdict", &Verdict::Transmit(port), &verdict)?;
                return differ("the error", &Some(self.world.port_unreachable()), &error_of(after));
            }
            Fate::Drop if matches!(verdict, Verdict::Drop(_)) => return Ok(()),
            Fate::Drop => return Err(format!("not dropped: {verdict:?}")),
        };
        expected.ttl -= u8::from(fate != Fate::Pass);
        differ("the verdict", &wanted, &verdict)?;
        differ("the packet", &packet::build(&expected, None).remove(0).as_slice(), &after)
    }

    fn compare(&mut self) -> Result<(), String> {
        self.model.check_counts();
        let Ok(Reply::Connections(connections)) = self.router.call(Request::ListConnections) else {
            return Err("no list of connections".into());
        };
        let Ok(Reply::Services { services, .. }) = self.router.call(Request::ListServices) else {
            return Err("no list of services".into());
        };
        let [mut here, mut there] =
            [listing::of_connections(&self.model), connections.iter().map(listing::of_connection).collect()];
        here.sort();
        there.sort();
        differ("the connections", &here, &there)?;
        let there: Vec<_> = services.iter().map(listing::of_service).collect();
        differ("the services", &listing::of_services(&self.model), &there)
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, engine: &T) -> Result<(), String> {
    if model == engine {
        return Ok(());
    }
    Err(format!("{what} differ: the reference model has\n{model:#?}\nand the engine\n{engine:#?}\n"))
}

/// Protocol, type and code of an ICMP error.
fn error_of(packet: &[u8]) -> Option<(u8, u8, u8)> {
    let (protocol, header) = if packet.first()? >> 4 == 4 { (9, 20) } else { (6, 40) };
    Some((*packet.get(protocol)?, *packet.get(header)?, *packet.get(header + 1)?))
}

fn server_id(address: SocketAddr) -> ServerId {
    ServerId { address: address.ip(), port: address.port() }
}

fn server_spec(address: SocketAddr, terms: Terms) -> ServerSpec {
    ServerSpec {
        id: server_id(address),
        forward: Forward::Masquerade,
        weight: terms.weight as i32,
        upper_threshold: terms.upper as u32,
        lower_threshold: terms.lower as u32,
        tunnel: Encapsulation::default(),
    }
}
