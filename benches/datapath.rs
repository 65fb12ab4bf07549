//! Packets through the engine in bursts of 64: established flows, picked at random, and new connections.

use crate::rig;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use xlvs::net::time::Instant;

const BURST: usize = 64;

/// A fixed sequence (xorshift32): every run looks at the same flows in the same order.
fn random(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

fn established(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("established");
    group.throughput(Throughput::Elements(BURST as u64));
    for flows in [1, 1_000, 100_000, 1_000_000] {
        let mut datapath = rig::datapath(false);
        let mut buffers = vec![[0; rig::FRAME]; BURST];
        let mut verdicts = Vec::with_capacity(BURST);
        for flow in 0..flows {
            let frames = [rig::tcp(flow, rig::SYN)];
            rig::burst(&mut datapath, Instant::START, &mut buffers, &frames, &mut verdicts);
        }
        let mut state = 1;
        group.bench_function(BenchmarkId::from_parameter(flows), |bencher| {
            bencher.iter_batched(
                || std::array::from_fn::<_, BURST, _>(|_| rig::tcp(random(&mut state) % flows, rig::ACK)),
                |frames| rig::burst(&mut datapath, Instant::START, &mut buffers, &frames, &mut verdicts),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn new_connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new connection");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, persistent) in [("wlc, 16 servers", false), ("wlc, 16 servers, persistent", true)] {
        let mut datapath = rig::datapath(persistent);
        let mut buffers = vec![[0; rig::FRAME]; BURST];
        let mut verdicts = Vec::with_capacity(BURST);
        let mut flow = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    flow += BURST as u32;
                    std::array::from_fn::<_, BURST, _>(|offset| rig::tcp(flow + offset as u32, rig::SYN))
                },
                |frames| rig::burst(&mut datapath, Instant::START, &mut buffers, &frames, &mut verdicts),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, established, new_connections);
