//! The connections of the two directors in the simulated world: who has which, what clients send, and what must never happen.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use xlvs::ipvs::replica::{Key, Record, Replica, Settings, Side};
use xlvs::net::time::Instant;
use xlvs::pulse::{Event, Path, Role};

use super::world::{Chance, Kind, MILLISECOND, SECOND, Time, World, name};
use crate::replica::ends::{COMPARE, KEY, Known, connection};

const CLIENTS: u64 = 30;
/// How long the last acknowledgements are waited for before the partner is told that this one has gone.
pub const FAREWELL: Time = 150 * MILLISECOND;

/// What a director has besides its heart.
pub struct Twin {
    pub replica: Replica,
    pub known: Known,
    joining: bool,
    /// When it was asked last.
    now: Instant,
    /// Whom it has told of all, and after how many changes.
    settled: Option<(u64, u64)>,
}

impl Twin {
    pub fn new(role: Role, now: Instant, boot: u64, silence: Duration) -> Twin {
        let side = match role {
            Role::Primary => Side::Primary,
            Role::Backup => Side::Backup,
        };
        let settings = Settings { side, key: KEY.to_vec(), limit: 1400, silence, compare: COMPARE };
        let known = Known { room: 8, ..Known::default() };
        Twin { replica: Replica::new(now, settings, boot), known, joining: true, now, settled: None }
    }

    pub fn next_deadline(&self, now: Instant) -> Instant {
        self.replica.next_deadline(now)
    }

    fn server_of(&self, client: u32) -> Option<Record> {
        self.known.records.get(&key(client)).cloned()
    }

    fn is_settled(&self) -> bool {
        self.replica.is_settled() && !self.known.has_changes()
    }
}

fn key(client: u32) -> Key {
    connection(client, 1).key()
}

/// A connection as its client knows it.
struct Flow {
    record: Record,
    /// The runs of directors that have it by now, or have acknowledged that they do.
    holders: HashSet<u64>,
}

/// The clients, and what became of their connections.
pub struct Clients {
    chance: Chance,
    flows: HashMap<u32, Flow>,
    /// Packets that found their connection after a takeover.
    pub survived: u64,
    /// Connections that nobody had acknowledged, and that were lost.
    pub lost: u64,
    /// Packets that found another connection of the same ends where nobody had acknowledged theirs.
    pub astray: u64,
}

impl Clients {
    pub fn new(seed: u64) -> Clients {
        let chance = Chance::new(seed ^ 0xc11e);
        Clients { chance, flows: HashMap::new(), survived: 0, lost: 0, astray: 0 }
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

    /// Has clients send something now and then, until `end`.
    pub fn invite_clients(&mut self, end: Time) {
        let mut at = SECOND;
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
        let settled = twin.is_settled().then(|| twin.replica.told_session()).flatten();
        let settled = settled.map(|session| (session, twin.known.changes));
        let news = std::mem::replace(&mut twin.settled, settled) != settled;
        let path = if self.law.private { Path::Private } else { Path::Public };
        for bytes in outgoing {
            self.send(node, path, Kind::Replica, bytes);
        }
        if let Some((session, _)) = settled.filter(|_| news) {
            self.acknowledge(node, session);
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
        for flow in self.clients.flows.values_mut() {
            let has = twin.known.records.get(&flow.record.key()) == Some(&flow.record);
            if has {
                flow.holders.insert(session);
            } else {
                flow.holders.remove(&session);
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
        let _ = replica.receive(local, bytes, known);
        if known.changes == before {
            return self.turn(to);
        }
        // Of what two actives have made apart from each other the one that goes on is right.
        let teller = replica.partner_session();
        for flow in self.clients.flows.values_mut() {
            let has = known.records.get(&flow.record.key()) == Some(&flow.record);
            if !has && teller.is_none_or(|teller| !flow.holders.contains(&teller)) {
                flow.holders.remove(&process.boot);
            }
        }
        self.turn(to);
    }

    /// A director takes the work.
    pub(super) fn begin(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        // By the fastest of all clocks.
        let wait = self.law.sync.unwrap_or_default().as_nanos() as u64;
        let wait = wait / 1_000_000 * (1_000_000 - self.law.drift);
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(twin) = &mut process.twin else { return };
        let joining = twin.replica.is_joining(local);
        let heard = process.pulse.hears_partner(local);
        // Who has been silent is fenced, and not waited for any more.
        let may_not = joining && heard && !process.forced && self.law.fence.is_none();
        if may_not && self.now < process.started + wait {
            let text = "{} becomes active without what its partner has";
            self.breach = Some(text.replace("{}", name(node)));
        }
        twin.known.told.clear();
        twin.replica.set_active(local, true);
        // What this one does not have may end anywhere.
        let boot = process.boot;
        self.clients.flows.values_mut().filter(|flow| !flow.holders.contains(&boot)).for_each(|flow| {
            flow.holders.clear();
        });
        self.turn(node);
    }

    pub(super) fn withdraw(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let (boot, gone) = (process.boot, self.now + self.law.withdrawal);
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
        twin.replica.set_active(local, false);
        self.turn(node);
        self.tell(node, Event::Deactivated);
    }

    /// Somebody sends something, to whoever has the address.
    pub(super) fn packet(&mut self) {
        let active: Vec<usize> = (0..2).filter(|node| self.nodes[*node].is_active()).collect();
        let chance = &mut self.clients.chance;
        let (client, ends) = (chance.between(1, CLIENTS + 1) as u32, chance.permille(300));
        let server = chance.between(1, 200) as u8;
        let choice = chance.next() as usize;
        if active.is_empty() {
            return;
        }
        let node = active[choice % active.len()];
        let Some(process) = &mut self.nodes[node].process else { return };
        let (boot, Some(twin)) = (process.boot, &mut process.twin) else { return };
        let present = twin.server_of(client);
        let Some(flow) = self.clients.flows.get_mut(&client) else {
            // The first packet goes where a former connection of the same ends leads, if that is still there.
            let record = present.unwrap_or_else(|| {
                let record = connection(client, server);
                twin.known.put(record.clone());
                record
            });
            self.clients.flows.insert(client, Flow { record, holders: HashSet::from([boot]) });
            return self.turn(node);
        };
        let found = present.as_ref() == Some(&flow.record);
        if !found && flow.holders.contains(&boot) {
            let text = format!("{} has {present:?}, but has had {:?}", name(node), flow.record);
            self.breach = Some(text);
        } else if !found {
            self.clients.lost += u64::from(present.is_none());
            self.clients.astray += u64::from(present.is_some());
            self.clients.flows.remove(&client);
        } else {
            self.clients.survived += u64::from(flow.holders.len() > 1);
            flow.holders.insert(boot);
            if ends {
                twin.known.end(&key(client));
                self.clients.flows.remove(&client);
            }
        }
        self.turn(node);
    }
}
