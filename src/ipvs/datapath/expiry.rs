//! The end of a connection whose time is up. Where asked, both ends of an established TCP connection are told, so that
//! neither goes on believing in it.

use super::farewell::reset;
use super::{Announcer, Connection, Occasion, Outbox, State, tcp};
use crate::ipvs::timer::Fate;

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
    if let Some(end) = tables.replication.postponed(connection.told(), connection.timeout(), now) {
        connection.life.set_deadline(end);
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
        reset(snapshot, outbox, connection);
    }
    Fate::Gone
}
