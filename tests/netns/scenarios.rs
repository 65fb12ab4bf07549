//! Plays the scenarios of `tests/ipvs` against the daemon itself, in real time, and compares with what Linux's IPVS did.
//!
//! Those that wait for long are left out unless `XLVS_SLOW` is set. `XLVS_SCENARIOS` and `XLVS_ONLY` work as for the
//! scenarios in virtual time.

use std::thread;
use std::time::Duration;

use super::dut::Dut;
use crate::support::scenario::{self, Action, Play, Scenario};
use crate::support::suite::Report;
use crate::support::{known, suite};

/// The longest wait of a scenario that is played anyway.
const PATIENCE: Duration = Duration::from_secs(1);

/// Devices that share a list of scenarios.
const DEVICES: usize = 3;

/// How long a scenario waits in all.
fn waits(scenario: &Scenario) -> Duration {
    let waits = scenario.steps.iter().filter_map(|step| match step.action {
        Action::Wait(seconds) | Action::Sync(seconds) => Some(seconds),
        _ => None,
    });
    Duration::from_secs_f64(waits.sum())
}

#[test]
fn scenarios() {
    play_all(scenario::all(), Dut::new);
}

#[test]
fn scenarios_by_the_shortcut() {
    play_all(scenario::all_by_the_shortcut(), Dut::with_shortcut);
}

fn play<'a>(plays: impl IntoIterator<Item = &'a Play>, dut: &Dut) -> Report {
    suite::run_excusing(&known::all(), plays, |play| dut.reset(play.scenario.neighbours()))
}

/// On several devices at once: most of a scenario is waiting.
fn play_all(mut plays: Vec<Play>, dut: fn() -> Dut) {
    let slow_ones_too = std::env::var_os("XLVS_SLOW").is_some();
    let only = std::env::var("XLVS_ONLY").unwrap_or_default();
    plays.retain(|play| play.scenario.name.contains(&only));
    let (plays, slow): (Vec<_>, Vec<_>) =
        plays.into_iter().partition(|play| slow_ones_too || waits(&play.scenario) <= PATIENCE);
    let mut report = Report::default();
    let share = plays.len().div_ceil(DEVICES).max(1);
    thread::scope(|scope| {
        let played =
            plays.chunks(share).map(|plays| scope.spawn(move || play(plays, &dut()))).collect::<Vec<_>>();
        for played in played {
            let Report { same, different, .. } = played.join().unwrap();
            report.same.extend(same);
            report.different.extend(different);
        }
    });
    // The ping that tells the player that all is done is answered by the router's kernel, past the daemon: on a busy machine
    // a packet may come out a step late. What differs twice is a defect.
    let again =
        plays.iter().filter(|play| report.different.iter().any(|(name, _)| *name == play.scenario.name));
    let second = play(again, &dut());
    second.same.iter().for_each(|name| println!("{name}: the same only at the second try"));
    report.different = second.different;
    report.same.extend(second.same);
    report.not_playable.extend(slow.into_iter().map(|play| (play.scenario.name, "slow, see XLVS_SLOW")));
    assert!(report.different.is_empty(), "{}\n{}", report.stories(), report.summary());
    assert!(!report.same.is_empty(), "no scenario was played");
    println!("{}", report.summary());
}
