//! Known differences: steps in which the recorded kernel is wrong, so that a device must do otherwise.

use std::fmt;
use std::fs;

use crate::support::compare::Difference;
use crate::support::scenario;

/// One line of `tests/ipvs/known-differences.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDifference {
    /// Name of the scenario.
    pub scenario: String,
    /// Number of the step, from 0.
    pub step: usize,
    /// Written `step+`: what comes after it follows from it, and may differ as well.
    pub onwards: bool,
    /// What is wrong in the kernel.
    pub reason: String,
}

impl KnownDifference {
    fn excuses(&self, found: &Difference) -> bool {
        found.step == self.step || (self.onwards && found.step > self.step)
    }
}

impl fmt::Display for KnownDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} step {}: {}", self.scenario, self.step, self.reason)
    }
}

/// All of them. Panics at a line that is neither empty, nor a comment, nor `scenario step reason`.
pub fn all() -> Vec<KnownDifference> {
    let path = scenario::own_directory().join("known-differences.txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("{}: {line}", path.display()))).collect()
}

fn parse(line: &str) -> Option<KnownDifference> {
    let (scenario, rest) = line.split_once(' ')?;
    let (step, reason) = rest.split_once(' ')?;
    let onwards = step.ends_with('+');
    let step = step.trim_end_matches('+').parse().ok()?;
    Some(KnownDifference { scenario: scenario.to_owned(), step, onwards, reason: reason.to_owned() })
}

/// Takes those of a scenario's differences out that are known, and returns the known ones that are not among them.
pub fn excuse(
    known: &[KnownDifference],
    scenario: &str,
    differences: &mut Vec<Difference>,
) -> Vec<KnownDifference> {
    let known = || known.iter().filter(|known| known.scenario == scenario);
    let unused = known().filter(|known| !differences.iter().any(|found| found.step == known.step));
    let unused = unused.cloned().collect();
    differences.retain(|found| !known().any(|known| known.excuses(found)));
    unused
}
