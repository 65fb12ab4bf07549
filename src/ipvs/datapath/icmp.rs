//! ICMP errors about balanced flows, from either side (ipvs.md section 2.6). State and timer stay as they are.

use super::transmit::{send, way};
use super::{Burst, Datapath};
use crate::ipvs::connection::Connection;
use crate::ipvs::protocol::Direction;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::frame::Frame;
use crate::net::parse::{Packet, Quote, parse_quote};
use crate::net::rewrite::{self, End};

impl Datapath {
    /// The quoted packet travelled the other way than the error: reversed, its flow is one that the table knows.
    pub(super) fn icmp_error(
        &mut self,
        burst: &Burst<'_>,
        frame: &mut Frame<'_>,
        packet: &Packet,
    ) -> Verdict {
        let Some(quote) = parse_quote(frame.bytes(), packet) else { return Verdict::Pass };
        let Some((connection, way)) = self.find(burst, &quote.flow.reversed()) else { return Verdict::Pass };
        if !rewrite::icmp_checksum_ok(frame.bytes(), packet) {
            return Verdict::Drop(DropReason::BadIcmpChecksum);
        }
        match way {
            Direction::In => self.carry_error_to_server(burst, frame, packet, &quote, &connection),
            Direction::Out => self.carry_error_to_client(burst, frame, packet, &quote, &connection),
        }
    }

    fn carry_error_to_server(
        &mut self,
        burst: &Burst<'_>,
        frame: &mut Frame<'_>,
        packet: &Packet,
        quote: &Quote,
        connection: &Connection,
    ) -> Verdict {
        self.count_in(connection, packet);
        let Ok(egress) = way(burst, connection.server_address.ip()) else {
            return Verdict::Drop(DropReason::Unreachable);
        };
        if packet.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExceeded);
        }
        let bytes = frame.bytes_mut();
        rewrite::set_icmp_end(bytes, packet, quote, End::Destination, connection.server_address);
        send(frame, packet, egress)
    }

    fn carry_error_to_client(
        &mut self,
        burst: &Burst<'_>,
        frame: &mut Frame<'_>,
        packet: &Packet,
        quote: &Quote,
        connection: &Connection,
    ) -> Verdict {
        let Ok(egress) = way(burst, packet.destination) else { return Verdict::Pass };
        if packet.ttl <= 1 {
            return Verdict::Pass;
        }
        self.count_out(connection, packet);
        let bytes = frame.bytes_mut();
        rewrite::set_icmp_end(bytes, packet, quote, End::Source, connection.virtual_address);
        send(frame, packet, egress)
    }
}
