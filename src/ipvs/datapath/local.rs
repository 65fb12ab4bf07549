//! Real servers that are this machine itself: requests are delivered to its stack, and what it sends is looked at before
//! it leaves (ipvs.md section 2.5, step 3, and the LOCAL_OUT hooks of section 2.1).

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::protocol::{Direction, ipsec};
use crate::ipvs::table::Found;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::icmp::is_flow_error;
use crate::net::parse::{Quote, parse_quote};
use crate::net::rewrite::{self, End};

impl Passage<'_, '_> {
    /// An ICMP error about what this machine sent as a server.
    pub(super) fn deliver_error(&mut self, quote: &Quote, connection: &Connection) -> Verdict {
        let server = connection.server_address();
        if server.ip().is_loopback() {
            return Verdict::Drop(DropReason::LoopbackServer);
        }
        rewrite::set_icmp_end(self.frame.bytes_mut(), &self.packet, quote, End::Destination, server);
        Verdict::Pass
    }
}

impl Datapath {
    /// A request for this machine itself. It is at its destination: no hop is counted, and no MTU is in the way (golden
    /// `local-server`). A loopback address is no way out of this machine, so a client elsewhere cannot be served by it.
    pub(super) fn deliver(&mut self, passage: &mut Passage<'_, '_>, connection: Found<'_>) -> Verdict {
        let server = connection.server_address();
        if server.ip().is_loopback() {
            return Verdict::Drop(DropReason::LoopbackServer);
        }
        if passage.is_torn() {
            return Verdict::Drop(DropReason::Truncated);
        }
        if let Err(reason) = self.help_request(passage, connection) {
            return Verdict::Drop(reason);
        }
        rewrite::set_end(passage.frame.bytes_mut(), &passage.packet, End::Destination, server);
        Verdict::Pass
    }

    /// What this machine sends. It has its route already, and goes that way whether it is translated or not.
    pub(super) fn outgoing_packet(&mut self, passage: &mut Passage<'_, '_>) -> Verdict {
        let packet = passage.packet;
        let Some(flow) = ipsec::flow_of(&packet) else { return self.outgoing_error(passage) };
        if let Some((connection, Direction::Out)) = self.find_key(passage.burst, &flow) {
            if let Err(reason) = self.help_reply(passage, connection, None) {
                return Verdict::Drop(reason);
            }
            let packet = passage.packet;
            self.count_out(&connection, packet.ip_len());
            self.touch(passage, connection, Direction::Out);
            if connection.forward == Forward::Masquerade {
                let virtual_address = connection.virtual_address();
                rewrite::set_end(passage.frame.bytes_mut(), &packet, End::Source, virtual_address);
            }
        }
        Verdict::Pass
    }

    /// This machine's complaint about a client's packet, as about one to a port where nobody listens.
    fn outgoing_error(&mut self, passage: &mut Passage<'_, '_>) -> Verdict {
        let packet = passage.packet;
        let quote = is_flow_error(&packet).then(|| parse_quote(passage.frame.bytes(), &packet));
        let Some(quote) = quote.flatten() else { return Verdict::Pass };
        let known = self.find_key(passage.burst, &ipsec::quoted_flow(&quote).reversed());
        if let Some((connection, Direction::Out)) = known {
            self.count_out(&connection, packet.ip_len());
            if connection.forward == Forward::Masquerade {
                let virtual_address = connection.virtual_address();
                rewrite::set_icmp_end(
                    passage.frame.bytes_mut(),
                    &packet,
                    &quote,
                    End::Source,
                    virtual_address,
                );
            }
        }
        Verdict::Pass
    }
}
