//! What both ends of a TCP connection are told when it ends before its time, and what they are asked before that.

use std::net::SocketAddr;

use super::{Connection, Datapath, Direction, Outbox, Passage, Snapshot, State, tcp};
use crate::ipvs::farewell::Notice;
use crate::ipvs::outbox::Exit;
use crate::net::frame::Frame;
use crate::net::reset::{MAX_FRAME_LEN, Question, Reset, acknowledgment};
use crate::net::route::{Egress, NextHop};

/// Notices that are sent at a time: an I/O loop has frames for so many besides the packets that it forwards.
const AT_ONCE: usize = 256;

impl Datapath {
    /// Remembers what a reset would need, where there may be one.
    pub(super) fn note_acknowledged(
        &self,
        passage: &Passage<'_, '_>,
        connection: &Connection,
        way: Direction,
    ) {
        if may_be_reset(passage.burst.snapshot, connection)
            && let Some(number) = acknowledgment(passage.frame.bytes(), &passage.packet)
        {
            connection.note_acknowledged(way, number);
        }
    }

    /// Sends some of what the control side wants to be said.
    pub(super) fn say_farewells(&mut self) {
        let Datapath { tables, snapshot, outbox, .. } = self;
        if tables.farewells.is_empty() {
            return;
        }
        let snapshot = snapshot.load();
        for notice in std::iter::from_fn(|| tables.farewells.pop()).take(AT_ONCE) {
            match notice {
                Notice::Ask(connection) => ask(snapshot, outbox, &connection),
                Notice::Reset(connection) => reset(snapshot, outbox, &connection),
            }
        }
    }
}

/// Whether the numbers of the connection's ends may be needed.
#[inline]
pub(super) fn may_be_reset(snapshot: &Snapshot, connection: &Connection) -> bool {
    connection.server.is_draining()
        || snapshot.beyond.resets_on_expiry(connection.server.service())
        || (!snapshot.closed.is_empty() && snapshot.closed.contains(&connection.virtual_address().ip()))
}

/// Whether an end of the connection may still believe in it.
pub fn is_believed(connection: &Connection) -> bool {
    let State::Tcp(state) = connection.state() else { return false };
    matches!(state, tcp::State::Established | tcp::State::FinWait | tcp::State::CloseWait)
}

/// Resets both ends, as far as it is known what they await.
pub(super) fn reset(snapshot: &Snapshot, outbox: &mut Outbox, connection: &Connection) {
    let [to_client, to_server] = ends(connection);
    for End { source, destination, awaited, sent } in [to_client, to_server] {
        // A reset counts only with the very number that its receiver expects next (RFC 9293 section 3.10.7.4), so there is none
        // while that is not known.
        let Some(seq) = awaited else { continue };
        send(snapshot, outbox, connection, destination, |frame, egress| {
            Reset { source, destination, seq, ack: sent, tos: 0 }.write(frame, egress)
        });
    }
}

/// Asks those ends whose numbers are not known. A server that answers past us need not be asked: we would not hear it.
fn ask(snapshot: &Snapshot, outbox: &mut Outbox, connection: &Connection) {
    if connection.is_removed() || !is_believed(connection) {
        return;
    }
    let ends = ends(connection).into_iter().take(if connection.has_no_output() { 1 } else { 2 });
    for End { source, destination, sent, .. } in ends.filter(|end| end.awaited.is_none()) {
        send(snapshot, outbox, connection, destination, |frame, egress| {
            Question { source, destination, seq: 0, ack: sent.unwrap_or(0) }.write(frame, egress)
        });
    }
}

/// One end as the other one's packets reach it.
struct End {
    source: SocketAddr,
    destination: SocketAddr,
    /// The sequence number that it awaits.
    awaited: Option<u32>,
    /// The one that it sends next.
    sent: Option<u32>,
}

fn ends(connection: &Connection) -> [End; 2] {
    let (client, server) = (connection.acknowledged(Direction::In), connection.acknowledged(Direction::Out));
    let (source, destination) = (connection.virtual_address(), connection.client());
    let to_client = End { source, destination, awaited: client, sent: server };
    let (source, destination) = (connection.client(), connection.server_address());
    [to_client, End { source, destination, awaited: server, sent: client }]
}

fn send(
    snapshot: &Snapshot,
    outbox: &mut Outbox,
    connection: &Connection,
    destination: SocketAddr,
    write: impl FnOnce(&mut Frame<'_>, &Egress) -> bool,
) {
    let way = match snapshot.routes.next_hop(destination.ip()) {
        NextHop::Port(egress) => Some((Exit::Port(egress.port), egress)),
        NextHop::Kernel => Some((Exit::Kernel, Egress::NONE)),
        NextHop::Local => to_own_stack(snapshot, connection.client()),
        NextHop::Unreachable => None,
    };
    let Some((exit, egress)) = way else { return };
    let mut buffer = [0; MAX_FRAME_LEN];
    let mut frame = Frame::new(&mut buffer, 0, egress.port);
    if write(&mut frame, &egress) {
        outbox.send(exit, &[frame.bytes()]);
    }
}

/// For a server that is this machine itself: as if it came from where the client's packets come from.
fn to_own_stack(snapshot: &Snapshot, client: SocketAddr) -> Option<(Exit, Egress)> {
    let NextHop::Port(egress) = snapshot.routes.next_hop(client.ip()) else { return None };
    let reversed = Egress { source: egress.destination, destination: egress.source, ..egress };
    Some((Exit::Stack(egress.port), reversed))
}
