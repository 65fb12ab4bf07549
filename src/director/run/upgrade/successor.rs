//! The process that takes over: it gets everything ready while the other one serves, and then opens the queues.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::values;
use super::wire::{self, Bequest, Hello, LastWill, Word};
use crate::director::Effect;
use crate::director::run::files::{self, Files};
use crate::director::run::journal::Events;
use crate::director::run::log::LogFilter;
use crate::director::run::pair::is_of_pair;
use crate::director::run::start::Base;
use crate::director::run::workers::{self, Workplace};
use crate::director::run::{Daemon, RunError, RunOptions, ports, watcher};
use crate::director::socket::ControlSocket;
use crate::director::wanted::Wanted;
use crate::host::channel::Channel;
use crate::host::clock::Clock;
use crate::host::privilege;
use crate::ipvs::datapath::Datapath;
use crate::ipvs::replica::{Origin, Record, install};
use crate::ipvs::snapshot::Tables;
use crate::xdp::Inheritance;

/// How long the predecessor may be silent: longer than it waits for this process.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the predecessor may take to hang up once this process serves.
const END_TIME: Duration = Duration::from_secs(2);

/// Starts this program once more with the same arguments and standard input, and leaves it behind. When this process has ended that one is
/// a child of the service manager. systemd does not wait for the end of a main process that is somebody else's child when it stops a
/// service: it would be killed at once.
pub fn start_apart() -> io::Result<()> {
    let program = std::env::current_exe()?;
    Command::new(program).args(std::env::args_os().skip(1)).arg("--apart").spawn().map(drop)
}

/// Takes over from the process at the other end of the standard input. Returns the daemon, which serves, and whether the site's
/// files say something else than what is followed.
pub async fn take_over(options: RunOptions) -> Result<(Daemon, bool), RunError> {
    let channel = Channel::from_standard_input();
    let channel =
        channel.map_err(|error| RunError::System("take the channel to the former process", error))?;
    let outcome = follow(&channel, options).await;
    if let Err(error) = &outcome {
        // It may have ended, or given up before.
        let _ = wire::say(&channel, &Word::GivesUp(error.to_string()));
    }
    outcome
}

async fn follow(channel: &Channel, options: RunOptions) -> Result<(Daemon, bool), RunError> {
    let settings = files::read_settings(&options)?;
    let log = LogFilter::start(&settings);
    privilege::require()?;
    let files = Files::new(options, &settings);
    let seen = watcher::contents(&files);
    // A fault is told before anything changes.
    let site = files.read().map_err(RunError::Configuration)?;
    let (bequest, links, listener) = hear_gifts(channel).map_err(|error| lost(&error))?;
    let Bequest { now, texts, control_socket, zero_copy, events, estate, .. } = bequest;
    if control_socket != settings.control_socket {
        let (from, to) = (control_socket.display(), settings.control_socket.display());
        return Err(RunError::Upgrade(format!(
            "control_socket is {to} and was {from}: that takes a restart"
        )));
    }
    let differs = site.texts != texts;
    let changed: Vec<_> = values(&settings).into_iter().filter(|it| !bequest.settings.contains(it)).collect();
    let configuration = files::understand(texts).map_err(RunError::Configuration)?;
    let base = Base::open(settings, files, log, Clock::going_on(now)).await?;
    let ports = ports::choose(&base.settings.ports, &Wanted::new(&configuration.lvs), &base.network())?;
    let shares = workers::shares(workers::queues(&base.settings, &ports)?);
    let tables = Arc::new(Tables::new(shares));
    let mut director = base.director(&tables, shares, &ports);
    let effects =
        director.inherit(base.clock.now(), estate, &configuration.lvs, configuration.marks, &changed);
    let lasting = is_of_pair(&base.settings, base.files.options(), &configuration.lvs, &base.network())?;
    let inheritance = Inheritance { links, zero_copy };
    let mut workplace = Workplace::new(&base.settings, &ports, Some(inheritance), lasting)?;
    for effect in &effects {
        if let Effect::Steer(steering) = effect {
            workplace.steer(steering)?;
        }
    }
    let last = hear_records(channel, &tables, base.clock, lasting)?;
    director.continue_counters(&last.counters);
    let engine = |queue| Datapath::new(Arc::clone(&tables), queue as usize, base.clock.now());
    let mut workers = workplace.start(&base.settings, &tables, base.clock, engine)?;
    workers.continue_from(last.packets);
    // If it has ended meanwhile, there is nobody to tell.
    let _ = wire::say(channel, &Word::Serving);
    let socket = ControlSocket::take_over(&base.settings.control_socket, listener);
    let follows_site = director.follows_site();
    let addresses = base.addresses();
    let mut daemon = Daemon::assemble(base, ports, director, workers, socket, addresses)?;
    daemon.watch.has_read(seen);
    (daemon.events, daemon.texts) = (Events::going_on(events), configuration.texts);
    for effect in effects {
        daemon.carry_out(effect).await;
    }
    daemon.report_sync().await;
    await_end(channel);
    daemon.go_on_in_pair(&configuration.lvs, last.pulse).await?;
    Ok((daemon, differs && follows_site))
}

fn hear_gifts(channel: &Channel) -> io::Result<(Bequest, Vec<OwnedFd>, OwnedFd)> {
    channel.set_patience(Some(PATIENCE))?;
    let process = Some(std::process::id());
    let hello = Hello { version: wire::VERSION, program: env!("CARGO_PKG_VERSION").into(), process };
    wire::say(channel, &Word::Hello(hello))?;
    let (mut bequest, mut links) = (None, Vec::new());
    loop {
        match wire::hear(channel)? {
            Some(Word::Bequest(given)) => bequest = Some(*given),
            Some(Word::Link(link)) => links.push(link),
            Some(Word::Listener(listener)) => {
                return Ok((bequest.ok_or(io::ErrorKind::InvalidData)?, links, listener));
            }
            Some(Word::GivesUp(reason)) => return Err(io::Error::other(reason)),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Takes connections in until the predecessor has stopped. One that ends without a word has been killed: its packets are nobody's
/// then, and what has come of it by then is better than nothing. Only a partner may have more than a part of the connections; it
/// would end those that this process does not tell it of.
fn hear_records(
    channel: &Channel,
    tables: &Tables,
    clock: Clock,
    has_partner: bool,
) -> Result<LastWill, RunError> {
    let mut is_all = false;
    loop {
        match wire::hear(channel).map_err(|error| lost(&error))? {
            Some(Word::Records(records)) => take_in(tables, &records, clock),
            Some(Word::All) => {
                is_all = true;
                wire::say(channel, &Word::Ready).map_err(|error| lost(&error))?;
            }
            Some(Word::Switch(last)) => return Ok(*last),
            Some(Word::GivesUp(reason)) => return Err(RunError::Upgrade(reason)),
            Some(other) => return Err(RunError::Upgrade(format!("not understood: {other:?}"))),
            None => return go_on_alone(tables, is_all, has_partner),
        }
    }
}

fn go_on_alone(tables: &Tables, is_all: bool, has_partner: bool) -> Result<LastWill, RunError> {
    let connections = tables.connections.len();
    match (is_all, has_partner) {
        (true, _) => tracing::warn!(
            "the former process has ended before its time; this one goes on with the {connections} connections that it was told of"
        ),
        (false, false) => tracing::error!(
            "the former process has ended before it had told of all connections; this one goes on with {connections} of them, and \
             all others are lost"
        ),
        (false, true) => {
            return Err(RunError::Upgrade(format!(
                "the former process has ended before it had told of more than {connections} connections; this one leaves them to the \
                 partner, which may know them all, and ends"
            )));
        }
    }
    Ok(LastWill::default())
}

/// Waits until the predecessor has hung up, for a while.
fn await_end(channel: &Channel) {
    let waiting = channel.set_patience(Some(END_TIME));
    while waiting.is_ok() && matches!(wire::hear(channel), Ok(Some(_))) {}
}

fn take_in(tables: &Tables, mut records: &[u8], clock: Clock) {
    let snapshot = tables.snapshot.load_full();
    let now = clock.now();
    let mut refused = 0;
    while !records.is_empty() {
        let rest = match Record::read(records) {
            Ok((record, rest)) => {
                refused += u64::from(install(tables, &snapshot, Origin::Predecessor, &record, now).is_err());
                Some(rest)
            }
            Err(_) => {
                refused += 1;
                Record::skip(records).ok()
            }
        };
        records = rest.unwrap_or_default();
    }
    if refused != 0 {
        tracing::warn!("{refused} connections of the former process could not be taken over");
    }
}

fn lost(error: &io::Error) -> RunError {
    RunError::Upgrade(format!("the former process cannot be talked to: {error}"))
}
