//! ICMP errors about balanced flows, from either side (ipvs.md section 2.6). State and timer stay as they are.

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::protocol::{Direction, ipsec};
use crate::ipvs::table::Found;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::parse::{Quote, parse_quote};
use crate::net::rewrite::{self, End};
use crate::net::route::NextHop;

impl Datapath {
    /// The quoted packet travelled the other way than the error: reversed, its flow is one that the table knows.
    pub(super) fn icmp_error(&mut self, passage: &mut Passage<'_, '_>) -> Verdict {
        let bytes = passage.frame.bytes();
        let Some(quote) = parse_quote(bytes, &passage.packet) else {
            return self.tunnel_error(passage).unwrap_or(Verdict::Pass);
        };
        match self.find_key(passage.burst, &ipsec::quoted_flow(&quote).reversed()) {
            Some((connection, direction)) => self.forward_error(passage, &quote, connection, direction),
            None => match self.tunnel_error(passage) {
                Some(verdict) => verdict,
                None if quote.has_ports && passage.burst.snapshot.sysctls.schedule_icmp != 0 => {
                    self.open_for_error(passage, &quote)
                }
                None => Verdict::Pass,
            },
        }
    }

    /// The checksum counts only now: an error that is not worth it may have made a connection all the same (golden
    /// `schedule-icmp-bad`). It does not where a server's error needs no translation (golden `icmp-direct-servers`).
    pub(super) fn forward_error(
        &mut self,
        passage: &mut Passage<'_, '_>,
        quote: &Quote,
        connection: Found<'_>,
        direction: Direction,
    ) -> Verdict {
        let untouched = direction == Direction::Out && connection.forward != Forward::Masquerade;
        if !untouched && !rewrite::icmp_checksum_ok(passage.frame.bytes(), &passage.packet) {
            return Verdict::Drop(DropReason::BadIcmpChecksum);
        }
        match direction {
            Direction::In => self.forward_error_in(passage, quote, connection),
            Direction::Out => self.forward_error_out(passage, quote, &connection),
        }
    }

    /// From the client's side to the server.
    fn forward_error_in(
        &mut self,
        passage: &mut Passage<'_, '_>,
        quote: &Quote,
        connection: Found<'_>,
    ) -> Verdict {
        if connection.forward != Forward::Masquerade {
            return self.forward_one_packet(passage, connection);
        }
        let server = connection.server_address();
        self.count_in(&connection, &passage.packet);
        let egress = match passage.way(server.ip()) {
            Ok(egress) => egress,
            Err(NextHop::Local) => return passage.deliver_error(quote, &connection),
            Err(_) => return Verdict::Drop(DropReason::Unreachable),
        };
        if passage.packet.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExceeded);
        }
        rewrite::set_icmp_end(passage.frame.bytes_mut(), &passage.packet, quote, End::Destination, server);
        self.send(passage, egress)
    }

    /// From the server's side to the client, or to this machine itself, which has no use for it: there it only counts (golden
    /// `icmp-to-own-address`).
    fn forward_error_out(
        &mut self,
        passage: &mut Passage<'_, '_>,
        quote: &Quote,
        connection: &Connection,
    ) -> Verdict {
        let packet = passage.packet;
        let egress = match passage.way(packet.destination) {
            Ok(egress) => egress,
            Err(NextHop::Local) => {
                self.count_out(connection, packet.ip_len());
                return Verdict::Pass;
            }
            Err(_) => return Verdict::Pass,
        };
        if passage.is_refused_to_pass(egress) {
            return Verdict::Pass;
        }
        self.count_out(connection, packet.ip_len());
        if connection.forward != Forward::Masquerade {
            return Verdict::Pass;
        }
        let virtual_address = connection.virtual_address();
        rewrite::set_icmp_end(passage.frame.bytes_mut(), &packet, quote, End::Source, virtual_address);
        self.send(passage, egress)
    }
}
