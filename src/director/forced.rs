//! `xlvs server down|up|auto`: an operator decides about a server in place of its checks.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::event::Happened;
use super::member::{Input, Override, Place, State};
use super::members::MemberId;
use super::protocol::Reply;
use super::wanted::{Wanted, WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::ipvs::edit::{ServerId, ServiceId};

/// An override as it is kept over restarts of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRecord {
    /// The virtual server's name in `lvs.cf`.
    pub virtual_server: String,
    /// What it is in the table.
    pub service: ServiceId,
    /// Its server.
    pub server: ServerId,
    /// What the operator decided; never [`Override::Auto`].
    pub to: Override,
}

impl OverrideRecord {
    /// Whether it is about a server: the virtual server may have got another name, or another mark, address or port, meanwhile.
    pub fn is_of(&self, service: &WantedService, server: &WantedServer) -> bool {
        self.server == server.spec.id
            && (self.service == service.spec.id || self.virtual_server == service.name)
    }
}

impl Director {
    pub(super) fn override_servers(&mut self, name: &str, of: Option<&str>, to: Override) -> Reply {
        let known = self.wanted.servers().filter(|(service, _)| of.is_none_or(|of| of == service.name));
        let chosen: Vec<_> = known.filter(|(_, server)| is_named(server, name)).collect();
        if chosen.is_empty() {
            let forgotten = if to == Override::Auto { self.forget_absent(name, of) } else { None };
            return forgotten.unwrap_or_else(|| Reply::Failed(self.no_such_server(name, of)));
        }
        let record = |(service, server): &(&WantedService, &WantedServer)| OverrideRecord {
            virtual_server: service.name.clone(),
            service: service.spec.id,
            server: server.spec.id,
            to,
        };
        let records: Vec<OverrideRecord> = chosen.iter().map(record).collect();
        let ids: Vec<MemberId> = records.iter().map(|record| (record.service, record.server)).collect();
        self.overrides.retain(|known| !ids.contains(&(known.service, known.server)));
        self.overrides.extend(records.into_iter().filter(|record| record.to != Override::Auto));
        self.effects.push(Effect::KeepOverrides(self.overrides.clone()));
        let lines: Vec<String> = ids.into_iter().filter_map(|id| self.force(id, to)).collect();
        Reply::Text(lines.join("\n"))
    }

    /// Returns what has become of the server.
    fn force(&mut self, id: MemberId, to: Override) -> Option<String> {
        let seat = self.members.get(&id)?;
        if seat.member.forced() != to {
            let event = seat.event(Happened::forced(to));
            self.effects.push(Effect::Event(event));
        }
        if to == Override::Up {
            // The last word of a hand counts.
            self.undo_order(id);
        }
        self.tell_member(id, Input::Override(to));
        let seat = self.members.get(&id)?;
        let member = &seat.member;
        let decides = match to {
            Override::Auto if member.health() == State::Unknown => {
                "its check decides, and has not ended yet".into()
            }
            Override::Auto => format!("its check decides, and says {}", member.health().word()),
            _ => format!("{} by hand", member.state().word()),
        };
        let place = match member.place() {
            Place::Present(_) if self.drains.is_ordered(id) => {
                "in the table with weight 0, since it is drained by order".into()
            }
            Place::Present(spec) => format!("in the table with weight {}", spec.weight),
            Place::Absent if member.is_deleted() => {
                "not in the table: it was deleted by hand, a reload restores it".into()
            }
            Place::Absent => "not in the table".into(),
        };
        Some(format!(
            "server {} {} of {}: {decides}; {place}",
            seat.server, seat.endpoint, seat.virtual_server
        ))
    }

    fn no_such_server(&self, name: &str, of: Option<&str>) -> String {
        const SHOWN: usize = 10;
        let among = |(service, server): (&WantedService, &WantedServer)| {
            format!("{} {} of {}", server.name, server.endpoint, service.name)
        };
        let all: Vec<String> = self.wanted.servers().map(among).collect();
        let of = of.map(|of| format!(" of a virtual server {of}")).unwrap_or_default();
        let known = match all.len() {
            0 => "it has none that is active".to_owned(),
            count => {
                let more = if count > SHOWN { format!(" and {} more", count - SHOWN) } else { String::new() };
                format!("it has {}{more}", all[..count.min(SHOWN)].join(", "))
            }
        };
        format!("lvs.cf has no active server {name}{of}; {known}")
    }

    /// What was kept from before: it counts from the first configuration on.
    pub(super) fn take_overrides(&mut self, records: Vec<OverrideRecord>) {
        self.overrides = records;
    }

    /// Overrides of servers that are not in `lvs.cf` any more wait for them to come back: whoever takes a server out of the file
    /// and puts it in again has not said that it is well. The others are noted as they are called now.
    pub(super) fn note_overrides(&mut self, former: &Wanted) {
        let mut noted = self.overrides.clone();
        for record in &mut noted {
            let is_its = |wanted: &(&WantedService, &WantedServer)| record.is_of(wanted.0, wanted.1);
            if let Some((service, _)) = self.wanted.servers().find(is_its) {
                (record.service, record.virtual_server) = (service.spec.id, service.name.clone());
            } else if former.servers().any(|wanted| is_its(&wanted)) {
                let text = format!(
                    "server {} of {} is not active in lvs.cf any more; if it comes back, it is {} by hand still",
                    record.server,
                    record.virtual_server,
                    record.to.word()
                );
                self.effects.push(Effect::Log(Level::Warn, text));
            }
        }
        if noted != self.overrides {
            self.overrides = noted;
            self.effects.push(Effect::KeepOverrides(self.overrides.clone()));
        }
    }

    /// Ends what was decided about a server that `lvs.cf` does not have.
    fn forget_absent(&mut self, name: &str, of: Option<&str>) -> Option<Reply> {
        let is_its = |record: &mut OverrideRecord| {
            is_place(name, record.server) && of.is_none_or(|of| of == record.virtual_server)
        };
        let ended: Vec<OverrideRecord> = self.overrides.extract_if(.., is_its).collect();
        if ended.is_empty() {
            return None;
        }
        self.effects.push(Effect::KeepOverrides(self.overrides.clone()));
        let line = |record: OverrideRecord| {
            let OverrideRecord { server, virtual_server, .. } = record;
            format!(
                "server {server} of {virtual_server}: not active in lvs.cf; if it comes back, its check decides"
            )
        };
        Some(Reply::Text(ended.into_iter().map(line).collect::<Vec<_>>().join("\n")))
    }
}

/// By its name, its address, or its address and port, as checked or as in the table.
fn is_named(server: &WantedServer, name: &str) -> bool {
    let checked = ServerId { address: server.endpoint.ip(), port: server.endpoint.port() };
    server.name == name || is_place(name, checked) || is_place(name, server.spec.id)
}

/// By its address, or its address and port.
fn is_place(name: &str, server: ServerId) -> bool {
    name.parse() == Ok(server.address) || name.parse() == Ok(SocketAddr::new(server.address, server.port))
}
