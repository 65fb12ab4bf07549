//! The engine beside the model: both are told the same, and whatever can be seen of them is compared.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use xlvs::admin::client::Transport as _;
use xlvs::config::lvs::LvsConfig;
use xlvs::config::mark_command::apply_command;
use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::verdict::{DropReason, Verdict};
use xlvs::net::addr::PortIndex;

use crate::model::edits::Edit;
use crate::model::listing;
use crate::model::packets::{Fate, Packet};
use crate::model::sequence::{CHUNKS, FLAGS, Op, SETTINGS};
use crate::model::tables::{Connection, Millis, Model, SCTP, UDP};
use crate::model::world::{MARK, MARKED_PORT, TARGETS, World};
use crate::support::audit;
use crate::support::device::Side;
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{self, Chunk, NameOrNumber, PacketSpec};

/// Nothing is looked at sooner than this after something came to its end: the engine may be that late.
const LATENESS: Millis = 200;
/// Few enough that a sequence can fill it.
const SHORTCUT_ROOM: usize = 6;

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

static SPECS: LazyLock<[PacketSpec; 3]> = LazyLock::new(|| {
    let any = World::V4.virtual_address();
    ["tcp", "udp", "sctp"].map(|protocol| PacketSpec::new(any, any, protocol))
});

/// How a sequence went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events that happened.
    pub events: usize,
    /// Packets that were given to a server or a client.
    pub translated: usize,
    /// Packets of these that took the shortcut.
    pub shortened: u64,
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

/// Plays a sequence, with a shortcut after so many packets if there is to be one; the error is the story up to the first difference.
pub fn play(world: World, ops: &[Op], shortcut: Option<u32>) -> Result<Progress, String> {
    let mut rig = Rig::new(world, shortcut);
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
    differ("the counts", &Vec::new(), &audit::miscounts(rig.router.tables()))
        .map_err(|difference| format!("{}{difference}", rig.story))?;
    rig.progress.shortened = shortcut.map_or(0, |_| rig.router.fast_path().taken());
    Ok(rig.progress)
}

impl Rig {
    fn new(world: World, shortcut: Option<u32>) -> Self {
        let router = Router::new();
        let mut router = match shortcut {
            Some(after) => router.with_shortcut(after, SHORTCUT_ROOM),
            None => router,
        };
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
                self.edit(&Edit::ChangeService(key(service), options(service, wanted)))
            }
            Op::DeleteService(service) => self.edit(&Edit::DeleteService(key(service))),
            Op::Flush => self.edit(&Edit::Flush),
            Op::AddServer(service, number, port, terms) => {
                self.edit(&Edit::AddServer(key(service), server(service, number, port), *terms))
            }
            Op::EditServer(service, number, port, terms) => {
                self.edit(&Edit::ChangeServer(key(service), server(service, number, port), *terms))
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
                self.send(Side::Client, protocol, source, destination, *flags, *len)
            }
            Op::Follow(pick, from_client, flags, len) => self.follow(*pick, *from_client, *flags, *len),
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
            "sloppy_tcp" => &mut settings.sloppy_tcp,
            _ => &mut settings.sloppy_sctp,
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

    fn follow(&mut self, pick: usize, from_client: bool, flags: usize, len: usize) -> Result<(), String> {
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
        flags: usize,
        len: usize,
    ) -> Result<(), String> {
        let (spec, flags) = match protocol {
            SCTP => (&SPECS[2], CHUNKS[flags]),
            UDP => (&SPECS[1], ""),
            _ => (&SPECS[0], FLAGS[flags]),
        };
        let mut spec = spec.clone();
        (spec.src, spec.sport, spec.dst, spec.dport) =
            (source.ip(), source.port(), destination.ip(), destination.port());
        spec.len = len;
        if protocol == SCTP {
            spec.chunks = Some(vec![Chunk::Bare(NameOrNumber::Name(flags.to_owned()))]);
        } else {
            spec.flags = flags.to_owned();
        }
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
        let connections = self.router.connections();
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
