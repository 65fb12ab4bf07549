//! A packet of a known connection on its way out (ipvs.md sections 2.5 and 2.7).

use std::net::IpAddr;

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::outbox::Exit;
use crate::ipvs::protocol::Direction;
use crate::ipvs::table::Found;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::fragment::{self, Cut};
use crate::net::icmp::{self, IcmpError};
use crate::net::parse::{Packet, Transport};
use crate::net::reset::Reset;
use crate::net::rewrite::{self, End};
use crate::net::route::{Egress, NextHop};

pub(super) const ETHERNET_LEN: usize = 14;

impl Passage<'_, '_> {
    /// The way towards an address: a port, or (`None`) the kernel; `Err` where neither leads there.
    pub(super) fn way(&self, address: IpAddr) -> Result<Option<Egress>, NextHop> {
        match self.burst.snapshot.routes.next_hop(address) {
            NextHop::Port(egress) => Ok(Some(egress)),
            NextHop::Kernel => Ok(None),
            other => Err(other),
        }
    }

    /// Whether the packet is larger than the way out takes; the kernel judges by itself. An IPv6 datagram that came in
    /// fragments is as large as the largest of them (golden `ipv6-fragments-mtu`).
    pub(super) fn is_too_big(&self, egress: Option<Egress>) -> bool {
        egress.is_some_and(|egress| self.largest_len() > egress.mtu as usize)
    }

    /// Length that counts against an MTU.
    pub(super) fn largest_len(&self) -> usize {
        match &self.origin {
            Some(origin) if !self.packet.is_ipv4() => origin.largest,
            _ => self.packet.ip_len(),
        }
    }

    /// Whether the kernel refuses to forward it, whatever it is. It is no judge of what has been put together.
    pub(super) fn is_refused_to_pass(&self, egress: Option<Egress>) -> bool {
        let too_big = self.packet.dont_fragment && self.origin.is_none() && self.is_too_big(egress);
        self.packet.ttl <= 1 || too_big
    }

    /// Whether it ends within its transport header, so that there is nothing to translate.
    pub(super) fn is_torn(&self) -> bool {
        matches!(self.packet.transport, Transport::Torn { .. })
    }

    /// Whether it may not be fragmented. "Don't fragment" does not count in an IPv4 ICMP error, which nobody may be told of
    /// (golden `mtu-edges-icmp`).
    pub(super) fn must_stay_whole(&self) -> bool {
        let icmp = matches!(self.packet.transport, Transport::Icmp { .. });
        self.packet.dont_fragment && !(self.packet.is_ipv4() && icmp)
    }
}

impl Datapath {
    pub(super) fn forward_request(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: Found<'_>,
    ) -> Verdict {
        self.touch(passage, connection, Direction::In);
        connection.count_packet();
        let verdict = self.forward_one_packet(passage, connection);
        self.announce(passage, &connection);
        verdict
    }

    /// A client's packet to its server, without any trace in the connection's state.
    pub(super) fn forward_one_packet(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: Found<'_>,
    ) -> Verdict {
        self.count_in(&connection, &passage.packet);
        match connection.forward {
            Forward::Masquerade => self.translate(passage, connection),
            Forward::Local => Verdict::Pass,
            Forward::Route => self.route_directly(passage, &connection),
            Forward::Tunnel => self.send_through_tunnel(passage, &connection),
        }
    }

    fn translate(&mut self, passage: &mut Passage<'_, '_>, connection: Found<'_>) -> Verdict {
        let server = connection.server_address().ip();
        let egress = match passage.way(server) {
            Ok(_) if server.is_loopback() => return Verdict::Drop(DropReason::LoopbackServer),
            Ok(egress) => egress,
            Err(NextHop::Local) => return self.deliver(passage, connection),
            Err(_) => return self.answer(passage, IcmpError::HostUnreachable, DropReason::Unreachable),
        };
        if passage.packet.ttl <= 1 {
            return self.answer(passage, IcmpError::TimeExceeded, DropReason::TtlExceeded);
        }
        if let Some(egress) = egress.filter(|_| passage.must_stay_whole() && passage.is_too_big(egress)) {
            return self.too_big(passage, &egress);
        }
        if passage.is_torn() {
            return Verdict::Drop(DropReason::Truncated);
        }
        if let Err(reason) = self.help_request(passage, connection) {
            return Verdict::Drop(reason);
        }
        let frame = passage.frame.bytes_mut();
        rewrite::set_end(frame, &passage.packet, End::Destination, connection.server_address());
        self.shorten(passage, &connection, Direction::In, egress);
        self.send(passage, egress)
    }

    /// One hop further: TTL, Ethernet header, and out of the port or to the kernel; in fragments where the way out takes no
    /// more at once.
    pub(super) fn send(&mut self, passage: &mut Passage<'_, '_>, egress: Option<Egress>) -> Verdict {
        rewrite::decrement_ttl(passage.frame.bytes_mut(), &passage.packet);
        rewrite::set_ethernet(passage.frame, &passage.packet, &egress.unwrap_or(Egress::NONE));
        if let Some(verdict) = self.cut(passage, egress) {
            return verdict;
        }
        egress.map_or(Verdict::HandOver, |egress| Verdict::Transmit(egress.port))
    }

    /// Sends the packet that starts at `l3` in an Ethernet frame as fragments instead.
    pub(super) fn send_fragments(&mut self, frame: &[u8], l3: usize, cut: Cut<'_>, exit: Exit) -> Verdict {
        let id = self.fragment_ids.next();
        let (ethernet, packet) = frame.split_at(l3);
        let outbox = &mut self.outbox;
        if fragment::split(packet, cut, id, &mut |piece| outbox.send(exit, &[ethernet, piece])) {
            outbox.absorb(1);
            Verdict::Hold
        } else {
            Verdict::Drop(DropReason::TooBig)
        }
    }

    /// Larger than the way out, and may not be fragmented: told to the client.
    pub(super) fn too_big(&mut self, passage: &mut Passage<'_, '_>, egress: &Egress) -> Verdict {
        self.tell_mtu(passage, egress.mtu as usize)
    }

    /// Tells the client what would fit. The quoted packet has its TTL already decremented (golden `mtu-smaller`).
    pub(super) fn tell_mtu(&mut self, passage: &mut Passage<'_, '_>, mtu: usize) -> Verdict {
        rewrite::decrement_ttl(passage.frame.bytes_mut(), &passage.packet);
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.answer(passage, IcmpError::FragmentationNeeded(mtu), DropReason::TooBig)
    }

    /// An answer of the server. What the kernel must refuse (no route, TTL, size) it gets untouched: it refuses before
    /// IPVS would have seen the packet (golden `ttl-1`).
    pub(super) fn forward_reply(&mut self, passage: &mut Passage<'_, '_>, connection: Found<'_>) -> Verdict {
        let packet = passage.packet;
        let direct = connection.forward != Forward::Masquerade;
        if direct && passage.comes_from_own_ipv4() {
            return Verdict::Pass;
        }
        let Ok(egress) = passage.way(packet.destination) else { return Verdict::Pass };
        if let (Some(origin), Some(egress)) = (&passage.origin, egress)
            && packet.dont_fragment
            && origin.largest > egress.mtu as usize
        {
            return self.refuse_large_reply(passage, &egress);
        }
        if passage.is_refused_to_pass(egress) {
            return Verdict::Pass;
        }
        if direct {
            self.count_out(&connection, packet.ip_len());
            self.touch(passage, connection, Direction::Out);
            return self.send(passage, egress);
        }
        if passage.is_torn() {
            return Verdict::Drop(DropReason::Truncated);
        }
        if let Err(reason) = self.help_reply(passage, connection, egress) {
            return Verdict::Drop(reason);
        }
        self.touch(passage, connection, Direction::Out);
        self.send_reply(passage, &connection, egress)
    }

    /// A server's packet to its client, without any trace in the connection's state.
    pub(super) fn send_reply(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: &Connection,
        egress: Option<Egress>,
    ) -> Verdict {
        self.count_out(connection, passage.packet.ip_len());
        rewrite::set_end(
            passage.frame.bytes_mut(),
            &passage.packet,
            End::Source,
            connection.virtual_address(),
        );
        self.shorten(passage, connection, Direction::Out, egress);
        self.send(passage, egress)
    }

    /// An IPv6 datagram one of whose fragments is too large. The server hears it from the address it knows as its router's
    /// (golden `fragments-mtu-client`).
    fn refuse_large_reply(&mut self, passage: &mut Passage<'_, '_>, egress: &Egress) -> Verdict {
        let routes = &passage.burst.snapshot.routes;
        let own = routes.port_address(passage.frame.port(), passage.packet.source);
        let Some(own) = own else { return Verdict::Drop(DropReason::TooBig) };
        let mtu = u16::try_from(egress.mtu).unwrap_or(u16::MAX);
        self.answer_from(own, passage, IcmpError::FragmentationNeeded(mtu), DropReason::TooBig)
    }

    pub(super) fn count_in(&self, connection: &Connection, packet: &Packet) {
        let bytes = packet.ip_len();
        connection.server.count(self.worker, |cell| cell.add_in(bytes));
        if connection.server.is_available() {
            self.tables.total.cell(self.worker).add_in(bytes);
        }
    }

    pub(super) fn count_out(&self, connection: &Connection, bytes: usize) {
        connection.server.count(self.worker, |cell| cell.add_out(bytes));
        if connection.server.is_available() {
            self.tables.total.cell(self.worker).add_out(bytes);
        }
    }

    /// Replaces the packet by an ICMP error to its sender, from the address it was sent to; drops it for `reason` where no
    /// error may be sent.
    pub(super) fn answer(
        &mut self,
        passage: &mut Passage<'_, '_>,
        error: IcmpError,
        reason: DropReason,
    ) -> Verdict {
        self.answer_from(passage.packet.destination, passage, error, reason)
    }

    /// The same from another address of ours.
    pub(super) fn answer_from(
        &mut self,
        source: IpAddr,
        passage: &mut Passage<'_, '_>,
        error: IcmpError,
        reason: DropReason,
    ) -> Verdict {
        let packet = &passage.packet;
        if !icmp::may_answer(packet) {
            return Verdict::Drop(reason);
        }
        let Ok(egress) = passage.way(packet.source) else { return Verdict::Drop(reason) };
        if !self.icmp_limit.allow(passage.burst.now) {
            return Verdict::Drop(DropReason::IcmpLimit);
        }
        let id = self.take_id();
        if !icmp::make_error(passage.frame, packet, error, source, id, &egress.unwrap_or(Egress::NONE)) {
            return Verdict::Drop(DropReason::NoRoom);
        }
        self.count_answer(passage);
        egress.map_or(Verdict::HandOver, |egress| Verdict::Transmit(egress.port))
    }

    /// Replaces a TCP segment by a reset to its sender; drops it for `reason` where none may be sent. A reset is no longer
    /// than what it answers, so there is no limit to their number.
    pub(super) fn answer_by_reset(&mut self, passage: &mut Passage<'_, '_>, reason: DropReason) -> Verdict {
        let reset = Reset::answering(passage.frame.bytes(), &passage.packet);
        let Some(reset) = reset else { return Verdict::Drop(reason) };
        let Ok(egress) = passage.way(passage.packet.source) else { return Verdict::Drop(reason) };
        if !reset.write(passage.frame, &egress.unwrap_or(Egress::NONE)) {
            return Verdict::Drop(DropReason::NoRoom);
        }
        egress.map_or(Verdict::HandOver, |egress| Verdict::Transmit(egress.port))
    }

    /// An error of ours to the client of a connection without NAT passes for an answer of its server (golden `dr-ipv6`).
    fn count_answer(&mut self, passage: &Passage<'_, '_>) {
        let Some(flow) = passage.packet.flow() else { return };
        if let Some((connection, Direction::Out)) = self.find_key(passage.burst, &flow.reversed()) {
            self.count_out(&connection, passage.frame.len() - ETHERNET_LEN);
        }
    }

    pub(super) fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.next_id
    }
}
