//! The end of a connection whose time is up. Where asked, both ends of an established TCP connection are told, so that
//! neither goes on believing in it.

use std::net::SocketAddr;

use super::{Announcer, Connection, Datapath, Direction, Occasion, Outbox, Passage, Snapshot, State, tcp};
use crate::ipvs::outbox::Exit;
use crate::ipvs::timer::Fate;
use crate::net::frame::Frame;
use crate::net::reset::{MAX_FRAME_LEN, Reset, acknowledgment};
use crate::net::route::{Egress, NextHop};

impl Datapath {
    /// Remembers what a reset would need, where there may be one.
    pub(super) fn note_acknowledged(
        &self,
        passage: &Passage<'_, '_>,
        connection: &Connection,
        way: Direction,
    ) {
        if passage.burst.snapshot.beyond.resets_on_expiry(connection.server.service())
            && let Some(number) = acknowledgment(passage.frame.bytes(), &passage.packet)
        {
            connection.note_acknowledged(way, number);
        }
    }
}

/// Ends it, or prolongs it while it has children, of which a backup is told.
pub(super) fn expire(
    occasion: &Occasion<'_>,
    outbox: &mut Outbox,
    announcer: &mut Announcer,
    connection: &Connection,
) -> Fate {
    let Occasion { tables, snapshot, now } = *occasion;
    tables.connections.refresh(connection);
    if !connection.life.is_over(now) {
        return Fate::Again;
    }
    if connection.prolong(now) {
        announcer.announce_prolonged(occasion, connection);
        return Fate::Again;
    }
    let established = connection.state() == State::Tcp(tcp::State::Established);
    if tables.admission.are_templates_crowded() && tables.drop_half_open(connection) {
        return Fate::Gone;
    }
    let ended = tables.connections.remove(connection);
    if ended && established && snapshot.beyond.resets_on_expiry(connection.server.service()) {
        let (client, virtual_address) = (connection.client(), connection.virtual_address());
        let server_address = connection.server_address();
        let expected_by_client = connection.acknowledged(Direction::In);
        let expected_by_server = connection.acknowledged(Direction::Out);
        let to_client = (virtual_address, client, expected_by_client, expected_by_server);
        let to_server = (client, server_address, expected_by_server, expected_by_client);
        send_reset(snapshot, outbox, to_client, client);
        send_reset(snapshot, outbox, to_server, client);
    }
    Fate::Gone
}

/// A reset counts only with the very number that its receiver expects next (RFC 9293 section 3.10.7.4), so there is none
/// while that is not known.
fn send_reset(
    snapshot: &Snapshot,
    outbox: &mut Outbox,
    (source, destination, seq, ack): (SocketAddr, SocketAddr, Option<u32>, Option<u32>),
    client: SocketAddr,
) {
    let Some(seq) = seq else { return };
    let way = match snapshot.routes.next_hop(destination.ip()) {
        NextHop::Port(egress) => Some((Exit::Port(egress.port), egress)),
        NextHop::Kernel => Some((Exit::Kernel, Egress::NONE)),
        NextHop::Local => to_own_stack(snapshot, client),
        NextHop::Unreachable => None,
    };
    let Some((exit, egress)) = way else { return };
    let mut buffer = [0; MAX_FRAME_LEN];
    let mut frame = Frame::new(&mut buffer, 0, egress.port);
    if (Reset { source, destination, seq, ack, tos: 0 }).write(&mut frame, &egress) {
        outbox.send(exit, &[frame.bytes()]);
    }
}

/// For a server that is this machine itself: as if it came from where the client's packets come from.
fn to_own_stack(snapshot: &Snapshot, client: SocketAddr) -> Option<(Exit, Egress)> {
    let NextHop::Port(egress) = snapshot.routes.next_hop(client.ip()) else { return None };
    let reversed = Egress { source: egress.destination, destination: egress.source, ..egress };
    Some((Exit::Stack(egress.port), reversed))
}
