//! The device under test inside this process: the real datapath, director and ipvsadm, with a clock that the scenario moves.

use std::ffi::OsString;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use xlvs::admin::client::{Transport, TransportError};
use xlvs::admin::resolver::NoNames;
use xlvs::config::lvs::LvsConfig;
use xlvs::config::mark_command::apply_command;
use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Director, Effect, Level, Port};
use xlvs::ipvs::beyond::Beyond;
use xlvs::ipvs::datapath::{Datapath, Engine as _};
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::outbox::{Exit, Outbox};
use xlvs::ipvs::shortcut::Shortcuts;
use xlvs::ipvs::snapshot::Tables;
use xlvs::ipvs::sync::{Posted, SyncRole};
use xlvs::ipvs::verdict::{PacketCounters, PacketTotals, Verdict};
use xlvs::ipvs::view::ConnectionView;
use xlvs::net::addr::PortIndex;
use xlvs::net::frame::Frame;
use xlvs::net::route::HostNetwork;
use xlvs::net::time::Instant;

use crate::support::decode::decode;
use crate::support::device::{CommandOutput, Departure, Device, Side};
use crate::support::ethernet::{self, Neighbours};
use crate::support::host::HostModel;
use crate::support::packet::{Hex, PacketSpec, build};
use crate::support::shortcut::Fake;
use crate::support::topology::network;
use crate::support::words::shell_words;

/// Room in a frame buffer, as in a UMEM frame.
const FRAME: usize = 2048;
/// How finely the clock ticks while time passes, so that timers fire in order.
const STEP: Duration = Duration::from_millis(100);

/// A fresh router at time 0 among the neighbours of a scenario.
pub fn device_among(neighbours: Neighbours) -> Box<dyn Device> {
    Box::new(Router::among(neighbours))
}

/// The same, and established flows take the shortcut as soon as they can.
pub fn shortened_device_among(neighbours: Neighbours) -> Box<dyn Device> {
    Box::new(Router::among(neighbours).with_shortcut(0, usize::MAX))
}

/// The engine with its director, and the host around them.
pub struct Router {
    now: Instant,
    tables: Arc<Tables>,
    director: Director,
    datapath: Datapath,
    host: HostModel,
    network: HostNetwork,
    neighbours: Neighbours,
    saved_marks: String,
    books: PacketCounters,
    fast_path: Option<Fake>,
    log: Vec<String>,
    told: Vec<Effect>,
}

impl Router {
    /// At time 0, in the topology of the scenarios, without services.
    pub fn new() -> Self {
        Self::build(Neighbours::Shared, Beyond::default())
    }

    /// The same with what goes beyond IPVS.
    pub fn with_beyond(beyond: Beyond) -> Self {
        Self::build(Neighbours::Shared, beyond)
    }

    /// The same among these neighbours.
    pub fn among(neighbours: Neighbours) -> Self {
        Self::build(neighbours, Beyond::default())
    }

    fn build(neighbours: Neighbours, beyond: Beyond) -> Self {
        let now = Instant::START;
        // The second share is the shortcut's.
        let tables = Arc::new(Tables::new(2));
        let ports =
            ["eth0", "eth1"].into_iter().zip(1..).map(|(name, index)| Port { name: name.into(), index });
        let director = Director::new(now, Arc::clone(&tables), 2, ports.collect()).with_beyond(beyond);
        let datapath = Datapath::new(Arc::clone(&tables), 0, now);
        let network = network(neighbours);
        let mut router = Router {
            now,
            tables,
            director,
            datapath,
            host: HostModel::default(),
            network,
            neighbours,
            saved_marks: String::new(),
            books: PacketCounters::default(),
            fast_path: None,
            log: Vec::new(),
            told: Vec::new(),
        };
        router.command(Command::Network(router.network.clone()));
        router
    }

    /// The same with a shortcut, which has room for so many directions of flows and gets a connection after so many packets of
    /// its client.
    pub fn with_shortcut(mut self, after: u32, room: usize) -> Self {
        let fake = Fake::new(room);
        self.tables.connections.lend_to(Arc::new(Shortcuts::new(Box::new(fake.clone()), after, 1)));
        self.fast_path = Some(fake);
        self
    }

    /// The shortcut.
    pub fn fast_path(&self) -> &Fake {
        self.fast_path.as_ref().expect("a router with a shortcut")
    }

    /// Tells the director something; what it asks for in return is left to the caller.
    pub fn command(&mut self, command: Command) -> Vec<Effect> {
        let effects = self.director.handle(self.now, command);
        let warnings = effects.iter().filter_map(|effect| match effect {
            Effect::Log(Level::Warn, text) => Some(text.clone()),
            _ => None,
        });
        self.log.extend(warnings);
        effects
    }

    /// The director, to be asked.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// What the director has asked for while time passed, since this was asked last.
    pub fn take_told(&mut self) -> Vec<Effect> {
        mem::take(&mut self.told)
    }

    /// What the administrator has been warned of since this was asked last.
    pub fn take_log(&mut self) -> Vec<String> {
        mem::take(&mut self.log)
    }

    fn ipvsadm(&mut self, words: &[&str]) -> CommandOutput {
        self.ipvsadm_reading(words, "")
    }

    /// ipvsadm with something on its standard input.
    pub fn ipvsadm_reading(&mut self, words: &[&str], input: &str) -> CommandOutput {
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut stdout = Vec::new();
        let outcome = xlvs::admin::run(&arguments, &mut input.as_bytes(), &mut stdout, self, &NoNames);
        let stdout = String::from_utf8(stdout).expect("a listing is text");
        CommandOutput { code: outcome.code.into(), stdout, stderr: outcome.stderr }
    }

    fn iptables(&mut self, command: &str) -> Result<(), String> {
        self.saved_marks = apply_command(&self.saved_marks, command)?;
        let marks = parse_marks(&self.saved_marks, Names::NONE).map_err(|errors| format!("{errors:?}"))?;
        self.configure(LvsConfig::default(), Arc::new(marks));
        Ok(())
    }

    /// Takes over what the site's files say.
    pub fn configure(&mut self, lvs: LvsConfig, marks: Arc<MarkRules>) {
        self.command(Command::Configure { lvs: Box::new(lvs), marks });
    }

    /// Lets time pass at once, which a clock that is read all the time does not.
    pub fn leap(&mut self, by: Duration) {
        self.now = self.now + by;
        self.datapath.advance(self.now);
        self.take_made();
        self.command(Command::Tick);
    }

    /// Lets time pass unnoticed by the timers.
    pub fn skip(&mut self, by: Duration) {
        self.now = self.now + by;
    }

    /// Lets time pass, in steps of at most `step`; the director's deadlines are kept to the point. Returns what leaves
    /// meanwhile.
    pub fn pass(&mut self, by: Duration, step: Duration) -> Vec<Departure> {
        let end = self.now + by;
        let mut out = Vec::new();
        while self.now < end {
            self.now = (self.now + step).min(end).min(self.director.next_deadline().max(self.now));
            self.datapath.advance(self.now);
            out.extend(self.take_made());
            if self.director.next_deadline() <= self.now {
                let told = self.command(Command::Tick);
                self.told.extend(told.into_iter().filter(|effect| !matches!(effect, Effect::Resolve(_))));
            }
        }
        out
    }

    /// As sysctl(8): each word a setting, read or set. What the refusal explains below its first line is ours.
    fn sysctl(&mut self, words: &[&str]) -> CommandOutput {
        let mut output = CommandOutput::default();
        let quiet = words.iter().any(|word| word.starts_with('-') && word.contains('q'));
        for word in words.iter().filter(|word| !word.starts_with('-')) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (*word, None),
            };
            let name = name.strip_prefix("net.ipv4.vs.").unwrap_or(name).to_owned();
            let quiet = quiet && value.is_some();
            match self.call(Request::Sysctl { name, value }).expect("a transport that does not fail") {
                Reply::Text(text) if !quiet => output.stdout += &(text + "\n"),
                Reply::Text(_) => {}
                Reply::Failed(text) => {
                    output.code = 1;
                    output.stderr += &(text.lines().next().unwrap_or_default().to_owned() + "\n");
                }
                other => panic!("{other:?}"),
            }
        }
        output
    }

    fn ip(&mut self, words: &[&str]) -> Result<(), String> {
        let ["link", "set", "dev", device, "mtu", mtu] = words else { return Err("not understood".into()) };
        let mtu = mtu.parse().map_err(|_| "not a number")?;
        let known =
            self.network.links.iter().position(|link| link.name == *device).ok_or("no such device")?;
        self.change_network(|network| network.links[known].mtu = mtu);
        self.host.set_mtu([Side::Client, Side::Server][known], mtu as usize);
        Ok(())
    }

    /// Tells how much memory is free, in pages.
    pub fn set_free_memory(&mut self, pages: u64) {
        self.command(Command::FreeMemory(pages));
    }

    /// Tells whether more frames wait than can be worked off.
    pub fn set_pressed(&mut self, pressed: bool) {
        self.datapath.set_pressed(pressed);
    }

    /// Changes what the kernel knows about the network.
    pub fn change_network(&mut self, change: impl FnOnce(&mut HostNetwork)) {
        change(&mut self.network);
        self.command(Command::Network(self.network.clone()));
    }

    /// One frame through the datapath, or by the shortcut: the verdict, and the frame afterwards.
    pub fn process(&mut self, side: Side, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let taken = self.fast_path.as_ref().and_then(|fake| fake.take(self.now, port(side), bytes));
        if let Some((port, frame)) = taken {
            return (Verdict::Transmit(port), frame);
        }
        let mut buffer = [0; FRAME];
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.decide(Frame::new(&mut buffer, bytes.len(), port(side)))
    }

    /// The same with several frames at once.
    pub fn burst(&mut self, frames: &[(Side, Vec<u8>)]) -> Vec<(Verdict, Vec<u8>)> {
        let mut buffers = vec![[0; FRAME]; frames.len()];
        let filled = frames.iter().zip(&mut buffers).map(|((side, bytes), buffer)| {
            buffer[..bytes.len()].copy_from_slice(bytes);
            Frame::new(buffer, bytes.len(), port(*side))
        });
        self.decide_all(&mut filled.collect::<Vec<_>>())
    }

    /// The same for a frame in a buffer of the caller's.
    pub fn decide(&mut self, frame: Frame<'_>) -> (Verdict, Vec<u8>) {
        self.decide_all(&mut [frame]).remove(0)
    }

    fn decide_all(&mut self, frames: &mut [Frame<'_>]) -> Vec<(Verdict, Vec<u8>)> {
        let mut verdicts = Vec::new();
        self.datapath.process(self.now, frames, &mut verdicts);
        self.books.add_received(frames.len() as u64);
        verdicts.iter().for_each(|verdict| enter(&self.books, *verdict));
        verdicts.into_iter().zip(frames).map(|(verdict, frame)| (verdict, frame.bytes().to_vec())).collect()
    }

    /// What has become of all frames so far; what the engine has to send besides is settled and left out.
    pub fn settle(&mut self) -> PacketTotals {
        self.take_outbox();
        self.books.totals()
    }

    /// What workers and director share.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// All connections and templates.
    pub fn connections(&mut self) -> Vec<ConnectionView> {
        let (mut all, mut place) = (Vec::new(), Some(0));
        while let Some(from) = place {
            match self.call(Request::ListConnections { place: from }) {
                Ok(Reply::Connections { connections, next }) => {
                    all.extend(connections);
                    place = next;
                }
                other => panic!("no list of connections: {other:?}"),
            }
        }
        all
    }

    fn take_outbox(&mut self) -> Outbox {
        let outbox = mem::take(self.datapath.outbox());
        outbox.settle(&self.books);
        for made in outbox.frames() {
            self.books.add_made();
            let verdict = match made.exit {
                Exit::Port(port) => Verdict::Transmit(port),
                Exit::Stack(_) => Verdict::Pass,
                Exit::Kernel => Verdict::HandOver,
            };
            enter(&self.books, verdict);
        }
        outbox
    }

    /// What the host sends comes by the engine before it leaves, if it has made it.
    fn leave(&mut self, side: Side, packet: Vec<u8>) -> Option<(Side, Vec<u8>)> {
        let source = decode(&packet).packet()?.source;
        if !self.network.addresses.iter().any(|own| own.address == source) {
            return Some((side, packet));
        }
        let mut frame = ethernet::frame_of_router(side, &packet);
        let length = frame.len();
        let (verdict, frame) = self.decide(Frame::outgoing(&mut frame, length, port(side)));
        let sent = ethernet::packet(&frame).unwrap_or_default().to_vec();
        (verdict == Verdict::Pass).then_some((side, sent))
    }

    /// One packet through the datapath, and through the host where the verdict says so.
    fn forward(&mut self, side: Side, packet: &[u8]) -> Vec<Departure> {
        if self.hear(side, packet) {
            return self.take_made();
        }
        let (verdict, frame) = self.process(side, &ethernet::frame(side, packet));
        let mut out = match verdict {
            Verdict::Transmit(way_out) => self.depart(Exit::Port(way_out), &frame),
            Verdict::Pass => self.depart(Exit::Stack(port(side)), &frame),
            Verdict::HandOver => self.depart(Exit::Kernel, &frame),
            Verdict::Drop(_) | Verdict::Hold => Vec::new(),
        };
        out.extend(self.take_made());
        out
    }

    /// What the datapath has made besides, as it leaves.
    pub fn take_made(&mut self) -> Vec<Departure> {
        let outbox = self.take_outbox();
        let mut out: Vec<_> = outbox.frames().flat_map(|made| self.depart(made.exit, made.bytes)).collect();
        while let Ok(posted) = self.tables.sync.outgoing().try_recv() {
            out.extend(self.multicast(&posted));
        }
        out
    }

    /// What the master daemon's thread sends.
    fn multicast(&self, posted: &Posted) -> Option<Departure> {
        let snapshot = self.tables.snapshot.load();
        let daemon = &snapshot.sync.get(SyncRole::Master)?.daemon;
        let port = self.network.links.iter().find(|link| link.name == daemon.interface)?.index;
        let group = daemon.group?;
        let own = self.network.addresses.iter().find(|own| own.link == port)?.address;
        let mut spec = PacketSpec::new(own, group, "udp");
        (spec.sport, spec.dport, spec.ttl) = (40000, daemon.port + posted.port as u16, daemon.ttl);
        spec.hex = Some(Hex(posted.bytes.clone()));
        self.tables.sync.count_sent(true);
        let side = side_of(PortIndex(port as u8 - 1));
        Some(Departure { side, to: [0; 6], packet: build(&spec, None).remove(0) })
    }

    /// A message that the backup daemon has received.
    pub fn synchronise(&mut self, message: Vec<u8>) {
        self.tables.sync.receive(message);
        self.datapath.advance(self.now);
    }

    /// What the backup daemon's thread receives: whether the packet is for it.
    fn hear(&mut self, side: Side, packet: &[u8]) -> bool {
        let snapshot = self.tables.snapshot.load();
        let decoded = decode(packet);
        let (Some(running), Some(header)) = (snapshot.sync.get(SyncRole::Backup), decoded.packet()) else {
            return false;
        };
        let daemon = &running.daemon;
        let interface = ["eth0", "eth1"][usize::from(port(side).0)];
        let heard = daemon.interface == interface
            && daemon.group == Some(header.destination)
            && header.ports.is_some_and(|(_, port)| port.wrapping_sub(daemon.port) < running.ports);
        if heard {
            self.synchronise(header.payload.clone());
        }
        heard
    }

    fn depart(&mut self, exit: Exit, frame: &[u8]) -> Vec<Departure> {
        let packet = ethernet::packet(frame).unwrap_or_default();
        let by_kernel = match exit {
            Exit::Port(port) => {
                let to = ethernet::receiver(frame);
                return vec![Departure { side: side_of(port), to, packet: packet.to_vec() }];
            }
            Exit::Stack(port) => {
                let answers = self.host.receive(side_of(port), packet);
                answers.into_iter().filter_map(|(side, packet)| self.leave(side, packet)).collect()
            }
            Exit::Kernel => self.host.route(packet).into_iter().collect::<Vec<_>>(),
        };
        by_kernel.into_iter().map(|(side, packet)| self.departure(side, packet)).collect()
    }

    /// What the kernel sends goes to whom its routes and neighbours name.
    fn departure(&self, side: Side, packet: Vec<u8>) -> Departure {
        let decoded = decode(&packet);
        let destination = decoded.packet().map(|header| header.destination);
        let to = destination.map_or([0; 6], |destination| self.neighbours.mac(side, destination));
        Departure { side, to, packet }
    }
}

impl Transport for Router {
    fn call(&mut self, request: Request) -> Result<Reply, TransportError> {
        let effects = self.command(Command::Request { client: ClientId(0), request });
        let reply = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply(_, reply) => Some(reply),
            _ => None,
        });
        Ok(reply.expect("every request is answered"))
    }
}

impl Device for Router {
    fn run(&mut self, command: &str) -> CommandOutput {
        let words = shell_words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let result = match words[..] {
            ["ipvsadm", ref rest @ ..] => return self.ipvsadm(rest),
            ["iptables" | "ip6tables", ..] => self.iptables(command),
            ["sysctl", ref rest @ ..] => return self.sysctl(rest),
            ["ip", ref rest @ ..] => self.ip(rest),
            ["modprobe", "ip_vs_ftp" | "ip_vs_pe_sip"] => Ok(()),
            _ => Err("not a command of this device".into()),
        };
        match result {
            Ok(()) => CommandOutput::default(),
            Err(stderr) => CommandOutput { code: 1, stdout: String::new(), stderr },
        }
    }

    fn deliver(&mut self, side: Side, packet: &[u8]) -> Vec<Departure> {
        self.forward(side, packet)
    }

    fn now(&self) -> Duration {
        self.now.saturating_since(Instant::START)
    }

    fn advance(&mut self, by: Duration) -> Vec<Departure> {
        self.pass(by, STEP)
    }

    fn dump(&mut self, sections: &[String]) -> String {
        let mut text = String::new();
        for section in sections {
            let (heading, arguments): (&str, &[&str]) = match section.as_str() {
                "conns" => ("Lnc", &["-Lnc"]),
                "Ln" => ("Ln", &["-Ln"]),
                "stats" => ("stats", &["-Ln", "--stats", "--exact"]),
                "thresholds" => ("thresholds", &["-Ln", "--thresholds"]),
                "persistent-conn" => ("persistent-conn", &["-Ln", "--persistent-conn"]),
                "timeout" => ("timeout", &["-Ln", "--timeout"]),
                other => (other, &[]),
            };
            let output = self.ipvsadm(arguments);
            text += &format!("== {heading}\n{}{}", output.stdout, output.stderr);
        }
        text
    }
}

fn enter(books: &PacketCounters, verdict: Verdict) {
    match verdict {
        Verdict::Transmit(_) => books.add_transmitted(1),
        Verdict::Pass => books.add_passed(),
        Verdict::HandOver => books.add_handed_over(),
        Verdict::Drop(reason) => books.add_dropped(reason),
        Verdict::Hold => books.add_held(),
    }
}

fn side_of(port: PortIndex) -> Side {
    if port == PortIndex(0) { Side::Client } else { Side::Server }
}

fn port(side: Side) -> PortIndex {
    match side {
        Side::Client => PortIndex(0),
        Side::Server => PortIndex(1),
    }
}
