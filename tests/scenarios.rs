//! Plays every scenario of `tests/ipvs` in virtual time, and compares with what Linux's IPVS did. What may differ stands in
//! `tests/ipvs/known-differences.txt`.
//!
//! `XLVS_SCENARIOS=DIR:DIR…` plays those of more directories, each with `scenarios/` and `goldens/`.
//! `XLVS_ONLY=TEXT` plays only those whose name contains TEXT, to look into one.

use crate::support::device::Device;
use crate::support::ethernet::Neighbours;
use crate::support::scenario::Play;
use crate::support::{engine, known, scenario, suite};

#[test]
fn scenarios() {
    play_all(&scenario::all(), engine::device_among);
}

#[test]
fn scenarios_by_the_shortcut() {
    play_all(&scenario::all_by_the_shortcut(), engine::shortened_device_among);
}

fn play_all(plays: &[Play], device: fn(Neighbours) -> Box<dyn Device>) {
    let only = std::env::var("XLVS_ONLY").unwrap_or_default();
    let plays = plays.iter().filter(|play| play.scenario.name.contains(&only));
    let report = suite::run_excusing(&known::all(), plays, |play| device(play.scenario.neighbours()));
    assert!(report.different.is_empty(), "{}\n{}", report.stories(), report.summary());
    assert!(!report.same.is_empty(), "no scenario was played");
    println!("{}", report.summary());
}
