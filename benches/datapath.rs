//! Packets through the engine in bursts of 64: established flows, picked at random, and new connections.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use crate::rig;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xlvs::ipvs::datapath::Datapath;
use xlvs::net::time::Instant;

/// A fixed sequence (xorshift32): every run looks at the same flows in the same order.
fn random(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

/// The time that the datapath alone takes for `bursts` bursts; making the frames does not count.
fn time(
    datapath: &mut Datapath,
    bursts: u64,
    mut frames: impl FnMut() -> [rig::Bytes; rig::BURST],
) -> Duration {
    let mut buffers = rig::Buffers::default();
    (0..bursts).map(|_| buffers.send(datapath, Instant::START, &frames())).sum()
}

/// A datapath with so many connections.
fn with_flows(flows: u32) -> Datapath {
    let mut datapath = rig::datapath(false);
    let mut buffers = rig::Buffers::default();
    for flow in 0..flows {
        buffers.send(&mut datapath, Instant::START, &[rig::tcp(flow, rig::SYN)]);
    }
    datapath
}

fn established(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("established");
    group.throughput(Throughput::Elements(rig::BURST as u64));
    for flows in [1, 1_000, 100_000, 1_000_000] {
        let datapath = OnceCell::new();
        let mut state = 1;
        group.bench_function(BenchmarkId::from_parameter(flows), |bencher| {
            let datapath = datapath.get_or_init(|| RefCell::new(with_flows(flows)));
            bencher.iter_custom(|bursts| {
                let mut frames = || rig::tcp(random(&mut state) % flows, rig::ACK);
                time(&mut datapath.borrow_mut(), bursts, || std::array::from_fn(|_| frames()))
            });
        });
    }
    group.finish();
}

fn new_connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new connection");
    group.throughput(Throughput::Elements(rig::BURST as u64));
    for (name, persistent) in [("wlc, 16 servers", false), ("wlc, 16 servers, persistent", true)] {
        let mut datapath = rig::datapath(persistent);
        let mut flow = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|bursts| {
                let mut next = || {
                    flow += 1;
                    rig::tcp(flow, rig::SYN)
                };
                time(&mut datapath, bursts, || std::array::from_fn(|_| next()))
            });
        });
    }
    group.finish();
}

/// Connections whose time is up, as many at once as there are when a hundred thousand a second come and go.
fn expiry(criterion: &mut Criterion) {
    const CONNECTIONS: u32 = 6_400;
    let mut group = criterion.benchmark_group("expiry");
    group.throughput(Throughput::Elements(u64::from(CONNECTIONS)));
    let tables = rig::tables(false);
    let mut datapath = Datapath::new(Arc::clone(&tables), 0, Instant::START);
    let mut now = Instant::START;
    group.bench_function("of a connection", |bencher| {
        bencher.iter_custom(|times| {
            let mut buffers = rig::Buffers::default();
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                for first in (0..CONNECTIONS).step_by(rig::BURST) {
                    let frames: [_; rig::BURST] =
                        std::array::from_fn(|i| rig::tcp(first + i as u32, rig::SYN));
                    buffers.send(&mut datapath, now, &frames);
                }
                // A SYN lasts a minute; the wheel looks a tick later.
                now = now + Duration::from_millis(60_200);
                taken += rig::advance(&mut datapath, now);
                assert!(tables.connections.is_empty());
            }
            taken
        });
    });
    group.finish();
}

/// Each of them takes the place of a half-open one.
fn new_connections_during_a_flood(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new connection, table full of half-open ones");
    group.throughput(Throughput::Elements(rig::BURST as u64));
    for conn_max in [1_000, 100_000, 1_000_000] {
        let datapath = OnceCell::new();
        let mut flow = 0;
        group.bench_function(BenchmarkId::from_parameter(conn_max), |bencher| {
            let mut next = || {
                flow += 1;
                rig::tcp(flow, rig::SYN)
            };
            let datapath = datapath.get_or_init(|| {
                let mut datapath = rig::datapath_up_to(conn_max);
                let mut buffers = rig::Buffers::default();
                (0..conn_max).for_each(|_| _ = buffers.send(&mut datapath, Instant::START, &[next()]));
                RefCell::new(datapath)
            });
            bencher.iter_custom(|bursts| {
                time(&mut datapath.borrow_mut(), bursts, || std::array::from_fn(|_| next()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, established, new_connections, new_connections_during_a_flood, expiry);
