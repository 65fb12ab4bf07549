//! The command line of `xlvs`, held to the table of its commands.

mod changes;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use thiserror::Error;

use crate::admin::print::proc::ProcFile;
use crate::admin::subcommands::{self, Subcommand};
use crate::admin::{completion, manual};
use crate::config::service_name::NoServiceName;
use crate::director::member::Override;
use crate::director::run::RunOptions;

pub(super) use changes::{Drained, SiteFileNames};

const SYSCTL_PREFIX: &str = "net.ipv4.vs.";

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Run(RunOptions),
    Status,
    Takeover,
    Standby,
    Diff,
    Doctor {
        options: RunOptions,
        interfaces: Vec<String>,
    },
    Proc(ProcFile),
    Check(Vec<PathBuf>),
    Reload,
    ListSysctls,
    Sysctl {
        name: String,
        value: Option<String>,
    },
    Drain {
        drained: Drained,
        deadline: Option<u32>,
        wait: bool,
    },
    Server {
        server: String,
        virtual_server: Option<String>,
        to: Override,
    },
    Events {
        follow: bool,
    },
    UndoDrain(Drained),
    Plan {
        files: SiteFileNames,
        max_broken: Option<u64>,
    },
    Apply {
        files: SiteFileNames,
        confirm: Option<u32>,
        install: bool,
    },
    Abort,
    Confirm,
    Upgrade {
        program: Option<PathBuf>,
    },
    Help,
    Version,
    /// A text that needs no daemon.
    Print(String),
}

/// A wrong command line.
#[derive(Debug, Error)]
pub(super) enum UsageError {
    #[error("{0}")]
    Option(#[from] lexopt::Error),
    #[error("no such command: {0}")]
    Command(String),
    #[error("which file? xlvs check FILE...")]
    NoFile,
    #[error("which of the kernel's files? xlvs proc {}", ProcFile::ALL.map(ProcFile::name).join("|"))]
    NoProcFile,
    #[error(
        "which server? xlvs drain SERVER, by its name in lvs.cf or its address, in all its services; of one service: xlvs drain \
         tcp|udp|sctp ADDRESS:PORT SERVER, or xlvs drain fwmark|fwmark6 N SERVER"
    )]
    NoServer,
    #[error("which server? xlvs server down|up|auto SERVER [--virtual NAME]")]
    NoOverride,
    #[error("{0} takes a time such as 90, 90s or 5m, not `{1}'")]
    Time(&'static str, String),
    #[error("--max-broken takes a number of connections, not `{0}'")]
    Number(String),
    #[error("which lvs.cf? xlvs {0} FILE")]
    NoLvs(&'static str),
    #[error("{0} and {1} do not go together")]
    Contradiction(&'static str, &'static str),
    #[error("{0}")]
    Service(#[from] NoServiceName),
    #[error("which page? xlvs man {}", manual::NAMES.join("|"))]
    NoPage,
    #[error("whose completion? xlvs completion bash {}", completion::PROGRAMS.join("|"))]
    NoCompletion,
}

/// What follows a command; options that the command does not have in the table are refused.
struct Words {
    parser: lexopt::Parser,
    subcommand: &'static Subcommand,
}

impl Words {
    fn next(&mut self) -> Result<Option<lexopt::Arg<'_>>, lexopt::Error> {
        match self.parser.next()? {
            Some(Short(letter)) if !self.subcommand.takes(&format!("-{letter}")) => {
                Err(Short(letter).unexpected())
            }
            Some(Long(name)) if !self.subcommand.takes(&format!("--{name}")) => Err(Long(name).unexpected()),
            argument => Ok(argument),
        }
    }

    fn value(&mut self) -> Result<OsString, lexopt::Error> {
        self.parser.value()
    }

    /// All that follow, of a command without options; `None` if help is asked for.
    fn plain(&mut self) -> Result<Option<Vec<String>>, lexopt::Error> {
        let mut plain = Vec::new();
        while let Some(argument) = self.next()? {
            match argument {
                Value(word) => plain.push(word.string()?),
                Short('h') | Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(plain))
    }
}

/// The task of arguments; `json` if the answer is wanted for programs.
pub(super) fn parse(arguments: Vec<OsString>, json: bool) -> Result<Task, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let command = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Task::Help),
        Some(Short('V') | Long("version")) => return Ok(Task::Version),
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    let Some(subcommand) = subcommands::find(&command) else { return Err(UsageError::Command(command)) };
    if json && !subcommand.json {
        return Err(Long("json").unexpected().into());
    }
    let mut words = Words { parser, subcommand };
    match subcommand.name {
        "run" => parse_run(&mut words),
        "check" => parse_check(&mut words),
        "sysctl" => parse_sysctl(&mut words),
        "drain" => changes::parse_drain(&mut words),
        "server" => parse_server(&mut words),
        "events" => parse_events(&mut words),
        "plan" => changes::parse_plan(&mut words),
        "apply" => changes::parse_apply(&mut words),
        "confirm" => alone(&mut words, Task::Confirm),
        "upgrade" => changes::parse_upgrade(&mut words),
        "doctor" => parse_doctor(&mut words),
        "status" => alone(&mut words, Task::Status),
        "takeover" => alone(&mut words, Task::Takeover),
        "standby" => alone(&mut words, Task::Standby),
        "reload" => alone(&mut words, Task::Reload),
        "diff" => alone(&mut words, Task::Diff),
        "proc" => parse_proc(&mut words),
        "man" => parse_man(&mut words),
        "completion" => parse_completion(&mut words),
        "help" => Ok(Task::Help),
        "version" => Ok(Task::Version),
        _ => Err(UsageError::Command(command)),
    }
}

fn alone(parser: &mut Words, task: Task) -> Result<Task, UsageError> {
    match parser.next()? {
        None => Ok(task),
        Some(Short('h') | Long("help")) => Ok(Task::Help),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn parse_run(parser: &mut Words) -> Result<Task, UsageError> {
    let mut options = RunOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => options.lvs = Some(parser.value()?.into()),
            Long("marks") => options.marks = Some(parser.value()?.into()),
            Long("marks6") => options.marks6 = Some(parser.value()?.into()),
            Long("settings") => options.settings = Some(parser.value()?.into()),
            Long("bare") => options.bare = true,
            Long("take-over") => options.take_over = true,
            Long("apart") => options.apart = true,
            Long("forceactive") => options.force_active = true,
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Task::Run(options))
}

fn parse_doctor(parser: &mut Words) -> Result<Task, UsageError> {
    let (mut options, mut interfaces) = (RunOptions::default(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Value(interface) => interfaces.push(interface.string()?),
            Long("config") => options.lvs = Some(parser.value()?.into()),
            Long("settings") => options.settings = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Task::Doctor { options, interfaces })
}

fn parse_check(parser: &mut Words) -> Result<Task, UsageError> {
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

fn parse_proc(parser: &mut Words) -> Result<Task, UsageError> {
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
fn parse_sysctl(parser: &mut Words) -> Result<Task, UsageError> {
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

fn parse_server(parser: &mut Words) -> Result<Task, UsageError> {
    let (mut words, mut virtual_server) = (Vec::new(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => words.push(word.string()?),
            Long("virtual") => virtual_server = Some(parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let [to, server] = &words[..] else { return Err(UsageError::NoOverride) };
    let to = match to.as_str() {
        "auto" => Override::Auto,
        "up" => Override::Up,
        "down" => Override::Down,
        _ => return Err(UsageError::NoOverride),
    };
    Ok(Task::Server { server: server.clone(), virtual_server, to })
}

fn parse_events(parser: &mut Words) -> Result<Task, UsageError> {
    let mut follow = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('f') | Long("follow") => follow = true,
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Task::Events { follow })
}

fn parse_man(parser: &mut Words) -> Result<Task, UsageError> {
    let Some(words) = parser.plain()? else { return Ok(Task::Help) };
    let [name] = &words[..] else { return Err(UsageError::NoPage) };
    manual::page(name).map(Task::Print).ok_or(UsageError::NoPage)
}

fn parse_completion(parser: &mut Words) -> Result<Task, UsageError> {
    let Some(words) = parser.plain()? else { return Ok(Task::Help) };
    match &words[..] {
        [shell, program] if shell == "bash" => {
            completion::bash(program).map(Task::Print).ok_or(UsageError::NoCompletion)
        }
        _ => Err(UsageError::NoCompletion),
    }
}
