//! One of two cables between the directors is cut, in one direction or both, and the active one ends: connections go on being
//! told, and none of them is lost.

use std::time::Duration;

use xlvs::pulse::Path;

use super::world::{Chance, Fault, Law, Line, MILLISECOND, SECOND, Time, World};

const SCHEDULES: u64 = 500;
/// Both are there, and one has been told of all.
const BEGIN: Time = 20 * SECOND;
/// The active one ends between then and the end of cuts.
const CRASH: Time = 25 * SECOND;
const TROUBLE: Time = 60 * SECOND;
const END: Time = 75 * SECOND;
/// Within this something new is acknowledged: after the second try, and the time of two messages (docs/replica.md).
const LAG_MAX: Duration = Duration::from_millis(130);

fn law(chance: &mut Chance) -> Law {
    Law {
        keepalive: Duration::from_secs(1),
        deadtime: Duration::from_secs(3),
        monitor_links: false,
        private: true,
        key: None,
        fence: None,
        withdrawal: chance.between(1, 200) * MILLISECOND,
        arrival: chance.between(1, 500) * MILLISECOND,
        drift: 500,
        lost_in_a_row: 1,
        sync: Some(Duration::from_secs(30)),
    }
}

fn whole(chance: &mut Chance) -> Line {
    let delay = chance.between(0, 5 * MILLISECOND);
    Line { delay, jitter: chance.between(0, 5 * MILLISECOND), ..Line::PERFECT }
}

fn cut(world: &mut World, chance: &mut Chance, path: Path, from: Time, until: Time) {
    let ways: &[usize] = [&[0, 1][..], &[0], &[1]][chance.between(0, 3) as usize];
    for way in ways {
        world.at(from, Fault::Line(*way, path, Line { up: false, ..Line::PERFECT }));
        world.at(until, Fault::Line(*way, path, whole(chance)));
    }
}

/// How many packets of connections that both had were sent, or what has gone wrong.
fn play(seed: u64) -> Result<u64, String> {
    let mut chance = Chance::new(seed ^ 0xcab1e);
    let mut world = World::new(law(&mut chance), seed);
    for node in [0, 1] {
        Path::ALL.iter().for_each(|path| world.at(0, Fault::Line(node, *path, whole(&mut chance))));
        world.at(0, Fault::Start(node, false));
    }
    let crash = chance.between(CRASH, TROUBLE);
    if seed.is_multiple_of(4) {
        cut(&mut world, &mut chance, Path::Private, BEGIN, END);
    } else {
        let mut from = BEGIN;
        while from < TROUBLE {
            let path = Path::ALL[chance.between(0, 2) as usize];
            let until = from + chance.between(MILLISECOND, 15 * SECOND);
            cut(&mut world, &mut chance, path, from, until);
            from = until + chance.between(MILLISECOND, 5 * SECOND);
        }
    }
    // One that is killed cannot tell of what came just before.
    let kill = chance.permille(500);
    let rest = if kill { LAG_MAX.as_nanos() as Time } else { 0 };
    world.invite_clients(SECOND, crash - rest);
    world.invite_clients(crash, END);
    while world.now < crash {
        world.step(crash);
        if world.now > BEGIN && world.lag() > LAG_MAX {
            return Err(format!("{:?} without an acknowledgement at {} ns", world.lag(), world.now));
        }
    }
    let [former] = [0, 1].into_iter().filter(|node| world.nodes[*node].is_active()).collect::<Vec<_>>()[..]
    else {
        return Err("not one is active".to_owned());
    };
    world.at(crash, if kill { Fault::Kill(former) } else { Fault::Terminate(former) });
    while world.now < END && world.breach.is_none() {
        world.step(END);
    }
    world.breach.take().map_or(Ok(()), Err)?;
    if !world.nodes[1 - former].is_active() {
        return Err("nobody has taken over".to_owned());
    }
    match world.clients.lost + world.clients.astray {
        0 => Ok(world.clients.survived),
        lost => Err(format!("{lost} connections are lost (killed: {kill})")),
    }
}

#[test]
fn with_one_of_two_cables_cut_no_connection_is_lost_at_a_takeover() {
    let mut survived = 0;
    for seed in 0..SCHEDULES {
        survived += play(seed).unwrap_or_else(|error| panic!("schedule {seed}: {error}"));
    }
    println!("{SCHEDULES} schedules, {survived} packets of connections that both had, none lost");
    assert!(survived > 20 * SCHEDULES, "too few connections to say anything: {survived}");
}
