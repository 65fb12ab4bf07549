//! `xlvs`: the daemon's command line and the operator's tool.

mod command_line;
mod doctor;
mod pair;

use std::ffi::OsString;
use std::fmt::Write as _;
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
use crate::director::protocol::{Reply, Request, ShortcutStatus, Status};
use crate::director::run::{self, RunOptions};
use crate::ipvs::verdict::PacketTotals;

/// What to print, and the exit code.
struct Answer {
    text: String,
    code: u8,
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
        Err(text) => {
            say(&mut std::io::stderr(), &format!("{}\n", text.trim_end()));
            ExitCode::FAILURE
        }
    }
}

/// The task is done whether or not somebody still reads: `xlvs status | head -1` is no failure.
fn say(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What to print, or what went wrong.
fn perform(task: Task, json: bool) -> Result<Answer, String> {
    Ok(match task {
        Task::Help => subcommands::help().into(),
        Task::Print(text) => text.into(),
        Task::Version => format!("xlvs {}\n", env!("CARGO_PKG_VERSION")).into(),
        Task::Run(options) => balance(options)?.into(),
        Task::Check(files) => return check(&files, json),
        Task::Status => match ask(Request::Status)? {
            Reply::Status(status) if json => json::line(&status).into(),
            Reply::Status(status) => describe(&status).into(),
            other => return Err(unexpected(other)),
        },
        Task::Takeover => message(text(Request::Takeover)?, json).into(),
        Task::Standby => message(text(Request::Standby)?, json).into(),
        Task::Diff => return diff(json),
        Task::Doctor { options, interfaces } => return doctor::doctor(&options, &interfaces, json),
        Task::Proc(file) => return Ok(show_proc(file)),
        Task::ListSysctls => settings(&text(Request::ListSysctls)?, json).into(),
        Task::Sysctl { name, value } => settings(&text(Request::Sysctl { name, value })?, json).into(),
        Task::Reload => message(text(Request::Reload)?, json).into(),
        Task::Drain { service, server, deadline } => {
            message(text(Request::Drain { service, server, deadline })?, json).into()
        }
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
    let code = u8::from(!differences.is_empty());
    let text = if json {
        json::line(&json!({ "differences": differences }))
    } else {
        differences
            .iter()
            .map(|difference| format!("{}: {}\n", difference.subject, difference.change()))
            .collect()
    };
    Ok(Answer { text, code })
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("xlvs: cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(run::run(options));
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

fn describe(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_status(&mut text, status);
    text
}

fn write_status(text: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(text, "xlvs {}, running for {} s, {} worker(s)", status.version, status.uptime, status.workers)?;
    if let Some(report) = &status.pulse {
        pair::write_report(text, report)?;
    }
    for port in &status.ports {
        writeln!(
            text,
            "port {}: XDP {}, AF_XDP {}, {} queue(s)",
            port.name, port.mode, port.copy, port.queues
        )?;
    }
    let ShortcutStatus { state, packets, flows, refused } = &status.shortcut;
    writeln!(text, "{state}")?;
    if *flows != 0 || *packets != 0 || *refused != 0 {
        writeln!(text, "  packets {packets}, directions of connections {flows}, no room for {refused}")?;
    }
    let Status { connections, templates, conn_max, evicted, .. } = status;
    match conn_max {
        0 => writeln!(text, "connections: {connections}, persistence templates: {templates}")?,
        _ => writeln!(
            text,
            "connections: {connections} of at most {conn_max}, persistence templates: {templates}"
        )?,
    }
    if *evicted != 0 {
        writeln!(text, "  half-open connections that made room for others: {evicted}")?;
    }
    let packets = &status.packets;
    let dropped: u64 = packets.dropped.iter().map(|(_, count)| count).sum();
    writeln!(
        text,
        "packets: received {} = transmitted {} + passed {} + handed over {} + dropped {dropped}",
        packets.received, packets.transmitted, packets.passed, packets.handed_over
    )?;
    if packets.made != 0 || packets.absorbed != 0 || packets.held != 0 {
        let PacketTotals { made, absorbed, held, .. } = packets;
        writeln!(text, "  made besides {made}; taken into those {absorbed}; held now {held}")?;
    }
    for (reason, count) in &packets.dropped {
        writeln!(text, "  dropped, {}: {count}", reason.as_str())?;
    }
    if status.ring_full + status.no_frame != 0 {
        let (ring_full, no_frame) = (status.ring_full, status.no_frame);
        writeln!(
            text,
            "  lost before they were received: receive ring full {ring_full}, no free frame {no_frame}"
        )?;
    }
    for check in &status.checks {
        writeln!(
            text,
            "server {} {} ({}): {}",
            check.virtual_server, check.server, check.endpoint, check.health
        )?;
    }
    Ok(())
}
