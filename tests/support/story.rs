//! A failed scenario as a story: what was done, up to the first difference, and then what should have come and what did.

use std::fmt::Write;

use crate::support::compare::Difference;
use crate::support::scenario::{Scenario, StepRecord};

/// Steps told in full before the difference; of earlier ones only the commands.
const STEPS_TOLD: usize = 6;

/// Tells the first of `differences` (there is one) in a run of `scenario`.
pub fn tell(scenario: &Scenario, here: &[StepRecord], differences: &[Difference]) -> String {
    let first = &differences[0];
    let mut story = format!("{}: {}\n", scenario.name, scenario.about);
    let mut silent = 0;
    for (step, record) in here.iter().enumerate().take(first.step) {
        let told = step + STEPS_TOLD >= first.step || !record.run.is_empty();
        if told {
            tell_silence(&mut story, &mut silent);
            tell_step(&mut story, record, true);
        } else {
            silent += 1;
        }
    }
    tell_silence(&mut story, &mut silent);
    if let Some(record) = here.get(first.step) {
        tell_step(&mut story, record, false);
    }
    tell_difference(&mut story, here.get(first.step), first);
    if differences.len() > 1 {
        let _ = writeln!(story, "  and {} more differences after that", differences.len() - 1);
    }
    story
}

fn tell_silence(story: &mut String, silent: &mut usize) {
    if *silent > 0 {
        let _ = writeln!(story, "  … {silent} steps as in the golden");
    }
    *silent = 0;
}

fn heading(record: &StepRecord) -> String {
    format!("{:>3} {:<6}", record.i, record.label.as_deref().unwrap_or_default())
}

fn tell_step(story: &mut String, record: &StepRecord, with_out: bool) {
    let heading = heading(record);
    for command in &record.run {
        let exit = if command.rc == 0 { String::new() } else { format!("  [exit {}]", command.rc) };
        let _ = writeln!(story, "  {heading} $ {}{exit}", command.cmd);
    }
    for line in &record.input {
        let _ = writeln!(story, "  {heading} > {line}");
    }
    if let Some(seconds) = record.wait {
        let _ = writeln!(story, "  {heading} wait {seconds} s");
    }
    if with_out && !record.input.is_empty() {
        for line in or_nothing(&record.out) {
            let _ = writeln!(story, "             < {line}");
        }
    }
}

fn tell_difference(story: &mut String, record: Option<&StepRecord>, difference: &Difference) {
    let label = record.and_then(|record| record.label.as_ref());
    let label = label.map(|label| format!(" ({label})")).unwrap_or_default();
    let _ = writeln!(story, "  step {}{label}, {}:", difference.step, difference.what);
    let (golden, here) = (or_nothing(&difference.golden), or_nothing(&difference.here));
    for i in 0..golden.len().max(here.len()) {
        match (golden.get(i), here.get(i)) {
            (Some(wanted), Some(got)) if wanted == got => {
                let _ = writeln!(story, "      both   {wanted}");
            }
            (wanted, got) => {
                if let Some(line) = wanted {
                    let _ = writeln!(story, "      golden {line}");
                }
                if let Some(line) = got {
                    let _ = writeln!(story, "      here   {line}");
                }
            }
        }
    }
}

fn or_nothing(lines: &[String]) -> Vec<&str> {
    if lines.is_empty() { vec!["nothing"] } else { lines.iter().map(String::as_str).collect() }
}
