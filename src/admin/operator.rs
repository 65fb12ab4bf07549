//! `xlvs`: the daemon's command line and the operator's tool.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use serde_json::json;
use thiserror::Error;

use super::client::{ControlSocket, Transport, TransportError};
use super::print::json;
use super::print::proc::ProcFile;
use crate::config::report::{CheckOutcome, check_file};
use crate::config::service_name::{NoServiceName, ServiceName};
use crate::director::names::with_system_names;
use crate::director::protocol::{Reply, Request, Status};
use crate::director::run::{self, RunOptions};
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::ipvs::verdict::PacketTotals;

const HELP: &str = "\
xlvs: Linux Virtual Server without the kernel module

usage: xlvs COMMAND

  run [--config FILE] [--marks FILE] [--marks6 FILE] [--settings FILE] [--bare]
                        balance until SIGTERM; SIGHUP reads the files again
      --config FILE     lvs.cf (default /etc/sysconfig/ha/lvs.cf)
      --marks FILE      saved iptables rules (default /etc/sysconfig/iptables)
      --marks6 FILE     saved ip6tables rules (default /etc/sysconfig/ip6tables)
      --settings FILE   xlvs.toml (default /etc/xlvs/xlvs.toml, which need not exist)
      --bare            no lvs.cf: start with empty tables, for ipvsadm to fill
  status                what the daemon does: ports, packets, servers
  check FILE...         say what is wrong with an lvs.cf, saved iptables or ip6tables rules or an xlvs.toml
  reload                have the daemon read its files again; says what it undoes of what was changed by hand
  diff                  in what the table differs from lvs.cf: what was changed by hand; exit code 1 if there is anything
  proc NAME             what the kernel would show in /proc/net/NAME: ip_vs, ip_vs_conn, ip_vs_conn_sync, ip_vs_stats,
                        ip_vs_stats_percpu, ip_vs_app
  drain SERVICE SERVER [--deadline SECONDS]
                        weight 0, end its templates, and its connections at the deadline; such as
                        xlvs drain tcp 192.0.2.1:80 10.8.8.33:80 --deadline 60, or xlvs drain fwmark 80 10.8.8.33:80
  sysctl [NAME[=VALUE]] read or set an IPVS setting, such as net.ipv4.vs.expire_nodest_conn,
                        or a switch beyond IPVS, such as xlvs.drop_untranslated; without NAME: list all of IPVS
  help, version

  --json                behind status, diff, check, sysctl, reload and drain: the answer for programs, as one line of JSON

The table is listed and edited with ipvsadm. Both find the daemon by its socket: the environment variable XLVS_SOCKET,
or /run/xlvs/control.sock. Exit code 0: done; 1: it did not work; 2: the command line is wrong.
";

const SYSCTL_PREFIX: &str = "net.ipv4.vs.";

/// What was asked for.
#[derive(Clone, Debug)]
enum Task {
    Run(RunOptions),
    Status,
    Diff,
    Proc(ProcFile),
    Check(Vec<PathBuf>),
    Reload,
    ListSysctls,
    Sysctl { name: String, value: Option<String> },
    Drain { service: ServiceId, server: ServerId, deadline: Option<u32> },
    Help,
    Version,
}

/// A wrong command line.
#[derive(Debug, Error)]
enum UsageError {
    #[error("{0}")]
    Option(#[from] lexopt::Error),
    #[error("no such command: {0}")]
    Command(String),
    #[error("which file? xlvs check FILE...")]
    NoFile,
    #[error("which of the kernel's files? xlvs proc {}", ProcFile::ALL.map(ProcFile::name).join("|"))]
    NoProcFile,
    #[error(
        "which server of which service? xlvs drain tcp|udp|sctp ADDRESS:PORT SERVER, or xlvs drain fwmark|fwmark6 N SERVER"
    )]
    NoServer,
    #[error("--deadline takes a whole number of seconds, not `{0}'")]
    Deadline(String),
    #[error("{0}")]
    Service(#[from] NoServiceName),
}

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
    let task = match parse(arguments) {
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

fn parse(arguments: Vec<OsString>) -> Result<Task, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let command = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Task::Help),
        Some(Short('V') | Long("version")) => return Ok(Task::Version),
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "run" => parse_run(&mut parser),
        "check" => parse_check(&mut parser),
        "sysctl" => parse_sysctl(&mut parser),
        "drain" => parse_drain(&mut parser),
        "status" => alone(&mut parser, Task::Status),
        "reload" => alone(&mut parser, Task::Reload),
        "diff" => alone(&mut parser, Task::Diff),
        "proc" => parse_proc(&mut parser),
        "help" => Ok(Task::Help),
        "version" => Ok(Task::Version),
        _ => Err(UsageError::Command(command)),
    }
}

fn alone(parser: &mut lexopt::Parser, task: Task) -> Result<Task, UsageError> {
    match parser.next()? {
        None => Ok(task),
        Some(Short('h') | Long("help")) => Ok(Task::Help),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn parse_run(parser: &mut lexopt::Parser) -> Result<Task, UsageError> {
    let mut options = RunOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => options.lvs = Some(parser.value()?.into()),
            Long("marks") => options.marks = Some(parser.value()?.into()),
            Long("marks6") => options.marks6 = Some(parser.value()?.into()),
            Long("settings") => options.settings = Some(parser.value()?.into()),
            Long("bare") => options.bare = true,
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Task::Run(options))
}

fn parse_check(parser: &mut lexopt::Parser) -> Result<Task, UsageError> {
    let mut files = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(file) => files.push(PathBuf::from(file)),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    if files.is_empty() { Err(UsageError::NoFile) } else { Ok(Task::Check(files)) }
}

fn parse_proc(parser: &mut lexopt::Parser) -> Result<Task, UsageError> {
    match parser.next()? {
        Some(Value(name)) => {
            let name = name.string()?;
            let file = ProcFile::named(name.rsplit('/').next().unwrap_or(&name));
            alone(parser, Task::Proc(file.ok_or(UsageError::NoProcFile)?))
        }
        None => Err(UsageError::NoProcFile),
        Some(Short('h') | Long("help")) => Ok(Task::Help),
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Takes `NAME`, `NAME=VALUE`, nothing, and the options that sysctl(8) has for these.
fn parse_sysctl(parser: &mut lexopt::Parser) -> Result<Task, UsageError> {
    let mut setting = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('w' | 'q') => {}
            Short('a') => return alone(parser, Task::ListSysctls),
            Value(text) if setting.is_none() => setting = Some(text.string()?),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let Some(setting) = setting else { return Ok(Task::ListSysctls) };
    let (name, value) = match setting.split_once('=') {
        Some((name, value)) => (name, Some(value.trim().to_owned())),
        None => (setting.as_str(), None),
    };
    let name = name.trim().replace('/', ".");
    let name = name.strip_prefix(SYSCTL_PREFIX).unwrap_or(&name).to_owned();
    Ok(Task::Sysctl { name, value })
}

fn parse_drain(parser: &mut lexopt::Parser) -> Result<Task, UsageError> {
    let (mut words, mut deadline) = (Vec::new(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => words.push(word.string()?),
            Long("deadline") => {
                let text = parser.value()?.string()?;
                deadline = Some(text.parse().map_err(|_| UsageError::Deadline(text))?);
            }
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let [kind, name, server] = &words[..] else { return Err(UsageError::NoServer) };
    let ServiceName(service) = format!("{kind} {name}").try_into()?;
    // Without a port the server keeps the packet's own.
    let place = server.parse().or_else(|_| server.parse().map(|address: IpAddr| SocketAddr::new(address, 0)));
    let place: SocketAddr = place.map_err(|_| UsageError::NoServer)?;
    let server = ServerId { address: place.ip(), port: place.port() };
    Ok(Task::Drain { service, server, deadline })
}

/// What to print, or what went wrong.
fn perform(task: Task, json: bool) -> Result<Answer, String> {
    Ok(match task {
        Task::Help => HELP.to_owned().into(),
        Task::Version => format!("xlvs {}\n", env!("CARGO_PKG_VERSION")).into(),
        Task::Run(options) => balance(options)?.into(),
        Task::Check(files) => return check(&files, json),
        Task::Status => match ask(Request::Status)? {
            Reply::Status(status) if json => json::line(&status).into(),
            Reply::Status(status) => describe(&status).into(),
            other => return Err(unexpected(other)),
        },
        Task::Diff => return diff(json),
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
    for port in &status.ports {
        writeln!(
            text,
            "port {}: XDP {}, AF_XDP {}, {} queue(s)",
            port.name, port.mode, port.copy, port.queues
        )?;
    }
    writeln!(text, "connections: {}, persistence templates: {}", status.connections, status.templates)?;
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
