//! The servers that `lvs.cf` names: what comes in goes to their [`Member`]s, and the table follows.

use std::net::SocketAddr;
use std::sync::Arc;

use super::drain::Removed;
use super::event::{Event, Happened};
use super::member::calm::Calm;
use super::member::group::{Count, GroupTurn};
use super::member::{Input, Kept, Member, Outcome, Override, Place, State, Terms, Turn, load};
use super::wanted::{WantedServer, WantedService};
use super::{Director, Effect, Level};
use crate::ipvs::edit::{Edit, Errno, ServerId, ServerSpec, ServiceId};
use crate::nanny::Check;
use crate::net::time::Instant;

/// A server of a virtual server.
pub(super) type MemberId = (ServiceId, ServerId);

/// A [`Member`] with its names, and what has been told of it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) member: Member,
    pub(super) virtual_server: String,
    pub(super) server: String,
    pub(super) endpoint: SocketAddr,
    calm: Calm,
    told: State,
    load_trouble: Option<LoadTrouble>,
}

/// Why there is no load, of which only a change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadTrouble {
    Unread,
    Bad,
}

impl Seat {
    /// Of a member whose state needs no telling.
    pub(super) fn of(member: Member, service: &WantedService, server: &WantedServer) -> Self {
        Seat {
            told: member.state(),
            member,
            virtual_server: service.name.clone(),
            server: server.name.clone(),
            endpoint: server.endpoint,
            calm: Calm::default(),
            load_trouble: None,
        }
    }

    pub(super) fn event(&self, happened: Happened) -> Event {
        let server = self.server.clone();
        let endpoint = self.endpoint.to_string();
        Event { server, endpoint, ..Event::of_virtual(&self.virtual_server, happened) }
    }

    /// What is to be said of the present state, which follows on `former`.
    fn state_event(&self, former: State) -> Event {
        let member = &self.member;
        let happened = match (member.state(), member.forced()) {
            (State::Up, _) => Happened::Up,
            (_, Override::Down) => Happened::TakenOut,
            _ if former == State::Unknown => Happened::Unavailable,
            _ => Happened::Down,
        };
        let reason = if member.forced() == Override::Auto { member.reason() } else { "by hand" };
        self.event(happened).because(reason)
    }
}

impl Director {
    /// The same with servers that enter with their full weight, or by and by.
    pub fn with_slow_start(mut self, slow_start: bool) -> Self {
        self.slow_start = slow_start;
        self
    }

    /// Begins with a server, or goes on with it under other terms. What an operator said of it holds on; what hands made of the
    /// table is undone, unless it is to be restored.
    pub(super) fn seat(&mut self, service: &WantedService, server: &WantedServer, kept: Option<Kept>) {
        let id = (service.spec.id, server.spec.id);
        let terms = self.terms(service, server);
        if let Some(seat) = self.members.get_mut(&id) {
            (seat.virtual_server, seat.server) = (service.name.clone(), server.name.clone());
            seat.endpoint = server.endpoint;
            seat.member.handle(self.now, Input::Terms(terms));
        } else {
            self.take_seat(service, server, terms);
        }
        if let (Some(seat), Some(kept)) = (self.members.get_mut(&id), kept) {
            seat.member.handle(self.now, Input::Restored(kept));
        }
        self.settle_seated(id);
    }

    /// What a configuration says of a server.
    pub(super) fn terms(&self, service: &WantedService, server: &WantedServer) -> Terms {
        Terms {
            spec: server.spec.clone(),
            quiesce: service.quiesce,
            step: server.step,
            slow_start: self.slow_start,
            load_monitor: server.load.is_some(),
        }
    }

    /// One that comes back before it had gone is known.
    fn take_seat(&mut self, service: &WantedService, server: &WantedServer, terms: Terms) {
        let id = (service.spec.id, server.spec.id);
        let mut seat = Seat::of(Member::new(self.now, terms), service, server);
        if self.is_leaving(&id.0, id.1) {
            seat.member = seat.member.found_in_table();
        }
        if let Some(Removed { health: Some(up), reason, .. }) = self.drains.take_back(id) {
            seat.member.handle(self.now, Input::Health { up, reason });
            seat.told = seat.member.state();
        }
        if let Some(known) = self.overrides.iter().find(|known| known.is_of(service, server)) {
            seat.member.handle(self.now, Input::Override(known.to));
            self.effects.push(Effect::Event(seat.event(Happened::forced(known.to))));
        }
        self.members.insert(id, seat);
    }

    /// What a check has found out goes to every server that goes by it.
    pub(super) fn take_health(&mut self, check: &Arc<Check>, up: bool, reason: &str) {
        let servers = self.wanted.servers().filter(|(_, server)| Arc::ptr_eq(&server.check, check));
        let ids: Vec<MemberId> = servers.map(|(service, server)| (service.spec.id, server.spec.id)).collect();
        for id in ids {
            self.tell_member(id, Input::Health { up, reason: reason.to_owned() });
        }
    }

    /// A sorry server comes before the last server goes, and goes after the first one is back.
    pub(super) fn tell_member(&mut self, id: MemberId, input: Input) {
        let Some(seat) = self.members.get_mut(&id) else { return };
        let outcome = seat.member.handle(self.now, input);
        let told = outcome.turn.is_none_or(|turn| self.report_turn(id, turn));
        let group = outcome.turn.and_then(|_| self.judge_group(&id.0));
        if group == Some(GroupTurn::Emptied) {
            self.settle_sorry(&id.0);
        }
        if let Err(errno) = self.settle(id)
            && told
        {
            self.report_refusal(id, errno);
        }
        if group == Some(GroupTurn::Filled) {
            self.settle_sorry(&id.0);
        }
        self.follow_up(id, outcome);
    }

    /// What comes of an adjustment besides the weight.
    fn follow_up(&mut self, id: MemberId, outcome: Outcome) {
        let Some(seat) = self.members.get(&id) else { return };
        if outcome.is_full {
            let event = seat.event(Happened::FullWeight { weight: seat.member.full().weight });
            self.effects.push(Effect::Event(event));
        }
        if outcome.read_load {
            self.ask_for_load(id);
        }
    }

    /// Says that a server came or went, unless it does so too often. Returns whether it was said.
    fn report_turn(&mut self, id: MemberId, turn: Turn) -> bool {
        let now = self.now;
        let Some(seat) = self.members.get_mut(&id).filter(|_| turn.to != State::Unknown) else {
            return false;
        };
        if !seat.calm.admits(now) {
            return false;
        }
        seat.told = turn.to;
        let lasted = (turn.from != State::Unknown).then_some(turn.lasted);
        let event = seat.state_event(turn.from).after(lasted);
        let stays_out = turn.to == State::Up && seat.member.is_deleted();
        self.effects.push(Effect::Event(event));
        if stays_out {
            let text = format!("server {} stays out: it was deleted by hand; a reload restores it", id.1);
            self.log(Level::Info, text);
        }
        true
    }

    fn report_refusal(&mut self, id: MemberId, errno: Errno) {
        let server = id.1;
        match errno {
            Errno::ESRCH => self.log(
                Level::Warn,
                format!(
                    "server {server} cannot enter: its service was deleted by hand; a reload restores it"
                ),
            ),
            errno => self.log(Level::Error, format!("server {server} is refused: {errno}")),
        }
    }

    /// What the table lacks of what it is to have. A server that is leaving is back by an edit.
    fn pending_edit(&self, id: MemberId) -> Option<Edit> {
        let (service, server) = id;
        let member = &self.members.get(&id)?.member;
        let place = match member.place() {
            Place::Present(spec) => Place::Present(self.as_ordered(service, spec)),
            Place::Absent => Place::Absent,
        };
        let is_leaving = self.is_leaving(&service, server);
        match (place, self.present(&service, server)) {
            (Place::Present(spec), None) if is_leaving => Some(Edit::EditServer(service, spec)),
            (Place::Present(spec), None) => Some(Edit::AddServer(service, spec)),
            (Place::Present(spec), Some(present)) if present != spec => Some(Edit::EditServer(service, spec)),
            (Place::Absent, Some(_)) => Some(Edit::DeleteServer(service, server)),
            (Place::Absent, None) if is_leaving && member.state() == State::Down && !member.is_deleted() => {
                Some(Edit::DeleteServer(service, server))
            }
            _ => None,
        }
    }

    /// How a server is in the table, if it is, and stays.
    pub(super) fn present(&self, service: &ServiceId, server: ServerId) -> Option<ServerSpec> {
        let service = self.draft.services.get(service).filter(|service| !service.is_leaving(server))?;
        service.server(server).map(|server| server.spec())
    }

    pub(super) fn is_leaving(&self, service: &ServiceId, server: ServerId) -> bool {
        self.draft.services.get(service).is_some_and(|service| service.is_leaving(server))
    }

    pub(super) fn settle(&mut self, id: MemberId) -> Result<(), Errno> {
        let Some(edit) = self.pending_edit(id) else { return Ok(()) };
        self.edit(&edit)?;
        self.keep_neighbours_of(&edit);
        Ok(())
    }

    /// The same after the configuration was read, which says what it changes.
    fn settle_seated(&mut self, id: MemberId) {
        let Some(edit) = self.edit_of_seated(id) else { return };
        let was_leaving = self.is_leaving(&id.0, id.1);
        let former = self.present(&id.0, id.1).map(|spec| spec.weight);
        if let Err(errno) = self.edit(&edit) {
            return self.report_refusal(id, errno);
        }
        self.keep_neighbours_of(&edit);
        let Some(seat) = self.members.get(&id) else { return };
        let (server, name) = (id.1, &seat.virtual_server);
        let text = match (edit, former) {
            (Edit::EditServer(..), _) if was_leaving => format!("server {server} is back in {name}"),
            (Edit::EditServer(_, spec), Some(former)) => {
                format!("server {server} of {name}: weight {former} becomes {}", spec.weight)
            }
            (Edit::AddServer(..), _) => format!("server {server} enters {name} again"),
            _ => format!("server {server} leaves {name}: it is down"),
        };
        self.log(Level::Info, text);
    }

    /// Of whom nothing is known yet, only a hand can have put into the table: it is left there, and one that is leaving comes back.
    /// Whom a hand has deleted leaves in peace, which is for the caller.
    fn edit_of_seated(&self, id: MemberId) -> Option<Edit> {
        let member = &self.members.get(&id)?.member;
        let (service, server) = id;
        match self.pending_edit(id) {
            Some(Edit::DeleteServer(..)) if member.is_deleted() || member.state() == State::Unknown => None,
            None if member.state() == State::Unknown
                && !member.is_deleted()
                && self.is_leaving(&service, server) =>
            {
                Some(Edit::EditServer(service, self.as_ordered(service, member.full().clone())))
            }
            pending => pending,
        }
    }

    /// Gives a server up. What its checks have said: whether it was well, if that was known, and why.
    pub(super) fn unseat(&mut self, id: MemberId) -> (Option<bool>, String) {
        let Some(Seat { member, .. }) = self.members.remove(&id) else { return (None, String::new()) };
        let health = match member.health() {
            State::Unknown => None,
            state => Some(state == State::Up),
        };
        (health, member.reason().to_owned())
    }

    /// Takes note of what somebody has made of a server in the table.
    pub(super) fn take_hand(&mut self, id: MemberId, input: Input) {
        if let Some(seat) = self.members.get_mut(&id) {
            seat.member.handle(self.now, input);
        }
    }

    pub(super) fn count_members(&self, service: &WantedService) -> Count {
        let mut count = Count::default();
        for server in &service.servers {
            match self.members.get(&(service.spec.id, server.spec.id)).map(|seat| seat.member.state()) {
                Some(State::Up) => count.up += 1,
                Some(State::Unknown) => count.unknown += 1,
                Some(State::Down) | None => {}
            }
        }
        count
    }

    fn ask_for_load(&mut self, id: MemberId) {
        let server = self.wanted.service(&id.0).and_then(|service| service.server(id.1));
        let Some((server, words)) = server.and_then(|server| Some((server, server.load.clone()?))) else {
            return;
        };
        let limit = server.patience;
        self.effects.push(Effect::ReadLoad { service: id.0, server: id.1, words, limit });
    }

    /// What a load program printed, or why nothing came of it.
    pub(super) fn take_load(&mut self, id: MemberId, printed: Result<String, String>) {
        const SHOWN: usize = 80;
        let load = printed.as_deref().ok().and_then(load::read);
        let (trouble, happened, reason) = match printed {
            _ if load.is_some() => (None, None, String::new()),
            Ok(printed) => {
                let returned = printed.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
                (Some(LoadTrouble::Bad), Some(Happened::BadLoad { returned }), String::new())
            }
            Err(reason) => (Some(LoadTrouble::Unread), Some(Happened::LoadUnread), reason),
        };
        let Some(seat) = self.members.get_mut(&id) else { return };
        let is_new = std::mem::replace(&mut seat.load_trouble, trouble) != trouble;
        let event = happened.filter(|_| is_new).map(|happened| seat.event(happened).because(reason));
        let former = seat.member.place();
        self.effects.extend(event.map(Effect::Event));
        self.tell_member(id, Input::Load(load));
        let place = self.members.get(&id).map(|seat| seat.member.place());
        if let (Some(load), Place::Present(former), Some(Place::Present(spec))) = (load, former, place)
            && former != spec
        {
            let text = format!("load {load} of {}: weight {} becomes {}", id.1, former.weight, spec.weight);
            self.log(Level::Debug, text);
        }
    }

    /// When a member, a group, or what is told of them is due.
    pub(super) fn next_member_deadline(&self) -> Option<Instant> {
        let seats = self.members.values();
        let members = seats.flat_map(|seat| [seat.member.next_step(), seat.calm.next_deadline()]);
        members.chain(self.groups.values().map(|post| post.next_deadline())).flatten().min()
    }

    /// Adjusts weights that are due, and tells what was kept back.
    pub(super) fn advance_members(&mut self) {
        let due = |deadline: fn(&Seat) -> Option<Instant>| -> Vec<MemberId> {
            let ids = self.wanted.servers().map(|(service, server)| (service.spec.id, server.spec.id));
            let deadline = |id: &MemberId| self.members.get(id).and_then(deadline);
            ids.filter(|id| deadline(id).is_some_and(|due| due <= self.now)).collect()
        };
        let to_step = due(|seat| seat.member.next_step());
        let to_tell = due(|seat| seat.calm.next_deadline());
        self.step(&to_step);
        to_tell.into_iter().for_each(|id| self.tell_kept_back(id));
        self.advance_groups();
    }

    /// All at once, since each edit by itself would have the workers look at all services anew.
    fn step(&mut self, ids: &[MemberId]) {
        let mut outcomes = Vec::new();
        for id in ids {
            let outcome = self.members.get_mut(id).map(|seat| seat.member.handle(self.now, Input::Step));
            outcomes.extend(outcome.map(|outcome| (*id, outcome)));
        }
        let edits: Vec<Edit> = ids.iter().filter_map(|id| self.pending_edit(*id)).collect();
        if !edits.is_empty() && self.edit_all(&edits).is_err() {
            // Somebody may have deleted a service by hand; the others go on.
            for edit in &edits {
                let _ = self.edit(edit);
            }
        }
        outcomes.into_iter().for_each(|(id, outcome)| self.follow_up(id, outcome));
    }

    /// How often a server has changed unsaid; and its state, if another one was said last.
    fn tell_kept_back(&mut self, id: MemberId) {
        let now = self.now;
        let Some(seat) = self.members.get_mut(&id) else { return };
        let Some(more) = seat.calm.count_untold(now) else { return };
        let state = seat.member.state();
        let told = std::mem::replace(&mut seat.told, state);
        let flapping = seat.event(Happened::Flapping { more }).because(format!("now {}", state.word()));
        let latest = (told != state).then(|| seat.state_event(told));
        self.effects.push(Effect::Event(flapping));
        self.effects.extend(latest.map(Effect::Event));
    }
}
