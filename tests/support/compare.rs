//! A run against its golden.

use crate::support::dump::{ConnectionRecord, Dump};
use crate::support::scenario::{CommandRecord, StepRecord};

/// Seconds by which an expiry may differ once the drift between the runs is taken off: both are whole seconds of
/// different moments, and the golden tells when a step began to a tenth only.
const EXPIRY_TOLERANCE: f64 = 1.25;
/// Seconds by which a reckoned timeout may differ; it is rounded up on both sides.
const TIMEOUT_TOLERANCE: f64 = 1.0;
/// Seconds that a dump may have taken where the golden does not tell.
const UNKNOWN_LAG: f64 = 1.0;

/// Something that went otherwise than in the golden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Index of the step.
    pub step: usize,
    /// What differs, in a few words.
    pub what: String,
    /// The golden's lines.
    pub golden: Vec<String>,
    /// The lines of this run.
    pub here: Vec<String>,
}

/// All differences, in the order of the steps.
pub fn compare(golden: &[StepRecord], here: &[StepRecord]) -> Vec<Difference> {
    let mut found = Vec::new();
    for (step, (wanted, got)) in golden.iter().zip(here).enumerate() {
        let mut note = |what: &str, golden: Vec<String>, here: Vec<String>| {
            if golden != here {
                found.push(Difference { step, what: what.to_owned(), golden, here });
            }
        };
        note("sent otherwise (follows from an earlier difference)", wanted.input.clone(), got.input.clone());
        note("came out", wanted.out.clone(), got.out.clone());
        for (wanted, got) in wanted.run.iter().zip(&got.run) {
            note("command", command_lines(wanted), command_lines(got));
        }
        if let Some(dump) = &wanted.dump {
            let got_dump = got.dump.clone().unwrap_or_default();
            for (name, lines) in &dump.sections {
                let absent = || vec!["absent".to_owned()];
                note(name, lines.clone(), got_dump.sections.get(name).cloned().unwrap_or_else(absent));
            }
            let drifts = drifts(&golden[..step], wanted, &here[..step], got);
            let allowance = wanted.lag.unwrap_or(UNKNOWN_LAG) + got.lag.unwrap_or(UNKNOWN_LAG);
            let (wanted, got) = connection_lines(dump, &got_dump, &drifts, allowance);
            note("connections", wanted, got);
        }
    }
    if golden.len() != here.len() {
        let count = |steps: &[StepRecord]| vec![format!("{} steps", steps.len())];
        let step = golden.len().min(here.len());
        let what = "number of steps".to_owned();
        found.push(Difference { step, what, golden: count(golden), here: count(here) });
    }
    found
}

fn command_lines(record: &CommandRecord) -> Vec<String> {
    let head = format!("$ {} [exit {}]", record.cmd, record.rc);
    let err = record.err.iter().map(|line| format!("stderr: {line}"));
    std::iter::once(head).chain(record.out.iter().cloned()).chain(err).collect()
}

/// How much longer the golden took than this run from each earlier step to this one: a connection last touched in that
/// step has so much less left.
fn drifts(
    golden_before: &[StepRecord],
    golden: &StepRecord,
    here_before: &[StepRecord],
    here: &StepRecord,
) -> Vec<f64> {
    let elapsed = |from: &StepRecord, to: &StepRecord| Some(to.t? - from.t?);
    let pairs = golden_before.iter().zip(here_before);
    let drifts = pairs.filter_map(|(wanted, got)| Some(elapsed(wanted, golden)? - elapsed(got, here)?));
    std::iter::once(0.0).chain(drifts).collect()
}

/// The connections of both, as text; those whose times are close enough read the same.
fn connection_lines(
    golden: &Dump,
    here: &Dump,
    drifts: &[f64],
    allowance: f64,
) -> (Vec<String>, Vec<String>) {
    let Some(wanted) = &golden.conns else { return (Vec::new(), Vec::new()) };
    let got = here.conns.as_deref().unwrap_or_default();
    let same_order = wanted.len() == got.len() && wanted.iter().zip(got).all(|(a, b)| a.c == b.c);
    if !same_order {
        let names = |conns: &[ConnectionRecord]| conns.iter().map(|conn| conn.c.clone()).collect();
        return (names(wanted), names(got));
    }
    let lines = wanted.iter().zip(got).map(|(wanted, got)| {
        if is_close(wanted, got, drifts, allowance) {
            (wanted.c.clone(), got.c.clone())
        } else {
            (timed(wanted), timed(got))
        }
    });
    lines.unzip()
}

fn is_close(wanted: &ConnectionRecord, got: &ConnectionRecord, drifts: &[f64], allowance: f64) -> bool {
    if let (Some(wanted), Some(got)) = (wanted.timeout, got.timeout)
        && (wanted - got).abs() as f64 <= TIMEOUT_TOLERANCE + allowance
    {
        return true;
    }
    let apart = (wanted.exp - got.exp) as f64;
    drifts.iter().any(|drift| (apart + drift).abs() <= EXPIRY_TOLERANCE + allowance)
}

fn timed(connection: &ConnectionRecord) -> String {
    let timeout = connection.timeout.map(|timeout| format!(" of {timeout} s")).unwrap_or_default();
    format!("{} expires in {} s{timeout}", connection.c, connection.exp)
}
