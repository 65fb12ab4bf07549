//! Layer 4: `ipvsadm`, a drop-in for version 1.31. A command line becomes [`args`] (what was typed), then a [`request`]
//! (what it means), goes to the daemon through a [`Transport`] and comes back as text ([`print`]).

pub mod about;
pub mod args;
pub mod client;
pub mod completion;
pub mod help;
mod listing;
pub mod manual;
pub mod operator;
pub mod options;
pub mod print;
pub mod program;
mod refusal;
pub mod request;
pub mod resolver;
mod restore;
mod scan;
pub mod subcommands;
pub mod usage;
mod value;

pub use client::{ControlSocket, Transport, TransportError};
pub use resolver::{NoNames, Resolver, SystemResolver};

use std::ffi::OsString;
use std::io::{self, BufRead, Write};

use thiserror::Error;

use self::args::Arguments;
use self::options::Command;
use self::print::proc::ProcFile;
use self::request::Action;
use self::restore::Restoring;
use self::usage::UsageError;
use crate::director::protocol::{Reply, Request};

/// Exit code of a program whose reader has gone, as the shell shows the signal that ends others then.
const READER_GONE: u8 = 141;

/// Exit code of a listing that the tables refuse.
const LISTING_REFUSED: u8 = 1;

/// How a run of ipvsadm ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For standard error.
    pub stderr: String,
    /// Exit code: 0 done, 1 listing refused, 2 wrong command line or no daemon, 255 refused (reference 9.2).
    pub code: u8,
}

/// Runs one command line, the program's name not among `args`. Only `-R` reads `input`. What belongs on standard output is
/// written while it comes, however much it is.
pub fn run(
    args: &[OsString],
    input: &mut dyn BufRead,
    stdout: &mut dyn Write,
    transport: &mut dyn Transport,
    resolver: &dyn Resolver,
) -> Outcome {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut session = Session { transport, resolver, stdout, outcome: Outcome::default() };
    let result = session.outer_line(&words, input);
    session.end(result)
}

/// `ipvsadm-restore`: clears the table and carries out command lines, those apart that begin with `#`.
pub fn restore(
    compatible: bool,
    input: &mut dyn BufRead,
    stdout: &mut dyn Write,
    transport: &mut dyn Transport,
    resolver: &dyn Resolver,
) -> Outcome {
    let mut session = Session { transport, resolver, stdout, outcome: Outcome::default() };
    let result = session.restore(input, Restoring { compatible, afresh: true });
    session.end(result)
}

/// `xlvs proc`: prints one of the kernel's files below `/proc/net`, such as it would be.
pub fn show_proc(
    file: ProcFile,
    stdout: &mut dyn Write,
    transport: &mut dyn Transport,
    resolver: &dyn Resolver,
) -> Outcome {
    let mut session = Session { transport, resolver, stdout, outcome: Outcome::default() };
    let result = session.proc(file);
    session.end(result)
}

/// Why a command line was not carried out. `Display` is all that goes to standard error.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("{text}")]
    Refused { text: String, code: u8 },
    #[error("{}", without_daemon(.0))]
    Transport(#[from] TransportError),
    #[error(
        "{source}\nline {number}: nothing has been changed (--compat carries out the lines before and after it)"
    )]
    Line { number: usize, source: Box<Failure> },
    #[error("ipvsadm: cannot write: {0}")]
    Write(#[from] io::Error),
}

/// The original's answer when the kernel has no IPVS, which scripts may know, and what is really the matter.
fn without_daemon(error: &TransportError) -> String {
    let reason = match error {
        TransportError::NotRunning { .. } => "Protocol not available",
        TransportError::NotPermitted { .. } => "Permission denied (you must be root)",
        error => return error.to_string(),
    };
    format!(
        "Can't initialize ipvs: {reason}\n\
         Are you sure that IP Virtual Server is built in the kernel or as module?\n{error}"
    )
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Usage(error) => error.code(),
            Failure::Refused { code, .. } => *code,
            Failure::Transport(_) => 2,
            Failure::Line { source, .. } => source.code(),
            Failure::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => READER_GONE,
            Failure::Write(_) => 1,
        }
    }

    /// Whether a compatible `-R` goes on with the next line. A listing that is refused ends the original.
    fn is_passing(&self) -> bool {
        match self {
            Failure::Usage(error) => error.comes_from_parser(),
            Failure::Refused { code, .. } => *code != LISTING_REFUSED,
            Failure::Transport(_) | Failure::Line { .. } | Failure::Write(_) => false,
        }
    }

    /// A reader that has gone had what it wanted, and needs no explanation.
    fn text(&self) -> String {
        if self.code() == READER_GONE { String::new() } else { format!("{self}\n") }
    }

    fn of_reply(command: Command, reply: Reply) -> Self {
        let is_listing = matches!(command, Command::List | Command::Save);
        let code = if is_listing { LISTING_REFUSED } else { 255 };
        let text = match reply {
            Reply::Refused(errno) => refusal::refusal(command, errno),
            Reply::Failed(text) => text,
            reply => format!("the xlvs daemon gave an answer to another question: {reply:?}"),
        };
        Failure::Refused { text, code }
    }

    fn at(self, number: usize) -> Self {
        Failure::Line { number, source: Box::new(self) }
    }
}

/// Whether `-R` reads on after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    GoOn,
    Stop,
}

struct Session<'a> {
    transport: &'a mut dyn Transport,
    resolver: &'a dyn Resolver,
    stdout: &'a mut dyn Write,
    outcome: Outcome,
}

impl Session<'_> {
    fn outer_line(&mut self, words: &[String], input: &mut dyn BufRead) -> Result<After, Failure> {
        let arguments = Arguments::parse(words, self.resolver)?;
        match Action::of(&arguments)? {
            Action::Restore(compatible) => self.restore(input, Restoring { compatible, afresh: false }),
            action => self.carry_out(arguments.command, action),
        }
    }

    fn inner_line(&self, words: &[String]) -> Result<(Command, Action), Failure> {
        let arguments = Arguments::parse(words, self.resolver)?;
        match Action::of(&arguments)? {
            Action::Restore(_) => Err(UsageError::NotACommand.into()),
            action => Ok((arguments.command, action)),
        }
    }

    fn end(mut self, result: Result<After, Failure>) -> Outcome {
        self.finish(result);
        if let Err(error) = self.stdout.flush() {
            self.finish(Err(error.into()));
        }
        self.outcome
    }

    fn finish(&mut self, result: Result<After, Failure>) -> After {
        match result {
            Ok(after) => after,
            Err(failure) => {
                self.outcome.stderr += &failure.text();
                self.outcome.code = failure.code();
                if failure.is_passing() { After::GoOn } else { After::Stop }
            }
        }
    }

    fn carry_out(&mut self, command: Command, action: Action) -> Result<After, Failure> {
        self.outcome.code = 0;
        match action {
            Action::Edit(edit) => match self.transport.call(Request::Edit(edit))? {
                Reply::Done => Ok(After::GoOn),
                reply => Err(Failure::of_reply(command, reply)),
            },
            Action::List(listing) => self.list(listing),
            Action::Save(numeric) => self.save(numeric),
            Action::Help => self.print_and_stop(&[help::VERSION, &help::help()]),
            Action::Version => self.print_and_stop(&[help::VERSION]),
            Action::Restore(_) => Ok(After::GoOn),
        }
    }

    fn print(&mut self, text: &str) -> Result<After, Failure> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(After::GoOn)
    }

    /// `-h` and `-v` end the original there and then, even within `-R`.
    fn print_and_stop(&mut self, texts: &[&str]) -> Result<After, Failure> {
        self.print(&texts.concat())?;
        Ok(After::Stop)
    }
}
