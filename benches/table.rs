//! The connection table alone.

use std::cell::LazyCell;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group};
use sdd::{Guard, Shared};
use xlvs::ipvs::connection::Connection;
use xlvs::ipvs::edit::{Forward, ServerId, ServerSpec, ServiceId};
use xlvs::ipvs::server::RealServer;
use xlvs::ipvs::stats::Stats;
use xlvs::ipvs::table::ConnectionTable;
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::flow::{FlowKey, FlowWords};
use xlvs::net::tunnel::Encapsulation;

fn key(flow: u32) -> FlowKey {
    let client = SocketAddr::from((
        0x2000_0000u32.wrapping_add(flow / 50_000).to_be_bytes(),
        10_000 + (flow % 50_000) as u16,
    ));
    FlowKey::new(Protocol::TCP, client, SocketAddr::from(([10, 10, 1, 30], 80)))
}

fn server() -> Arc<RealServer> {
    let id = ServerId { address: [10, 8, 8, 33].into(), port: 80 };
    let service = ServiceId::FwMark { mark: 1, family: Family::V4 };
    let spec = ServerSpec {
        id,
        forward: Forward::Masquerade,
        tunnel: Encapsulation::Ipip,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    Arc::new(RealServer::new(&spec, service, 1, Arc::new(Stats::new(1))))
}

fn connection(server: &Arc<RealServer>, flow: u32) -> Shared<Connection> {
    let address = SocketAddr::from(([10, 8, 8, 33], 80));
    Shared::new(Connection::new(&key(flow), Arc::clone(server), address, None))
}

fn table(criterion: &mut Criterion) {
    let server = server();
    let mut group = criterion.benchmark_group("table");
    for flows in [1_000u32, 100_000, 1_000_000] {
        let table = LazyCell::new(|| {
            let table = ConnectionTable::default();
            (0..flows).for_each(|flow| table.insert(&connection(&server, flow)));
            table
        });
        let mut next = 0u32;
        group.bench_function(BenchmarkId::new("find", flows), |bencher| {
            bencher.iter(|| {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let key = table.hashed(FlowWords::from(&key((next >> 8) % flows)));
                let guard = Guard::new();
                table.find(&key, &guard).is_some()
            });
        });
        let mut flow = flows;
        group.bench_function(BenchmarkId::new("insert and remove", flows), |bencher| {
            bencher.iter(|| {
                flow += 1;
                let connection = connection(&server, flow);
                table.insert(&connection);
                table.remove(&connection);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, table);
