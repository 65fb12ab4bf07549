//! `xlvs doctor`: what was found, in columns or as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::{Answer, ask};
use crate::admin::print::json;
use crate::director::doctor::{Finding, Grade};
use crate::director::protocol::{Reply, Request};
use crate::director::run::RunOptions;
use crate::director::run::examine::examine;

/// Blanks before what was found, and before what to do.
const MARGIN: usize = 7;

/// Looks and reports. Exit code 1 if something is bad.
pub(super) fn doctor(options: &RunOptions, interfaces: &[String], as_json: bool) -> Result<Answer, String> {
    let running = match ask(Request::Status) {
        Ok(Reply::Status(status)) => status.ports,
        _ => Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("xlvs: cannot start the runtime: {error}"))?;
    let findings = runtime.block_on(examine(options, interfaces, &running));
    let findings = findings.map_err(|error| format!("xlvs: {error}"))?;
    let text = match as_json {
        true => json::line(&json!({ "running": !running.is_empty(), "findings": findings })),
        false => describe(&findings, !running.is_empty()),
    };
    Ok(Answer { text, code: u8::from(count(&findings, Grade::Bad) != 0) })
}

fn count(findings: &[Finding], grade: Grade) -> usize {
    findings.iter().filter(|finding| finding.grade == grade).count()
}

fn describe(findings: &[Finding], running: bool) -> String {
    let mut text = String::new();
    let mut heading = None;
    for finding in findings {
        let subject = finding.interface.as_deref().unwrap_or("this machine");
        if heading != Some(subject) {
            text += &format!("{subject}\n");
            heading = Some(subject);
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:MARGIN$}{}: {}", word(finding.grade), finding.topic, finding.found);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "  {:MARGIN$}{advice}", "");
        }
    }
    text + &summary(findings, running)
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Fair => "fair",
        Grade::Bad => "BAD",
    }
}

fn summary(findings: &[Finding], running: bool) -> String {
    let (bad, fair) = (count(findings, Grade::Bad), count(findings, Grade::Fair));
    let about = if running { "" } else { "; no daemon answers, so this is what it would find" };
    format!("{bad} bad, {fair} could be better{about}\n")
}
