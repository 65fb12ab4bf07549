//! The pieces of a packet's path that know no state: parsing, checksums, rewriting.

use std::hint::black_box;
use std::net::SocketAddr;

use crate::rig;
use criterion::{Criterion, Throughput, criterion_group};
use xlvs::net::checksum::{Change, Sum};
use xlvs::net::parse::parse_frame;
use xlvs::net::rewrite::{self, End};

fn parse(criterion: &mut Criterion) {
    let frame = rig::tcp(1, rig::ACK);
    criterion.bench_function("parse", |bencher| bencher.iter(|| parse_frame(black_box(&frame))));
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [20, 64, 1460] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("full, {len} bytes"), |bencher| {
            bencher.iter(|| Sum::default().bytes(black_box(&bytes)).finish());
        });
    }
    group.throughput(Throughput::Elements(1));
    let (old, new) = ([10, 10, 1, 30].into(), [10, 8, 8, 33].into());
    group.bench_function("incremental, address and port", |bencher| {
        bencher.iter(|| Change::default().address(black_box(old), new).word(80, 8080).apply(0x1234));
    });
    group.finish();
}

fn nat(criterion: &mut Criterion) {
    let mut frame = rig::tcp(1, rig::ACK);
    let packet = parse_frame(&frame).expect("a TCP segment");
    let server = SocketAddr::from(([10, 8, 8, 33], 8080));
    criterion.bench_function("rewrite destination", |bencher| {
        bencher.iter(|| rewrite::set_end(black_box(&mut frame), &packet, End::Destination, server));
    });
}

criterion_group!(benches, parse, checksum, nat);
