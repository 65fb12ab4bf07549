//! A balancer with one service of 16 servers on a two-port router, and frames for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use xlvs::ipvs::datapath::{Datapath, Engine};
use xlvs::ipvs::edit::{
    ClientMask, Edit, Forward, Persistence, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::service_table::ServiceTable;
use xlvs::ipvs::snapshot::{Snapshot, Tables};
use xlvs::ipvs::verdict::Verdict;
use xlvs::net::addr::{MacAddr, PortIndex, Protocol};
use xlvs::net::checksum::{Sum, pseudo_header};
use xlvs::net::frame::Frame;
use xlvs::net::route::{HostNetwork, InterfaceAddress, Link, Neighbour, Route, RouteKind, RouteTable};
use xlvs::net::time::Instant;
use xlvs::net::tunnel::Encapsulation;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 30);
const SERVERS: u8 = 16;
/// Bytes of a frame buffer.
pub const FRAME: usize = 2048;
/// Bytes of the frames that [`tcp`] makes.
pub const LEN: usize = 54;
/// SYN.
pub const SYN: u8 = 0x02;
/// ACK.
pub const ACK: u8 = 0x10;

/// A datapath whose service is persistent or not.
pub fn datapath(persistent: bool) -> Datapath {
    let tables = Arc::new(Tables::new(1));
    let mut services = ServiceTable::new(Arc::clone(&tables), 1);
    let mut draft = Snapshot { routes: Arc::new(routes()), ..Snapshot::default() };
    let id = ServiceId::Address { protocol: Protocol::TCP, address: VIRTUAL.into(), port: 80 };
    let persistence = Persistence { timeout: 300, mask: ClientMask::V4(u32::MAX) };
    let spec = ServiceSpec {
        id,
        scheduler: "wlc".into(),
        flags: SchedulerFlags::default(),
        one_packet: false,
        persistence: persistent.then_some(persistence),
        engine: None,
    };
    services.apply(&mut draft, &HostNetwork::default(), &Edit::AddService(spec)).expect("a service");
    for host in 0..SERVERS {
        let server = ServerSpec {
            id: ServerId { address: server(host), port: 80 },
            forward: Forward::Masquerade,
            tunnel: Encapsulation::Ipip,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        services.apply(&mut draft, &HostNetwork::default(), &Edit::AddServer(id, server)).expect("a server");
    }
    tables.snapshot.store(Arc::new(draft));
    Datapath::new(tables, 0, Instant::START)
}

fn server(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 8, 8, 33 + host).into()
}

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), mac: MacAddr([2, 0, 0, 0, 0, index as u8]), mtu: 1500, up: true }
}

fn route(destination: &str, gateway: Option<Ipv4Addr>, link: u32) -> Route {
    let destination = destination.parse().expect("a prefix");
    Route { destination, gateway: gateway.map(IpAddr::V4), link, metric: 0, kind: RouteKind::Unicast }
}

fn routes() -> RouteTable {
    let gateway = Ipv4Addr::new(10, 10, 1, 254);
    let neighbours = (0..SERVERS)
        .map(|host| Neighbour { link: 2, address: server(host), mac: MacAddr([2, 0, 0, 8, 8, host]) })
        .chain([Neighbour { link: 1, address: gateway.into(), mac: MacAddr([2, 0, 0, 0, 0, 254]) }]);
    let network = HostNetwork {
        links: vec![link(1, "eth0"), link(2, "eth1")],
        addresses: vec![InterfaceAddress { link: 1, address: VIRTUAL.into(), prefix_len: 32 }],
        routes: vec![route("0.0.0.0/0", Some(gateway), 1), route("10.8.8.0/24", None, 2)],
        neighbours: neighbours.collect(),
    };
    RouteTable::new(&network, &[1, 2])
}

/// A TCP segment of client number `flow` to the service.
pub fn tcp(flow: u32, flags: u8) -> [u8; LEN] {
    let client = Ipv4Addr::from(0x2000_0000 + flow / 50_000);
    let port = 10_000 + (flow % 50_000) as u16;
    let mut frame = [0; LEN];
    frame[..6].copy_from_slice(&link(1, "eth0").mac.0);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..16].copy_from_slice(&[0x45, 0]);
    frame[16..18].copy_from_slice(&40u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = Protocol::TCP.0;
    frame[26..30].copy_from_slice(&client.octets());
    frame[30..34].copy_from_slice(&VIRTUAL.octets());
    let checksum = Sum::default().bytes(&frame[14..34]).finish();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    let sum = pseudo_header(client.into(), VIRTUAL.into(), Protocol::TCP.0, 20);
    let checksum = sum.bytes(&frame[34..]).finish();
    frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Sends copies of `frames` through the datapath as one burst. Panics if one is not transmitted.
pub fn burst(
    datapath: &mut Datapath,
    now: Instant,
    buffers: &mut [[u8; FRAME]],
    frames: &[[u8; LEN]],
    verdicts: &mut Vec<Verdict>,
) {
    let mut burst: Vec<Frame<'_>> = buffers
        .iter_mut()
        .zip(frames)
        .map(|(buffer, frame)| {
            buffer[..LEN].copy_from_slice(frame);
            Frame::new(buffer, LEN, PortIndex(0))
        })
        .collect();
    datapath.process(now, &mut burst, verdicts);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Transmit(PortIndex(1))), "{verdicts:?}");
}
