//! The end of a connection whose time is up. Where asked, both ends of an established TCP connection are told, so that
//! neither goes on believing in it.

use super::farewell::reset;
use super::{Connection, Outbox, Snapshot, State, Tables, tcp};
use crate::ipvs::timer::Fate;
use crate::net::time::Instant;

/// Ends it, or prolongs it while it has children.
pub(super) fn expire(
    tables: &Tables,
    snapshot: &Snapshot,
    outbox: &mut Outbox,
    connection: &Connection,
    now: Instant,
) -> Fate {
    tables.connections.refresh(connection);
    if !connection.life.is_over(now) || connection.prolong(now) {
        return Fate::Again;
    }
    let established = connection.state() == State::Tcp(tcp::State::Established);
    if tables.admission.are_templates_crowded() && tables.drop_half_open(connection) {
        return Fate::Gone;
    }
    let ended = tables.connections.remove(connection);
    if ended && established && snapshot.beyond.resets_on_expiry(connection.server.service()) {
        reset(snapshot, outbox, connection);
    }
    Fate::Gone
}
