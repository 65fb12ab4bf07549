//! What clients of the control socket ask.

use std::sync::Arc;

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
            Request::Diff => Reply::Differences(self.differences()),
            Request::GetTotals => Reply::Totals(self.totals()),
            Request::ListDaemons => Reply::Daemons(self.draft.sync.iter().cloned().collect()),
            Request::GetTimeouts => Reply::Timeouts(TimeoutView {
                tcp: self.draft.timeouts.tcp(State::Established),
                tcp_fin: self.draft.timeouts.tcp(State::FinWait),
                udp: self.draft.timeouts.udp(),
            }),
            Request::Drain { service, server, deadline } => self.drain(now, &service, server, deadline),
            Request::Status => Reply::Status(Box::new(self.status(now))),
            Request::ListSysctls => Reply::Text(self.all_sysctls()),
            Request::Sysctl { name, value } => self.sysctl(&name, value.as_deref()),
            Request::Reload => Reply::Failed("this daemon has no files to read again".into()),
            Request::Takeover | Request::Standby => {
                Reply::Failed("this daemon is not of a pair: it was started without lvs.cf".into())
            }
        }
    }

    fn edit_by_hand(&mut self, edit: &Edit) -> Reply {
        let cleared = self.cleared_by(std::slice::from_ref(edit));
        match self.edit(edit) {
            Ok(()) => {
                self.log(Level::Info, format!("ipvsadm: {edit}"));
                self.keep_neighbours_of(edit);
                self.remember(edit, &cleared);
                self.warn_of_daemon(edit);
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
                    self.remember(edit, &cleared);
                    self.warn_of_daemon(edit);
                }
                self.keep_neighbours();
                Reply::Done
            }
            Err(refusal) => Reply::RefusedOne(refusal),
        }
    }

    /// A server that enters by hand is resolved before its first packet comes.
    fn keep_neighbours_of(&mut self, edit: &Edit) {
        if let Edit::AddServer(_, server) = edit {
            let neighbour = self.draft.routes.neighbour(server.id.address);
            self.effects.extend(neighbour.map(|neighbour| Effect::Resolve(vec![neighbour])));
        }
    }

    pub(super) fn warn_of_daemon(&mut self, edit: &Edit) {
        if let Edit::StartDaemon(daemon) = edit {
            let text = format!(
                "the {} sync daemon is only noted: this version sends and receives no connections",
                daemon.role.name()
            );
            self.log(Level::Warn, text);
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
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: now.saturating_since(self.started).as_secs(),
            connections: self.tables.connections.len(),
            templates: self.tables.templates.len() as u64,
            conn_max: self.draft.beyond.switches.conn_max,
            evicted: self.tables.admission.counters.counts().evicted,
            checks: self.wanted.servers().map(|(service, server)| self.check(service, server)).collect(),
            ..Status::default()
        }
    }

    fn check(&self, service: &WantedService, server: &WantedServer) -> CheckStatus {
        let health = match self.health.get(&(service.spec.id, server.spec.id)) {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        };
        CheckStatus {
            virtual_server: server.check.virtual_server.clone(),
            server: server.check.server.clone(),
            endpoint: server.check.endpoint.to_string(),
            health: health.to_owned(),
        }
    }
}
