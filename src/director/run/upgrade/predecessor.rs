//! The process that is followed: it starts its successor, and tells it everything.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::transfer::Ledger;
use super::wire::{self, Bequest, Hello, LastWill, Word};
use crate::director::run::RunOptions;
use crate::host::channel::Channel;
use crate::host::clock::Clock;
use crate::host::process::Process;
use crate::ipvs::snapshot::Tables;

/// How long the successor may take to start and to read the site's files.
const START_TIME: Duration = Duration::from_secs(10);
/// How long it may take, without any progress, until it needs nothing but the queues.
const PREPARATION_TIME: Duration = Duration::from_secs(30);
/// How long it may take to serve once packets have stopped; then the predecessor takes the queues back.
pub const SERVE_TIME: Duration = Duration::from_secs(5);

/// So many changes may be left for the time in which no packets come and go.
const FEW: usize = 10_000;

/// How often it is looked whether a successor that has hung up has ended, and the pause between two looks.
const END_LOOKS: usize = 100;
const END_PAUSE: Duration = Duration::from_millis(5);

/// A process that is to take over. It ends when this is dropped, unless it is left to itself.
#[derive(Debug)]
pub struct Successor {
    /// What was started: it itself, or what has started it and has ended.
    starter: Child,
    /// It, if that is another process.
    apart: Option<Process>,
    channel: Channel,
    is_left: bool,
}

/// Ends a successor.
#[derive(Debug)]
pub struct Stopper {
    process: Pid,
    channel: Channel,
}

impl Stopper {
    /// Nobody waits for it any more. While it has not said hello its number is not known, and it ends when it says that.
    pub fn stop(&self) {
        // It may have ended by itself.
        let _ = kill(self.process, Signal::SIGKILL);
        self.channel.hang_up();
    }
}

/// What is given to it at first.
#[derive(Debug)]
pub struct Gifts {
    /// What can be written down.
    pub bequest: Bequest,
    /// What holds the XDP programs.
    pub links: Vec<OwnedFd>,
    /// The control socket.
    pub listener: OwnedFd,
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.is_left {
            // It may have ended by itself.
            let _ = self.starter.kill();
            let _ = self.starter.wait();
            self.apart.iter().for_each(Process::end);
        }
    }
}

impl Successor {
    /// Starts the program as this process was started. It stays in the service's control group.
    pub fn start(program: &Path, options: &RunOptions) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{} cannot be started: {error}", program.display());
        let (channel, other) = Channel::new().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("run").args(options.arguments()).arg("--take-over").stdin(other);
        // It names this process, and so the next one would not know that it is watched.
        command.env_remove("WATCHDOG_PID");
        let starter = command.spawn().map_err(failed)?;
        Ok(Successor { starter, apart: None, channel, is_left: false })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.apart.as_ref().map_or_else(|| self.starter.id(), Process::id)
    }

    /// The same, to send signals to.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.id().cast_signed())
    }

    /// What ends it while it is waited for elsewhere.
    pub fn stopper(&self) -> Result<Stopper, String> {
        let channel = self.channel.again().map_err(|error| lost(&error))?;
        Ok(Stopper { process: self.pid(), channel })
    }

    /// Waits until it has started.
    pub fn hear_hello(&mut self) -> Result<Hello, String> {
        self.be_patient(START_TIME)?;
        match self.hear()? {
            Word::Hello(hello) if hello.version == wire::VERSION => self.meet(&hello).map(|()| hello),
            Word::Hello(hello) => Err(format!(
                "xlvs {} cannot follow xlvs {} without a restart",
                hello.program,
                env!("CARGO_PKG_VERSION")
            )),
            other => Err(unexpected(&other)),
        }
    }

    /// Where not what was started says hello, but what that has started, it is nobody's child here once the former has ended.
    fn meet(&mut self, hello: &Hello) -> Result<(), String> {
        let Some(number) = hello.process.filter(|number| *number != self.starter.id()) else { return Ok(()) };
        let process = Process::open(number);
        self.apart = Some(process.map_err(|error| format!("the new process is not there: {error}"))?);
        for _ in 0..END_LOOKS {
            if !matches!(self.starter.try_wait(), Ok(None)) {
                break;
            }
            std::thread::park_timeout(END_PAUSE);
        }
        Ok(())
    }

    /// Tells it everything, and waits until it needs nothing but the queues.
    pub fn prepare(&mut self, gifts: Gifts, tables: &Tables, clock: Clock) -> Result<Ledger, String> {
        self.be_patient(PREPARATION_TIME)?;
        let Gifts { bequest, links, listener } = gifts;
        self.say(&Word::Bequest(Box::new(bequest)))?;
        links.into_iter().try_for_each(|link| self.say(&Word::Link(link)))?;
        self.say(&Word::Listener(listener))?;
        let mut ledger = Ledger::default();
        let mut told = self.tell(&mut ledger, tables, clock)?;
        // What has changed meanwhile is told while packets still come and go, for as long as that makes less of it.
        while told > FEW {
            let changed = self.tell(&mut ledger, tables, clock)?;
            told = if changed < told / 2 { changed } else { 0 };
        }
        self.say(&Word::All)?;
        match self.hear()? {
            Word::Ready => Ok(ledger),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells it what has changed, now that nothing changes any more. Returns how many records that took.
    pub fn update(&mut self, ledger: &mut Ledger, tables: &Tables, clock: Clock) -> Result<usize, String> {
        self.be_patient(SERVE_TIME)?;
        self.tell(ledger, tables, clock)
    }

    /// Lets it serve, and waits until it does.
    pub fn let_serve(&mut self, last: LastWill) -> Result<(), String> {
        self.say(&Word::Switch(Box::new(last)))?;
        match self.hear()? {
            Word::Serving => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// It goes on by itself.
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// Has it end.
    pub fn dismiss(self, reason: &str) {
        // It may be deaf, and ends in any case.
        let _ = wire::say(&self.channel, &Word::GivesUp(reason.to_owned()));
    }

    fn tell(&self, ledger: &mut Ledger, tables: &Tables, clock: Clock) -> Result<usize, String> {
        let mut send = |records| wire::say(&self.channel, &Word::Records(records));
        ledger.tell(tables, clock, &mut send).map_err(|error| lost(&error))
    }

    fn be_patient(&self, patience: Duration) -> Result<(), String> {
        self.channel.set_patience(Some(patience)).map_err(|error| error.to_string())
    }

    /// Where it cannot be told something it may have said why.
    fn say(&mut self, word: &Word) -> Result<(), String> {
        let Err(error) = wire::say(&self.channel, word) else { return Ok(()) };
        match self.hear() {
            Err(reason) => Err(reason),
            Ok(_) => Err(lost(&error)),
        }
    }

    /// The next thing that it says, unless that is why it gives up.
    fn hear(&mut self) -> Result<Word, String> {
        match wire::hear(&self.channel) {
            Ok(Some(Word::GivesUp(reason))) => Err(reason),
            Ok(Some(word)) => Ok(word),
            Ok(None) => Err(self.end()),
            Err(error) => Err(lost(&error)),
        }
    }

    /// How it has ended, now that it has hung up.
    fn end(&mut self) -> String {
        for _ in 0..END_LOOKS {
            if self.apart.as_ref().is_some_and(Process::has_ended) {
                return "the new process has ended; the log says more".into();
            }
            if let (None, Ok(Some(status))) = (&self.apart, self.starter.try_wait()) {
                return format!("the new process has ended ({status}); the log says more");
            }
            std::thread::park_timeout(END_PAUSE);
        }
        "the new process has hung up; the log says more".into()
    }
}

fn lost(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => "the new process does not answer in time".into(),
        _ => format!("the new process cannot be talked to: {error}"),
    }
}

fn unexpected(word: &Word) -> String {
    format!("the new process says something that is not its turn to say: {word:?}")
}

impl RunOptions {
    /// As they are typed.
    fn arguments(&self) -> Vec<OsString> {
        let files = [
            ("--config", &self.lvs),
            ("--marks", &self.marks),
            ("--marks6", &self.marks6),
            ("--settings", &self.settings),
        ];
        let named = files.into_iter().filter_map(|(option, file)| Some((option, file.as_ref()?)));
        let mut arguments: Vec<OsString> =
            named.flat_map(|(option, file)| [option.into(), file.into()]).collect();
        if self.bare {
            arguments.push("--bare".into());
        }
        arguments
    }
}
