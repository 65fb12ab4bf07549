//! Servers that are being drained: no new connections, also not by templates, and at a deadline none at all.

use std::sync::Arc;
use std::time::Duration;

use super::protocol::Reply;
use super::{Director, Level};
use crate::ipvs::edit::{Edit, ServerId, ServerSpec, ServiceId};
use crate::ipvs::server::RealServer;
use crate::net::time::Instant;

/// A drained server whose connections have a deadline.
#[derive(Debug)]
pub(super) struct Draining {
    server: Arc<RealServer>,
    end: Instant,
}

impl Director {
    pub(super) fn drain(
        &mut self,
        now: Instant,
        service: &ServiceId,
        server: ServerId,
        deadline: Option<u32>,
    ) -> Reply {
        let Some(found) = self.draft.services.get(service) else {
            return Reply::Failed(format!("there is no service {service}"));
        };
        let Some(server) = found.server(server).cloned() else {
            return Reply::Failed(format!("{service} has no server {server}"));
        };
        let spec = ServerSpec { weight: 0, ..server.spec() };
        let edit = Edit::EditServer(*service, spec);
        if let Err(errno) = self.edit(&edit) {
            return Reply::Refused(errno);
        }
        self.remember(&edit, &[]);
        self.begin_drain(now, &server, deadline);
        Reply::Text(format!(
            "draining {} of {service}: {} connections{}",
            server.id(),
            server.total(),
            deadline.map_or(String::new(), |seconds| format!(", which end after {seconds} s"))
        ))
    }

    fn begin_drain(&mut self, now: Instant, server: &Arc<RealServer>, deadline: Option<u32>) {
        server.drain();
        self.tables.templates.end_of(server);
        self.draining.retain(|known| !Arc::ptr_eq(&known.server, server));
        self.draining.extend(deadline.map(|seconds| Draining {
            server: Arc::clone(server),
            end: now + Duration::from_secs(u64::from(seconds)),
        }));
        self.log(Level::Info, format!("draining {} of {}", server.id(), server.service()));
    }

    /// Begins with every server that has got weight 0, if asked to.
    pub(super) fn drain_quiesced(&mut self, now: Instant) {
        let switches = self.draft.beyond.switches;
        if !switches.drain_quiesced {
            return;
        }
        let servers = self.draft.services.iter().flat_map(|service| &service.servers);
        let quiesced = servers.filter(|server| server.weight() == 0 && !server.is_draining());
        let quiesced: Vec<_> = quiesced.cloned().collect();
        let deadline = (switches.drain_deadline != 0).then_some(switches.drain_deadline);
        quiesced.iter().for_each(|server| self.begin_drain(now, server, deadline));
    }

    pub(super) fn next_drain_end(&self) -> Option<Instant> {
        self.draining.iter().map(|draining| draining.end).min()
    }

    /// Ends what the drained servers still have when their time is up. One that has got a weight again is spared.
    pub(super) fn end_drains(&mut self, now: Instant) {
        self.draining.retain(|draining| draining.server.is_draining());
        let due: Vec<_> = self.draining.extract_if(.., |draining| draining.end <= now).collect();
        for Draining { server, .. } in due {
            let mut ending = Vec::new();
            self.tables.connections.for_each(|connection| {
                if Arc::ptr_eq(&connection.server, &server) {
                    ending.extend(connection.share());
                }
            });
            for connection in &ending {
                self.tables.connections.remove(connection);
            }
            self.tables.templates.end_of(&server);
            let text = format!(
                "drained {} of {}: {} connections ended",
                server.id(),
                server.service(),
                ending.len()
            );
            self.log(Level::Info, text);
        }
    }
}
