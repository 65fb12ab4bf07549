//! Servers that speak first: with a persistence engine a server's UDP packet to a client that it has no connection with makes
//! one, as if the client had asked (ipvs.md section 4.5; golden `sip-server-first`).

use std::sync::Arc;

use sdd::Shared;

use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::scheduler::Arrival;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::VirtualService;
use crate::ipvs::table::Found;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;

impl Datapath {
    /// Forwards such a packet; `None` if it is none.
    pub(super) fn originate(&mut self, passage: &mut Passage<'_, '_>, flow: &FlowKey) -> Option<Verdict> {
        if flow.protocol != Protocol::UDP {
            return None;
        }
        let (service, server) = passage.burst.snapshot.services.speaking_server(flow.source())?;
        let egress = passage.way(flow.destination).ok().filter(|_| passage.packet.ttl > 1)?;
        if !service.spec.one_packet && !self.has_room(passage.burst) {
            return Some(Verdict::Drop(DropReason::TableFull));
        }
        let connection = self.connection_from(passage, flow, service, server)?;
        if service.spec.one_packet {
            let verdict = self.send_reply(passage, &connection, egress);
            if let Some(template) = &connection.template {
                template.assure();
            }
            connection.unbind();
            Some(verdict)
        } else {
            self.tables.connections.insert(&connection);
            Some(self.forward_reply(passage, Found::of(&connection, passage.burst.guard)))
        }
    }

    /// The connection that a request of the client would have made, had it been scheduled to this server; the same goes for
    /// the template of a persistent service.
    fn connection_from(
        &mut self,
        passage: &Passage<'_, '_>,
        flow: &FlowKey,
        service: &VirtualService,
        server: &Arc<RealServer>,
    ) -> Option<Shared<Connection>> {
        let request = FlowKey::new(flow.protocol, flow.destination(), service.address()?);
        let template = match &service.spec.persistence {
            Some(persistence) => {
                let key = passage.template_key(service, persistence, &request)?;
                let arrival = Arrival::new(passage.burst, service, &request, request.destination);
                Some(self.template(service, key, Some(server), &arrival)?)
            }
            None => None,
        };
        let connection = Connection::new(&request, Arc::clone(server), flow.source(), template);
        Some(self.connect(passage.burst, service, connection))
    }
}
