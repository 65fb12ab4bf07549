//! Two directors on a simulated network, in virtual time. What they send travels as bytes: heartbeats, and what they tell each
//! other of connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::calm::Calm;
use super::seen::Seen;
use super::third::Third;
use super::twin::{Clients, Twin};
use xlvs::net::time::Instant;
use xlvs::pulse::wire::{Key, Refusal, Wire};
use xlvs::pulse::{Action, Event, Path, Pulse, Role, Settings, Wish, Word};

/// Nanoseconds of real time since the start of the world.
pub type Time = u64;

pub const MILLISECOND: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MILLISECOND;

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to, and without, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// True in so many of a thousand cases.
    pub fn permille(&mut self, of_thousand: u64) -> bool {
        self.next() % 1000 < of_thousand
    }
}

/// One direction of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub up: bool,
    /// Of a thousand datagrams.
    pub loss: u64,
    pub duplicates: u64,
    /// Delay at least, and by how much it varies: what varies overtakes.
    pub delay: Time,
    pub jitter: Time,
    /// How many in a row have been lost.
    pub lost: u64,
}

impl Line {
    pub const PERFECT: Line = Line { up: true, loss: 0, duplicates: 0, delay: 100_000, jitter: 0, lost: 0 };
}

/// What is done to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone without a word.
    Kill(usize),
    Terminate(usize),
    /// Packets cannot be forwarded; the process tells and ends.
    Break(usize),
    /// With or without `--forceactive`.
    Start(usize, bool),
    /// Another process goes on with what this one has.
    Upgrade(usize),
    Link(usize, Path, bool),
    Wish(usize, Wish),
    /// From this director, on this path.
    Line(usize, Path, Line),
    /// Somebody sends what is no heartbeat of the partner's to this director.
    Attack(usize),
    /// The same of connections.
    AttackReplica(usize),
    /// If this director is a standby, it loses one of its connections without noticing.
    Forget(usize),
}

enum Happening {
    Fault(Fault),
    Deliver {
        to: usize,
        path: Path,
        kind: Kind,
        bytes: Vec<u8>,
    },
    Event {
        to: usize,
        boot: u64,
        event: Event,
    },
    /// Addresses are gone; the partner has until then to acknowledge what is left.
    Leave {
        to: usize,
        boot: u64,
        until: Time,
    },
    /// A client sends a packet.
    Packet,
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Heartbeat,
    Replica,
}

/// What all of a world has in common.
#[derive(Clone, Debug)]
pub struct Law {
    pub keepalive: Duration,
    pub deadtime: Duration,
    pub monitor_links: bool,
    pub private: bool,
    pub key: Option<Key>,
    /// How long fencing takes, and whether it succeeds; `None` without fencing.
    pub fence: Option<(Time, bool)>,
    /// How long addresses take to go, and to come.
    pub withdrawal: Time,
    pub arrival: Time,
    /// Clocks go wrong by so many millionths at most.
    pub drift: u64,
    /// Of datagrams on a line that is up so many in a row are lost at most.
    pub lost_in_a_row: u64,
    /// Whether they keep the same connections, and for how long a director waits to be told of them.
    pub sync: Option<Duration>,
}

impl Law {
    /// A duration by the slowest of all clocks.
    pub fn slow(&self, duration: Duration) -> Time {
        duration.as_nanos() as u64 * 1_000_000 / (1_000_000 - self.drift)
    }

    pub(super) fn settings(&self, role: Role) -> Settings {
        Settings {
            role,
            pair: true,
            keepalive: self.keepalive,
            deadtime: self.deadtime,
            monitor_links: self.monitor_links,
            fence: self.fence.is_some(),
            fence_required: false,
            wait: self.sync.unwrap_or_default(),
        }
    }
}

/// A process.
pub(super) struct Process {
    pub(super) pulse: Pulse,
    pub(super) wire: Wire,
    pub(super) boot: u64,
    pub(super) started: Time,
    pub(super) forced: bool,
    /// When a heartbeat was taken last.
    pub(super) heard: Option<Time>,
    pub(super) twin: Option<Box<Twin>>,
}

/// A director, whether it runs or not.
pub struct Node {
    pub(super) process: Option<Process>,
    /// Millionths by which its clock is too fast.
    drift: i64,
    offset: Time,
    /// Whether it has addresses, or is about to have them, as long as it runs.
    addresses: bool,
    pub(super) links: [bool; 2],
}

impl Node {
    pub(super) fn local(&self, now: Time) -> Instant {
        let gained = i128::from(now) * i128::from(self.drift) / 1_000_000;
        Instant::from_nanos(self.offset + (i128::from(now) + gained) as u64)
    }

    fn real(&self, local: Instant) -> Time {
        let elapsed = i128::from(local.as_nanos() - self.offset);
        // Rounded up, lest a deadline be looked at before it has come.
        (elapsed * 1_000_000 / i128::from(1_000_000 + self.drift)) as u64 + 1
    }

    fn deadline(&self, now: Time) -> Option<Time> {
        let process = self.process.as_ref()?;
        let twin = process.twin.as_ref().map(|twin| twin.next_deadline(self.local(now)));
        process.pulse.next_deadline().into_iter().chain(twin).min().map(|local| self.real(local))
    }

    /// Whether it has addresses, or is about to have them.
    pub fn holds(&self) -> bool {
        self.process.is_some() && self.addresses
    }

    pub fn is_active(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.pulse.is_active())
    }

    /// Whether it could do the work.
    pub fn is_healthy(&self, law: &Law) -> bool {
        let links = if law.private { &self.links[..] } else { &self.links[..1] };
        self.process.is_some() && (!law.monitor_links || links.iter().all(|up| *up))
    }
}

/// The world.
pub struct World {
    pub law: Law,
    pub now: Time,
    pub nodes: [Node; 2],
    /// By sender and path.
    pub lines: [[Line; 2]; 2],
    /// Filled only if somebody wants to read it.
    pub story: Option<Vec<String>>,
    /// What an attack should not have done.
    pub breach: Option<String>,
    pub attacks: u64,
    pub refused: u64,
    chance: Chance,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: std::collections::HashMap<u64, Happening>,
    next_number: u64,
    pub(super) boots: u64,
    pub(super) third: Third,
    pub clients: Clients,
    pub(super) calm: Calm,
    pub seen: Seen,
}

impl World {
    pub fn new(law: Law, seed: u64) -> World {
        let mut chance = Chance::new(seed ^ 0x5eed);
        let mut node = || Node {
            process: None,
            drift: chance.between(0, 2 * law.drift + 1) as i64 - law.drift as i64,
            offset: chance.between(0, 100 * SECOND),
            addresses: false,
            links: [true; 2],
        };
        let nodes = [node(), node()];
        World {
            law,
            now: 0,
            nodes,
            lines: [[Line::PERFECT; 2]; 2],
            story: None,
            breach: None,
            attacks: 0,
            refused: 0,
            chance,
            queue: BinaryHeap::new(),
            happenings: Default::default(),
            next_number: 0,
            boots: 0,
            third: Third::new(seed),
            clients: Clients::new(seed),
            calm: Calm::default(),
            seen: Seen::default(),
        }
    }

    pub fn at(&mut self, time: Time, fault: Fault) {
        self.push(time, Happening::Fault(fault));
    }

    fn push(&mut self, time: Time, happening: Happening) {
        self.next_number += 1;
        self.queue.push(Reverse((time, self.next_number)));
        self.happenings.insert(self.next_number, happening);
    }

    /// Goes on to the next thing that happens, but not beyond `end`. Returns the fault, if it was one.
    pub fn step(&mut self, end: Time) -> Option<Fault> {
        let due = self.queue.peek().map_or(end, |Reverse((time, _))| *time);
        let deadlines = [0, 1].map(|node| self.nodes[node].deadline(self.now).unwrap_or(end));
        let tick = deadlines[0].min(deadlines[1]);
        if due.min(tick) >= end {
            self.now = end;
            return None;
        }
        // A deadline that has passed meanwhile is looked at now.
        self.now = self.now.max(due.min(tick));
        if tick < due {
            let node = usize::from(deadlines[1] < deadlines[0]);
            self.tell(node, Event::Tick);
            self.turn(node);
            return None;
        }
        let Reverse((_, number)) = self.queue.pop().unwrap();
        match self.happenings.remove(&number).unwrap() {
            Happening::Fault(fault) => {
                self.suffer(fault);
                return Some(fault);
            }
            Happening::Deliver { to, path, kind: Kind::Heartbeat, bytes } => self.deliver(to, path, bytes),
            Happening::Deliver { to, path, bytes, .. } => self.deliver_replica(to, path, &bytes),
            Happening::Leave { to, boot, until } => self.leave(to, boot, until),
            Happening::Packet => self.packet(),
            Happening::Event { to, boot, event } => {
                if self.nodes[to].process.as_ref().is_some_and(|process| process.boot == boot) {
                    return self.happen(to, event);
                }
            }
        }
        None
    }

    fn suffer(&mut self, fault: Fault) {
        self.tell_story(|| format!("{fault:?}"));
        self.note_fault(fault);
        match fault {
            Fault::Kill(node) => self.nodes[node].process = None,
            Fault::Terminate(node) => self.tell(node, Event::Terminate(15)),
            Fault::Break(node) => {
                self.tell(node, Event::LocalFailure);
                self.tell(node, Event::Terminate(15));
            }
            Fault::Start(node, forced) => self.start(node, forced),
            Fault::Upgrade(node) => self.upgrade(node),
            Fault::Link(node, path, up) => {
                self.nodes[node].links[path as usize] = up;
                if self.law.private || path == Path::Public {
                    self.tell(node, Event::Link(path, up));
                }
            }
            Fault::Wish(node, wish) => self.tell(node, Event::Wish(wish)),
            Fault::Line(node, path, line) => {
                let present = &mut self.lines[node][path as usize];
                // What has been lost in a row counts on.
                *present = Line { lost: present.lost, ..line };
            }
            Fault::Attack(node) => self.attack(node),
            Fault::AttackReplica(node) => self.attack_replica(node),
            Fault::Forget(node) => self.forget(node),
        }
        self.note_suffered(fault);
    }

    /// What comes later has come. A partner that has been fenced is off.
    fn happen(&mut self, to: usize, event: Event) -> Option<Fault> {
        let fenced = matches!(event, Event::Fenced(_));
        let killed = (event == Event::Fenced(Ok(()))).then_some(Fault::Kill(1 - to));
        killed.into_iter().for_each(|kill| self.suffer(kill));
        self.calm.fenced = fenced;
        self.tell(to, event);
        self.calm.fenced = false;
        killed
    }

    fn start(&mut self, node: usize, forced: bool) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let role = [Role::Primary, Role::Backup][node];
        self.nodes[node].addresses = false;
        self.boots += 1;
        let boot = self.boots;
        let wire = Wire::new(role, self.law.key.as_ref(), boot);
        let local = self.nodes[node].local(self.now);
        let (pulse, first) = Pulse::start(local, self.law.settings(role), forced);
        let twin = self.law.sync.map(|_| Box::new(Twin::new(role, (self.now, local), boot, &self.law)));
        let started = self.now;
        self.nodes[node].process = Some(Process { pulse, wire, boot, started, forced, heard: None, twin });
        self.carry_out(node, first);
        self.turn(node);
        for path in Path::ALL {
            let up = self.nodes[node].links[path as usize];
            if self.law.private || path == Path::Public {
                self.tell(node, Event::Link(path, up));
            }
        }
    }

    pub(super) fn tell(&mut self, node: usize, event: Event) {
        let local = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let gone = event == Event::Deactivated;
        let actions = process.pulse.handle(local, event);
        self.nodes[node].addresses &= !gone;
        self.carry_out(node, actions);
    }

    pub(super) fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(word) => self.beat(node, word),
                Action::Activate => {
                    self.note_takeover(node);
                    self.nodes[node].addresses = true;
                    self.begin(node);
                    self.later(node, self.law.arrival, Event::Activated);
                }
                Action::Deactivate => self.withdraw(node),
                Action::Fence => {
                    let (takes, succeeds) = self.law.fence.expect("fencing is configured");
                    let outcome = if succeeds { Ok(()) } else { Err("no power switch".to_owned()) };
                    self.later(node, takes, Event::Fenced(outcome));
                }
                Action::Exit => self.nodes[node].process = None,
                Action::Log(_, text) => {
                    self.note_said(node, &text);
                    self.tell_story(|| format!("{}: {text}", name(node)));
                }
                Action::Answer(Err(refusal)) => self.note_refusal(&refusal),
                Action::AnnounceAgain | Action::Run(_) | Action::Answer(Ok(_)) => {}
            }
        }
    }

    pub(super) fn packet_at(&mut self, time: Time) {
        self.push(time, Happening::Packet);
    }

    pub(super) fn leave_at(&mut self, time: Time, to: usize, boot: u64, until: Time) {
        self.push(time, Happening::Leave { to, boot, until });
    }

    pub(super) fn later(&mut self, to: usize, pause: Time, event: Event) {
        let Some(process) = &self.nodes[to].process else { return };
        let boot = process.boot;
        self.push(self.now + pause, Happening::Event { to, boot, event });
    }

    fn beat(&mut self, node: usize, word: Word) {
        let paths = if self.law.private { &Path::ALL[..] } else { &Path::ALL[..1] };
        let Some(process) = &mut self.nodes[node].process else { return };
        for (path, bytes) in process.wire.heartbeats(word, paths) {
            self.send(node, path, Kind::Heartbeat, bytes);
        }
    }

    pub(super) fn send(&mut self, from: usize, path: Path, kind: Kind, bytes: Vec<u8>) {
        let to = 1 - from;
        let line = &mut self.lines[from][path as usize];
        let linked = self.nodes.iter().all(|node| node.links[path as usize]);
        if !line.up || !linked {
            return;
        }
        // Only heartbeats are promised anything.
        let may_be_lost = kind == Kind::Replica || line.lost < self.law.lost_in_a_row;
        let lost = may_be_lost && self.chance.permille(line.loss);
        if kind == Kind::Heartbeat {
            line.lost = if lost { line.lost + 1 } else { 0 };
        }
        if lost {
            return;
        }
        let line = *line;
        let copies = 1 + usize::from(self.chance.permille(line.duplicates));
        for _ in 0..copies {
            let delay = line.delay + self.chance.between(0, line.jitter + 1);
            self.push(self.now + delay, Happening::Deliver { to, path, kind, bytes: bytes.clone() });
        }
    }

    fn deliver(&mut self, to: usize, path: Path, bytes: Vec<u8>) {
        if !self.nodes[to].links[path as usize] {
            return;
        }
        let Some(process) = &mut self.nodes[to].process else { return };
        let received = process.wire.receive(path, &bytes);
        self.third.record(to, path, &bytes);
        match received {
            Ok(word) => {
                process.heard = Some(self.now);
                self.tell(to, Event::Heartbeat(path, word));
            }
            Err(Refusal::Unfresh) => {
                let answer = process.wire.answer(process.pulse.word(), path);
                self.send(to, path, Kind::Heartbeat, answer);
            }
            Err(_) => {}
        }
    }

    pub fn tell_story(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} s  {}", now as f64 / SECOND as f64, line()));
        }
    }
}

pub fn name(node: usize) -> &'static str {
    ["primary", "backup"][node]
}
