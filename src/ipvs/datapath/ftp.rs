//! FTP: data connections expected by what control connections say, whose payload and numbers follow what is rewritten.

use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use sdd::Shared;

use super::{Burst, Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::helper::control::{Announcement, FtpControl};
use crate::ipvs::protocol::{Direction, State, tcp};
use crate::ipvs::table::{Found, HashedKey};
use crate::ipvs::verdict::DropReason;
use crate::net::addr::{Family, Protocol};
use crate::net::flow::FlowKey;
use crate::net::rewrite;
use crate::net::route::Egress;
use crate::net::segment;

/// Whether a new connection is one whose payload is read.
pub(super) fn reads(burst: &Burst<'_>, connection: &Connection) -> bool {
    connection.protocol == Protocol::TCP
        && connection.forward == Forward::Masquerade
        && burst.snapshot.ftp_ports.contains(connection.virtual_address().port())
}

fn control(connection: &Connection) -> Option<MutexGuard<'_, FtpControl>> {
    connection.ftp().map(|control| control.lock().unwrap_or_else(PoisonError::into_inner))
}

fn is_established(connection: &Connection) -> bool {
    connection.state() == State::Tcp(tcp::State::Established)
}

impl Passage<'_, '_> {
    fn require_checksum(&self) -> Result<(), DropReason> {
        let right = rewrite::transport_checksum_ok(self.frame.bytes(), &self.packet);
        if right { Ok(()) } else { Err(DropReason::BadTcpChecksum) }
    }
}

impl Datapath {
    /// A client's segment: it may say where its sender listens, and it acknowledges what its sender has seen.
    pub(super) fn help_request(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: Found<'_>,
    ) -> Result<(), DropReason> {
        let Some(mut control) = control(&connection) else { return Ok(()) };
        passage.require_checksum()?;
        let packet = passage.packet;
        let bytes = passage.frame.bytes_mut();
        let family = Family::from(packet.source);
        let payload = &bytes[segment::payload(bytes, &packet)];
        let before = self.remembered(&control);
        let client = is_established(&connection).then(|| control.read_client(payload, family)).flatten();
        let changed = before.is_some_and(|before| before != *control);
        if segment::map_acknowledgements(bytes, &packet, |number| control.unshift(number)) {
            rewrite::compute_checksum(bytes, &packet);
        }
        drop(control);
        if changed {
            self.tables.connections.note(&connection);
        }
        if let Some(client) = client {
            if !self.has_room(passage.burst) {
                return Err(DropReason::TableFull);
            }
            self.expect_from_server(passage.burst, connection, client);
        }
        Ok(())
    }

    /// A server's segment: it may say where its sender listens, which the client is to hear of as of the virtual address.
    pub(super) fn help_reply(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: Found<'_>,
        egress: Option<Egress>,
    ) -> Result<(), DropReason> {
        let Some(mut control) = control(&connection) else { return Ok(()) };
        passage.require_checksum()?;
        let bytes = passage.frame.bytes();
        let sequence = segment::sequence(bytes, &passage.packet);
        let payload = &bytes[segment::payload(bytes, &passage.packet)];
        if !payload.is_empty() && control.holds_back(sequence) {
            return Err(DropReason::OutOfOrder);
        }
        let before = self.remembered(&control);
        if is_established(&connection) {
            let (server, own) = (connection.server_address().ip(), connection.virtual_address().ip());
            if let Some(announcement) = control.read_server(sequence, payload, server, own) {
                if !self.has_room(passage.burst) {
                    return Err(DropReason::TableFull);
                }
                if let Some(data) = self.expect_from_client(passage.burst, connection, &announcement) {
                    control.replace(&announcement, data.virtual_address());
                }
            }
        }
        if before.is_some_and(|before| before != *control) {
            self.tables.connections.note(&connection);
        }
        let shifted = control.shift(sequence);
        match control.rewrite(sequence, payload) {
            Some(rewritten) => {
                let limit = egress.map_or(usize::MAX >> 1, |egress| egress.mtu as usize);
                segment::set_payload(passage.frame, &mut passage.packet, &rewritten, limit);
            }
            None if shifted == sequence => return Ok(()),
            None => {}
        }
        let bytes = passage.frame.bytes_mut();
        segment::set_sequence(bytes, &passage.packet, shifted);
        rewrite::compute_checksum(bytes, &passage.packet);
        Ok(())
    }

    /// What is known now, where somebody is to be told if that changes.
    fn remembered(&self, control: &FtpControl) -> Option<FtpControl> {
        self.tables.replication.is_watched().then(|| control.clone())
    }

    /// Active mode: the server will call `client` from the port below its own, and is to be seen at the port below the virtual
    /// one (golden `ftp-other-port`).
    fn expect_from_server(&mut self, burst: &Burst<'_>, parent: Found<'_>, client: SocketAddr) {
        let below = |place: SocketAddr| SocketAddr::new(place.ip(), place.port().wrapping_sub(1));
        let flow = FlowKey::new(Protocol::TCP, client, below(parent.virtual_address()));
        match self.find_key(burst, &flow) {
            Some((present, Direction::In)) => self.listen(burst, present),
            _ => {
                let Some(parent) = parent.share() else { return };
                let data = Connection::data(&flow, below(parent.server_address()), &parent, false);
                self.add_data(burst, data);
            }
        }
    }

    /// Passive mode: the client will call the virtual address at the port that the server named, from a port not known yet.
    fn expect_from_client<'b>(
        &mut self,
        burst: &Burst<'b>,
        parent: Found<'b>,
        announcement: &Announcement,
    ) -> Option<Found<'b>> {
        let place = announcement.place;
        let client = SocketAddr::new(parent.client().ip(), 0);
        let answer = FlowKey::new(Protocol::TCP, place, client);
        if let Some((present, Direction::Out)) = self.find_key(burst, &answer) {
            self.listen(burst, present);
            return Some(present);
        }
        let virtual_place = SocketAddr::new(parent.virtual_address().ip(), place.port());
        let flow = FlowKey::new(Protocol::TCP, client, virtual_place);
        let parent = parent.share()?;
        Some(self.add_data(burst, Connection::data(&flow, place, &parent, true)))
    }

    fn add_data<'b>(&mut self, burst: &Burst<'b>, data: Connection) -> Found<'b> {
        let data = Shared::new(data);
        self.tables.connections.insert(&data);
        let data = Found::of(&data, burst.guard);
        self.listen(burst, data);
        data
    }

    fn listen(&mut self, burst: &Burst<'_>, data: Found<'_>) {
        data.listen();
        let timeout = burst.snapshot.timeouts.tcp(tcp::State::Listen);
        data.set_timeout(timeout);
        data.life.set_deadline(burst.now + Duration::from_secs(u64::from(timeout)));
        self.file(data);
    }

    /// The expected data connection of a client's packet, whose port is not known yet.
    pub(super) fn find_awaiting<'b>(
        &mut self,
        burst: &Burst<'b>,
        flow: &HashedKey,
    ) -> Option<(Found<'b>, Direction)> {
        loop {
            let connection = self.tables.connections.find_awaiting(flow, burst.guard)?;
            if self.is_alive(burst, &connection) {
                return Some((connection, Direction::In));
            }
        }
    }

    /// The connection of a client's packet, once its port is known: one that awaited it makes room for one that has it.
    pub(super) fn settle<'b>(
        &mut self,
        burst: &Burst<'b>,
        flow: &HashedKey,
        connection: Found<'b>,
    ) -> Found<'b> {
        if !connection.awaits_port() {
            return connection;
        }
        let settled = Shared::new(connection.with_client_port(flow.source_port()));
        if !self.tables.connections.remove(&connection) {
            settled.unbind();
            return self.find(burst, flow).map_or(connection, |(present, _)| present);
        }
        settled.life.set_deadline(connection.life.deadline());
        self.tables.connections.insert(&settled);
        Found::of(&settled, burst.guard)
    }
}
