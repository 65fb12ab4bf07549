//! Ten thousand random sequences of commands, packets and pauses: the engine must do what a simple model of the reference
//! (ipvs.md) does. The same ones at every run; `XLVS_SEED=N` takes others, `XLVS_SEQUENCES=N` another number of them.

mod edits;
mod listing;
mod packets;
mod rig;
mod schedulers;
mod sctp;
mod sequence;
mod tables;
mod tcp;
mod world;

use std::cell::Cell;

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::model::sequence::Theme;
use crate::model::world::World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A runner whose every case follows from `seed`.
fn runner(seed: u64, cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 50_000, ..Config::default() };
    // The quick one of its generators, which must not begin with zeros only.
    let bytes = (u128::from(seed) << 64 | 0x9e37_79b9_7f4a_7c15).to_le_bytes();
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &bytes))
}

fn compare(world: World, theme: Theme, cases: u32) {
    play(world, theme, cases, None);
}

/// Returns how many packets took the shortcut, if there was one.
fn play(world: World, theme: Theme, cases: u32, shortcut: Option<u32>) -> u64 {
    let seed = number("XLVS_SEED").unwrap_or(1);
    let cases = number("XLVS_SEQUENCES").map_or(cases, |cases| cases as u32);
    let (translated, events, open, shortened) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let outcome = runner(seed, cases).run(&sequence::sequences(theme), |ops| {
        let progress =
            rig::play(world, &ops, shortcut).map_err(proptest::test_runner::TestCaseError::fail)?;
        translated.set(translated.get() + progress.translated);
        events.set(events.get() + progress.events);
        shortened.set(shortened.get() + progress.shortened);
        open.set(open.get() + u32::from(progress.open_end));
        Ok(())
    });
    if let Err(TestError::Fail(story, ops)) = outcome {
        panic!("seed {seed}: {} events suffice to make a difference:\n{story}", ops.len());
    }
    println!(
        "{cases} sequences, {} events, {} packets translated, {} sequences cut short",
        events.get(),
        translated.get(),
        open.get()
    );
    assert!(translated.get() > cases as usize, "hardly a packet was translated");
    assert!(open.get() < cases / 20 + 1, "too many sequences end where the reference says nothing");
    shortened.get()
}

/// The reference knows of no shortcut.
#[test]
fn shortcuts_make_no_difference() {
    for (world, theme, after) in [
        (World::V4, sequence::CONNECTIONS, 0),
        (World::V6, sequence::CONNECTIONS, 1),
        (World::V4, sequence::PERSISTENCE, 0),
        (World::V4, sequence::EDITS, 0),
    ] {
        let shortened = play(world, theme, 800, Some(after));
        assert!(shortened > 100, "hardly a packet took the shortcut: {shortened}");
    }
}

#[test]
fn connections() {
    compare(World::V4, sequence::CONNECTIONS, 1600);
}

#[test]
fn associations() {
    compare(World::V4, sequence::ASSOCIATIONS, 800);
}

#[test]
fn persistence() {
    compare(World::V4, sequence::PERSISTENCE, 1800);
}

#[test]
fn scheduling() {
    compare(World::V4, sequence::SCHEDULING, 1800);
}

#[test]
fn edits() {
    compare(World::V4, sequence::EDITS, 1700);
}

#[test]
fn maglev() {
    compare(World::V4, sequence::MAGLEV, 200);
}

#[test]
fn ipv6() {
    compare(World::V6, sequence::PERSISTENCE, 800);
    compare(World::V6, sequence::SCHEDULING, 500);
    compare(World::V6, sequence::EDITS, 800);
}
