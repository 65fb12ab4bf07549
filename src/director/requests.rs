//! What clients of the control socket ask.

use std::sync::Arc;

use super::drain::{Order, Place};
use super::protocol::{CheckStatus, Reply, Request, Status};
use super::wanted::{WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::ipvs::beyond;
use crate::ipvs::edit::{Edit, Errno, ServiceId};
use crate::ipvs::protocol::tcp::State;
use crate::ipvs::sysctl::{self, SysctlError};
use crate::ipvs::view::{TableInfo, TimeoutView, TotalsView};
use crate::net::time::Instant;

/// What the title line of a listing says, as the kernel's default table has it. Ours has no such limit.
const CONN_TAB_SIZE: u32 = 4096;

const NOT_SUPPORTED: &str = "Operation not supported: xlvs balances TCP, UDP, SCTP and marks";

/// As sysctl(8) shows a setting.
fn shown(name: &str, value: &str) -> String {
    format!("net.ipv4.vs.{name} = {value}")
}

impl Director {
    pub(super) fn request(&mut self, now: Instant, request: Request) -> Reply {
        match request {
            Request::Edit(edit) => self.edit_by_hand(&edit),
            Request::ListServices => self.listing(self.services.views(&self.draft.services)),
            Request::ListService(id) => self.service(&id),
            Request::EditAll(edits) => self.edit_all_by_hand(&edits),
            Request::ListConnections { place } => {
                let (connections, next) = self.tables.connection_page(place, now);
                Reply::Connections { connections, next }
            }
            Request::Diff => Reply::Differences(self.all_differences(now)),
            Request::GetTotals => Reply::Totals(self.totals()),
            Request::ListDaemons => Reply::Daemons(self.draft.sync.iter().cloned().collect()),
            Request::GetTimeouts => Reply::Timeouts(TimeoutView {
                tcp: self.draft.timeouts.tcp(State::Established),
                tcp_fin: self.draft.timeouts.tcp(State::FinWait),
                udp: self.draft.timeouts.udp(),
            }),
            Request::Drain { service, server, deadline } => self.drain(now, (service, server), deadline),
            Request::DrainServer { server, service, deadline } => {
                self.drain_named(now, &server, service.as_ref(), deadline)
            }
            Request::UndoDrain { server, service } => self.undo_drains(&server, service.as_ref()),
            Request::ListDrains => Reply::Drains(self.drain_statuses(now)),
            Request::Confirm => self.confirm(now),
            Request::Abort => self.abort(now),
            Request::Status => Reply::Status(Box::new(self.status(now))),
            Request::ListSysctls => Reply::Text(self.all_sysctls()),
            Request::Sysctl { name, value } => self.sysctl(&name, value.as_deref()),
            Request::Override { server, virtual_server, to } => {
                self.override_servers(&server, virtual_server.as_deref(), to)
            }
            Request::Events { .. } => Reply::Failed("this daemon keeps no events".into()),
            Request::Reload => Reply::Failed("this daemon has no files to read again".into()),
            Request::Upgrade { .. } => {
                Reply::Failed("this daemon has no process that could be followed".into())
            }
            Request::Plan(_) | Request::Apply { .. } => Reply::Failed("this daemon reads no files".into()),
            Request::Takeover | Request::Standby => Reply::Failed("this director is not of a pair".into()),
        }
    }

    fn edit_by_hand(&mut self, edit: &Edit) -> Reply {
        let cleared = self.cleared_by(std::slice::from_ref(edit));
        let order = self.end_order(edit);
        let edited = self.edit(edit);
        if let Some((place, order)) = order.filter(|_| edited.is_err()) {
            self.drains.restore_order(place, order);
        }
        match edited {
            Ok(()) => {
                self.log(Level::Info, format!("ipvsadm: {edit}"));
                self.keep_neighbours_of(edit);
                self.remember(edit, &cleared);
                Reply::Done
            }
            Err(Errno::EOPNOTSUPP) => Reply::Failed(NOT_SUPPORTED.into()),
            Err(errno) => Reply::Refused(errno),
        }
    }

    fn edit_all_by_hand(&mut self, edits: &[Edit]) -> Reply {
        let cleared = self.cleared_by(edits);
        match self.edit_all(edits) {
            Ok(()) => {
                self.log(Level::Info, format!("ipvsadm: {} changes restored", edits.len()));
                for edit in edits {
                    self.end_order(edit);
                    self.remember(edit, &cleared);
                }
                self.keep_neighbours();
                Reply::Done
            }
            Err(refusal) => Reply::RefusedOne(refusal),
        }
    }

    /// A weight by hand ends the order to drain a server. Returns what there was.
    fn end_order(&mut self, edit: &Edit) -> Option<(Place, Order)> {
        let place = match edit {
            Edit::AddServer(id, spec) | Edit::EditServer(id, spec) if spec.weight != 0 => (*id, spec.id),
            _ => return None,
        };
        self.drains.forget_order(place).map(|order| (place, order))
    }

    /// A server that enters is resolved before its first packet comes.
    pub(super) fn keep_neighbours_of(&mut self, edit: &Edit) {
        if let Edit::AddServer(_, server) = edit {
            let neighbour = self.draft.routes.neighbour(server.id.address);
            self.effects.extend(neighbour.map(|neighbour| Effect::Resolve(vec![neighbour])));
        }
    }

    fn listing(&self, services: Vec<crate::ipvs::view::ServiceView>) -> Reply {
        Reply::Services { info: TableInfo { conn_tab_size: CONN_TAB_SIZE }, services }
    }

    fn service(&self, id: &ServiceId) -> Reply {
        match self.draft.services.get(id) {
            Some(service) => self.listing(vec![service.view()]),
            None => Reply::Refused(Errno::ESRCH),
        }
    }

    fn totals(&self) -> TotalsView {
        self.collect_shortcuts();
        let estimator = *self.tables.total.estimator();
        TotalsView {
            shown: estimator.stats(),
            rates: estimator.rates(),
            workers: self.tables.total.by_worker().collect(),
        }
    }

    fn sysctl(&mut self, name: &str, value: Option<&str>) -> Reply {
        if name.starts_with(beyond::PREFIX) {
            return self.switch(name, value);
        }
        let result = match value {
            Some(value) => self.set_sysctl(name, value),
            None => Ok(()),
        };
        match result.and_then(|()| self.draft.sysctls.get(name)) {
            Ok(value) => Reply::Text(shown(name, &value)),
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    fn switch(&mut self, name: &str, value: Option<&str>) -> Reply {
        let switches = &mut Arc::make_mut(&mut self.draft.beyond).switches;
        let result = value.map_or(Ok(()), |value| switches.set(name, value));
        self.settle_conn_max();
        match result.and_then(|()| self.draft.beyond.switches.get(name)) {
            Ok(value) => {
                self.publish();
                Reply::Text(format!("{name} = {value}"))
            }
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    fn set_sysctl(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        self.draft.sysctls.set(name, value)?;
        self.defend();
        self.publish();
        Ok(())
    }

    fn all_sysctls(&self) -> String {
        let names = sysctl::names().into_iter();
        let lines = names.filter_map(|name| Some(shown(name, &self.draft.sysctls.get(name).ok()?)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// All but the packet counters and the ports, which the I/O side knows.
    fn status(&self, now: Instant) -> Status {
        self.collect_shortcuts();
        let source = self.source(now);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: now.saturating_since(self.started).as_secs(),
            upgraded: self.upgraded.map(|upgraded| now.saturating_since(upgraded).as_secs()),
            connections: self.tables.connections.len(),
            templates: self.tables.templates.len() as u64,
            conn_max: self.draft.beyond.switches.conn_max,
            evicted: self.tables.admission.counters.counts().evicted,
            sync: self.tables.sync.counts(),
            checks: self.wanted.servers().map(|(service, server)| self.check(service, server)).collect(),
            virtuals: self.standings(),
            drains: self.drain_statuses(now),
            trial: source.as_ref().and_then(|(_, left)| *left),
            source: source.map(|(name, _)| name),
            ..Status::default()
        }
    }

    fn check(&self, service: &WantedService, server: &WantedServer) -> CheckStatus {
        let seat = self.members.get(&(service.spec.id, server.spec.id));
        CheckStatus {
            virtual_server: service.name.clone(),
            server: server.name.clone(),
            endpoint: server.check.endpoint.to_string(),
            health: seat.map(|seat| seat.member.health()).unwrap_or_default().word().to_owned(),
        }
    }
}
