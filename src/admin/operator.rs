//! `xlvs`: the daemon's command line and the operator's tool.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use thiserror::Error;

use super::client::{ControlSocket, Transport, TransportError};
use crate::config::report::check_file;
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
  reload                have the daemon read its files again
  drain SERVICE SERVER [--deadline SECONDS]
                        weight 0, end its templates, and its connections at the deadline; such as
                        xlvs drain tcp 192.0.2.1:80 10.8.8.33:80 --deadline 60, or xlvs drain fwmark 80 10.8.8.33:80
  sysctl [NAME[=VALUE]] read or set an IPVS setting, such as net.ipv4.vs.expire_nodest_conn,
                        or a switch beyond IPVS, such as xlvs.drop_untranslated; without NAME: list all of IPVS
  help, version

The table is listed and edited with ipvsadm. Both find the daemon by its socket: the environment variable XLVS_SOCKET,
or /run/xlvs/control.sock. Exit code 0: done; 1: it did not work; 2: the command line is wrong.
";

const SYSCTL_PREFIX: &str = "net.ipv4.vs.";

/// What was asked for.
#[derive(Clone, Debug)]
enum Task {
    Run(RunOptions),
    Status,
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
    #[error(
        "which server of which service? xlvs drain tcp|udp|sctp ADDRESS:PORT SERVER, or xlvs drain fwmark|fwmark6 N SERVER"
    )]
    NoServer,
    #[error("--deadline takes a whole number of seconds, not `{0}'")]
    Deadline(String),
    #[error("{0}")]
    Service(#[from] NoServiceName),
}

/// Does what the arguments (without the program's name) say.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let task = match parse(arguments) {
        Ok(task) => task,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("xlvs: {error}\nSee `xlvs help'.\n"));
            return ExitCode::from(2);
        }
    };
    match perform(task) {
        Ok(text) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
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
fn perform(task: Task) -> Result<String, String> {
    match task {
        Task::Help => Ok(HELP.to_owned()),
        Task::Version => Ok(format!("xlvs {}\n", env!("CARGO_PKG_VERSION"))),
        Task::Run(options) => balance(options),
        Task::Check(files) => check(&files),
        Task::Status => match ask(Request::Status)? {
            Reply::Status(status) => Ok(describe(&status)),
            other => Err(unexpected(other)),
        },
        Task::Reload => text(Request::Reload),
        Task::ListSysctls => text(Request::ListSysctls),
        Task::Sysctl { name, value } => text(Request::Sysctl { name, value }),
        Task::Drain { service, server, deadline } => text(Request::Drain { service, server, deadline }),
    }
}

fn balance(options: RunOptions) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("xlvs: cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(run::run(options));
    outcome.map(|()| String::new()).map_err(|error| format!("xlvs: {error}"))
}

/// Every file's report; an error in any of them is a failure, but all are reported first.
fn check(files: &[PathBuf]) -> Result<String, String> {
    let mut report = String::new();
    let mut errors = 0;
    with_system_names(|names| {
        for file in files {
            let outcome = check_file(file, names);
            report.push_str(&outcome.text);
            errors += outcome.errors;
        }
    });
    if errors == 0 { Ok(report) } else { Err(report) }
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
