//! Thousands of schedules of faults, and what must hold in all of them (docs/pulse.md, "What is promised").

use std::ops::Range;
use std::time::Duration;

use xlvs::pulse::wire::Key;
use xlvs::pulse::{Path, Wish};

use super::seen::Seen;
use super::twin::{self, FAREWELL};
use super::world::{Chance, Fault, Law, Line, MILLISECOND, SECOND, Time, World};

const SCHEDULES: u64 = 10_000;
/// Another number of schedules, for who has more or less time; the seeds are the same.
const NUMBER: &str = "XLVS_PULSE_SCHEDULES";
/// Those with connections take longer, and are in so many tests, which run side by side.
const PARTS: u64 = 4;
/// How often 10,000 schedules come to what is worth being seen, at least.
const PAIR: [(&str, u64); 28] = [
    ("active router loses its link", 400),
    ("attack: heartbeat forged", 7000),
    ("attack: heartbeat of another run", 900),
    ("attack: heartbeat repeated", 2000),
    ("attack: heartbeat without authentication", 3000),
    ("attack: nonsense", 30_000),
    ("backup gives way", 2000),
    ("fencing not waited for", 70),
    ("forced start", 600),
    ("no way between the routers", 3000),
    ("one direction alone is cut", 4000),
    ("primary gives way", 200),
    ("restart of the active router within deadtime", 300),
    ("restart within deadtime", 900),
    ("standby that nobody has taken over from", 50),
    ("start while the partner is active", 6000),
    ("takeover after fencing", 900),
    ("takeover after silence", 4000),
    ("takeover by an operator", 200),
    ("takeover by the backup when told", 2000),
    ("takeover by the primary when told", 5000),
    ("takeover from a killed router", 1000),
    ("takeover from one that has ended, or never was", 2000),
    ("takeover from one that waits", 7000),
    ("takeover while the other one is active", 900),
    ("takeover while the other one is active and cut off", 1000),
    ("upgrade of the active router", 1000),
    ("upgrade of the standby", 1000),
];
/// Those with connections besides.
const TWINS: [(&str, u64); 13] = [
    ("attack: connections forged or malformed", 30_000),
    ("attack: connections of another run", 2000),
    ("attack: connections repeated", 9000),
    ("changes that find no room", 20_000),
    ("forgotten connection told of again", 600),
    ("operator refused: still being told", 40),
    ("tables compared when all was acknowledged", 1_000_000),
    ("tables compared while all is calm", 300_000),
    ("takeover after waiting long enough", 100),
    ("takeover with all connections", 3000),
    ("takeover without some that nobody had acknowledged", 4000),
    ("work left with all acknowledged", 2000),
    ("work left with something not acknowledged", 3000),
];
/// Faults happen until then; afterwards everything is whole.
const TROUBLE: Time = 90 * SECOND;
const DELAY_MAX: Time = 300 * MILLISECOND;

fn law(chance: &mut Chance) -> Law {
    let keepalive = chance.between(1, 4);
    let ratio = chance.between(3, 6);
    Law {
        keepalive: Duration::from_secs(keepalive),
        deadtime: Duration::from_secs(keepalive * ratio),
        monitor_links: chance.permille(500),
        private: chance.permille(500),
        key: chance.permille(400).then(|| Key::new(b"a key of both routers").unwrap()),
        fence: chance.permille(250).then(|| (chance.between(1, 3_000) * MILLISECOND, chance.permille(700))),
        withdrawal: chance.between(1, 200) * MILLISECOND,
        arrival: chance.between(1, 500) * MILLISECOND,
        drift: 500,
        // The one after them arrives within deadtime, the delay included.
        lost_in_a_row: ratio - 2,
        sync: None,
    }
}

fn line(chance: &mut Chance) -> Line {
    Line {
        up: !chance.permille(400),
        loss: chance.between(0, 4) * 200,
        duplicates: chance.between(0, 3) * 300,
        delay: chance.between(0, DELAY_MAX / 3),
        jitter: chance.between(0, DELAY_MAX / 2),
        ..Line::PERFECT
    }
}

/// One fault, and the one that ends it.
fn trouble(world: &mut World, chance: &mut Chance) {
    let at = chance.between(0, TROUBLE);
    let node = chance.between(0, 2) as usize;
    let path = Path::ALL[chance.between(0, 2) as usize];
    let until = at + chance.between(MILLISECOND, 25 * SECOND);
    let forced = chance.permille(100);
    let kinds = if world.law.sync.is_some() { 14 } else { 12 };
    match chance.between(0, kinds) {
        0 => world.at(at, Fault::Kill(node)),
        1 => world.at(at, Fault::Terminate(node)),
        2 => world.at(at, Fault::Break(node)),
        3 => {
            world.at(at, Fault::Link(node, path, false));
            return world.at(until, Fault::Link(node, path, true));
        }
        4 => return world.at(at, Fault::Wish(node, Wish::Takeover)),
        5 => return world.at(at, Fault::Wish(node, Wish::Standby)),
        6 | 7 => return world.at(at, Fault::Line(node, path, line(chance))),
        8 => {
            // All at once.
            for (node, path) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let cut = Line { up: false, ..Line::PERFECT };
                world.at(at, Fault::Line(node, Path::ALL[path], cut));
                world.at(until.min(TROUBLE), Fault::Line(node, Path::ALL[path], line(chance)));
            }
            return;
        }
        9 => return (0..20).for_each(|n| world.at(at + n * 100 * MILLISECOND, Fault::Attack(node))),
        10 => return world.at(at, Fault::Upgrade(node)),
        11 => {
            // One cable, both ways.
            for node in [0, 1] {
                world.at(at, Fault::Line(node, path, Line { up: false, ..Line::PERFECT }));
                world.at(until.min(TROUBLE), Fault::Line(node, path, line(chance)));
            }
            return;
        }
        12 => return (0..20).for_each(|n| world.at(at + n * 100 * MILLISECOND, Fault::AttackReplica(node))),
        _ => return world.at(at, Fault::Forget(node)),
    }
    world.at(until, Fault::Start(node, forced));
}

fn repair(world: &mut World, chance: &mut Chance) {
    for node in [0, 1] {
        for path in Path::ALL {
            let whole = Line { up: true, ..line(chance) };
            world.at(TROUBLE, Fault::Line(node, path, whole));
            world.at(TROUBLE, Fault::Link(node, path, true));
        }
        // Later than any start that a fault has brought with it, so that it is the last.
        world.at(TROUBLE + 1, Fault::Start(node, false));
    }
}

/// What so many schedules have to come to, if 10,000 have to come to that. A few of them may come to anything.
fn share(least: &[(&'static str, u64)], schedules: u64) -> Vec<(&'static str, u64)> {
    let least = if self::schedules() < SCHEDULES { &[] } else { least };
    least.iter().map(|(what, least)| (*what, least * schedules / SCHEDULES)).collect()
}

/// For how long something has been so, without a break.
#[derive(Default)]
struct Span(Option<Time>);

impl Span {
    fn update(&mut self, now: Time, holds: bool) -> Time {
        if !holds {
            self.0 = None;
        }
        let from = self.0.or(holds.then_some(now));
        self.0 = from;
        from.map_or(0, |from| now - from)
    }
}

/// What must never last longer than it may.
#[derive(Default)]
struct Watch {
    both: Span,
    /// While one way loses nothing.
    both_sure: Span,
    both_one_way: Span,
    none: Span,
    /// While nobody waits to be told of connections.
    none_told: Span,
    /// The longest two actives with a path in both directions, for the record.
    longest: Time,
}

impl Watch {
    fn look(&mut self, world: &World, fault: Option<Fault>) -> Result<(), String> {
        let law = &world.law;
        let now = world.now;
        let farewell = law.sync.map_or(0, |_| FAREWELL);
        let rest = DELAY_MAX + law.withdrawal + farewell;
        let deadtime = law.slow(law.deadtime);
        let holds = world.nodes[0].holds() && world.nodes[1].holds();
        let (there, back) = (world.reaches(0), world.reaches(1));
        let (surely_there, surely_back) = (world.surely_reaches(0), world.surely_reaches(1));
        // Whoever has a key believes only what answers it.
        let keyed = law.key.is_some();
        let (heard, surely, fair) = match keyed {
            true => (there && back, surely_there && surely_back, 3),
            false => (there, surely_there, 1),
        };
        let both_sure = self.both_sure.update(now, holds && surely);
        if both_sure > fair * law.slow(law.keepalive) + rest {
            return Err(format!(
                "two actives for {both_sure} ns, more than {fair} keepalives, and nothing is lost"
            ));
        }
        let both = self.both.update(now, holds && heard);
        self.longest = self.longest.max(both);
        if both > fair * deadtime + rest {
            return Err(format!("two actives for {both} ns, more than {fair} deadtimes"));
        }
        let one_way = self.both_one_way.update(now, holds && back && law.key.is_none());
        if one_way > 3 * deadtime + rest {
            return Err(format!(
                "two actives for {one_way} ns, more than 3 deadtimes, with one direction up"
            ));
        }
        let harmless = |fault| matches!(fault, Fault::Attack(_) | Fault::AttackReplica(_) | Fault::Forget(_));
        if fault.is_some_and(|fault| !harmless(fault)) {
            (self.none, self.none_told) = (Span::default(), Span::default());
        }
        let idle = !world.nodes.iter().any(|node| node.is_active());
        let idle = idle && world.nodes.iter().any(|node| node.is_healthy(law));
        let fence = law.fence.map_or(0, |(takes, _)| takes);
        let none = self.none.update(now, idle);
        let wait = law.sync.map_or(0, |wait| law.slow(wait) + FAREWELL);
        let bound = 2 * deadtime + law.slow(law.keepalive) + fence + rest;
        let none_told = self.none_told.update(now, idle && !world.waits());
        if none > bound + wait || none_told > bound {
            return Err(format!("nobody is active for {none} ns, and somebody could be"));
        }
        if world.nodes.iter().any(|node| node.is_active() && !node.is_healthy(law)) {
            return Err("a router is active without a monitored link".to_owned());
        }
        world.breach.clone().map_or(Ok(()), Err)
    }
}

/// What a schedule has shown.
#[derive(Default)]
struct Account {
    longest: Time,
    attacks: u64,
    survived: u64,
    aged: u64,
    lost: u64,
    astray: u64,
    seen: Seen,
}

fn play(seed: u64, story: bool, sync: bool) -> Result<Account, (String, Vec<String>)> {
    let mut chance = Chance::new(seed);
    let mut law = law(&mut chance);
    if sync {
        law.sync = Some(Duration::from_secs(chance.between(1, 40)));
    }
    let mut world = World::new(law, seed);
    world.story = story.then(Vec::new);
    for node in [0, 1] {
        let at = chance.between(0, 3) * chance.between(0, 5 * SECOND);
        world.at(at, Fault::Start(node, false));
    }
    for _ in 0..chance.between(1, 12) {
        trouble(&mut world, &mut chance);
    }
    // What a fault brings with it later is over then.
    repair(&mut world, &mut chance);
    let settled = TROUBLE + 26 * SECOND + 8 * world.law.slow(world.law.deadtime);
    let settled = settled + world.law.slow(world.law.sync.unwrap_or_default());
    let end = settled + 4 * world.law.slow(world.law.deadtime);
    if sync {
        world.invite_clients(SECOND, end - 2 * world.law.slow(world.law.deadtime));
        for (node, path) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            world.at(settled, Fault::Line(node, Path::ALL[path], Line::PERFECT));
        }
    }
    let mut watch = Watch::default();
    let mut outcome = Ok(());
    while world.now < end && outcome.is_ok() {
        let fault = world.step(end);
        outcome = watch.look(&world, fault);
        if outcome.is_ok() && world.now > settled {
            let active = world.nodes.iter().filter(|node| node.is_active()).count();
            let healthy = world.nodes.iter().filter(|node| node.is_healthy(&world.law)).count();
            if healthy > 0 && active != 1 {
                outcome = Err(format!("{active} actives, long after all is whole"));
            }
        }
    }
    if outcome.is_ok() && sync {
        outcome = world.twins_agree();
    }
    if outcome.is_ok() && world.refused != world.attacks {
        outcome = Err(format!("{} attacks, but {} refusals", world.attacks, world.refused));
    }
    let law = format!("{:?}", world.law);
    let mut lines = world.story.take().unwrap_or_default();
    lines.insert(0, law);
    outcome.map_err(|error| (error, lines))?;
    let twin::Clients { survived, aged, lost, astray, .. } = world.clients;
    let (longest, attacks, seen) = (watch.longest, world.attacks, world.seen);
    Ok(Account { longest, attacks, survived, aged, lost, astray, seen })
}

fn schedules() -> u64 {
    std::env::var(NUMBER).map_or(SCHEDULES, |number| number.parse().unwrap())
}

#[test]
fn two_directors_keep_their_promises_whatever_happens() {
    let schedules = schedules();
    let sum = play_all(0..schedules, false);
    println!(
        "{schedules} schedules, {} attacks refused, two actives with a path up for {} ms at most",
        sum.attacks,
        sum.longest / MILLISECOND
    );
    sum.seen.require(&share(&PAIR, schedules));
}

/// One of the parts with connections, which each tells the other one of.
fn connections_survive(part: u64) {
    let each = schedules() / PARTS;
    let sum = play_all(part * each..(part + 1) * each, true);
    println!(
        "{each} schedules, {} packets of connections that both had, {} of these in an older state, {} connections lost \
         that only one had, {} of these with another one in their place, two actives with a path up for {} ms at most",
        sum.survived,
        sum.aged,
        sum.lost + sum.astray,
        sum.astray,
        sum.longest / MILLISECOND
    );
    assert!(sum.survived > 10 * each, "too few connections to say anything");
    sum.seen.require(&share(&PAIR, each));
    sum.seen.require(&share(&TWINS, each));
}

#[test]
fn connections_that_both_have_survive_whatever_happens() {
    connections_survive(0);
}

#[test]
fn connections_that_both_have_survive_in_the_second_quarter_of_schedules() {
    connections_survive(1);
}

#[test]
fn connections_that_both_have_survive_in_the_third_quarter_of_schedules() {
    connections_survive(2);
}

#[test]
fn connections_that_both_have_survive_in_the_last_quarter_of_schedules() {
    connections_survive(3);
}

fn play_all(seeds: Range<u64>, sync: bool) -> Account {
    let mut sum = Account::default();
    for seed in seeds {
        match play(seed, false, sync) {
            Ok(account) => {
                sum.longest = sum.longest.max(account.longest);
                sum.attacks += account.attacks;
                sum.survived += account.survived;
                sum.aged += account.aged;
                sum.lost += account.lost;
                sum.seen.add(&account.seen);
                sum.astray += account.astray;
            }
            Err((error, _)) => {
                let (_, story) = play(seed, true, sync).err().expect("the same seed fails again");
                panic!("schedule {seed}: {error}\n{}", story.join("\n"));
            }
        }
    }
    sum
}
