//! `xlvs`: the daemon's command line and the operator's tool.

mod changes;
mod command_line;
mod doctor;
mod drain;
mod events;
mod pair;
mod status;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use self::command_line::{Task, parse};
use super::client::{ControlSocket, Transport, TransportError};
use super::print::json;
use super::print::proc::ProcFile;
use super::subcommands;
use crate::config::report::{CheckOutcome, check_file};
use crate::director::names::with_system_names;
use crate::director::protocol::{Reply, Request, Status};
use crate::director::run::{self, RunOptions};
use crate::host::journal;

/// What to print, and the exit code.
struct Answer {
    text: String,
    code: u8,
}

/// What went wrong, and the exit code.
struct Trouble {
    text: String,
    code: u8,
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Trouble { text, code: 1 }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Answer { text, code: 0 }
    }
}

/// Does what the arguments (without the program's name) say.
pub fn main(mut arguments: Vec<OsString>) -> ExitCode {
    let words = arguments.len();
    arguments.retain(|word| word != "--json");
    let json = arguments.len() != words;
    let task = match parse(arguments, json) {
        Ok(task) => task,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("xlvs: {error}\nSee `xlvs help'.\n"));
            return ExitCode::from(2);
        }
    };
    match perform(task, json) {
        Ok(Answer { text, code }) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::from(code)
        }
        Err(Trouble { text, code }) => {
            say(&mut std::io::stderr(), &complaint(text.trim_end()));
            ExitCode::from(code)
        }
    }
}

/// What the unit's `xlvs run` and `xlvs upgrade` say of a failure is looked for among the journal's errors.
fn complaint(text: &str) -> String {
    match journal::is_behind_standard_error() {
        true => journal::entries(tracing::Level::ERROR, text),
        false => format!("{text}\n"),
    }
}

/// The task is done whether or not somebody still reads: `xlvs status | head -1` is no failure.
fn say(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What to print, or what went wrong.
fn perform(task: Task, json: bool) -> Result<Answer, Trouble> {
    Ok(match task {
        Task::Help => subcommands::help().into(),
        Task::Print(text) => text.into(),
        Task::Version => format!("xlvs {}\n", env!("CARGO_PKG_VERSION")).into(),
        Task::Run(options) => balance(options)?.into(),
        Task::Check(files) => check(&files, json)?,
        Task::Status => match ask(Request::Status)? {
            Reply::Status(status) if json => json::line(&status).into(),
            Reply::Status(status) => status::describe(&status).into(),
            other => return Err(unexpected(other).into()),
        },
        Task::Diff => diff(json)?,
        Task::Doctor { options, interfaces } => doctor::doctor(&options, &interfaces, json)?,
        Task::Proc(file) => show_proc(file),
        Task::Takeover => message(text(Request::Takeover)?, json).into(),
        Task::Standby => message(text(Request::Standby)?, json).into(),
        Task::ListSysctls => settings(&text(Request::ListSysctls)?, json).into(),
        Task::Sysctl { name, value } => settings(&text(Request::Sysctl { name, value })?, json).into(),
        Task::Server { server, virtual_server, to } => {
            message(text(Request::Override { server, virtual_server, to })?, json).into()
        }
        Task::Events { follow } => {
            events::events(&mut std::io::stdout().lock(), follow, json)?;
            String::new().into()
        }
        Task::Reload => message(text(Request::Reload)?, json).into(),
        Task::Drain { drained, deadline, wait } => drain::drain(drained, deadline, wait, json)?,
        Task::UndoDrain(drained) => message(text(drain::undo(drained))?, json).into(),
        Task::Plan { files, max_broken } => return changes::plan(&files, max_broken, json),
        Task::Apply { files, confirm, install } => changes::apply(&files, confirm, install, json)?,
        Task::Abort => message(text(Request::Abort)?, json).into(),
        Task::Upgrade { program } => changes::upgrade(program, json)?,
        Task::Confirm => message(text(Request::Confirm)?, json).into(),
    })
}

fn message(text: String, json: bool) -> String {
    if json { json::line(&json!({ "message": text.trim_end() })) } else { text }
}

/// Lines `name = value`.
fn settings(text: &str, json: bool) -> String {
    if !json {
        return text.to_owned();
    }
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    let pairs: serde_json::Map<_, _> = pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    json::line(&json!({ "settings": pairs }))
}

fn diff(json: bool) -> Result<Answer, String> {
    let differences = match ask(Request::Diff)? {
        Reply::Differences(differences) => differences,
        other => return Err(unexpected(other)),
    };
    let source = match ask(Request::Status)? {
        Reply::Status(status) => status.source.clone().map(|_| source_line(&status)).zip(status.source),
        other => return Err(unexpected(other)),
    };
    let code = u8::from(!differences.is_empty());
    let text = if json {
        let source = source.map(|(_, name)| name);
        json::line(&json!({ "differences": differences, "source": source }))
    } else {
        let (line, name) = source.unwrap_or((String::new(), "lvs.cf".to_owned()));
        let lines = differences
            .iter()
            .map(|difference| format!("{}: {}\n", difference.subject, difference.change_from(&name)));
        [line].into_iter().chain(lines).collect()
    };
    Ok(Answer { text, code })
}

/// What the configuration is from, if it is not the site's file; else nothing.
fn source_line(status: &Status) -> String {
    match (&status.source, status.trial) {
        (None, _) => String::new(),
        (Some(name), None) => format!("configuration: {name}, not the site's lvs.cf\n"),
        (Some(name), Some(seconds)) => {
            format!(
                "configuration: {name}, on trial: the former one comes back in {seconds} s without xlvs confirm\n"
            )
        }
    }
}

/// Written as it comes, since a connection table can be long.
fn show_proc(file: ProcFile) -> Answer {
    let mut socket = ControlSocket::from_environment();
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let outcome = super::show_proc(file, &mut stdout, &mut socket, &super::NoNames);
    say(&mut std::io::stderr(), &outcome.stderr);
    Answer { text: String::new(), code: outcome.code }
}

fn balance(options: RunOptions) -> Result<String, String> {
    if options.take_over && !options.apart {
        let started = run::start_apart().map(|()| String::new());
        return started.map_err(|error| format!("xlvs: cannot be started once more: {error}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("xlvs: cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(run::run(options));
    // A look-up of names may be under way, and nobody waits for it any more.
    runtime.shutdown_background();
    outcome.map(|()| String::new()).map_err(|error| format!("xlvs: {error}"))
}

/// Every file's report; an error in any of them is a failure, but all are reported first.
fn check(files: &[PathBuf], json: bool) -> Result<Answer, String> {
    let mut outcomes = Vec::new();
    with_system_names(|names| outcomes.extend(files.iter().map(|file| check_file(file, names))));
    let errors: usize = outcomes.iter().map(|outcome| outcome.errors).sum();
    if json {
        let file = |(file, outcome): (&PathBuf, &CheckOutcome)| {
            json!({
                "file": file,
                "errors": outcome.errors,
                "warnings": outcome.warnings,
                "notes": outcome.notes,
                "report": outcome.text.lines().collect::<Vec<_>>(),
            })
        };
        let files: Vec<_> = files.iter().zip(&outcomes).map(file).collect();
        return Ok(Answer { text: json::line(&json!({ "files": files })), code: u8::from(errors != 0) });
    }
    let report: String = outcomes.into_iter().map(|outcome| outcome.text).collect();
    if errors == 0 { Ok(report.into()) } else { Err(report) }
}

fn ask(request: Request) -> Result<Reply, String> {
    let answer = ControlSocket::from_environment().call(request);
    answer.map_err(|error: TransportError| format!("xlvs: {error}"))
}

fn text(request: Request) -> Result<String, String> {
    match ask(request)? {
        Reply::Text(text) => Ok(text + "\n"),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> String {
    match reply {
        Reply::Failed(text) => text,
        Reply::Refused(errno) => format!("xlvs: {errno}"),
        other => format!("xlvs: the daemon gave an answer that is not understood: {other:?}"),
    }
}
