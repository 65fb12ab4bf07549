//! A balancer with one service of 16 servers on a two-port router, of either family, and frames for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use smallvec::SmallVec;
use xlvs::ipvs::beyond::{Beyond, Switches};
use xlvs::ipvs::datapath::{Datapath, Engine};
use xlvs::ipvs::edit::{
    ClientMask, Edit, Forward, Persistence, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::service_table::ServiceTable;
use xlvs::ipvs::snapshot::{Snapshot, Tables};
use xlvs::ipvs::verdict::Verdict;
use xlvs::net::addr::{Family, MacAddr, PortIndex, Protocol};
use xlvs::net::checksum::{Sum, pseudo_header};
use xlvs::net::frame::Frame;
use xlvs::net::route::{HostNetwork, InterfaceAddress, Link, Neighbour, Route, RouteKind, RouteTable};
use xlvs::net::time::Instant;
use xlvs::net::tunnel::Encapsulation;

/// Frames that are sent at once.
pub const BURST: usize = 64;
const SERVERS: u8 = 16;
const PORTS: u32 = 50_000;
/// Bytes of a frame buffer.
pub const FRAME: usize = 2048;
/// SYN.
pub const SYN: u8 = 0x02;
/// ACK.
pub const ACK: u8 = 0x10;

/// An Ethernet frame.
pub type Bytes = ArrayVec<u8, 74>;

/// The tables behind a service of IPv4, persistent or not.
pub fn tables(persistent: bool) -> Arc<Tables> {
    tables_of(Family::V4, persistent)
}

/// The tables behind a service of a family.
pub fn tables_of(family: Family, persistent: bool) -> Arc<Tables> {
    let tables = Arc::new(Tables::new(1));
    let mut services = ServiceTable::new(Arc::clone(&tables), 1);
    let mut draft = Snapshot { routes: Arc::new(routes()), ..Snapshot::default() };
    let id = ServiceId::Address { protocol: Protocol::TCP, address: virtual_address(family), port: 80 };
    let mask = match family {
        Family::V4 => ClientMask::V4(u32::MAX),
        Family::V6 => ClientMask::V6(128),
    };
    let spec = ServiceSpec {
        id,
        scheduler: "wlc".into(),
        flags: SchedulerFlags::default(),
        one_packet: false,
        persistence: persistent.then_some(Persistence { timeout: 300, mask }),
        engine: None,
    };
    services.apply(&mut draft, &HostNetwork::default(), &Edit::AddService(spec)).expect("a service");
    for host in 0..SERVERS {
        let server = ServerSpec {
            id: ServerId { address: server(family, host), port: 80 },
            forward: Forward::Masquerade,
            tunnel: Encapsulation::Ipip,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        services.apply(&mut draft, &HostNetwork::default(), &Edit::AddServer(id, server)).expect("a server");
    }
    tables.snapshot.store(Arc::new(draft));
    tables
}

/// A datapath whose service is persistent or not.
pub fn datapath(persistent: bool) -> Datapath {
    Datapath::new(tables(persistent), 0, Instant::START)
}

/// A datapath whose table holds so many connections at most.
pub fn datapath_up_to(conn_max: u32) -> Datapath {
    let tables = tables(false);
    let switches = Switches { conn_max, ..Switches::default() };
    let beyond = Arc::new(Beyond { switches, ..Beyond::default() });
    tables.snapshot.store(Arc::new(Snapshot { beyond, ..Snapshot::clone(&tables.snapshot.load()) }));
    Datapath::new(tables, 0, Instant::START)
}

/// A datapath of one family.
pub fn datapath_of(family: Family) -> Datapath {
    Datapath::new(tables_of(family, false), 0, Instant::START)
}

fn virtual_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 10, 1, 30).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x30).into(),
    }
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 10, 1, 254).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x254).into(),
    }
}

fn server(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 8, 8, 33 + host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 8, 33 + u16::from(host)).into(),
    }
}

fn client(family: Family, flow: u32) -> IpAddr {
    let host = flow / PORTS;
    match family {
        Family::V4 => Ipv4Addr::from(0x2000_0000 + host).into(),
        Family::V6 => Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(host)).into(),
    }
}

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), mac: MacAddr([2, 0, 0, 0, 0, index as u8]), mtu: 1500, up: true }
}

fn route(destination: &str, gateway: Option<IpAddr>, link: u32) -> Route {
    let destination = destination.parse().expect("a prefix");
    Route { destination, gateway, link, metric: 0, kind: RouteKind::Unicast }
}

fn routes() -> RouteTable {
    let families = [Family::V4, Family::V6];
    let servers = families.iter().flat_map(|family| (0..SERVERS).map(|host| (server(*family, host), host)));
    let servers =
        servers.map(|(address, host)| Neighbour { link: 2, address, mac: MacAddr([2, 0, 0, 8, 8, host]) });
    let gateways = families.map(gateway);
    let gateways = gateways.map(|address| Neighbour { link: 1, address, mac: MacAddr([2, 0, 0, 0, 0, 254]) });
    let own = |address: IpAddr, prefix_len| InterfaceAddress { link: 1, address, prefix_len };
    let [default4, default6] = families.map(|family| Some(gateway(family)));
    let network = HostNetwork {
        links: vec![link(1, "eth0"), link(2, "eth1")],
        addresses: vec![own(virtual_address(Family::V4), 32), own(virtual_address(Family::V6), 128)],
        routes: vec![
            route("0.0.0.0/0", default4, 1),
            route("10.8.8.0/24", None, 2),
            route("::/0", default6, 1),
            route("fd00:8::/64", None, 2),
        ],
        neighbours: servers.chain(gateways).collect(),
    };
    RouteTable::new(&network, &[1, 2])
}

/// A TCP segment of client number `flow` to the service of IPv4.
pub fn tcp(flow: u32, flags: u8) -> Bytes {
    tcp_of(Family::V4, flow, flags)
}

/// The same of a family.
pub fn tcp_of(family: Family, flow: u32, flags: u8) -> Bytes {
    let (source, destination) = (client(family, flow), virtual_address(family));
    let mut frame = Bytes::new();
    let mut add = |bytes: &[u8]| frame.try_extend_from_slice(bytes).expect("room");
    add(&link(1, "eth0").mac.0);
    add(&[2, 0, 0, 0, 0, 254]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            add(&[8, 0]);
            let mut header = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, Protocol::TCP.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[12..16].copy_from_slice(&source.octets());
            header[16..].copy_from_slice(&destination.octets());
            let checksum = Sum::default().bytes(&header).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            add(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            add(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, Protocol::TCP.0, 64]);
            add(&source.octets());
            add(&destination.octets());
        }
        _ => unreachable!("both of one family"),
    }
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&(10_000 + (flow % PORTS) as u16).to_be_bytes());
    segment[2..4].copy_from_slice(&80u16.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = flags;
    let checksum = pseudo_header(source, destination, Protocol::TCP.0, 20).bytes(&segment).finish();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    add(&segment);
    frame
}

/// Which server a frame has been sent to, by number.
pub fn server_of(frame: &[u8]) -> u8 {
    frame[5]
}

/// How long the timers take.
#[expect(clippy::disallowed_methods, reason = "it measures")]
pub fn advance(datapath: &mut Datapath, now: Instant) -> Duration {
    let start = std::time::Instant::now();
    datapath.advance(now);
    start.elapsed()
}

/// Frame buffers, used again and again as those of a NIC are.
pub struct Buffers {
    buffers: Vec<[u8; FRAME]>,
    verdicts: Vec<Verdict>,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers { buffers: vec![[0; FRAME]; BURST], verdicts: Vec::with_capacity(BURST) }
    }
}

impl Buffers {
    /// Sends copies of `frames` through the datapath as one burst; returns how long it took. Panics if one is not transmitted.
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    pub fn send(&mut self, datapath: &mut Datapath, now: Instant, frames: &[Bytes]) -> Duration {
        let mut burst: SmallVec<[Frame<'_>; BURST]> = self
            .buffers
            .iter_mut()
            .zip(frames)
            .map(|(buffer, frame)| {
                buffer[..frame.len()].copy_from_slice(frame);
                Frame::new(buffer, frame.len(), PortIndex(0))
            })
            .collect();
        let start = std::time::Instant::now();
        datapath.process(now, &mut burst, &mut self.verdicts);
        let taken = start.elapsed();
        let transmitted = |verdict: &Verdict| *verdict == Verdict::Transmit(PortIndex(1));
        assert!(self.verdicts.iter().all(transmitted), "{:?}", self.verdicts);
        taken
    }

    /// What has become of the frames that were sent last.
    pub fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.buffers.iter().map(|buffer| buffer.as_slice())
    }
}
