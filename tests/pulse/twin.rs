//! The connections of the two directors in the simulated world: who has which, what clients send, and what must never happen.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use xlvs::ipvs::replica::{self, Key, Record, Replica, Settings, Side, State};
use xlvs::net::time::Instant;
use xlvs::pulse::{Event, Path, Role};

use super::world::{Chance, Kind, Law, MILLISECOND, Time, World, name};
use crate::replica::ends::{COMPARE, KEY, Known, connection};

const CLIENTS: u32 = 30;
/// States that connections change between (ESTABLISHED and CLOSE_WAIT): nothing of the rest depends on which.
const STATES: [u8; 2] = [1, 7];
/// How long the last acknowledgements are waited for before the partner is told that this one has gone.
pub const FAREWELL: Time = 150 * MILLISECOND;

/// What a director has besides its heart.
pub struct Twin {
    pub replica: Replica,
    pub known: Known,
    joining: bool,
    /// Since when it is told less than there is.
    joining_from: Time,
    /// Since when it is a standby.
    pub standby_from: Option<Time>,
    /// When it was asked last.
    now: Instant,
    /// When it has taken something from its partner last, and knew which run that was.
    pub heard: Option<Time>,
    /// Whom it has told of all, and after how many changes.
    settled: Option<(u64, u64)>,
}

impl Twin {
    pub fn new(role: Role, (now, local): (Time, Instant), boot: u64, law: &Law) -> Twin {
        let side = match role {
            Role::Primary => Side::Primary,
            Role::Backup => Side::Backup,
        };
        let settings = Settings {
            side,
            key: KEY.to_vec(),
            private: law.private,
            limit: 1400,
            silence: law.deadtime,
            compare: COMPARE,
        };
        let known = Known { room: 8, ..Known::default() };
        Twin {
            replica: Replica::new(local, settings, boot),
            known,
            joining: false,
            joining_from: now,
            standby_from: Some(now),
            now: local,
            heard: None,
            settled: None,
        }
    }

    pub fn is_joining(&self) -> bool {
        self.joining
    }

    pub fn next_deadline(&self, now: Instant) -> Instant {
        self.replica.next_deadline(now)
    }

    /// Begins where the one of the former process has stopped. An active one is so at once.
    pub fn goes_on(&mut self, former: &Twin, (now, local): (Time, Instant), active: bool) {
        (self.joining, self.joining_from) = (former.joining, former.joining_from);
        self.standby_from = (!active).then_some(now);
        if active {
            self.replica.set_active(local, true);
        }
    }

    fn record_of(&self, client: u32) -> Option<Record> {
        self.known.records.get(key(client)).cloned()
    }

    /// What nothing that a third host sends may change, and how much has been refused.
    pub fn standing(&self, now: Instant) -> ((State, [bool; 6], u64), u64) {
        let (replica, report) = (&self.replica, self.replica.report(now));
        let [holds, joins] = [replica.is_holding(now), replica.is_joining(now)];
        let private = report.path == Some(replica::Path::Private);
        let flags = [report.in_sync, report.partner_active, report.partner_in_sync, holds, joins, private];
        ((report.state, flags, report.records), report.refused.iter().map(|(_, count)| count).sum())
    }

    fn is_settled(&self) -> bool {
        self.replica.is_settled() && !self.known.has_changes()
    }
}

pub fn key(client: u32) -> &'static Key {
    static KEYS: LazyLock<Vec<Key>> =
        LazyLock::new(|| (0..=CLIENTS).map(|client| connection(client, 1).key()).collect());
    &KEYS[client as usize]
}

fn leads_to(record: &Record) -> SocketAddr {
    let Record::Connection(record) = record else { unreachable!("the world has connections only") };
    record.server
}

/// The same connection in another state.
fn changed(record: &Record) -> Record {
    let Record::Connection(mut record) = record.clone() else {
        unreachable!("the world has connections only")
    };
    record.state = STATES[usize::from(record.state == STATES[0])];
    Record::Connection(record)
}

/// The same path, as the replica calls it.
pub fn of_replica(path: Path) -> replica::Path {
    match path {
        Path::Private => replica::Path::Private,
        Path::Public => replica::Path::Public,
    }
}

/// A connection as its client knows it.
pub struct Flow {
    record: Record,
    /// When it began, or changed its state.
    pub changed: Time,
    /// The runs of directors that have it by now, or have acknowledged that they do.
    pub holders: HashSet<u64>,
    /// Those that know where it leads, and perhaps another state.
    pub led: HashSet<u64>,
}

impl Flow {
    fn is_at(&mut self, boot: u64) {
        self.holders.insert(boot);
        self.led.insert(boot);
    }

    fn is_not_at(&mut self, boot: u64, present: Option<&Record>) {
        self.holders.remove(&boot);
        if present.map(leads_to) != Some(leads_to(&self.record)) {
            self.led.remove(&boot);
        }
    }
}

/// The clients, and what became of their connections.
pub struct Clients {
    chance: Chance,
    pub flows: HashMap<u32, Flow>,
    /// When anything of a client's has changed last at an active director, its end included.
    pub changed: HashMap<u32, Time>,
    /// Packets that found their connection after a takeover.
    pub survived: u64,
    /// Connections that nobody had acknowledged, and that were lost.
    pub lost: u64,
    /// Packets that found another connection of the same ends where nobody had acknowledged theirs.
    pub astray: u64,
    /// Packets that found their connection in the state that it had before.
    pub aged: u64,
}

impl Clients {
    pub fn new(seed: u64) -> Clients {
        let chance = Chance::new(seed ^ 0xc11e);
        let (flows, changed) = (HashMap::new(), HashMap::new());
        Clients { chance, flows, changed, survived: 0, lost: 0, astray: 0, aged: 0 }
    }

    /// What a run had another one has.
    pub fn go_on(&mut self, former: u64, next: u64) {
        for flow in self.flows.values_mut() {
            for runs in [&mut flow.holders, &mut flow.led] {
                if runs.remove(&former) {
                    runs.insert(next);
                }
            }
        }
    }

    /// All that there may be.
    pub fn all(&self) -> impl Iterator<Item = u32> + use<> {
        1..=CLIENTS
    }
}

impl World {
    /// Long after all is whole, who does not do the work has all that the other one has.
    pub fn twins_agree(&self) -> Result<(), String> {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let twins: Vec<_> = processes
            .filter_map(|process| Some((process.pulse.is_active(), process.twin.as_ref()?)))
            .collect();
        let active = twins.iter().find(|(active, _)| *active);
        let standby = twins.iter().find(|(active, _)| !*active);
        let (Some((_, active)), Some((_, standby))) = (active, standby) else { return Ok(()) };
        let has = |record: &Record| standby.known.records.get(&record.key()) == Some(record);
        let missing = active.known.records.values().filter(|record| !has(record)).count();
        let more = standby.known.told.iter().filter(|key| !active.known.records.contains_key(key)).count();
        match (missing, more) {
            (0, 0) => Ok(()),
            _ => Err(format!(
                "the standby misses {missing} connections and has {more} more: {:#?}",
                [active, standby].map(|twin| twin.replica.report(twin.now))
            )),
        }
    }

    /// How long ago what the active director has not had acknowledged yet was told.
    pub fn lag(&self) -> Duration {
        let active = self.nodes.iter().filter(|node| node.is_active());
        let twins = active.filter_map(|node| Some((node, node.process.as_ref()?.twin.as_ref()?)));
        let lag = twins.map(|(node, twin)| twin.replica.report(node.local(self.now)).lag_ms);
        Duration::from_millis(lag.max().unwrap_or(0))
    }

    /// Has clients send something now and then, from `begin` until `end`.
    pub fn invite_clients(&mut self, begin: Time, end: Time) {
        let mut at = begin;
        while at < end {
            self.packet_at(at);
            at += self.clients.chance.between(20, 500) * MILLISECOND;
        }
    }

    /// Has a director look at what it has to tell.
    pub(super) fn turn(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(twin) = &mut process.twin else { return };
        twin.now = local;
        twin.replica.pump(local, &twin.known);
        let outgoing = twin.replica.take_outgoing(local);
        let joining = twin.replica.is_joining(local);
        let changed = std::mem::replace(&mut twin.joining, joining) != joining;
        if changed {
            twin.joining_from = self.now;
        }
        let settled = twin.is_settled().then(|| twin.replica.told_session()).flatten();
        let settled = settled.map(|session| (session, twin.known.changes));
        let news = std::mem::replace(&mut twin.settled, settled) != settled;
        for datagram in outgoing {
            let path = match datagram.path {
                replica::Path::Private => Path::Private,
                replica::Path::Public => Path::Public,
            };
            self.send(node, path, Kind::Replica, datagram.bytes);
        }
        if let Some((session, _)) = settled.filter(|_| news) {
            self.acknowledge(node, session);
            self.look_at_settled(node, session);
        }
        if changed {
            self.tell(node, Event::Joining(joining));
        }
    }

    /// All that a director has is acknowledged by that run of the other one.
    fn acknowledge(&mut self, node: usize, session: u64) {
        let Some(twin) = self.nodes[node].process.as_ref().and_then(|process| process.twin.as_ref()) else {
            return;
        };
        for (client, flow) in &mut self.clients.flows {
            let present = twin.known.records.get(key(*client));
            if present == Some(&flow.record) && !self.calm.forgotten.contains_key(&(session, *client)) {
                flow.is_at(session);
            } else {
                flow.is_not_at(session, present);
            }
        }
    }

    pub(super) fn deliver_replica(&mut self, to: usize, path: Path, bytes: &[u8]) {
        if !self.nodes[to].links[path as usize] {
            return;
        }
        let local = self.nodes[to].local(self.now);
        let Some(process) = &mut self.nodes[to].process else { return };
        let Some(twin) = &mut process.twin else { return };
        let Twin { replica, known, .. } = &mut **twin;
        // What is not taken is counted.
        let before = known.changes;
        if replica.receive(local, of_replica(path), bytes, known).is_ok() {
            twin.heard = Some(self.now);
        }
        let Twin { replica, known, .. } = &mut **twin;
        replica.work(known);
        while replica.has_work() {
            replica.work(known);
        }
        self.third.record_replica(to, path, bytes);
        if known.changes == before {
            return self.turn(to);
        }
        let teller = replica.partner_session();
        for (client, flow) in &mut self.clients.flows {
            let present = known.records.get(key(*client));
            if present == Some(&flow.record) {
                continue;
            }
            if teller.is_none_or(|teller| !flow.holders.contains(&teller)) {
                // Of what two actives have made apart from each other the one that goes on is right.
                flow.is_not_at(process.boot, present);
            } else if flow.holders.contains(&process.boot) {
                let text =
                    format!("{} loses {:?}, which it has acknowledged: {present:?}", name(to), flow.record);
                self.breach = Some(text);
            }
        }
        self.look_at_forgotten(to);
        self.turn(to);
    }

    /// A director takes the work.
    pub(super) fn begin(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        // By the fastest of all clocks.
        let wait = self.law.sync.unwrap_or_default().as_nanos() as u64;
        let wait = wait / 1_000_000 * (1_000_000 - self.law.drift);
        let Some(process) = &self.nodes[node].process else { return };
        let Some(twin) = &process.twin else { return };
        let joining = twin.replica.is_joining(local);
        let silence = process.heard.map(|heard| local.saturating_since(self.nodes[node].local(heard)));
        let heard = silence.is_some_and(|silence| silence < self.law.deadtime);
        // Who has been silent is fenced, and not waited for any more.
        let forced = process.forced && self.now == process.started;
        let may_not = joining && heard && !forced && !self.calm.fenced;
        let waits = twin.joining && self.now < twin.joining_from + wait;
        if may_not && waits {
            let text = "{} becomes active without what its partner has";
            self.breach = Some(text.replace("{}", name(node)));
        } else if may_not {
            self.seen.note("takeover after waiting long enough");
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(twin) = &mut process.twin else { return };
        twin.known.told.clear();
        twin.standby_from = None;
        twin.replica.set_active(local, true);
        self.turn(node);
    }

    pub(super) fn withdraw(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let (boot, gone) = (process.boot, self.now + self.law.withdrawal);
        self.note_leave(node);
        let Some(process) = &self.nodes[node].process else { return };
        if process.twin.is_none() {
            return self.later(node, self.law.withdrawal, Event::Deactivated);
        }
        self.leave_at(gone, node, boot, gone + FAREWELL);
    }

    pub(super) fn leave(&mut self, node: usize, boot: u64, until: Time) {
        let local = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(twin) = process.twin.as_mut().filter(|_| process.boot == boot) else { return };
        if !twin.is_settled() && self.now < until {
            self.turn(node);
            return self.leave_at(self.now + 5 * MILLISECOND, node, boot, until);
        }
        let settled = twin.is_settled();
        twin.replica.set_active(local, false);
        twin.standby_from = Some(self.now);
        self.note_left(node, settled);
        self.turn(node);
        self.tell(node, Event::Deactivated);
    }

    /// Somebody sends something, to whoever has the address.
    pub(super) fn packet(&mut self) {
        self.look_at_calm();
        self.look_at_silence();
        let active: Vec<usize> = (0..2).filter(|node| self.nodes[*node].is_active()).collect();
        let chance = &mut self.clients.chance;
        let (client, fate) = (chance.between(1, u64::from(CLIENTS) + 1) as u32, chance.between(0, 1000));
        let server = chance.between(1, 200) as u8;
        let choice = chance.next() as usize;
        if active.is_empty() {
            return;
        }
        let node = active[choice % active.len()];
        self.packet_at_node(node, client, connection(client, server), fate);
        self.note_room(node);
        self.turn(node);
    }

    /// The first packet goes where a former connection of the same ends leads, if that is still there, else as `new` does.
    fn packet_at_node(&mut self, node: usize, client: u32, new: Record, fate: u64) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let (boot, Some(twin)) = (process.boot, &mut process.twin) else { return };
        let present = twin.record_of(client);
        let Some(flow) = self.clients.flows.get_mut(&client) else {
            let record = present.unwrap_or_else(|| {
                self.clients.changed.insert(client, self.now);
                twin.known.put(new.clone());
                new
            });
            let runs = HashSet::from([boot]);
            let flow = Flow { record, changed: self.now, holders: runs.clone(), led: runs };
            self.clients.flows.insert(client, flow);
            return;
        };
        let leads = present.as_ref().map(leads_to) == Some(leads_to(&flow.record));
        let found = present.as_ref() == Some(&flow.record);
        if !found && flow.holders.contains(&boot) || !leads && flow.led.contains(&boot) {
            let text = format!("{} has {present:?}, but has had {:?}", name(node), flow.record);
            self.breach = Some(text);
        } else if !leads {
            self.clients.lost += u64::from(present.is_none());
            self.clients.astray += u64::from(present.is_some());
            self.clients.flows.remove(&client);
        } else if fate < 300 {
            twin.known.end(key(client));
            self.clients.flows.remove(&client);
            self.clients.changed.insert(client, self.now);
        } else {
            self.clients.survived += u64::from(flow.holders.len() > 1);
            self.clients.aged += u64::from(!found);
            if !found || fate < 500 {
                flow.record = changed(&flow.record);
                flow.changed = self.now;
                flow.holders.clear();
                twin.known.put(flow.record.clone());
                self.clients.changed.insert(client, self.now);
            }
            flow.is_at(boot);
        }
    }
}
