//! What may happen in a sequence, and how proptest makes one up.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::tables::{Millis, Options, Terms};

/// Names of the settings, in the order of [`Op::Set`]'s index.
pub const SETTINGS: [&str; 6] = [
    "conn_reuse_mode",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "nat_icmp_send",
    "sloppy_tcp",
    "sloppy_sctp",
];
/// How many clients there are to choose from.
pub const CLIENTS: usize = 24;

const SCHEDULERS: [&str; 11] = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "none"];
/// TCP flags, the most frequent ones more often. As many as there are [`CHUNKS`].
pub const FLAGS: [&str; 14] = ["S", "S", "S", "S", "S", "SA", "A", "A", "A", "FA", "F", "R", "RA", ""];

/// Chunks of SCTP, those that matter most more often.
pub const CHUNKS: [&str; 14] = [
    "INIT",
    "INIT",
    "INIT",
    "INIT-ACK",
    "COOKIE-ECHO",
    "COOKIE-ECHO",
    "COOKIE-ACK",
    "DATA",
    "DATA",
    "SHUTDOWN",
    "SHUTDOWN-ACK",
    "SHUTDOWN-COMPLETE",
    "ERROR",
    "ABORT",
];

/// One event. Services, servers, clients and targets go by number.
#[derive(Clone, Debug)]
pub enum Op {
    AddService(usize, Options),
    EditService(usize, Options),
    DeleteService(usize),
    Flush,
    /// Service, server, which of its ports, terms.
    AddServer(usize, usize, usize, Terms),
    EditServer(usize, usize, usize, Terms),
    DeleteServer(usize, usize, usize),
    Zero(Option<usize>),
    SetTimeouts(u32, u32, u32),
    Set(usize, i32),
    /// A client's packet: client, its port, target, which flags, payload length.
    Open(usize, u16, usize, usize, usize),
    /// A packet of a connection that there is: which one, whether from the client, which flags, payload length.
    Follow(usize, bool, usize, usize),
    Wait(Millis),
}

/// What a sequence dwells on.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// The services it uses.
    pub services: &'static [usize],
    /// What its clients ask for.
    pub targets: &'static [usize],
    /// How many clients take part.
    pub clients: usize,
    /// How many servers there are to choose from.
    pub servers: usize,
    /// Whether servers listen on other ports than their service as well.
    pub ports: bool,
    pub schedulers: &'static [&'static str],
    /// In how many of ten services persistence is asked for.
    pub persistent: u32,
    /// How often services are edited, servers are edited, settings are changed, packets come, and time passes.
    pub weights: [u32; 5],
}

/// Connections come, change and go.
pub const CONNECTIONS: Theme = Theme {
    services: &[0, 1],
    targets: &[0, 1],
    clients: 3,
    servers: 3,
    ports: false,
    schedulers: &SCHEDULERS,
    persistent: 1,
    weights: [1, 2, 2, 40, 6],
};
/// Clients keep their servers, whatever happens to those.
pub const PERSISTENCE: Theme = Theme {
    services: &[0, 2, 3],
    targets: &[0, 0, 2, 3, 4],
    clients: 6,
    servers: 3,
    ports: false,
    schedulers: &["rr", "wlc", "lc"],
    persistent: 9,
    weights: [2, 6, 3, 40, 6],
};
/// Many clients of one service, whose servers change.
pub const SCHEDULING: Theme = Theme {
    services: &[0],
    targets: &[0],
    clients: CLIENTS,
    servers: 5,
    ports: false,
    schedulers: &SCHEDULERS,
    persistent: 0,
    weights: [1, 8, 1, 50, 2],
};
/// As connections, by SCTP.
pub const ASSOCIATIONS: Theme = Theme { services: &[5], targets: &[6], persistent: 3, ..CONNECTIONS };
/// The administrator never rests.
pub const EDITS: Theme = Theme {
    services: &[0, 1, 2, 3, 4],
    targets: &[0, 1, 2, 3, 4, 5],
    clients: 4,
    servers: 2,
    ports: true,
    schedulers: &SCHEDULERS,
    persistent: 4,
    weights: [8, 20, 4, 30, 6],
};
/// The large table of `mh`, which takes its time.
pub const MAGLEV: Theme = Theme {
    services: &[0],
    targets: &[0],
    clients: CLIENTS,
    servers: 3,
    ports: false,
    schedulers: &["mh"],
    persistent: 0,
    weights: [0, 6, 0, 30, 1],
};

/// Sequences of a theme: services with servers first, then anything.
pub fn sequences(theme: Theme) -> impl Strategy<Value = Vec<Op>> {
    let services = theme.services.iter().map(|service| setup(theme, *service)).collect::<Vec<_>>();
    (services, vec(op(theme), 0..50)).prop_map(|(setup, ops)| [setup.concat(), ops].concat())
}

/// Most often a service and two or three servers.
fn setup(theme: Theme, service: usize) -> impl Strategy<Value = Vec<Op>> {
    let servers = vec((0..theme.servers, terms()), 1..4);
    (prop::bool::weighted(0.9), options(theme), servers).prop_map(move |(present, options, servers)| {
        let service_op = present.then_some(Op::AddService(service, options));
        let server_op = |(server, terms)| Op::AddServer(service, server, 0, terms);
        service_op.into_iter().chain(servers.into_iter().map(server_op)).collect()
    })
}

fn op(theme: Theme) -> impl Strategy<Value = Op> {
    let [services, servers, settings, packets, waits] = theme.weights;
    prop_oneof![
        services => service_edit(theme),
        servers => server_edit(theme),
        settings => setting(theme),
        packets => packet(theme),
        waits => wait().prop_map(Op::Wait),
    ]
}

fn service(theme: Theme) -> impl Strategy<Value = usize> {
    select(theme.services)
}

fn options(theme: Theme) -> impl Strategy<Value = Options> {
    let persistence = (select(vec![7, 33, 77, 190]), select(vec![32, 32, 24, 8]));
    (select(theme.schedulers), any::<(bool, bool)>(), prop::bool::weighted(0.3), 0..10_u32, persistence)
        .prop_map(move |(scheduler, (fallback, with_port), one_packet, chance, persistence)| Options {
            scheduler,
            fallback,
            with_port,
            one_packet,
            persistence: (chance < theme.persistent).then_some(persistence),
        })
}

fn terms() -> impl Strategy<Value = Terms> {
    let weights = select(vec![0, 1, 1, 1, 2, 3, 4, 6, 10, 100]);
    let thresholds = select(vec![(0, 0), (0, 0), (0, 0), (1, 0), (2, 1), (3, 0), (5, 2), (8, 0), (2, 3)]);
    (weights, thresholds).prop_map(|(weight, (upper, lower))| Terms { weight, upper, lower })
}

/// Service, server, which of its ports, terms.
fn server_op(theme: Theme) -> impl Strategy<Value = (usize, usize, usize, Terms)> {
    let ports = if theme.ports { &[0, 0, 0, 1, 2][..] } else { &[0] };
    (service(theme), 0..theme.servers, select(ports), terms())
}

fn service_edit(theme: Theme) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (service(theme), options(theme)).prop_map(|(service, options)| Op::AddService(service, options)),
        3 => (service(theme), options(theme)).prop_map(|(service, options)| Op::EditService(service, options)),
        2 => service(theme).prop_map(Op::DeleteService),
        1 => Just(Op::Flush),
    ]
}

fn server_edit(theme: Theme) -> impl Strategy<Value = Op> {
    (server_op(theme), 0..10).prop_map(|((service, server, port, terms), kind)| match kind {
        0..4 => Op::AddServer(service, server, port, terms),
        4..7 => Op::EditServer(service, server, port, terms),
        _ => Op::DeleteServer(service, server, port),
    })
}

fn setting(theme: Theme) -> impl Strategy<Value = Op> {
    let timeouts = select(vec![(0, 0, 5), (40, 0, 0), (0, 20, 0), (900, 120, 300)]);
    prop_oneof![
        6 => (0..SETTINGS.len(), 0..3).prop_map(|(setting, value)| Op::Set(setting, value)),
        2 => timeouts.prop_map(|(tcp, tcp_fin, udp)| Op::SetTimeouts(tcp, tcp_fin, udp)),
        1 => prop::option::of(service(theme)).prop_map(Op::Zero),
    ]
}

fn packet(theme: Theme) -> impl Strategy<Value = Op> {
    let port = prop_oneof![15 => 1000..1004_u16, 1 => Just(20)];
    let clients = 0..theme.clients;
    prop_oneof![
        2 => (clients, port, select(theme.targets), 0..FLAGS.len(), 0..40_usize).prop_map(
            |(client, port, target, flags, len)| Op::Open(client, port, target, flags, len)
        ),
        1 => (any::<u16>(), any::<bool>(), 0..FLAGS.len(), 0..40_usize).prop_map(
            |(pick, from_client, flags, len)| Op::Follow(pick.into(), from_client, flags, len)
        ),
    ]
}

fn wait() -> impl Strategy<Value = Millis> {
    prop_oneof![
        3 => 1..3_000_u64,
        4 => 3_000..70_000_u64,
        2 => 70_000..400_000_u64,
        1 => 400_000..1_000_000_u64,
    ]
}
