//! Layer 4: `ipvsadm`, a drop-in for version 1.31. A command line becomes [`args`] (what was typed), then a [`request`]
//! (what it means), goes to the daemon through a [`Transport`] and comes back as text ([`print`]).

pub mod args;
pub mod client;
mod help;
pub mod operator;
pub mod options;
pub mod print;
mod refusal;
pub mod request;
pub mod resolver;
mod scan;
pub mod usage;
mod value;

pub use client::{ControlSocket, Transport, TransportError};
pub use resolver::{NoNames, Resolver, SystemResolver};

use std::ffi::OsString;
use std::io::BufRead;

use thiserror::Error;

use self::args::Arguments;
use self::options::Command;
use self::print::Names;
use self::request::{Action, Columns, Layout, Listing, Subject};
use self::usage::UsageError;
use crate::director::protocol::{Reply, Request};

/// What a run of ipvsadm leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Exit code: 0 done, 1 listing refused, 2 wrong command line or no daemon, 255 refused (reference 9.2).
    pub code: u8,
}

/// Runs one command line, the program's name not among `args`. Only `-R` reads `input`.
pub fn run(
    args: &[OsString],
    input: &mut dyn BufRead,
    transport: &mut dyn Transport,
    resolver: &dyn Resolver,
) -> Output {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut session = Session { transport, resolver, output: Output::default() };
    let result = session.outer_line(&words, input);
    session.finish(result);
    session.output
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
        }
    }

    /// Whether `-R` goes on with the next line.
    fn is_passing(&self) -> bool {
        match self {
            Failure::Usage(error) => error.comes_from_parser(),
            Failure::Refused { .. } => true,
            Failure::Transport(_) => false,
        }
    }

    fn of_reply(command: Command, reply: Reply) -> Self {
        let code = if matches!(command, Command::List | Command::Save) { 1 } else { 255 };
        let text = match reply {
            Reply::Refused(errno) => refusal::refusal(command, errno),
            Reply::Failed(text) => text,
            reply => format!("the xlvs daemon gave an answer to another question: {reply:?}"),
        };
        Failure::Refused { text, code }
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
    output: Output,
}

impl Session<'_> {
    fn outer_line(&mut self, words: &[String], input: &mut dyn BufRead) -> Result<After, Failure> {
        let arguments = Arguments::parse(words, self.resolver)?;
        match Action::of(&arguments)? {
            Action::Restore => Ok(self.restore(input)),
            action => self.carry_out(arguments.command, action),
        }
    }

    fn inner_line(&mut self, words: &[String]) -> Result<After, Failure> {
        let arguments = Arguments::parse(words, self.resolver)?;
        match Action::of(&arguments)? {
            Action::Restore => Err(UsageError::NotACommand.into()),
            action => self.carry_out(arguments.command, action),
        }
    }

    /// Carries out lines until one is wrong. The last line's code is the code of all.
    fn restore(&mut self, input: &mut dyn BufRead) -> After {
        for line in input.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let words = line.split([' ', '\t']).filter(|word| !word.is_empty() && *word != "ipvsadm");
            let words: Vec<String> = words.map(str::to_owned).collect();
            if words.is_empty() {
                continue;
            }
            let result = self.inner_line(&words);
            if self.finish(result) == After::Stop {
                return After::Stop;
            }
        }
        After::GoOn
    }

    fn finish(&mut self, result: Result<After, Failure>) -> After {
        match result {
            Ok(after) => after,
            Err(failure) => {
                self.output.stderr += &format!("{failure}\n");
                self.output.code = failure.code();
                if failure.is_passing() { After::GoOn } else { After::Stop }
            }
        }
    }

    fn carry_out(&mut self, command: Command, action: Action) -> Result<After, Failure> {
        self.output.code = 0;
        match action {
            Action::Edit(edit) => match self.transport.call(Request::Edit(edit))? {
                Reply::Done => Ok(After::GoOn),
                reply => Err(Failure::of_reply(command, reply)),
            },
            Action::List(listing) => self.list(listing),
            Action::Save(numeric) => self.save(numeric),
            Action::Unsupported => {
                Err(Failure::Refused { text: "Operation not supported".to_owned(), code: 255 })
            }
            Action::Help => Ok(self.print_and_stop(&[help::VERSION, help::HELP])),
            Action::Version => Ok(self.print_and_stop(&[help::VERSION])),
            Action::Restore => Ok(After::GoOn),
        }
    }

    /// `-h` and `-v` end the original there and then, even within `-R`.
    fn print_and_stop(&mut self, texts: &[&str]) -> After {
        self.output.stdout.extend(texts.iter().copied());
        After::Stop
    }

    fn list(&mut self, listing: Listing) -> Result<After, Failure> {
        let Listing { subject, layout } = listing;
        let names = Names::new(layout.numeric, self.resolver);
        let request = match subject {
            Subject::Services => Request::ListServices,
            Subject::Service(id) => Request::ListService(id),
            Subject::Connections => Request::ListConnections,
            Subject::Timeouts => Request::GetTimeouts,
            // There are no synchronisation daemons, and of none the original prints nothing.
            Subject::Daemon => return Ok(After::GoOn),
        };
        let text = listing_text(subject, layout, names, self.transport.call(request)?)?;
        self.output.stdout += &text;
        Ok(After::GoOn)
    }

    fn save(&mut self, numeric: bool) -> Result<After, Failure> {
        match self.transport.call(Request::ListServices)? {
            Reply::Services { services, .. } => {
                self.output.stdout += &print::save(&services, Names::new(numeric, self.resolver));
                Ok(After::GoOn)
            }
            reply => Err(Failure::of_reply(Command::Save, reply)),
        }
    }
}

fn listing_text(subject: Subject, layout: Layout, names: Names, reply: Reply) -> Result<String, Failure> {
    Ok(match (subject, reply) {
        (Subject::Services, Reply::Services { info, services }) => {
            print::banner(info) + &print::services(&services, layout, names)
        }
        (Subject::Service(_), Reply::Services { services, .. }) => print::services(&services, layout, names),
        (Subject::Connections, Reply::Connections(connections)) => {
            print::connections(&connections, layout.columns == Columns::PersistentConn, names)
        }
        (Subject::Timeouts, Reply::Timeouts(timeouts)) => print::timeouts(timeouts),
        (_, reply) => return Err(Failure::of_reply(Command::List, reply)),
    })
}
