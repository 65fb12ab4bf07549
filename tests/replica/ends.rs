//! Two ends of the synchronisation, each with what it knows, and two paths between them that lose, double and delay.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use xlvs::ipvs::edit::Forward;
use xlvs::ipvs::replica::{
    Buckets, ConnectionRecord, Datagram, Key, Marks, PARTS, Path, Record, Refusal, Refused, Replica, Report,
    Settings, Side, Source, Store, bucket_of, fingerprint,
};
use xlvs::net::addr::Protocol;
use xlvs::net::time::Instant;

pub const KEY: &[u8] = b"0123456789abcdef";
pub const SILENCE: Duration = Duration::from_secs(6);
pub const COMPARE: Duration = Duration::from_secs(10);

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A connection of a client with this number to one of many servers.
pub fn connection(number: u32, server: u8) -> Record {
    let [_, a, b, c] = number.to_be_bytes();
    Record::Connection(Box::new(ConnectionRecord {
        protocol: Protocol::TCP,
        client: ([10, a, b, c], 1000).into(),
        virtual_address: ([10, 10, 1, 30], 80).into(),
        server: ([10, 8, 8, server], 80).into(),
        home: None,
        forward: Forward::Masquerade,
        state: 1,
        marks: Marks { active: true, ..Marks::default() },
        timeout: 900,
        remaining: Duration::from_secs(900),
        packets: 3,
        acknowledged: [None; 2],
        template: None,
        parent: None,
        ftp: None,
    }))
}

const USED_PARTS: usize = 8;

/// As a table would have it; only a few parts are in use.
fn part_of(key: &Key) -> usize {
    fingerprint(key) as usize % USED_PARTS * (PARTS / USED_PARTS)
}

/// What one end knows, with the changes that wait to be told.
#[derive(Default)]
pub struct Known {
    pub records: HashMap<Key, Record, RandomState>,
    pub room: usize,
    /// How often something has been put in or taken out.
    pub changes: u64,
    pub waiting: RefCell<VecDeque<Key>>,
    pub lost: RefCell<Buckets>,
    /// What the other end has told of.
    pub told: HashSet<Key, RandomState>,
    /// Kept from being taken in.
    pub refused: Option<Key>,
}

impl Known {
    pub fn note(&mut self, key: Key) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < self.room {
            waiting.push_back(key);
        } else {
            self.lost.borrow_mut().insert(bucket_of(fingerprint(&key)));
        }
    }

    pub fn has_changes(&self) -> bool {
        !self.waiting.borrow().is_empty() || !self.lost.borrow().is_empty()
    }

    pub fn put(&mut self, record: Record) {
        let key = record.key();
        self.changes += 1;
        self.records.insert(key.clone(), record);
        self.note(key);
    }

    pub fn end(&mut self, key: &Key) {
        self.changes += 1;
        self.records.remove(key);
        self.told.remove(key);
        self.note(key.clone());
    }
}

impl Source for Known {
    fn next_changed(&self) -> Option<Key> {
        self.waiting.borrow_mut().pop_front()
    }

    fn lost(&self) -> Buckets {
        self.lost.take()
    }

    fn current(&self, key: Key, _: bool, _: Instant) -> Vec<Record> {
        vec![self.records.get(&key).cloned().unwrap_or(Record::End(key))]
    }

    fn part(&self, number: usize, _: Instant) -> Vec<Record> {
        // One half is in the first part, the other one in the last.
        if number != 0 && number != PARTS - 1 {
            return Vec::new();
        }
        let of_half = |record: &&Record| fingerprint(&record.key()).is_multiple_of(2) == (number == 0);
        self.records.values().filter(of_half).cloned().collect()
    }
}

impl Store for Known {
    fn install(&mut self, record: &Record) -> Result<(), Refused> {
        let key = record.key();
        if self.refused.as_ref() == Some(&key) {
            return Err(Refused::NoRoom);
        }
        self.changes += 1;
        match record {
            Record::End(_) => {
                self.records.remove(&key);
                self.told.remove(&key);
            }
            record => {
                self.told.insert(key.clone());
                self.records.insert(key, record.clone());
            }
        }
        Ok(())
    }

    fn told(&mut self, key: &Key) -> Option<Record> {
        self.told.get(key).and_then(|key| self.records.get(key)).cloned()
    }

    fn visit(&mut self, part: usize, visit: &mut dyn FnMut(&Record)) {
        if !part.is_multiple_of(PARTS / USED_PARTS) {
            return;
        }
        let keys = self.told.iter().filter(|key| part_of(key) == part);
        keys.filter_map(|key| self.records.get(key)).for_each(visit);
    }

    fn part_of(&mut self, key: &Key) -> usize {
        part_of(key)
    }
}

pub struct End {
    pub replica: Replica,
    pub known: Known,
}

impl End {
    pub fn new(side: Side, session: u64, key: &[u8], now: Instant) -> End {
        let settings = Settings {
            side,
            key: key.to_vec(),
            private: true,
            limit: 1400,
            silence: SILENCE,
            compare: COMPARE,
        };
        let known = Known { room: 1000, ..Known::default() };
        End { replica: Replica::new(now, settings, session), known }
    }
}

/// What becomes of datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a hundred.
    pub loss: u64,
    pub doubles: u64,
    /// Milliseconds that it takes at most.
    pub delay: u64,
    /// By sender: nothing gets through.
    pub cut: [bool; 2],
    /// By path, and by sender: the same of one path.
    pub broken: [[bool; 2]; 2],
}

/// The two, the wire, and the time.
pub struct Pair {
    pub ends: [End; 2],
    pub now: Instant,
    pub weather: Weather,
    pub chance: Chance,
    wire: BTreeMap<(Instant, u64), (usize, Datagram)>,
    sent: u64,
    /// All that was sent, by sender, if somebody wants it.
    pub recorded: Option<[Vec<Datagram>; 2]>,
    pub longest: usize,
    /// How many parts of the tables an end looks through in a turn.
    pub parts_at_once: usize,
}

impl Pair {
    pub fn new(seed: u64) -> Pair {
        let now = Instant::START + Duration::from_secs(1);
        let ends = [End::new(Side::Primary, 11, KEY, now), End::new(Side::Backup, 22, KEY, now)];
        Pair {
            ends,
            now,
            weather: Weather::default(),
            chance: Chance(seed),
            wire: BTreeMap::new(),
            sent: 0,
            recorded: None,
            longest: 0,
            parts_at_once: PARTS,
        }
    }

    pub fn set_active(&mut self, end: usize, active: bool) {
        self.ends[end].replica.set_active(self.now, active);
    }

    /// This end starts anew and knows nothing.
    pub fn restart(&mut self, end: usize, session: u64) {
        let side = [Side::Primary, Side::Backup][end];
        self.ends[end] = End::new(side, session, KEY, self.now);
    }

    pub fn report(&self, end: usize) -> Report {
        self.ends[end].replica.report(self.now)
    }

    fn send(&mut self, from: usize, datagram: &Datagram) {
        self.longest = self.longest.max(datagram.bytes.len());
        if let Some(recorded) = &mut self.recorded {
            recorded[from].push(datagram.clone());
        }
        let cut = self.weather.cut[from] || self.weather.broken[datagram.path as usize][from];
        if cut || self.chance.below(100) < self.weather.loss {
            return;
        }
        let copies = 1 + u64::from(self.chance.below(100) < self.weather.doubles);
        for _ in 0..copies {
            let delay = Duration::from_micros(100 + self.chance.below(1000 * self.weather.delay + 1));
            self.sent += 1;
            self.wire.insert((self.now + delay, self.sent), (1 - from, datagram.clone()));
        }
    }

    fn turn(&mut self) {
        for from in [0, 1] {
            let end = &mut self.ends[from];
            end.replica.work(&mut end.known);
            for _ in 1..self.parts_at_once {
                if !end.replica.has_work() {
                    break;
                }
                end.replica.work(&mut end.known);
            }
            end.replica.pump(self.now, &end.known);
            for datagram in end.replica.take_outgoing(self.now) {
                self.send(from, &datagram);
            }
        }
    }

    /// Hands a datagram to an end.
    pub fn hand(&mut self, to: usize, datagram: &Datagram) -> Result<(), Refusal> {
        let End { replica, known } = &mut self.ends[to];
        replica.receive(self.now, datagram.path, &datagram.bytes, known)
    }

    /// The path by which an end sends.
    pub fn path(&self, end: usize) -> Path {
        self.report(end).path.unwrap()
    }

    /// Lets time pass. Whoever has something to tell is asked every 5 ms, as the daemon does.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut poll = self.now;
        while self.now < end {
            if poll <= self.now {
                self.turn();
                poll = self.now + Duration::from_millis(5);
            }
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            self.now = arrival.unwrap_or(end).min(poll).min(end).max(self.now);
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, datagram) = entry.remove();
                // What is refused is counted.
                let _ = self.hand(to, &datagram);
            }
            // An answer or an acknowledgement leaves at once.
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                self.turn();
            }
        }
    }

    /// Lets time pass until all is acknowledged; panics after `limit`.
    pub fn settle(&mut self, from: usize, limit: Duration) {
        let end = self.now + limit;
        while !self.is_settled(from) {
            assert!(self.now < end, "not settled after {limit:?}: {:#?}", [self.report(0), self.report(1)]);
            self.pass(Duration::from_millis(5));
        }
    }

    pub fn is_settled(&self, from: usize) -> bool {
        let End { replica, known } = &self.ends[from];
        replica.is_settled() && !known.has_changes()
    }

    pub fn are_equal(&self) -> bool {
        self.ends[0].known.records == self.ends[1].known.records
    }
}
