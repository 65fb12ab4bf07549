//! Direct routing: the packet goes to the server as it is, by the server's hardware address alone (ipvs.md section 2.5 but for
//! the rewriting; golden `dr-tcp`).

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::icmp::IcmpError;
use crate::net::route::NextHop;

impl Datapath {
    /// A client's packet to a server that has the virtual address itself. A server that is this machine gets the packet as it
    /// came (golden `dr-local`).
    pub(super) fn route_directly(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: &Connection,
    ) -> Verdict {
        let server = connection.server_address().ip();
        let egress = match passage.way(server) {
            _ if server.is_loopback() => return Verdict::Pass,
            Ok(Some(egress)) => egress,
            Ok(None) => return Verdict::Drop(DropReason::Unresolved),
            Err(NextHop::Local) => return Verdict::Pass,
            Err(_) => return self.answer(passage, IcmpError::HostUnreachable, DropReason::Unreachable),
        };
        if passage.packet.ttl <= 1 {
            return self.answer(passage, IcmpError::TimeExceeded, DropReason::TtlExceeded);
        }
        if passage.must_stay_whole() && passage.is_too_big(Some(egress)) {
            return self.too_big(passage, &egress);
        }
        self.send(passage, Some(egress))
    }
}

impl Passage<'_, '_> {
    /// Whether the kernel refuses an answer that comes by here although it need not: IPv4 packets that come from one of this
    /// machine's addresses. Others are forwarded (goldens `dr-server-packets`, `ipv6-direct-replies`).
    pub(super) fn comes_from_own_ipv4(&self) -> bool {
        let source = self.packet.source;
        source.is_ipv4() && self.burst.snapshot.routes.is_local(source)
    }
}
