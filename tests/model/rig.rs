//! The engine beside the model: both are told the same, and whatever can be seen of them is compared.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use xlvs::admin::client::Transport as _;
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
    for protocol in ["tcp", "udp"] {
        let rule = format!(
            "iptables -t mangle -A PREROUTING -d {}/32 -p {protocol} -m {protocol} --dport {MARKED_PORT} -j MARK --set-mark {MARK}",
            virtual_address()
        );
        saved = apply_command(&saved, &rule).expect("a rule");
    }
    Arc::new(parse_marks(&saved, Names::NONE).expect("rules"))
});

static SPECS: LazyLock<[PacketSpec; 2]> = LazyLock::new(|| {
    ["tcp", "udp"].map(|protocol| PacketSpec::new(virtual_address(), virtual_address(), protocol))
});

fn virtual_address() -> IpAddr {
    [10, 10, 1, 30].into()
}

/// Half of them are alone in their networks.
fn client(number: usize) -> IpAddr {
    let host = (number % CLIENTS) as u8;
    if host % 2 == 0 { [192, 0, 2, host].into() } else { [198, 51, host, 1].into() }
}

/// All services that sequences use.
fn key(service: usize) -> Key {
    let address = |port| SocketAddr::new(virtual_address(), port);
    match service {
        0 => Key::Address(TCP, address(80)),
        1 => Key::Address(UDP, address(53)),
        2 => Key::Mark(MARK),
        3 => Key::Address(TCP, address(0)),
        _ => Key::Address(UDP, address(54)),
    }
}

fn server(service: usize, server: usize, port: usize) -> SocketAddr {
    let own = [80, 53, MARKED_PORT, 80, 54][service];
    SocketAddr::new([10, 8, 8, 33 + server as u8].into(), [own, 8080, 0][port])
}

/// Only persistence makes sense of a service for any port.
fn options(service: usize, options: &Options) -> Options {
    let persistence = options.persistence.or((service == 3).then_some((77, 32)));
    Options { persistence, ..options.clone() }
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
    model: Model,
    router: Router,
    story: String,
    progress: Progress,
}

/// Plays a sequence; the error is the story up to the first difference.
pub fn play(ops: &[Op]) -> Result<Progress, String> {
    let mut rig = Rig::new();
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
    fn new() -> Self {
        let mut router = Router::new();
        router.set_marks(Arc::clone(&MARKS));
        Rig { model: Model::new(), router, story: String::new(), progress: Progress::default() }
    }

    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.story, "{:>8} ms  {line}", self.model.now);
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::AddService(service, wanted) => {
                self.edit(&Edit::AddService(key(*service), options(*service, wanted)))
            }
            Op::EditService(service, wanted) => {
                self.edit(&Edit::EditService(key(*service), options(*service, wanted)))
            }
            Op::DeleteService(service) => self.edit(&Edit::DeleteService(key(*service))),
            Op::Flush => self.edit(&Edit::Flush),
            Op::AddServer(service, number, port, terms) => {
                self.edit(&Edit::AddServer(key(*service), server(*service, *number, *port), *terms))
            }
            Op::EditServer(service, number, port, terms) => {
                self.edit(&Edit::EditServer(key(*service), server(*service, *number, *port), *terms))
            }
            Op::DeleteServer(service, number, port) => {
                self.edit(&Edit::DeleteServer(key(*service), server(*service, *number, *port)))
            }
            Op::Zero(service) => self.edit(&Edit::Zero(service.map(key))),
            Op::SetTimeouts(tcp, tcp_fin, udp) => self.edit(&Edit::SetTimeouts(*tcp, *tcp_fin, *udp)),
            Op::Set(setting, value) => self.set(SETTINGS[*setting], *value),
            Op::Open(number, port, target, flags, len) => {
                let (protocol, target) = TARGETS[*target];
                let source = SocketAddr::new(client(*number), *port);
                let destination = SocketAddr::new(virtual_address(), target);
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
        let reply = self.router.call(Request::Edit(request(edit)));
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
        let marked = destination.ip() == virtual_address() && destination.port() == MARKED_PORT;
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
                return differ("the error", &Some((1, 3, 3)), &error_of(after));
            }
            Fate::Drop if matches!(verdict, Verdict::Drop(_)) => return Ok(()),
            Fate::Drop => return Err(format!("not dropped: {verdict:?}")),
        };
        expected.ttl -= u8::from(fate != Fate::Pass);
        differ("the verdict", &wanted, &verdict)?;
        differ("the packet", &packet::build(&expected, None).remove(0).as_slice(), &after)
    }

    fn compare(&mut self) -> Result<(), String> {
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
    Some((*packet.get(9)?, *packet.get(20)?, *packet.get(21)?))
}

fn request(edit: &Edit) -> edit::Edit {
    match edit {
        Edit::AddService(key, options) => edit::Edit::AddService(service_spec(*key, options)),
        Edit::EditService(key, options) => edit::Edit::EditService(service_spec(*key, options)),
        Edit::DeleteService(key) => edit::Edit::DeleteService(service_id(*key)),
        Edit::Flush => edit::Edit::Flush,
        Edit::AddServer(key, address, terms) => {
            edit::Edit::AddServer(service_id(*key), server_spec(*address, *terms))
        }
        Edit::EditServer(key, address, terms) => {
            edit::Edit::EditServer(service_id(*key), server_spec(*address, *terms))
        }
        Edit::DeleteServer(key, address) => edit::Edit::DeleteServer(service_id(*key), server_id(*address)),
        Edit::Zero(key) => edit::Edit::Zero(key.map(service_id)),
        Edit::SetTimeouts(tcp, tcp_fin, udp) => {
            edit::Edit::SetTimeouts { tcp: *tcp, tcp_fin: *tcp_fin, udp: *udp }
        }
    }
}

fn service_id(key: Key) -> ServiceId {
    match key {
        Key::Address(protocol, target) => {
            ServiceId::Address { protocol: Protocol(protocol), address: target.ip(), port: target.port() }
        }
        Key::Mark(mark) => ServiceId::FwMark { mark, family: Family::from(virtual_address()) },
    }
}

fn service_spec(key: Key, options: &Options) -> ServiceSpec {
    let mask = |bits: u8| match virtual_address() {
        IpAddr::V4(_) => ClientMask::V4(u32::MAX << (32 - bits)),
        IpAddr::V6(_) => ClientMask::V6(bits),
    };
    ServiceSpec {
        id: service_id(key),
        scheduler: options.scheduler.to_owned(),
        flags: SchedulerFlags { flag1: options.fallback, flag2: options.with_port, flag3: false },
        one_packet: options.one_packet,
        persistence: options
            .persistence
            .map(|(timeout, bits)| edit::Persistence { timeout: timeout as u32, mask: mask(bits) }),
        engine: None,
    }
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
    }
}
