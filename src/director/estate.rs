//! What a director leaves to that of another process, which goes on with the same clock.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::drain::{Cause, Drain, Order, Place};
use super::groups::Post;
use super::member::Member;
use super::member::course::Course;
use super::member::group::Group;
use super::members::{MemberId, Seat};
use super::part::Parting;
use super::wanted::Wanted;
use super::{Director, Effect};
use crate::config::lvs::LvsConfig;
use crate::ipvs::beyond;
use crate::ipvs::edit::{Edit, ServerId, ServerSpec, ServiceId};
use crate::ipvs::mark::MarkRules;
use crate::ipvs::server::RealServer;
use crate::ipvs::service_table::{Counters, TableEstate};
use crate::ipvs::steering::Reach;
use crate::ipvs::sync::{Running, SyncDaemon, SyncRole};
use crate::ipvs::sysctl;
use crate::net::time::Instant;

/// Settings by name.
pub type Values = Vec<(String, String)>;

/// Everything that a director knows and the site's files do not say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Estate {
    started: Option<Instant>,
    table: TableEstate,
    timeouts: (u32, u32, u32),
    sysctls: Values,
    switches: Values,
    daemons: Vec<SyncDaemon>,
    members: Vec<(MemberId, Course)>,
    groups: Vec<(ServiceId, GroupEstate)>,
    drains: Vec<DrainEstate>,
    orders: Vec<(Place, Order)>,
    parting: Parting,
    source: Option<String>,
    active: bool,
    up: Vec<Ipv4Addr>,
    steered: Reach,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupEstate {
    group: Group,
    sorry: Option<ServerSpec>,
    told_empty: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DrainEstate {
    service: ServiceId,
    server: ServerId,
    cause: Cause,
    end: Option<Instant>,
    asked: bool,
}

impl Director {
    /// What it leaves. Not to be asked for while a configuration is on trial.
    pub fn estate(&self) -> Estate {
        let sysctls = sysctl::names().into_iter();
        let sysctls = sysctls.filter_map(|name| Some((name.to_owned(), self.draft.sysctls.get(name).ok()?)));
        let switch = |name: &&str| {
            let value = self.draft.beyond.switches.get(name).ok()?;
            Some(((*name).to_owned(), value.to_string()))
        };
        let group = |(id, post): (&ServiceId, &Post)| {
            let (group, sorry, told_empty) = (post.group, post.sorry.clone(), post.told_empty);
            (*id, GroupEstate { group, sorry, told_empty })
        };
        let drain = |drain: &Drain| {
            let (service, server) = drain.place();
            DrainEstate { service, server, cause: drain.cause.clone(), end: drain.end, asked: drain.asked }
        };
        Estate {
            started: Some(self.started),
            table: self.services.estate(&self.draft.services),
            timeouts: self.present_timeouts(),
            sysctls: sysctls.collect(),
            switches: beyond::NAMES.iter().filter_map(switch).collect(),
            daemons: self.draft.sync.iter().cloned().collect(),
            members: self.members.iter().map(|(id, seat)| (*id, seat.member.course())).collect(),
            groups: self.groups.iter().map(group).collect(),
            drains: self.drains.going.iter().map(drain).collect(),
            orders: self.drains.orders.iter().map(|(place, order)| (*place, *order)).collect(),
            parting: self.parting.clone(),
            source: self.source.clone(),
            active: self.active,
            up: self.up.iter().copied().collect(),
            steered: self.steered.clone(),
        }
    }

    /// What has been counted. To be asked for when nothing is counted any more.
    pub fn counters(&self) -> Counters {
        self.collect_shortcuts();
        self.services.counters(&self.draft.services)
    }

    /// Goes on with what another process has counted.
    pub fn continue_counters(&self, counters: &Counters) {
        self.services.continue_counters(&self.draft.services, counters);
    }

    /// The server of this identity that is in a service, or was.
    pub fn server(&self, service: &ServiceId, server: ServerId) -> Option<Arc<RealServer>> {
        self.tables.server_of(&self.draft.services, service, server)
    }

    /// The synchronisation daemons that run, and the size of their socket buffers.
    pub fn running_sync(&self) -> (Vec<Running>, usize) {
        let roles = [SyncRole::Master, SyncRole::Backup].into_iter();
        let running = roles.filter_map(|role| self.draft.sync.get(role).cloned()).collect();
        (running, usize::try_from(self.draft.sysctls.sync_sock_size).unwrap_or(0))
    }

    /// Whether this router has the work.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the configuration is that of the site's file.
    pub fn follows_site(&self) -> bool {
        self.source.is_none()
    }

    /// Begins where another director has left off that followed this configuration. What `changed` says of settings counts, and not
    /// the estate. The effects are all that has to be started here; addresses are where they are to be.
    pub fn inherit(
        &mut self,
        now: Instant,
        estate: Estate,
        lvs: &LvsConfig,
        marks: Arc<MarkRules>,
        changed: &Values,
    ) -> Vec<Effect> {
        self.now = now;
        self.upgraded = Some(now);
        self.started = estate.started.unwrap_or(now);
        self.draft.marks = marks;
        self.wanted = Wanted::new(lvs);
        self.active = estate.active;
        self.up = estate.up.into_iter().collect();
        self.source = estate.source;
        self.parting = estate.parting;
        self.steered = estate.steered;
        self.inherit_settings(&estate.sysctls, &estate.switches, changed);
        self.services.inherit(&mut self.draft.services, &estate.table);
        let services = &self.draft.services;
        self.wanted.services.retain(|service| services.get(&service.spec.id).is_some());
        self.inherit_members(estate.members);
        self.inherit_drains(estate.drains, estate.orders);
        for (id, GroupEstate { group, sorry, told_empty }) in estate.groups {
            self.groups.insert(id, Post::going_on(group, sorry, told_empty));
        }
        self.close_addresses();
        self.take_routes();
        self.publish();
        let (tcp, tcp_fin, udp) = estate.timeouts;
        let daemons = estate.daemons.into_iter().map(Edit::StartDaemon);
        for edit in [Edit::SetTimeouts { tcp, tcp_fin, udp }].into_iter().chain(daemons) {
            // It was taken there, and an interface may have gone since.
            let _ = self.edit(&edit);
        }
        let wanted = std::mem::take(&mut self.wanted);
        self.change_checks(&Wanted::default(), &wanted);
        self.wanted = wanted;
        self.keep_neighbours();
        std::mem::take(&mut self.effects)
    }

    fn inherit_settings(&mut self, sysctls: &Values, switches: &Values, changed: &Values) {
        for (name, value) in sysctls.iter().chain(changed) {
            // One that this version does not have is none.
            let _ = self.draft.sysctls.set(name, value);
        }
        let own = &mut Arc::make_mut(&mut self.draft.beyond).switches;
        for (name, value) in switches.iter().chain(changed) {
            let _ = own.set(name, value);
        }
        self.settle_conn_max();
        self.defend();
    }

    fn inherit_members(&mut self, courses: Vec<(MemberId, Course)>) {
        let mut courses: std::collections::HashMap<_, _> = courses.into_iter().collect();
        let seats = self.wanted.servers().map(|(service, server)| {
            let id = (service.spec.id, server.spec.id);
            let terms = self.terms(service, server);
            let member = match courses.remove(&id) {
                Some(course) => Member::going_on(self.now, terms, course),
                None => Member::new(self.now, terms),
            };
            (id, Seat::of(member, service, server))
        });
        self.members = seats.collect();
    }

    fn inherit_drains(&mut self, drains: Vec<DrainEstate>, orders: Vec<(Place, Order)>) {
        let going = drains.into_iter().filter_map(|drain| {
            let DrainEstate { service, server, cause, end, asked } = drain;
            let server = self.draft.services.get(&service)?.server(server)?;
            Some(Drain { server: Arc::clone(server), cause, end, asked })
        });
        self.drains.going = going.collect();
        self.drains.orders = orders.into_iter().collect();
    }
}
