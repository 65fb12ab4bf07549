//! Defence against floods: which modes are active, which packets and which connections go (ipvs.md sections 6.4 to 6.7).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::ipvs::connection::Connection;
use crate::ipvs::lottery::{Lottery, mix};
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::{State, sctp, tcp};
use crate::ipvs::snapshot::Tables;
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::timer::Life;
use crate::net::addr::Protocol;
use crate::net::time::Instant;

/// Time between two looks at the memory, and between two rounds of dropping connections.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Connections are dropped from this many of [`BUCKETS`] parts of the table, drawn anew each time.
const BUCKETS_DRAWN: usize = BUCKETS as usize / 32;
const BUCKETS: u64 = 4096;
/// A connection that had a packet within this time is not dropped by the draw.
const PROTECTED: Duration = Duration::from_secs(60);
/// Connections of more packets are not dropped by the draw.
const FEW_PACKETS: usize = 8;

/// What the modes of the defence come to at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defence {
    /// Of so many packets that would open a connection one is dropped; 0: none.
    pub drop_rate: i64,
    /// Whether connections are dropped, every [`PERIOD`].
    pub drops_entries: bool,
}

/// The counters behind the draws, shared by all workers as in the kernel.
#[derive(Debug, Default)]
pub struct DropCounters {
    packets: AtomicI64,
    entries: [AtomicI64; FEW_PACKETS + 1],
    lottery: Lottery,
}

/// True once in `rate` calls, the first one included.
fn falls_due(counter: &AtomicI64, rate: i64) -> bool {
    let next = |left: i64| Some(if left > 1 { left - 1 } else { rate });
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok_and(|left| left <= 1)
}

impl DropCounters {
    /// Whether a packet that would open a connection is dropped.
    pub fn drops_packet(&self, defence: Defence) -> bool {
        defence.drop_rate != 0 && falls_due(&self.packets, defence.drop_rate)
    }

    /// Whether a connection or template of few packets is, whose `timeout` is in seconds.
    fn drops_entry(&self, packets: u32, life: &Life, timeout: u32, now: Instant) -> bool {
        let refreshed = now + Duration::from_secs(u64::from(timeout)) < life.deadline() + PROTECTED;
        let few = (1..=FEW_PACKETS).contains(&(packets as usize));
        !refreshed && few && falls_due(&self.entries[packets as usize], i64::from(packets))
    }
}

/// Judges the modes by the memory that is free (and in buffers), in pages; the automatic ones become active or inactive.
pub fn judge(sysctls: &mut Sysctls, free_pages: u64, counters: &DropCounters) -> Defence {
    let free = i64::try_from(free_pages).unwrap_or(i64::MAX);
    let threshold = sysctls.amemthresh;
    let scarce = free < threshold;
    for mode in [&mut sysctls.drop_entry, &mut sysctls.drop_packet, &mut sysctls.secure_tcp] {
        if matches!(*mode, 1 | 2) {
            *mode = if scarce { 2 } else { 1 };
        }
    }
    let drop_rate = match sysctls.drop_packet {
        2 => {
            let rate = threshold / (threshold - free);
            counters.packets.store(rate, Ordering::Relaxed);
            rate
        }
        3 => sysctls.am_droprate,
        _ => 0,
    };
    Defence { drop_rate, drops_entries: sysctls.drop_entry > 1 }
}

/// One round of dropping connections, and templates that none of them confirmed.
pub fn drop_entries(tables: &Tables, now: Instant) {
    let counters = &tables.drop_counters;
    let mut drawn = [false; BUCKETS as usize];
    for _ in 0..BUCKETS_DRAWN {
        drawn[(counters.lottery.draw() % BUCKETS) as usize] = true;
    }
    let mut connections = Vec::new();
    tables.connections.for_each(|connection| {
        let candidate = drawn[bucket(connection.protocol, connection.client)];
        if candidate && !connection.has_children() && drops_connection(counters, connection, now) {
            connections.push(Arc::clone(connection));
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
    for template in &templates {
        tables.templates.expire(template);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(mode: i64) -> Sysctls {
        Sysctls { drop_entry: mode, drop_packet: mode, secure_tcp: mode, ..Sysctls::default() }
    }

    #[test]
    fn automatic_modes_follow_the_memory() {
        let counters = DropCounters::default();
        for (mode, free, after, drop_rate, drops_entries) in [
            (0, 0, 0, 0, false),
            (1, 1024, 1, 0, false),
            (1, 1023, 2, 1024, true),
            (2, 512, 2, 2, true),
            (2, 0, 2, 1, true),
            (2, 1024, 1, 0, false),
            (3, 0, 3, 10, true),
            (3, u64::MAX, 3, 10, true),
        ] {
            let mut sysctls = modes(mode);
            let defence = judge(&mut sysctls, free, &counters);
            let story = format!("mode {mode} with {free} pages");
            assert_eq!(defence, Defence { drop_rate, drops_entries }, "{story}");
            assert_eq!(sysctls, modes(after), "{story}");
            assert_eq!(sysctls.is_tcp_secure(), after > 1, "{story}");
        }
    }

    #[test]
    fn one_packet_in_so_many_falls_due() {
        let counters = DropCounters::default();
        let of_three = Defence { drop_rate: 3, ..Defence::default() };
        let dropped: Vec<bool> = (0..7).map(|_| counters.drops_packet(of_three)).collect();
        assert_eq!(dropped, [true, false, false, true, false, false, true]);
        assert!(!counters.drops_packet(Defence::default()));
    }
}
