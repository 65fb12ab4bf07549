//! `xlvs plan` and `xlvs apply`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command_line::SiteFileNames;
use super::{Answer, Trouble, ask, message, text, unexpected};
use crate::admin::client::{ControlSocket, Transport as _};
use crate::admin::print::json;
use crate::config::text;
use crate::director::plan::{Change, Plan, Step, Toll};
use crate::director::protocol::{FileText, Reply, Request, SiteFiles};

/// Exit code of a plan that breaks more connections than it may, and of one that cannot be made.
const TOO_MANY: u8 = 1;
const NO_PLAN: u8 = 2;

/// Says what the files would do. Exit code 1 if that breaks more connections than `max_broken`.
pub(super) fn plan(files: &SiteFileNames, max_broken: Option<u64>, as_json: bool) -> Result<Answer, Trouble> {
    let plan = made(files).map_err(|text| Trouble { text, code: NO_PLAN })?;
    let code = match max_broken {
        Some(most) if plan.total.broken > most => TOO_MANY,
        _ => 0,
    };
    let text = if as_json { json::line(&plan) } else { describe(&plan) };
    Ok(Answer { text, code })
}

fn made(files: &SiteFileNames) -> Result<Plan, String> {
    match ask(Request::Plan(read(files)?))? {
        Reply::Plan(plan) => Ok(*plan),
        other => Err(unexpected(other)),
    }
}

/// Has the daemon follow the files.
pub(super) fn apply(
    files: &SiteFileNames,
    confirm: Option<u32>,
    install: bool,
    as_json: bool,
) -> Result<Answer, String> {
    let request = Request::Apply { files: read(files)?, confirm, install };
    Ok(message(text(request)?, as_json).into())
}

/// Longer than the daemon waits for the process that is to follow it.
const UPGRADE_TIME: Duration = Duration::from_secs(90);

/// Has a process of another program follow the daemon, or of this one.
pub(super) fn upgrade(program: Option<PathBuf>, as_json: bool) -> Result<Answer, String> {
    let program = program.map_or_else(std::env::current_exe, fs::canonicalize);
    let program = program.map_err(|error| format!("xlvs: the program to run: {error}"))?;
    let mut socket = ControlSocket::from_environment().with_patience(UPGRADE_TIME);
    match socket.call(Request::Upgrade { program }).map_err(|error| format!("xlvs: {error}"))? {
        Reply::Text(text) => Ok(message(text + "\n", as_json).into()),
        other => Err(unexpected(other)),
    }
}

fn read(files: &SiteFileNames) -> Result<SiteFiles, String> {
    let read = |path: &Path| {
        let name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        match text::read(path) {
            Ok(text) => Ok(FileText { name, text }),
            Err(error) => Err(format!("{}: error: {error}", path.display())),
        }
    };
    let rules = |path: &Option<std::path::PathBuf>| path.as_deref().map(read).transpose();
    Ok(SiteFiles { lvs: read(&files.lvs)?, marks: rules(&files.marks)?, marks6: rules(&files.marks6)? })
}

fn describe(plan: &Plan) -> String {
    let changes: String = plan.changes.iter().map(line).collect();
    let nothing = if plan.changes.is_empty() { "nothing changes\n" } else { "" };
    let Toll { kept, drained, broken, templates } = plan.total;
    let until = match (drained, plan.deadline) {
        (0, _) => String::new(),
        (_, seconds) => format!(" (until they end, or {seconds} s)"),
    };
    let draining = match plan.draining {
        0 => String::new(),
        draining => format!(" ({draining} of them are drained already)"),
    };
    format!(
        "{changes}{nothing}connections: {kept} kept{draining}, {drained} drained{until}, {broken} broken at once; persistence \
         templates ended: {templates}\n"
    )
}

fn line(Change { step, subject, from, to, toll }: &Change) -> String {
    let word = match step {
        Step::Added => "added",
        Step::Changed => "changed",
        Step::Removed => "removed",
    };
    let terms = match (from, to) {
        (Some(from), Some(to)) => format!("{from} becomes {to}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => String::new(),
    };
    let counts = [
        (toll.kept, "kept"),
        (toll.drained, "drained"),
        (toll.broken, "broken"),
        (toll.templates, "templates ended"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" [{}]", counts.join(", ")) };
    format!("{word:8}{subject}: {terms}{counts}\n")
}
