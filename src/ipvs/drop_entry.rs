//! `drop_entry`: which connections and templates go when there are too many (ipvs.md section 6.4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::ipvs::connection::Connection;
use crate::ipvs::defence::DropCounters;
use crate::ipvs::lottery::mix;
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::{State, sctp, tcp};
use crate::ipvs::snapshot::Tables;
use crate::net::addr::Protocol;
use crate::net::time::Instant;

/// Connections are dropped from this many of [`BUCKETS`] parts of the table, drawn anew each time.
const BUCKETS_DRAWN: usize = BUCKETS as usize / 32;
const BUCKETS: u64 = 4096;
/// One round of dropping connections, and templates that none of them confirmed.
pub fn drop_entries(tables: &Tables, now: Instant) {
    let counters = &tables.drop_counters;
    let mut drawn = [false; BUCKETS as usize];
    for _ in 0..BUCKETS_DRAWN {
        drawn[(counters.draw() % BUCKETS) as usize] = true;
    }
    let mut connections = Vec::new();
    tables.connections.for_each(|connection| {
        let candidate = drawn[bucket(connection.protocol, connection.client())];
        if candidate && !connection.has_children() {
            tables.connections.refresh(&connection);
            if drops_connection(counters, &connection, now) {
                connections.extend(connection.share());
            }
        }
    });
    let mut templates = Vec::new();
    tables.templates.for_each(|template| {
        let candidate = drawn[bucket(template.key.protocol, SocketAddr::new(template.key.client, 0))];
        if candidate && drops_template(counters, template, now) {
            templates.push(Arc::clone(template));
        }
    });
    connections.iter().for_each(|connection| tables.drop_connection(connection));
    templates.iter().for_each(|template| tables.templates.end(template));
}

/// Connections are spread as in the kernel by client, so that what goes goes client by client.
fn bucket(protocol: Protocol, client: SocketAddr) -> usize {
    let address = match client.ip() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let address = u128::from(address);
            mix((address >> 64) as u64) ^ address as u64
        }
    };
    let ends = mix(address) ^ u64::from(client.port()) << 8 ^ u64::from(protocol.0);
    (mix(ends) % BUCKETS) as usize
}

/// What is being opened goes at once, what is established or has no state by the draw, the rest ends soon by itself.
fn drops_connection(counters: &DropCounters, connection: &Connection, now: Instant) -> bool {
    let by_draw =
        || counters.drops_entry(connection.packets_in(), &connection.life, connection.timeout(), now);
    let state = connection.state();
    match state {
        State::Tcp(tcp::State::SynRecv | tcp::State::SynAck) => true,
        State::Sctp(sctp::State::Init1 | sctp::State::Init) => true,
        State::Udp => by_draw(),
        _ => state.is_established() && by_draw(),
    }
}

fn drops_template(counters: &DropCounters, template: &PersistenceTemplate, now: Instant) -> bool {
    if template.has_children() {
        return false;
    }
    if template.is_of_one_packet_service() {
        return counters.drops_entry(template.packets_in(), &template.life, template.timeout(), now);
    }
    !template.is_assured()
}
