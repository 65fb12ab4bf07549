//! A third host in the simulated world: it records what goes by and sends it again, changed or not, to whomever it likes.

use xlvs::ipvs::replica;
use xlvs::pulse::Path;
use xlvs::pulse::wire::Refusal;

use super::twin::of_replica;
use super::world::{Chance, Kind, World};
use crate::pulse::Word;

const RECORDED_MAX: usize = 64;

/// What somebody has recorded, by receiver.
pub struct Third {
    chance: Chance,
    heartbeats: [Vec<(Path, Vec<u8>)>; 2],
    datagrams: [Vec<(Path, Vec<u8>)>; 2],
}

impl Third {
    pub fn new(seed: u64) -> Third {
        let chance = Chance::new(seed ^ 0x3d);
        Third { chance, heartbeats: Default::default(), datagrams: Default::default() }
    }

    pub fn record(&mut self, to: usize, path: Path, bytes: &[u8]) {
        keep(&mut self.chance, &mut self.heartbeats[to], (path, bytes.to_vec()));
    }

    pub fn record_replica(&mut self, to: usize, path: Path, bytes: &[u8]) {
        keep(&mut self.chance, &mut self.datagrams[to], (path, bytes.to_vec()));
    }

    fn pick(&mut self, limit: usize) -> usize {
        self.chance.between(0, limit as u64) as usize
    }

    fn garble(&mut self, bytes: &mut [u8]) {
        let (byte, bit) = (self.pick(bytes.len()), self.pick(8));
        bytes[byte] ^= 1 << bit;
    }
}

fn keep<T>(chance: &mut Chance, recorded: &mut Vec<T>, new: T) {
    if recorded.len() == RECORDED_MAX {
        recorded.swap_remove(chance.between(0, RECORDED_MAX as u64) as usize);
    }
    recorded.push(new);
}

impl World {
    /// A heartbeat of old, one with a bit changed, one sent back to where it came from, Piranha's, or nonsense. All has to be
    /// refused, and counted. Without a key only nonsense can be told from a heartbeat.
    pub(super) fn attack(&mut self, to: usize) {
        let third = &mut self.third;
        let kind = if self.law.key.is_some() { third.pick(5) } else { 4 };
        let from = if kind == 2 { 1 - to } else { to };
        let (path, mut bytes) = match third.heartbeats[from].len() {
            0 => (Path::Public, vec![0; 68]),
            kept => third.heartbeats[from][third.chance.between(0, kept as u64) as usize].clone(),
        };
        match kind {
            0 | 2 => {}
            1 => third.garble(&mut bytes),
            3 => bytes = [Word::Running, Word::Stopped][third.pick(2)].to_bytes().into(),
            _ => bytes = third.chance.next().to_le_bytes()[..5 + third.pick(4)].into(),
        }
        let Some(process) = &mut self.nodes[to].process else { return };
        let before = process.wire.refused().total();
        let received = process.wire.receive(path, &bytes);
        self.attacks += 1;
        self.refused += process.wire.refused().total() - before;
        match received {
            Ok(word) => self.breach = Some(format!("an attack of kind {kind} was taken for {word:?}")),
            Err(refusal) => {
                self.seen.note(name(refusal));
                if refusal == Refusal::Unfresh {
                    let answer = process.wire.answer(process.pulse.word(), path);
                    self.send(to, path, Kind::Heartbeat, answer);
                }
            }
        }
    }

    /// The same with what directors tell each other of connections.
    pub(super) fn attack_replica(&mut self, to: usize) {
        let third = &mut self.third;
        let kind = third.pick(4);
        let from = if kind == 2 { 1 - to } else { to };
        let (path, mut bytes) = match third.datagrams[from].len() {
            0 => (Path::Public, vec![0; 100]),
            kept => third.datagrams[from][third.chance.between(0, kept as u64) as usize].clone(),
        };
        match kind {
            1 => third.garble(&mut bytes),
            3 => bytes.truncate(third.chance.between(0, bytes.len() as u64) as usize),
            _ => {}
        }
        let local = self.nodes[to].local(self.now);
        let Some(twin) = self.nodes[to].process.as_mut().and_then(|process| process.twin.as_mut()) else {
            return;
        };
        let before = (twin.known.changes, twin.standing(local));
        let received = twin.replica.receive(local, of_replica(path), &bytes, &mut twin.known);
        let after = (twin.known.changes, twin.standing(local));
        match received {
            Ok(()) => self.breach = Some(format!("a datagram of kind {kind} of a third host was taken")),
            Err(_) if after.0 != before.0 || after.1 != (before.1.0, before.1.1 + 1) => {
                self.breach = Some(format!("a datagram of a third host has changed {before:?} to {after:?}"));
            }
            Err(replica::Refusal::Unfresh) => {
                self.seen.note("attack: connections of another run");
                self.turn(to);
            }
            Err(replica::Refusal::Repeated) => self.seen.note("attack: connections repeated"),
            Err(_) => self.seen.note("attack: connections forged or malformed"),
        }
    }
}

fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unfresh => "attack: heartbeat of another run",
        Refusal::Repeated => "attack: heartbeat repeated",
        Refusal::Forged => "attack: heartbeat forged",
        Refusal::Plain => "attack: heartbeat without authentication",
        _ => "attack: nonsense",
    }
}
