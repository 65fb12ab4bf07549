//! What the simulated world counts, and what must hold in it of connections at any moment rather than in the end.

use std::collections::HashMap;

use xlvs::pulse::{Path, State};

use super::twin::key;
use super::world::{Fault, Line, MILLISECOND, SECOND, Time, World, name};
use crate::replica::ends::COMPARE;

/// So long after the last trouble the routers have found each other, and the standby has been told of all.
const CALM: Time = 6 * SECOND;
/// So much later than the active router the standby has what has changed, while nothing is lost: four times the longest delay of
/// a datagram, and 200 ms.
const LAG: Time = 1200 * MILLISECOND;
/// Every so many packets it is looked whether the standby has it: that takes time.
const LOOK: u64 = 3;
/// Where datagrams arrive within this time, the last changes are acknowledged before the partner is told that it may take over.
const QUICK: Time = 60 * MILLISECOND;

/// What has been, as far as it decides what has to be.
#[derive(Default)]
pub struct Calm {
    /// When something has happened last that keeps connections from being told of.
    from: Time,
    /// What is just told is what became of fencing.
    pub fenced: bool,
    /// By director: when it was killed last, and whether it was active.
    killed: [Option<(Time, bool)>; 2],
    /// By director: whether it will have been able to tell of all before it leaves the work.
    owed: [bool; 2],
    /// Connections that a run has lost without noticing, until it is told of them again.
    pub forgotten: HashMap<(u64, u32), Time>,
    looks: u64,
    /// Whether all arrived by one direction or both when it was looked at last.
    ways: Option<(bool, bool)>,
}

impl Calm {
    /// What a run had lost another one lacks.
    pub fn go_on(&mut self, former: u64, next: u64) {
        let forgotten = std::mem::take(&mut self.forgotten).into_iter();
        let of = |run: u64| if run == former { next } else { run };
        self.forgotten = forgotten.map(|((run, client), at)| ((of(run), client), at)).collect();
    }
}

impl World {
    pub(super) fn note_fault(&mut self, fault: Fault) {
        let (now, deadtime) = (self.now, self.law.deadtime.as_nanos() as u64);
        match fault {
            Fault::Kill(node) if self.nodes[node].process.is_some() => {
                self.calm.killed[node] = Some((now, self.nodes[node].is_active()));
            }
            Fault::Start(node, _) if self.nodes[node].process.is_none() => {
                if self.nodes[1 - node].is_active() {
                    self.seen.note("start while the partner is active");
                }
                let soon = self.calm.killed[node].take().filter(|(at, _)| now - at < deadtime);
                if let Some((_, was_active)) = soon {
                    self.seen.note("restart within deadtime");
                    if was_active && !self.nodes[1 - node].is_active() {
                        self.seen.note("restart of the active router within deadtime");
                    }
                }
            }
            _ => {}
        }
    }

    /// Attacks are no trouble.
    pub(super) fn note_suffered(&mut self, fault: Fault) {
        if !matches!(fault, Fault::Attack(_) | Fault::AttackReplica(_) | Fault::Forget(_)) {
            self.calm.from = self.now;
        }
        self.note_ways();
    }

    /// Whether something of what this director sends arrives.
    pub fn reaches(&self, from: usize) -> bool {
        self.has_way(from, |line| line.up)
    }

    /// Whether all of it arrives by one way at least.
    pub fn surely_reaches(&self, from: usize) -> bool {
        self.has_way(from, |line| line.up && line.loss == 0)
    }

    fn has_way(&self, from: usize, suits: impl Fn(&Line) -> bool) -> bool {
        let paths = if self.law.private { &Path::ALL[..] } else { &Path::ALL[..1] };
        paths.iter().any(|path| {
            let linked = self.nodes.iter().all(|node| node.links[*path as usize]);
            linked && suits(&self.lines[from][*path as usize])
        })
    }

    fn note_ways(&mut self) {
        let both_run = self.nodes.iter().all(|node| node.process.is_some());
        let ways = both_run.then(|| (self.reaches(0), self.reaches(1)));
        if std::mem::replace(&mut self.calm.ways, ways) == ways {
            return;
        }
        match ways {
            Some((false, false)) => self.seen.note("no way between the routers"),
            Some((true, false) | (false, true)) => self.seen.note("one direction alone is cut"),
            _ => {}
        }
    }

    pub(super) fn note_said(&mut self, node: usize, text: &str) {
        self.seen.hear(text);
        if text.starts_with("partner dead: activating") && self.law.fence.is_some() && !self.calm.fenced {
            self.breach = Some(format!("{} takes over from a silent partner that is not fenced", name(node)));
        }
    }

    pub(super) fn note_refusal(&mut self, refusal: &str) {
        if refusal.contains("has not been told yet") {
            self.seen.note("operator refused: still being told");
        }
    }

    pub(super) fn note_takeover(&mut self, node: usize) {
        self.calm.from = self.now;
        let other = &self.nodes[1 - node];
        match &other.process {
            None if self.calm.killed[1 - node].is_some() => self.seen.note("takeover from a killed router"),
            None => self.seen.note("takeover from one that has ended, or never was"),
            Some(_) if other.holds() && !self.reaches(1 - node) => {
                self.seen.note("takeover while the other one is active and cut off");
            }
            Some(_) if other.holds() => self.seen.note("takeover while the other one is active"),
            Some(_) => self.seen.note("takeover from one that waits"),
        }
        if self.calm.fenced {
            self.seen.note("takeover after fencing");
        }
        let Some(process) = &self.nodes[node].process else { return };
        if process.twin.is_none() || self.clients.flows.is_empty() {
            return;
        }
        let boot = process.boot;
        match self.clients.flows.values().all(|flow| flow.holders.contains(&boot)) {
            true => self.seen.note("takeover with all connections"),
            false => self.seen.note("takeover without some that nobody had acknowledged"),
        }
    }

    /// A director is about to leave the work.
    pub(super) fn note_leave(&mut self, node: usize) {
        self.calm.owed[node] = self.is_calm() && self.is_whole(QUICK);
        self.calm.from = self.now;
    }

    /// It has left it, with all acknowledged or not.
    pub(super) fn note_left(&mut self, node: usize, settled: bool) {
        let owed = std::mem::take(&mut self.calm.owed[node]);
        match settled {
            true => self.seen.note("work left with all acknowledged"),
            false => self.seen.note("work left with something not acknowledged"),
        }
        if owed && !settled && self.is_whole(QUICK) {
            self.breach = Some(format!("{} leaves the work before all is acknowledged", name(node)));
        }
    }

    /// Whether nothing that is sent of connections is lost, or takes longer than `longest`.
    fn is_whole(&self, longest: Time) -> bool {
        let path = if self.law.private { Path::Private } else { Path::Public } as usize;
        let lines = self.lines.iter().map(|lines| lines[path]);
        let whole =
            lines.clone().all(|line| line.up && line.loss == 0 && line.delay + line.jitter <= longest);
        whole && self.nodes.iter().all(|node| node.links[path] && node.process.is_some())
    }

    fn is_calm(&self) -> bool {
        let calm = self.now > self.calm.from + CALM;
        let states = self.nodes.each_ref().map(|node| {
            node.process.as_ref().map(|process| process.pulse.report(node.local(self.now)).state)
        });
        calm && matches!(
            states,
            [Some(State::Active), Some(State::Inactive)] | [Some(State::Inactive), Some(State::Active)]
        )
    }

    /// While nothing is lost the standby has what the active director has, a moment later.
    pub(super) fn look_at_calm(&mut self) {
        self.calm.looks += 1;
        let is_due = self.now > self.calm.from + CALM && self.calm.looks.is_multiple_of(LOOK);
        if !is_due || !self.is_whole(Time::MAX) || !self.is_calm() {
            return;
        }
        let active = usize::from(self.nodes[1].is_active());
        let found = self.compare_tables(active);
        self.seen.note("tables compared while all is calm");
        if let Some(found) = found {
            self.breach = Some(format!("long after the last trouble {found}"));
        }
    }

    fn compare_tables(&self, active: usize) -> Option<String> {
        let twin = |node: usize| {
            let process = self.nodes[node].process.as_ref()?;
            Some((process.boot, process.twin.as_ref()?, self.nodes[node].local(self.now)))
        };
        let ((_, teller, _), (boot, told, local)) = (twin(active)?, twin(1 - active)?);
        if told.replica.is_joining(local) {
            return Some("the standby has not been told of all".to_owned());
        }
        if !told.replica.is_holding(local) {
            return Some("the standby lets connections end".to_owned());
        }
        let settled = |client: &u32| {
            let late = self.clients.changed.get(client).is_none_or(|at| at + LAG < self.now);
            late && !self.is_forgotten(boot, *client)
        };
        self.clients.all().filter(settled).find_map(|client| {
            let key = key(client);
            let (has, should) = (told.known.records.get(key), teller.known.records.get(key));
            let own = should.is_none() && !told.known.told.contains(key);
            (has != should && !own).then(|| format!("the standby has {has:?} instead of {should:?}"))
        })
    }

    /// A standby has acknowledged all that the active director has: then it has that, and nothing else.
    pub(super) fn look_at_settled(&mut self, active: usize, session: u64) {
        let (now, standby) = (self.now, 1 - active);
        let twin = |node: usize| self.nodes[node].process.as_ref().and_then(|process| process.twin.as_ref());
        let boot = self.nodes[standby].process.as_ref().map(|process| process.boot);
        let (Some(teller), Some(told), Some(boot)) = (twin(active), twin(standby), boot) else { return };
        // One that has been active meanwhile has acknowledged it as another one.
        if boot != session || told.standby_from.is_none_or(|from| now < from + SECOND) {
            return;
        }
        for client in self.clients.all() {
            let key = key(client);
            let (has, should) = (told.known.records.get(key), teller.known.records.get(key));
            let own = should.is_none() && !told.known.told.contains(key);
            if has != should && !own && !self.is_forgotten(boot, client) {
                self.breach = Some(format!(
                    "{} has acknowledged all and has {has:?} instead of {should:?}",
                    name(standby)
                ));
                return;
            }
        }
        self.seen.note("tables compared when all was acknowledged");
    }

    /// Whoever has heard nothing of its partner for long waits for it no more, and lets things end again.
    pub(super) fn look_at_silence(&mut self) {
        for node in [0, 1] {
            let local = self.nodes[node].local(self.now);
            let Some(twin) = self.nodes[node].process.as_ref().and_then(|process| process.twin.as_ref())
            else {
                continue;
            };
            let silent = twin.heard.is_some_and(|heard| self.now >= heard + self.law.slow(self.law.deadtime));
            let (holds, joins) = (twin.replica.is_holding(local), twin.replica.is_joining(local));
            if silent && (holds || joins) {
                let what = if holds { "lets nothing end" } else { "waits" };
                self.breach = Some(format!("{} {what} although its partner is silent", name(node)));
            }
        }
    }

    /// Whether somebody waits to be told of connections.
    pub fn waits(&self) -> bool {
        let mut twins = self.nodes.iter().filter_map(|node| node.process.as_ref()?.twin.as_ref());
        twins.any(|twin| twin.is_joining())
    }

    /// Changes that find no room, although there is somebody to tell.
    pub(super) fn note_room(&mut self, node: usize) {
        let Some(twin) = self.nodes[node].process.as_ref().and_then(|process| process.twin.as_ref()) else {
            return;
        };
        if twin.replica.is_telling() && !twin.known.lost.borrow().is_empty() {
            self.seen.note("changes that find no room");
        }
    }

    pub(super) fn is_forgotten(&self, boot: u64, client: u32) -> bool {
        self.calm.forgotten.contains_key(&(boot, client))
    }

    /// A standby loses something that only a comparison finds.
    pub(super) fn forget(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| !process.pulse.is_active())
        else {
            return;
        };
        let boot = process.boot;
        let Some(twin) = &mut process.twin else { return };
        let Some(client) = self.clients.all().find(|client| twin.known.told.contains(key(*client))) else {
            return;
        };
        twin.known.told.remove(key(client));
        twin.known.records.remove(key(client));
        self.calm.forgotten.insert((boot, client), self.now);
        if let Some(flow) = self.clients.flows.get_mut(&client) {
            flow.holders.remove(&boot);
            flow.led.remove(&boot);
        }
    }

    /// What has been forgotten may have been told of again.
    pub(super) fn look_at_forgotten(&mut self, node: usize) {
        if self.calm.forgotten.is_empty() {
            return;
        }
        let now = self.now;
        let Some(process) = &self.nodes[node].process else { return };
        let (boot, Some(twin)) = (process.boot, &process.twin) else { return };
        let before = self.calm.forgotten.len();
        self.calm
            .forgotten
            .retain(|(run, client), _| *run != boot || !twin.known.told.contains(key(*client)));
        let healed = before - self.calm.forgotten.len();
        (0..healed).for_each(|_| self.seen.note("forgotten connection told of again"));
        let period = COMPARE.as_nanos() as u64;
        let late = self.calm.forgotten.iter().find(|((run, client), at)| {
            let patience = 2 * period + CALM + LAG;
            let there = self.nodes[1 - node].process.as_ref().and_then(|process| process.twin.as_ref());
            let there = there.is_some_and(|twin| twin.known.records.contains_key(key(*client)));
            let changed = self.clients.changed.get(client).is_none_or(|at| now > at + patience);
            *run == boot && there && changed && now > **at + patience && now > self.calm.from + patience
        });
        if late.is_some() && self.is_calm() && self.is_whole(Time::MAX) {
            self.breach = Some(format!("{} still misses {late:?}, which it has lost", name(node)));
        }
    }
}
