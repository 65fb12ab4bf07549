//! Many scenarios in a row, each on its own, and the summary of them all.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::compare::compare;
use crate::support::device::Device;
use crate::support::known::{self, KnownDifference};
use crate::support::player::play;
use crate::support::scenario::Play;
use crate::support::story::tell;

/// What came of a set of scenarios.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Names of those that went as in their golden.
    pub same: Vec<String>,
    /// Names of those that did not, with the story of the first difference.
    pub different: Vec<(String, String)>,
    /// Names of those that have not been played, with the reason.
    pub not_playable: Vec<(String, &'static str)>,
}

impl Report {
    /// One line.
    pub fn summary(&self) -> String {
        let names: Vec<_> = self.different.iter().map(|(name, _)| name.as_str()).collect();
        let obstacles: Vec<_> =
            self.not_playable.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        format!(
            "scenarios: {} same, {} differ{}, {} not played{}",
            self.same.len(),
            names.len(),
            in_brackets(&names.join(" ")),
            obstacles.len(),
            in_brackets(&obstacles.join(", ")),
        )
    }

    /// All stories.
    pub fn stories(&self) -> String {
        self.different.iter().map(|(_, story)| format!("\n{story}")).collect()
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// Plays `plays` against a fresh `device` each. One that panics counts as different, and the others are still played.
pub fn run<'a>(
    plays: impl IntoIterator<Item = &'a Play>,
    device: impl Fn(&Play) -> Box<dyn Device>,
) -> Report {
    run_excusing(&[], plays, device)
}

/// The same, where the `known` differences must come, and no others.
pub fn run_excusing<'a>(
    known: &[KnownDifference],
    plays: impl IntoIterator<Item = &'a Play>,
    device: impl Fn(&Play) -> Box<dyn Device>,
) -> Report {
    let mut report = Report::default();
    for play in plays {
        let name = play.scenario.name.clone();
        let story = catch_unwind(AssertUnwindSafe(|| story_of(known, play, &mut *device(play))))
            .unwrap_or_else(|_| Some(format!("{name}: panicked, see above\n")));
        match story {
            None => report.same.push(name),
            Some(story) => report.different.push((name, story)),
        }
    }
    report
}

/// Plays one scenario; `None` if it goes as in its golden but for `known` differences.
pub fn story_of(known: &[KnownDifference], recorded: &Play, device: &mut dyn Device) -> Option<String> {
    let here = play(&recorded.scenario, device);
    let mut differences = compare(&recorded.golden.steps, &here);
    let unused = known::excuse(known, &recorded.scenario.name, &mut differences);
    if !differences.is_empty() {
        return Some(tell(&recorded.scenario, &here, &differences));
    }
    let story: Vec<_> =
        unused.iter().map(|known| format!("is known to differ, and does not: {known}\n")).collect();
    (!story.is_empty()).then(|| story.concat())
}
