//! What a plan costs: the look at the director, which nobody else can have meanwhile, and the count beside it. And what it costs
//! the director to ask all connections of removed servers, and to end them.

use std::cell::LazyCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group};
use sdd::Shared;
use xlvs::config::lvs::LvsConfig;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::{Command, Director, Effect};
use xlvs::ipvs::connection::Connection;
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::protocol::{State, tcp};
use xlvs::ipvs::snapshot::Tables;
use xlvs::net::addr::Protocol;
use xlvs::net::flow::FlowKey;
use xlvs::net::time::Instant;

const SERVERS: u32 = 16;

fn site(servers: u32) -> LvsConfig {
    let servers: String = (0..servers)
        .map(|host| format!(" server s{host} {{\n  address = 10.8.8.{}\n  active = 1\n }}\n", 33 + host))
        .collect();
    let text = format!(
        "primary = 10.10.1.1\nvirtual web {{\n active = 1\n address = 10.10.1.30 eth0:1\n{servers}}}\n"
    );
    load(&text, Names::NONE).expect("a site")
}

/// A director of one virtual server with so many connections.
fn director(connections: u32) -> Director {
    let tables = Arc::new(Tables::new(1));
    let mut director = Director::new(Instant::START, Arc::clone(&tables), 1, Vec::new());
    let lvs = Box::new(site(SERVERS));
    let effects =
        director.handle(Instant::START, Command::Configure { lvs, marks: Arc::new(MarkRules::default()) });
    for effect in effects {
        if let Effect::StartCheck(check) = effect {
            director.handle(Instant::START, Command::Health { check, up: true, reason: String::new() });
        }
    }
    let snapshot = tables.snapshot.load();
    let servers = &snapshot.services.iter().next().expect("a service").servers;
    for flow in 0..connections {
        let server = &servers[(flow % SERVERS) as usize];
        let client = SocketAddr::new(
            IpAddr::from((0x2000_0000 + flow / 50_000).to_be_bytes()),
            10_000 + (flow % 50_000) as u16,
        );
        let key = FlowKey::new(Protocol::TCP, client, SocketAddr::from(([10, 10, 1, 30], 80)));
        let at = SocketAddr::new(server.id().address, server.id().port);
        let connection = Connection::new(&key, Arc::clone(server), at, None);
        connection.step(|_| State::Tcp(tcp::State::Established));
        tables.connections.insert(&Shared::new(connection));
    }
    director
}

fn plan(criterion: &mut Criterion) {
    let next = site(SERVERS - 1);
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(20);
    for connections in [16_000u32, 1_000_000] {
        let director = LazyCell::new(|| director(connections));
        group.bench_function(BenchmarkId::new("look", connections), |bencher| {
            bencher.iter(|| director.forecast(&next, None));
        });
        group.bench_function(BenchmarkId::new("count", connections), |bencher| {
            bencher.iter(|| {
                let plan = director.forecast(&next, None).count(director.tables());
                assert_eq!(plan.total.drained, u64::from(connections / SERVERS));
            });
        });
    }
    group.finish();
    end(criterion);
}

/// All of a million at the deadline, asked and then ended.
fn end(criterion: &mut Criterion) {
    const CONNECTIONS: u32 = 1_000_000;
    let removed = || {
        let mut director = director(CONNECTIONS);
        let lvs = Box::new(LvsConfig::default());
        director.handle(Instant::START, Command::Configure { lvs, marks: Arc::new(MarkRules::default()) });
        director
    };
    let asked_at = Instant::START + Duration::from_secs(299);
    let mut group = criterion.benchmark_group("drain");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("ask", CONNECTIONS), |bencher| {
        let asked = |mut director: Director| {
            director.handle(asked_at, Command::Tick);
            director
        };
        bencher.iter_batched(removed, asked, BatchSize::PerIteration);
    });
    group.bench_function(BenchmarkId::new("end", CONNECTIONS), |bencher| {
        let asked = || {
            let mut director = removed();
            director.handle(asked_at, Command::Tick);
            director
        };
        let ended = |mut director: Director| {
            director.handle(Instant::START + Duration::from_secs(301), Command::Tick);
            assert!(director.tables().connections.is_empty());
            director
        };
        bencher.iter_batched(asked, ended, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, plan);
