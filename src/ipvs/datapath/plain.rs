//! What most packets are, in few steps: plain TCP and UDP over IPv4 of an established connection with NAT. Every question of the
//! long way is asked here too, as whether the answer is the usual one; if one is not, nothing has been done, and the packet
//! takes the long way. The recorded scenarios and the model go through both.

use std::net::IpAddr;
use std::time::Duration;

use super::farewell::may_be_reset;
use super::{Burst, Datapath, Seen, is_lendable};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::protocol::{Direction, State};
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::sync;
use crate::ipvs::table::Found;
use crate::ipvs::verdict::Verdict;
use crate::net::frame::Frame;
use crate::net::parse::{Packet, TcpFlags, Transport};
use crate::net::rewrite::{self, End};
use crate::net::route::Egress;

/// Flags of a segment that says nothing about the connection.
const PLAIN: TcpFlags = TcpFlags { syn: false, ack: true, fin: false, rst: false };

impl Datapath {
    /// The verdict, or `None`: the long way.
    #[inline]
    pub(super) fn plain_packet(
        &mut self,
        burst: &Burst<'_>,
        frame: &mut Frame<'_>,
        seen: &Seen,
    ) -> Option<Verdict> {
        let packet = &seen.packet;
        let flow = seen.flow.as_ref().filter(|_| is_plain(packet) && !frame.is_outgoing())?;
        let (connection, way) = self.tables.connections.find(flow, burst.guard)?;
        if way == Direction::In && flow.source_port() == 0 {
            return None;
        }
        let state = usual_state(burst, &connection, way)?;
        if way == Direction::In && !burst.snapshot.sync.is_empty() && minds(burst.snapshot, &connection) {
            return None;
        }
        let new = connection.replacement_v4(way)?;
        let (end, next) = match way {
            Direction::In => (End::Destination, IpAddr::V4(*new.ip())),
            Direction::Out => (End::Source, packet.destination),
        };
        let egress = usual_way(burst.snapshot, next, packet)?;
        if self.is_to_be_lent(burst, &connection, way) {
            return None;
        }
        if !rewrite::forward_plain_ipv4(frame, packet, end, new, egress) {
            return None;
        }
        self.note(burst, connection, way, state);
        let server = &connection.server;
        for stats in [server.stats(), server.service_stats(), &self.tables.total] {
            let cell = stats.cell(self.worker);
            match way {
                Direction::In => cell.add_in(packet.ip_len()),
                Direction::Out => cell.add_out(packet.ip_len()),
            }
        }
        Some(Verdict::Transmit(egress.port))
    }

    /// Whether the long way will lend the flow to the shortcut with this packet.
    #[inline]
    fn is_to_be_lent(&self, burst: &Burst<'_>, connection: &Connection, way: Direction) -> bool {
        let coming = u32::from(way == Direction::In);
        let generation = burst.snapshot.generation;
        let shortcuts = self.tables.connections.shortcuts();
        shortcuts.is_some_and(|shortcuts| shortcuts.wants(connection, way, generation, coming))
    }

    /// What such a packet changes of its connection, whose state it leaves as it is.
    #[inline(always)]
    fn note(&mut self, burst: &Burst<'_>, connection: Found<'_>, way: Direction, state: State) {
        let Snapshot { beyond, timeouts, .. } = burst.snapshot;
        let own = beyond.timeouts(connection.server.service(), timeouts);
        let timeout = own.as_ref().unwrap_or(timeouts).of(state);
        connection.set_timeout(timeout);
        if way == Direction::In {
            connection.count_packet();
        }
        if (state != State::Udp || way == Direction::Out)
            && let Some(template) = &connection.template
        {
            template.assure();
        }
        connection.life.set_deadline(burst.now + Duration::from_secs(u64::from(timeout)));
        self.file(connection);
    }
}

/// Whether nothing about the packet is unusual; that its checksum may be half made shows when it is rewritten.
#[inline]
fn is_plain(packet: &Packet) -> bool {
    let says_nothing = match packet.transport {
        Transport::Tcp { flags, .. } => flags == PLAIN,
        Transport::Udp { .. } => true,
        _ => false,
    };
    says_nothing && packet.is_plain_ipv4() && packet.ttl > 1
}

/// Whether the synchronisation may have to do with this packet of a client's.
fn minds(snapshot: &Snapshot, connection: &Connection) -> bool {
    let sysctls = &snapshot.sysctls;
    snapshot.is_passive()
        || connection.template.is_some()
        || sysctls.sync_refresh_period > 0
        || sync::is_due(connection.packets_in().wrapping_add(1), sysctls.sync_threshold)
}

/// The state of a connection that lives, with NAT, and in which a plain packet leaves it.
#[inline]
fn usual_state(burst: &Burst<'_>, connection: &Connection, way: Direction) -> Option<State> {
    let state = connection.state();
    let usual = is_lendable(state)
        && connection.forward == Forward::Masquerade
        && connection.is_ordinary(way)
        && !connection.life.is_over(burst.now)
        && connection.server.is_available()
        && !may_be_reset(burst.snapshot, connection);
    usual.then_some(state)
}

/// The way out of a port that takes the packet as it is.
#[inline]
fn usual_way<'s>(snapshot: &'s Snapshot, next: IpAddr, packet: &Packet) -> Option<&'s Egress> {
    let egress = snapshot.routes.ready_way(next)?;
    (packet.ip_len() <= egress.mtu as usize && !next.is_loopback()).then_some(egress)
}
