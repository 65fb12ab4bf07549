//! The connection table under many hands: who reads never waits for who writes, and misses nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sdd::{Guard, Shared};
use xlvs::ipvs::connection::Connection;
use xlvs::ipvs::edit::{Forward, ServerId, ServerSpec, ServiceId};
use xlvs::ipvs::protocol::Direction;
use xlvs::ipvs::server::RealServer;
use xlvs::ipvs::stats::Stats;
use xlvs::ipvs::table::ConnectionTable;
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::flow::{FlowKey, FlowWords};
use xlvs::net::tunnel::Encapsulation;

const LASTING: u32 = 500;
const PASSING: u32 = 150_000;

fn server() -> Arc<RealServer> {
    let spec = ServerSpec {
        id: ServerId { address: [10, 8, 8, 33].into(), port: 80 },
        forward: Forward::Masquerade,
        tunnel: Encapsulation::Ipip,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let service = ServiceId::FwMark { mark: 1, family: Family::V4 };
    Arc::new(RealServer::new(&spec, service, 1, Arc::new(Stats::new(1))))
}

fn flow(number: u32) -> FlowKey {
    let client =
        SocketAddr::from(((0x2000_0000 + number / 60_000).to_be_bytes(), (number % 60_000) as u16 + 1));
    FlowKey::new(Protocol::TCP, client, SocketAddr::from(([10, 10, 1, 30], 80)))
}

fn connection(server: &Arc<RealServer>, number: u32) -> Shared<Connection> {
    let address = SocketAddr::from(([10, 8, 8, 33], 80));
    Shared::new(Connection::new(&flow(number), Arc::clone(server), address, None))
}

/// The numbers of lasting connections that are not found, by either end.
fn missing(table: &ConnectionTable) -> Vec<(u32, Direction)> {
    let guard = Guard::new();
    let reply = |number| FlowKey { source: [10, 8, 8, 33].into(), ..flow(number).reversed() };
    let ways = (0..LASTING)
        .flat_map(|number| [(number, Direction::In, flow(number)), (number, Direction::Out, reply(number))]);
    ways.filter(|(number, direction, key)| {
        let found = table.find(&table.hashed(FlowWords::from(key)), &guard);
        !found.is_some_and(|(found, way)| way == *direction && found.client() == flow(*number).source())
    })
    .map(|(number, direction, _)| (number, direction))
    .collect()
}

#[test]
fn what_is_in_the_table_is_found_while_others_come_and_go_and_the_table_grows() {
    let table = ConnectionTable::default();
    let server = server();
    (0..LASTING).for_each(|number| table.insert(&connection(&server, number)));
    let done = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let missing = missing(&table);
                    if !missing.is_empty() {
                        done.store(true, Ordering::Relaxed);
                        panic!("not found: {missing:?}");
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let passing: Vec<_> =
            (LASTING..LASTING + PASSING).map(|number| connection(&server, number)).collect();
        passing.iter().for_each(|connection| table.insert(connection));
        assert_eq!(table.len(), u64::from(LASTING + PASSING));
        assert!(passing.iter().all(|connection| table.remove(connection)));
        done.store(true, Ordering::Relaxed);
    });
    assert!(looks.load(Ordering::Relaxed) > 0);
    assert_eq!((table.len(), missing(&table)), (u64::from(LASTING), Vec::new()));
    let mut seen = 0;
    table.for_each(|_| seen += 1);
    assert_eq!((seen, server.total()), (LASTING, LASTING));
}
