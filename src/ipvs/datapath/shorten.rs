//! Lending flows to the shortcut: those whose plain packets change nothing but counters and timers.

use super::farewell::may_be_reset;
use super::transmit::ETHERNET_LEN;
use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::protocol::{Direction, State, tcp};
use crate::ipvs::shortcut::{Account, Shortcut, Shortcuts};
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::sync::SyncRole;
use crate::net::addr::Protocol;
use crate::net::rewrite::End;
use crate::net::route::Egress;

/// Whether a connection in this state stays in it with packets that say nothing new.
pub(super) fn is_lendable(state: State) -> bool {
    matches!(state, State::Tcp(tcp::State::Established) | State::Udp)
}

/// Whether a backup has not been told of a connection yet and may be soon: what the shortcut forwards is known to userspace
/// only now and then.
fn is_to_be_announced(snapshot: &Snapshot, connection: &Connection) -> bool {
    snapshot.is_passive()
        || (snapshot.sync.get(SyncRole::Master).is_some()
            && i64::from(connection.packets_in()) < snapshot.sysctls.sync_threshold[0])
}

impl Datapath {
    /// Lends a direction of the connection, whose packet has just been translated and leaves by `egress`, if it is time.
    pub(super) fn shorten(
        &self,
        passage: &Passage<'_, '_>,
        connection: &Connection,
        way: Direction,
        egress: Option<Egress>,
    ) {
        if let (Some(egress), Some(shortcuts)) = (egress, self.tables.connections.shortcuts())
            && shortcuts.wants(connection, way, passage.burst.snapshot.generation, 0)
            && passage.is_usual()
            && passage.allows_to_lend(connection)
        {
            self.lend(passage, shortcuts, connection, way, egress);
        }
    }

    fn lend(
        &self,
        passage: &Passage<'_, '_>,
        shortcuts: &Shortcuts,
        connection: &Connection,
        way: Direction,
        egress: Egress,
    ) {
        let snapshot = passage.burst.snapshot;
        let Some(addressed) = snapshot.routes.port_mac(passage.frame.port()) else { return };
        let (end, new) = match way {
            Direction::In => (End::Destination, connection.server_address()),
            Direction::Out => (End::Source, connection.virtual_address()),
        };
        let shortcut = Shortcut {
            generation: snapshot.generation,
            ingress: passage.frame.port(),
            addressed,
            end,
            new,
            egress,
            account: Account::default(),
            packets: 0,
        };
        shortcuts.lend(connection, way, shortcut, passage.burst.now);
        // Another worker may have ended the connection, hidden it or changed its state meanwhile.
        if !self.tables.connections.has(connection, way) || !is_lendable(connection.state()) {
            shortcuts.call_off(connection, way);
        }
    }
}

impl Passage<'_, '_> {
    /// Whether it came as packets of the shortcut have to come.
    fn is_usual(&self) -> bool {
        self.origin.is_none() && !self.frame.is_outgoing() && self.packet.l3 == ETHERNET_LEN
    }

    /// Whether the connection's plain packets say nothing that anybody has to remember. What a client sends from port 0 does
    /// not find its connection (golden `source-port-0`), and until it is known the port is 0.
    fn allows_to_lend(&self, connection: &Connection) -> bool {
        self.packet.protocol == connection.protocol
            && !connection.server.is_stranger()
            && matches!(connection.protocol, Protocol::TCP | Protocol::UDP)
            && connection.forward == Forward::Masquerade
            && is_lendable(connection.state())
            && connection.ftp().is_none()
            && !is_to_be_announced(self.burst.snapshot, connection)
            && connection.client().port() != 0
            && !may_be_reset(self.burst.snapshot, connection)
    }
}
