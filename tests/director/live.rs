//! A site under live connections: the director with the engine beside it, frames in and out, and a machine that does what the
//! director asks of it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::config::settings;
use xlvs::director::protocol::{DrainStatus, Reply, Request, Status};
use xlvs::director::wanted::WantedAddress;
use xlvs::director::{ClientId, Command, Effect};
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::verdict::Verdict;
use xlvs::nanny::Check;
use xlvs::net::checksum::{Sum, pseudo_header};
use xlvs::net::route::InterfaceAddress;

use crate::support::decode::decode;
use crate::support::device::{Departure, Side};
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::text::{Identities, line};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Sequence numbers of client and server once the handshake is over.
pub const CLIENT_SEQ: u32 = 1_001;
pub const SERVER_SEQ: u32 = 5_001;

/// Marks for the site's virtual servers that go by marks.
pub const MARKS: &str = "*mangle\n\
    -A PREROUTING -d 10.10.1.40/32 -p tcp -m multiport --dports 8000,8443 -j MARK --set-mark 7\n\
    -A PREROUTING -d 10.10.1.41/32 -p tcp -m multiport --dports 8000,8443 -j MARK --set-mark 7\n\
    -A PREROUTING -d 10.10.1.40/32 -p tcp -m tcp --dport 9000 -j MARK --set-mark 8\nCOMMIT\n";

/// A connection as its client and its server see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub protocol: u8,
    pub client: SocketAddrV4,
    pub virtual_address: SocketAddrV4,
    pub server: SocketAddrV4,
}

pub struct Live {
    pub router: Router,
    /// What the director has asked for.
    pub effects: Vec<Effect>,
    running: Vec<Arc<Check>>,
    marks: Arc<MarkRules>,
    clients: u32,
}

impl Live {
    /// A site without a configuration, with these lines in `[beyond_ipvs]`.
    pub fn new(beyond: &str) -> Self {
        let settings = settings::parse("xlvs.toml", &format!("[beyond_ipvs]\n{beyond}\n")).unwrap();
        Live {
            router: Router::with_beyond(settings.beyond()),
            effects: Vec::new(),
            running: Vec::new(),
            marks: Arc::new(parse_marks(MARKS, Names::NONE).unwrap()),
            clients: 0,
        }
    }

    /// With this configuration, and every server up.
    pub fn with(beyond: &str, lvs: &str) -> Self {
        let mut live = Live::new(beyond);
        live.reload(lvs).unwrap();
        live.heal();
        live.effects.clear();
        live
    }

    /// The same, and established flows take the shortcut as soon as they can.
    pub fn shortened(lvs: &str) -> Self {
        let mut live = Live::new("");
        live.router = live.router.with_shortcut(0, usize::MAX);
        live.reload(lvs).unwrap();
        live.heal();
        live
    }

    /// As the daemon does it: what cannot be run is refused.
    pub fn reload(&mut self, lvs: &str) -> Result<(), String> {
        let marks = Arc::clone(&self.marks);
        self.reload_with(lvs, &marks)
    }

    pub fn reload_with(&mut self, lvs: &str, marks: &Arc<MarkRules>) -> Result<(), String> {
        let lvs = load(lvs, Names::NONE).map_err(|errors| format!("{errors:?}\n{lvs}"))?;
        if let Some(objection) = self.router.director().objection(&lvs, marks) {
            return Err(objection);
        }
        self.command(Command::Configure { lvs: Box::new(lvs), marks: Arc::clone(marks) });
        Ok(())
    }

    /// Follows this file in place of the site's, on trial for so many seconds, or for good.
    pub fn apply(&mut self, lvs: &str, confirm: Option<u64>) -> Reply {
        let lvs = Box::new(load(lvs, Names::NONE).unwrap());
        self.command(Command::Apply {
            client: ClientId(7),
            lvs,
            marks: None,
            source: "/tmp/new.cf".into(),
            confirm: confirm.map(Duration::from_secs),
        });
        let is_answer = |effect: &Effect| matches!(effect, Effect::Reply(ClientId(7), _));
        let reply = self.effects.iter().rposition(is_answer).expect("it is answered");
        match self.effects.remove(reply) {
            Effect::Reply(_, reply) => reply,
            _ => unreachable!(),
        }
    }

    pub fn command(&mut self, command: Command) {
        let effects = self.router.command(command);
        self.carry_out(effects);
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        let mut effects = self.router.command(Command::Request { client: ClientId(1), request });
        let reply = effects.iter().position(|effect| matches!(effect, Effect::Reply(..)));
        let reply = effects.remove(reply.expect("every request is answered"));
        self.carry_out(effects);
        match reply {
            Effect::Reply(_, reply) => reply,
            _ => unreachable!(),
        }
    }

    pub fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// What is drained, a line each.
    pub fn drains(&mut self) -> Vec<String> {
        let line = |drain: &DrainStatus| {
            format!("{} of {} ({}): {}", drain.server, drain.service, drain.cause.words(), drain.progress())
        };
        self.status().drains.iter().map(line).collect()
    }

    /// Addresses come and go as the director says.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &effect {
                Effect::StartCheck(check) => self.running.push(Arc::clone(check)),
                Effect::StopCheck(check) => self.running.retain(|running| !Arc::ptr_eq(running, check)),
                Effect::AddAddress(address) | Effect::MoveAddress(_, address) => self.add(address.clone()),
                Effect::RemoveAddress(address) => {
                    let gone = address.address;
                    self.router.change_network(|network| {
                        network.addresses.retain(|own| own.address != std::net::IpAddr::V4(gone));
                    });
                }
                _ => {}
            }
            self.effects.push(effect);
        }
    }

    fn add(&mut self, address: WantedAddress) {
        self.router.change_network(|network| {
            let link = network.link_named(&address.interface).expect("an interface of the rig").index;
            let own = InterfaceAddress { link, address: address.address.into(), prefix_len: 32 };
            if network.addresses.iter().all(|present| present.address != own.address) {
                network.addresses.push(own);
            }
        });
    }

    /// Checks that run now.
    pub fn running(&self) -> &[Arc<Check>] {
        &self.running
    }

    /// Every check that runs succeeds.
    pub fn heal(&mut self) {
        for check in self.running.clone() {
            self.health(&check, true);
        }
    }

    pub fn health(&mut self, check: &Arc<Check>, up: bool) {
        self.command(Command::Health { check: Arc::clone(check), up, reason: "said the test".into() });
    }

    /// The running check of an endpoint.
    pub fn check(&self, endpoint: &str) -> Arc<Check> {
        let endpoint = endpoint.parse().unwrap();
        let found = self.running.iter().find(|check| check.endpoint == endpoint);
        Arc::clone(found.unwrap_or_else(|| panic!("no check of {endpoint}")))
    }

    /// Lets time pass; what the engine makes of its own accord meanwhile, a line each.
    pub fn pass(&mut self, seconds: u64) -> Vec<String> {
        let departures = self.router.pass(Duration::from_secs(seconds), Duration::from_millis(100));
        let effects = self.router.take_told();
        self.carry_out(effects);
        departures.iter().map(shown).collect()
    }

    /// So many new connections to a virtual address.
    pub fn open(&mut self, count: usize, protocol: &str, virtual_address: &str) -> Vec<Flow> {
        let open = |live: &mut Self| live.open_one(protocol, virtual_address);
        (0..count).map(|_| open(self).expect("a connection is made")).collect()
    }

    /// A new connection; `None` if it is not to be had.
    pub fn open_one(&mut self, protocol: &str, virtual_address: &str) -> Option<Flow> {
        self.clients += 1;
        let client = Ipv4Addr::from(0xc633_0000 + self.clients);
        let port = 1_024 + (self.clients % 50_000) as u16;
        self.open_from(SocketAddrV4::new(client, port), protocol, virtual_address)
    }

    pub fn open_from(&mut self, client: SocketAddrV4, protocol: &str, virtual_address: &str) -> Option<Flow> {
        let protocol = if protocol == "tcp" { TCP } else { UDP };
        let virtual_address: SocketAddrV4 = virtual_address.parse().unwrap();
        let first = packet(protocol, client, virtual_address, SYN, CLIENT_SEQ - 1, 0);
        let server = self.receiver(Side::Client, &first)?;
        let flow = Flow { protocol, client, virtual_address, server };
        let answer = packet(protocol, server, client, SYN | ACK, SERVER_SEQ - 1, CLIENT_SEQ);
        self.router.process(Side::Server, &ethernet::frame(Side::Server, &answer));
        self.goes(flow).then_some(flow)
    }

    /// Where a client's packet comes out on the other side.
    fn receiver(&mut self, side: Side, packet: &[u8]) -> Option<SocketAddrV4> {
        let (verdict, frame) = self.router.process(side, &ethernet::frame(side, packet));
        let to = |bytes: &[u8]| {
            let address: [u8; 4] = bytes[16..20].try_into().unwrap();
            SocketAddrV4::new(address.into(), u16::from_be_bytes([bytes[22], bytes[23]]))
        };
        matches!(verdict, Verdict::Transmit(port) if port.0 == 1).then(|| to(&frame[14..]))
    }

    /// Whether packets of both directions get through as they always did.
    pub fn goes(&mut self, flow: Flow) -> bool {
        let Flow { protocol, client, virtual_address, server } = flow;
        let request = packet(protocol, client, virtual_address, ACK, CLIENT_SEQ, SERVER_SEQ);
        let there = self.receiver(Side::Client, &request) == Some(server);
        let answer = packet(protocol, server, client, ACK, SERVER_SEQ, CLIENT_SEQ);
        let (verdict, frame) = self.router.process(Side::Server, &ethernet::frame(Side::Server, &answer));
        let back = matches!(verdict, Verdict::Transmit(port) if port.0 == 0)
            && frame[26..30] == virtual_address.ip().octets()
            && frame[34..36] == virtual_address.port().to_be_bytes();
        there && back
    }

    /// Those of the connections that do not go any more.
    pub fn broken(&mut self, flows: &[Flow]) -> BTreeSet<Flow> {
        flows.iter().copied().filter(|flow| !self.goes(*flow)).collect()
    }

    /// What comes back when an end sends a segment, a line each.
    pub fn answers(&mut self, side: Side, flow: Flow) -> Vec<String> {
        use crate::support::device::Device as _;
        let Flow { protocol, client, virtual_address, server } = flow;
        let segment = match side {
            Side::Client => packet(protocol, client, virtual_address, ACK, CLIENT_SEQ, SERVER_SEQ),
            Side::Server => packet(protocol, server, client, ACK, SERVER_SEQ, CLIENT_SEQ),
        };
        self.router.deliver(side, &segment).iter().map(shown).collect()
    }

    /// Services, servers, timeouts, addresses and checks, a line each.
    pub fn world(&mut self) -> BTreeSet<String> {
        let mut world = BTreeSet::new();
        if let Reply::Services { services, .. } = self.ask(Request::ListServices) {
            for service in services {
                world.insert(format!("service {}: {}", service.spec.id, service.spec.terms()));
                for server in &service.servers {
                    let place = format!("server {} of {}", server.spec.id, service.spec.id);
                    world.insert(format!("{place}: {}", server.spec.terms()));
                }
            }
        }
        world.insert(format!("{:?}", self.ask(Request::GetTimeouts)));
        world.extend(self.running.iter().map(|check| format!("check {check:?}")));
        world
    }
}

fn shown(departure: &Departure) -> String {
    format!("{} {}", departure.side, line(&decode(&departure.packet), &Identities::of(7, 0)))
}

/// An IPv4 packet with a segment or a datagram without data.
pub fn packet(protocol: u8, from: SocketAddrV4, to: SocketAddrV4, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut segment = match protocol {
        TCP => vec![0; 20],
        _ => vec![0; 8],
    };
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    let checksum_at = if protocol == TCP { 16 } else { 6 };
    if protocol == TCP {
        segment[4..8].copy_from_slice(&seq.to_be_bytes());
        segment[8..12].copy_from_slice(&ack.to_be_bytes());
        segment[12] = 0x50;
        segment[13] = flags;
    } else {
        segment[5] = 8;
    }
    let sum = pseudo_header((*from.ip()).into(), (*to.ip()).into(), protocol, segment.len());
    let checksum = sum.bytes(&segment).finish();
    segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut header = vec![0x45, 0, 0, 20 + segment.len() as u8, 0, 7, 0, 0, 64, protocol, 0, 0];
    header.extend(from.ip().octets());
    header.extend(to.ip().octets());
    let checksum = Sum::default().bytes(&header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [header, segment].concat()
}
