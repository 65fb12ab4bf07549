//! Benchmarks of the engine, without I/O.

mod datapath;
mod packet;
mod plan;
#[allow(dead_code)]
mod rig;
mod table;

use criterion::criterion_main;

criterion_main!(packet::benches, table::benches, datapath::benches, plan::benches);
