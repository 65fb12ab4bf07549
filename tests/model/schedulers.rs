//! Whom each scheduler chooses (ipvs.md section 5), from the list of servers in its order (newest first).

use std::net::{IpAddr, SocketAddr};

use crate::model::tables::{Options, Server, ServerIndex};

/// Slots of `mh`'s table.
const MAGLEV_SLOTS: usize = 4093;

/// What schedulers remember.
#[derive(Debug, Default)]
pub struct Scheduler {
    /// rr and wrr: the last choice, `None` for the head of the list.
    last: Option<ServerIndex>,
    /// wrr: the weight level, where levels start, and how far they fall.
    level: i64,
    top: i64,
    step: i64,
    /// sh, dh and mh.
    table: Vec<ServerIndex>,
}

/// What happened to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Edited,
    /// A server has gone, which stood behind the other one.
    Deleted(ServerIndex, Option<ServerIndex>),
}

impl Scheduler {
    /// What a scheduler knows about a list that it has not seen before.
    pub fn new(name: &str, list: &[ServerIndex], servers: &[Server]) -> Self {
        let mut scheduler = Scheduler::default();
        scheduler.changed(name, list, servers, Change::Added);
        scheduler
    }

    /// Takes notice of a change of the list.
    pub fn changed(&mut self, name: &str, list: &[ServerIndex], servers: &[Server], change: Change) {
        match (name, change) {
            ("rr", Change::Deleted(gone, before)) if self.last == Some(gone) => self.last = before,
            ("wrr", _) => self.start_round(list, servers),
            ("sh", _) => self.table = dealt(list, |server| servers[server].terms.weight.max(1) as usize),
            ("dh", Change::Added | Change::Deleted(..)) => self.table = dealt(list, |_| 1),
            ("mh", _) => self.table = maglev(list, servers),
            _ => {}
        }
    }

    fn start_round(&mut self, list: &[ServerIndex], servers: &[Server]) {
        let weights: Vec<i64> = list.iter().map(|server| servers[*server].terms.weight).collect();
        self.step = common_divisor(&weights);
        self.top = weights.iter().copied().max().unwrap_or(0) - (self.step - 1);
        self.last = None;
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    /// The server for a new connection.
    pub fn choose(
        &mut self,
        options: &Options,
        list: &[ServerIndex],
        servers: &[Server],
        client: SocketAddr,
        target: SocketAddr,
    ) -> Option<ServerIndex> {
        let usable: Vec<ServerIndex> =
            list.iter().copied().filter(|server| servers[*server].is_usable()).collect();
        let of = |server: &ServerIndex| &servers[*server];
        let cost = |server: &ServerIndex| of(server).active as i64 + 1;
        match options.scheduler {
            "rr" => self.next_in_turn(list, &usable),
            "wrr" => self.next_in_round(list, servers, &usable),
            "lc" => usable.iter().copied().min_by_key(|server| of(server).overhead()),
            "wlc" => least(&usable, servers, |server| of(server).overhead()),
            "sed" => least(&usable, servers, cost),
            "nq" => {
                let idle = usable.iter().copied().find(|server| of(server).active == 0);
                idle.or_else(|| least(&usable, servers, cost))
            }
            "fo" => heaviest(&usable, servers),
            "ovf" => {
                let room = |server: &ServerIndex| of(server).active as i64 <= of(server).terms.weight;
                let open: Vec<_> = usable.iter().copied().filter(room).collect();
                heaviest(&open, servers)
            }
            "sh" | "dh" | "mh" => self.by_hash(options, &usable, client, target),
            _ => None,
        }
    }

    fn next_in_turn(&mut self, list: &[ServerIndex], usable: &[ServerIndex]) -> Option<ServerIndex> {
        let after = list.iter().position(|server| Some(*server) == self.last).map_or(0, |last| last + 1);
        let mut turn = list.to_vec();
        turn.rotate_left(after.min(list.len()));
        let chosen = turn.into_iter().find(|server| usable.contains(server))?;
        self.last = Some(chosen);
        Some(chosen)
    }

    fn next_in_round(
        &mut self,
        list: &[ServerIndex],
        servers: &[Server],
        usable: &[ServerIndex],
    ) -> Option<ServerIndex> {
        if usable.is_empty() || self.top <= 0 {
            return None;
        }
        loop {
            let after = list.iter().position(|server| Some(*server) == self.last).map_or(0, |last| last + 1);
            let heavy = |server: &&ServerIndex| servers[**server].terms.weight >= self.level;
            if let Some(chosen) = list[after..].iter().filter(|server| usable.contains(server)).find(heavy) {
                self.last = Some(*chosen);
                return self.last;
            }
            self.last = None;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.top;
            }
        }
    }

    fn by_hash(
        &self,
        options: &Options,
        usable: &[ServerIndex],
        client: SocketAddr,
        target: SocketAddr,
    ) -> Option<ServerIndex> {
        let port = if options.with_port { u32::from(client.port()) } else { 0 };
        let client = folded(client.ip()).wrapping_add(port);
        let at = |slot: usize| self.table.get(slot).copied().filter(|server| usable.contains(server));
        match options.scheduler {
            "dh" => at(hash_32(folded(target.ip()))),
            "sh" => {
                let first = hash_32(client);
                let others = (0..256).map(|offset| (2 * first + offset) % 256);
                at(first).or_else(|| options.fallback.then(|| others.map(at).find_map(|found| found))?)
            }
            _ => {
                let slot = |offset: usize| {
                    hsiphash(client.wrapping_add(offset as u32), MAGLEV_KEYS[0]) % MAGLEV_SLOTS
                };
                let first = slot(0);
                let others = (0..MAGLEV_SLOTS).map(|offset| slot((offset + first) % MAGLEV_SLOTS));
                at(first).or_else(|| options.fallback.then(|| others.map(at).find_map(|found| found))?)
            }
        }
    }
}

/// The first of the least cost in relation to its weight.
fn least(
    usable: &[ServerIndex],
    servers: &[Server],
    cost: impl Fn(&ServerIndex) -> i64,
) -> Option<ServerIndex> {
    let weight = |server: &ServerIndex| servers[*server].terms.weight;
    let mut best = *usable.first()?;
    for server in usable {
        if cost(&best) * weight(server) > cost(server) * weight(&best) {
            best = *server;
        }
    }
    Some(best)
}

/// The first of the highest weight.
fn heaviest(open: &[ServerIndex], servers: &[Server]) -> Option<ServerIndex> {
    let mut best = *open.first()?;
    for server in open {
        if servers[*server].terms.weight > servers[best].terms.weight {
            best = *server;
        }
    }
    Some(best)
}

/// 1 if no weight is above 0.
fn common_divisor(weights: &[i64]) -> i64 {
    let positive = || weights.iter().filter(|weight| **weight > 0);
    let least = positive().copied().min().unwrap_or(1);
    (1..=least).rev().find(|divisor| positive().all(|weight| weight % divisor == 0)).unwrap_or(1)
}

/// 256 buckets dealt round after round.
fn dealt(list: &[ServerIndex], share: impl Fn(ServerIndex) -> usize) -> Vec<ServerIndex> {
    let mut table = Vec::new();
    while !list.is_empty() && table.len() < 256 {
        for server in list {
            table.extend(vec![*server; share(*server)]);
        }
    }
    table.truncate(256);
    table
}

/// The four words of an IPv6 address folded into one; an IPv4 address as it is.
fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => address
            .octets()
            .chunks(4)
            .fold(0, |folded, word| folded ^ word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))),
    }
}

fn hash_32(word: u32) -> usize {
    (word.wrapping_mul(0x61C8_8647) >> 24) as usize
}

const MAGLEV_KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// SipHash-1-3 of four bytes under a key that is twice the same word; its lower half.
fn hsiphash(word: u32, key: u64) -> usize {
    let initial: [u64; 4] =
        [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
    let mut v = initial.map(|constant| constant ^ key);
    let block = 4 << 56 | u64::from(word);
    v[3] ^= block;
    sip_round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    (0..3).for_each(|_| sip_round(&mut v));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32 as usize
}

fn sip_round(v: &mut [u64; 4]) {
    for (a, b, first, second) in [(0, 1, 13, 32), (2, 3, 16, 0)] {
        v[a] = v[a].wrapping_add(v[b]);
        v[b] = v[b].rotate_left(first) ^ v[a];
        v[a] = v[a].rotate_left(second);
    }
    for (a, b, first, second) in [(0, 3, 21, 0), (2, 1, 17, 32)] {
        v[a] = v[a].wrapping_add(v[b]);
        v[b] = v[b].rotate_left(first) ^ v[a];
        v[a] = v[a].rotate_left(second);
    }
}

/// Maglev's table; empty if no server claims a slot.
fn maglev(list: &[ServerIndex], servers: &[Server]) -> Vec<ServerIndex> {
    let weights: Vec<i64> = list.iter().map(|server| servers[*server].last_weight).collect();
    let divisor = common_divisor(&weights);
    let most = weights.iter().max().map_or(0, |most| most / divisor);
    let shift = (64 - most.leading_zeros()).saturating_sub(6);
    let mut walks: Vec<(ServerIndex, usize, usize, i64)> = Vec::new();
    for (server, weight) in list.iter().zip(&weights).filter(|(_, weight)| **weight > 0) {
        let address = servers[*server].address;
        let word = folded(address.ip()).wrapping_add(u32::from(address.port()));
        let start = hsiphash(word, MAGLEV_KEYS[0]) % MAGLEV_SLOTS;
        let skip = hsiphash(word, MAGLEV_KEYS[1]) % (MAGLEV_SLOTS - 1) + 1;
        walks.push((*server, start, skip, ((weight / divisor) >> shift).max(1)));
    }
    let mut table = vec![None; MAGLEV_SLOTS];
    let mut free = if walks.is_empty() { 0 } else { MAGLEV_SLOTS };
    while free > 0 {
        for (server, position, skip, turns) in &mut walks {
            for _ in 0..(*turns).min(free as i64) {
                while table[*position].is_some() {
                    *position = (*position + *skip) % MAGLEV_SLOTS;
                }
                table[*position] = Some(*server);
                free -= 1;
            }
        }
    }
    table.into_iter().flatten().collect()
}

#[test]
fn hashes_are_those_of_the_reference() {
    assert_eq!(hsiphash(0x0A00_0001, MAGLEV_KEYS[0]), 0x0308_0CE4);
    assert_eq!(hsiphash(0x0A00_0001, MAGLEV_KEYS[1]), 0x48F9_D0C1);
    assert_eq!(hsiphash(0xC0A8_0001, MAGLEV_KEYS[0]), 0x8334_668E);
    assert_eq!((hash_32(0x0A00_0001), hash_32(0xC0A8_0101)), (39, 136));
}
