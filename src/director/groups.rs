//! Virtual servers as a whole: whether any server is left, and the sorry server that stands in (reference/piranha.md 3.5).

use super::event::{Event, Happened};
use super::member::calm::Calm;
use super::member::group::{Group, GroupTurn};
use super::wanted::WantedService;
use super::{Director, Effect, Level};
use crate::ipvs::edit::{Edit, Errno, ServerSpec, ServiceId};
use crate::net::time::Instant;

/// A [`Group`], and what has been done and told about it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) group: Group,
    /// The sorry server that is in the table.
    pub(super) sorry: Option<ServerSpec>,
    /// Why it was not taken the last time; only a change of it is told.
    refused: Option<Errno>,
    calm: Calm,
    pub(super) told_empty: bool,
}

impl Post {
    /// One that goes on where another process has left it.
    pub(super) fn going_on(group: Group, sorry: Option<ServerSpec>, told_empty: bool) -> Self {
        Post { group, sorry, refused: None, calm: Calm::default(), told_empty }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.group.next_deadline(), self.calm.next_deadline()].into_iter().flatten().min()
    }
}

impl Director {
    /// Looks at all virtual servers after a change of the configuration.
    pub(super) fn judge_groups(&mut self) {
        let wanted = &self.wanted;
        self.groups.retain(|id, _| wanted.service(id).is_some());
        for id in self.service_ids() {
            self.judge_group(&id);
            self.release_sorry(&id);
            self.settle_sorry(&id);
        }
    }

    /// A sorry server that the file does not name any more is in the table still, until it leaves as all that is removed does; or
    /// for good, if it is one of the servers now.
    fn release_sorry(&mut self, id: &ServiceId) {
        let Some(service) = self.wanted.service(id) else { return };
        let Some(post) = self.groups.get_mut(id) else { return };
        let wish = service.sorry.as_ref().map(|sorry| sorry.id);
        let Some(former) = post.sorry.take_if(|sorry| Some(sorry.id) != wish) else { return };
        if service.server(former.id).is_none() {
            self.parting.sorry.push((*id, former.id));
        }
    }

    fn service_ids(&self) -> Vec<ServiceId> {
        self.wanted.services.iter().map(|service| service.spec.id).collect()
    }

    /// Looks whether a virtual server has lost its last server or got its first one, and says so unless it does so too often.
    pub(super) fn judge_group(&mut self, id: &ServiceId) -> Option<GroupTurn> {
        let now = self.now;
        let service = self.wanted.service(id)?;
        let count = self.count_members(service);
        let new = || Post::going_on(Group::new(now), None, false);
        let post = self.groups.entry(*id).or_insert_with(new);
        let (turn, lasted) = post.group.judge(now, count)?;
        if post.calm.admits(now) {
            post.told_empty = turn == GroupTurn::Emptied;
            let event = event_of(service, turn, count.up).after(lasted);
            self.effects.push(Effect::Event(event));
        }
        Some(turn)
    }

    /// Puts the sorry server into the table, or takes it out. One that somebody has put there by hand is left alone.
    pub(super) fn settle_sorry(&mut self, id: &ServiceId) {
        let Some(post) = self.groups.get_mut(id) else { return };
        let (own, is_empty) = (post.sorry.take(), post.group.is_empty());
        let service = self.wanted.service(id).filter(|_| is_empty);
        let wish = service.and_then(|service| service.sorry.clone());
        let goes_on = own.as_ref().map(|own| own.id) == wish.as_ref().map(|wish| wish.id);
        if let Some(own) = own.filter(|_| !goes_on) {
            // Somebody may have deleted it by hand.
            let _ = self.edit(&Edit::DeleteServer(*id, own.id));
        }
        let Some(wish) = wish else { return };
        let edit = match self.present(id, wish.id) {
            None if self.is_leaving(id, wish.id) => Edit::EditServer(*id, wish.clone()),
            None => Edit::AddServer(*id, wish.clone()),
            // It was one of the servers until now.
            Some(_) if self.members.contains_key(&(*id, wish.id)) => Edit::EditServer(*id, wish.clone()),
            Some(_) if goes_on => Edit::EditServer(*id, wish.clone()),
            Some(_) => return,
        };
        let refused = self.edit(&edit).err();
        let Some(post) = self.groups.get_mut(id) else { return };
        let is_news = std::mem::replace(&mut post.refused, refused) != refused;
        match refused {
            None => {
                post.sorry = Some(wish);
                self.keep_neighbours_of(&edit);
            }
            Some(errno) if is_news => {
                let text = format!("sorry_server {} of {id} is refused: {errno}", wish.id.address);
                self.log(Level::Error, text);
            }
            Some(_) => {}
        }
    }

    /// The sorry server of a virtual server, if it stands in.
    pub(super) fn sorry_in(&self, id: &ServiceId) -> Option<&ServerSpec> {
        self.groups.get(id)?.sorry.as_ref()
    }

    /// Has what waits for the first results of checks no longer wait for them, and tells what was kept back.
    pub(super) fn advance_groups(&mut self) {
        for id in self.service_ids() {
            if self.judge_group(&id).is_some() {
                self.settle_sorry(&id);
            }
            self.tell_group_kept_back(&id);
        }
    }

    fn tell_group_kept_back(&mut self, id: &ServiceId) {
        let now = self.now;
        let (Some(service), Some(post)) = (self.wanted.service(id), self.groups.get_mut(id)) else { return };
        let Some(more) = post.calm.count_untold(now) else { return };
        self.effects.push(Effect::Event(Event::of_virtual(&service.name, Happened::Flapping { more })));
        let is_empty = post.group.is_empty();
        if std::mem::replace(&mut post.told_empty, is_empty) != is_empty {
            let turn = if is_empty { GroupTurn::Emptied } else { GroupTurn::Filled };
            let event = event_of(service, turn, self.count_members(service).up);
            self.effects.push(Effect::Event(event));
        }
    }
}

fn event_of(service: &WantedService, turn: GroupTurn, up: usize) -> Event {
    let happened = match turn {
        GroupTurn::Emptied => Happened::NoServers,
        GroupTurn::Filled => Happened::ServersBack { up },
    };
    let endpoint = service.sorry.as_ref().map(|sorry| sorry.id.address.to_string()).unwrap_or_default();
    Event { endpoint, ..Event::of_virtual(&service.name, happened) }
}
