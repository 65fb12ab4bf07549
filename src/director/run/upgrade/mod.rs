//! An upgrade: another process, of the same program or a newer one, takes over everything while packets come and go, but for the
//! moment in which the queues change hands.
//!
//! The daemon that is there starts the other one and gives it, by a channel that is its standard input, what its director knows, the
//! XDP programs' links, the listening control socket, and all connections. When that one needs nothing but the queues, this one stops,
//! tells what has changed, and frees the queues; the other one opens them and puts its program in the place of this one's.
//! Whatever goes wrong until then, this process goes on, or goes on again.

mod predecessor;
mod successor;
mod transfer;
mod wire;

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::heart::Heart;
use super::pair::next_order;
use super::watchdog::{notify, notify_reloading};
use super::{Daemon, Ending, RunError, Signals};
use crate::config::settings::Settings;
use crate::director::Values;
use crate::director::protocol::{Reply, Request};
use crate::director::socket::Asked;
use crate::ipvs::beyond;
use crate::ipvs::sysctl;
use crate::pulse::State;

use predecessor::{Gifts, Stopper, Successor};
pub use successor::{start_apart, take_over};
use wire::{Bequest, LastWill};

/// How an attempt ended.
enum Attempt {
    /// Another process serves.
    Followed(Followed),
    /// This one does, as before.
    Stays(String),
    /// Nobody does.
    Broken(RunError),
}

/// What there is to tell of an upgrade.
struct Followed {
    successor: Successor,
    connections: usize,
    changed: usize,
    pause: Duration,
    program: String,
}

/// What comes while an attempt is made.
struct Waiting<'a> {
    signals: &'a mut Signals,
    /// The signal by which this process was told to end.
    end: Option<Signal>,
    /// Requests that have to wait.
    deferred: Vec<Asked>,
}

impl Waiting<'_> {
    /// What has been reached, unless this process is to end.
    fn end_or<T>(&self, reached: Result<T, String>) -> Result<T, String> {
        match self.end {
            Some(signal) => Err(format!("xlvs is told to end by signal {}", signal as i32)),
            None => reached,
        }
    }
}

impl Daemon {
    /// Has another process take over. Returns why this one is to end, if it is.
    pub(super) async fn upgrade(
        &mut self,
        program: &Path,
        answer: oneshot::Sender<Reply>,
        signals: &mut Signals,
    ) -> Result<Option<Ending>, RunError> {
        notify_reloading();
        let mut waiting = Waiting { signals, end: None, deferred: Vec::new() };
        let attempt = self.hand_over(program, &mut waiting).await;
        let Waiting { end, mut deferred, .. } = waiting;
        let (reply, outcome) = match attempt {
            Attempt::Followed(followed) => {
                let process = followed.successor.pid();
                let text = self.leave_to(followed);
                tracing::info!("{text}");
                deferred.drain(..).for_each(|asked: Asked| drop(asked.answer.send(Reply::Again)));
                (Reply::Text(text), Ok(Some(Ending::Followed(process))))
            }
            Attempt::Stays(why) => {
                let text = format!("not upgraded, the present process goes on: {why}");
                tracing::error!("{text}");
                notify(&[NotifyState::Ready]);
                (Reply::Failed(text), Ok(end.map(Ending::Asked)))
            }
            Attempt::Broken(error) => (Reply::Failed(format!("the upgrade has failed: {error}")), Err(error)),
        };
        // A client that has gone needs no answer.
        let _ = answer.send(reply);
        for asked in deferred {
            self.serve_request(asked).await;
        }
        outcome
    }

    async fn hand_over(&mut self, program: &Path, waiting: &mut Waiting<'_>) -> Attempt {
        if let Some(why) = self.director.on_trial(self.clock.now()).or_else(|| self.is_fencing()) {
            return Attempt::Stays(why);
        }
        let mut successor = match Successor::start(program, self.files.options()) {
            Ok(successor) => successor,
            Err(why) => return Attempt::Stays(why),
        };
        tracing::info!("upgrade: {} is started as process {}", program.display(), successor.id());
        // Should this process be killed from now on, nothing of what it balances reaches the kernel's own TCP.
        self.workers.drop_unserved(true);
        let stopper = match successor.stopper() {
            Ok(stopper) => stopper,
            Err(why) => return self.stay(successor, why),
        };
        let work = tokio::task::spawn_blocking(move || {
            let hello = successor.hear_hello();
            (successor, hello)
        });
        let (successor, hello) = self.attend(work, &stopper, waiting).await;
        let told = waiting.end_or(hello).and_then(|hello| Ok((hello, successor.stopper()?)));
        let (mut successor, hello, stopper) = match told {
            Ok((hello, stopper)) => (successor, hello, stopper),
            Err(why) => return self.stay(successor, why),
        };
        let was_active = self.director.is_active();
        let gifts = match self.gifts() {
            Ok(gifts) => gifts,
            Err(error) => return self.stay(successor, error.to_string()),
        };
        let (tables, clock) = (self.director.tables().clone(), self.clock);
        let work = tokio::task::spawn_blocking(move || {
            let ledger = successor.prepare(gifts, &tables, clock);
            (successor, ledger)
        });
        let (successor, ledger) = self.attend(work, &stopper, waiting).await;
        let ledger = waiting.end_or(ledger);
        match ledger.and_then(|ledger| self.is_as_told(was_active).map(|()| ledger)) {
            Ok(ledger) => self.switch(successor, ledger, hello.program),
            Err(why) => self.stay(successor, why),
        }
    }

    /// The program that fences the partner tells the process that has started it how it went.
    fn is_fencing(&self) -> Option<String> {
        let fencing = self.heart.as_ref().is_some_and(|heart| heart.report().state == State::Fencing);
        fencing.then(|| "the partner is just being fenced; ask again".to_owned())
    }

    /// Whether the work is where the successor has been told that it is. It would leave clients' packets to the kernel for a
    /// moment, which has the addresses by now and resets connections.
    fn is_as_told(&self, was_active: bool) -> Result<(), String> {
        if self.director.is_active() != was_active {
            let now = if was_active { "inactive" } else { "active" };
            return Err(format!("this router has become {now} meanwhile; ask again"));
        }
        self.is_fencing().map_or(Ok(()), Err)
    }

    /// Answers questions while something else is done with `successor`. What is to change something has to wait. If this process is
    /// told to end, that one is ended at once.
    async fn attend<T>(
        &mut self,
        mut work: JoinHandle<T>,
        successor: &Stopper,
        waiting: &mut Waiting<'_>,
    ) -> T {
        loop {
            let now = self.clock.now();
            let sign = self.watchdog.as_ref().map(|watchdog| watchdog.next_deadline().saturating_since(now));
            tokio::select! {
                done = &mut work => match done {
                    Ok(done) => return done,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                Some(asked) = self.requests.recv() => match &asked.request {
                    Request::Upgrade { .. } => {
                        let _ = asked.answer.send(Reply::Failed("another upgrade is going on".into()));
                    }
                    request if request.is_question() => self.serve_request(asked).await,
                    _ => waiting.deferred.push(asked),
                },
                end = waiting.signals.end.next(), if waiting.end.is_none() => {
                    waiting.end = Some(end);
                    successor.stop();
                }
                () = tokio::time::sleep(sign.unwrap_or_default()), if sign.is_some() => self.give_sign_of_life(),
                order = next_order(self.heart.as_mut()) => self.obey(order).await,
                Some(answers) = self.answers.recv() => self.take_answers(answers).await,
            }
        }
    }

    fn gifts(&self) -> std::io::Result<Gifts> {
        let inheritance = self.workers.bequeath()?;
        let bequest = Bequest {
            now: self.clock.now(),
            texts: self.texts.clone(),
            settings: values(&self.settings),
            control_socket: self.settings.control_socket.clone(),
            zero_copy: inheritance.zero_copy,
            events: self.events.journal().clone(),
            estate: self.director.estate(),
        };
        let listener = self.socket.descriptor().try_clone_to_owned()?;
        Ok(Gifts { bequest, links: inheritance.links, listener })
    }

    /// From here on until the other process serves, no packets come and go.
    fn switch(&mut self, mut successor: Successor, mut ledger: transfer::Ledger, program: String) -> Attempt {
        self.socket.pause();
        self.sync.stop_all();
        let begin = self.clock.now();
        self.workers.rest();
        let tables = self.director.tables().clone();
        let switched = successor.update(&mut ledger, &tables, self.clock).and_then(|changed| {
            let (counters, packets) = (self.director.counters(), self.workers.totals());
            let last = LastWill { counters, packets, pulse: self.heart.as_ref().map(Heart::pulse) };
            successor.let_serve(last).map(|()| changed)
        });
        match switched {
            Ok(changed) => Attempt::Followed(Followed {
                connections: ledger.connections(),
                changed,
                pause: self.clock.now().saturating_since(begin),
                successor,
                program,
            }),
            Err(why) => {
                successor.dismiss(&why);
                self.take_back(why)
            }
        }
    }

    /// The successor has ended: everything is as it was, but for the queues.
    fn take_back(&mut self, why: String) -> Attempt {
        if let Err(error) = self.workers.resume() {
            return Attempt::Broken(error.into());
        }
        let (sync, buffer) = self.director.running_sync();
        for running in sync {
            if let Err(error) = self.sync.start(&running, buffer) {
                tracing::error!("{error}");
            }
        }
        match self.socket.serve(self.to_requests.clone()) {
            Ok(()) => Attempt::Stays(why),
            Err(error) => Attempt::Broken(error.into()),
        }
    }

    fn stay(&mut self, successor: Successor, why: String) -> Attempt {
        successor.dismiss(&why);
        self.workers.drop_unserved(false);
        Attempt::Stays(why)
    }

    /// Has the service manager know whom to watch. Returns what to tell.
    fn leave_to(&mut self, followed: Followed) -> String {
        let Followed { successor, connections, changed, pause, program } = followed;
        // The successor takes its sockets as soon as the channel closes.
        self.heart = None;
        self.replicas.stop();
        notify(&[NotifyState::MainPid(successor.id()), NotifyState::Ready]);
        let text = format!(
            "upgraded from xlvs {} to {program}: process {} serves now, with {connections} connections, of which {changed} records \
             came last; no packets were taken for {} ms",
            env!("CARGO_PKG_VERSION"),
            successor.id(),
            pause.as_millis()
        );
        successor.leave();
        text
    }

    /// The end of a process that another one follows: everything stays as it is.
    pub(super) async fn leave(mut self) {
        self.workers.leave();
        self.events.dismiss();
        self.requests.close();
        while let Ok(asked) = self.requests.try_recv() {
            // A client that has gone needs no answer.
            let _ = asked.answer.send(Reply::Again);
        }
        self.socket.leave().await;
        self.checks.stop_all();
        self.programs.stop().await;
        tracing::info!("the process that was followed has ended");
    }
}

/// What `xlvs.toml` says of settings that can be changed while the daemon runs.
fn values(settings: &Settings) -> Values {
    let (sysctls, beyond) = (settings.sysctls(), settings.beyond());
    let of_ipvs = sysctl::names().into_iter();
    let of_ipvs = of_ipvs.filter_map(|name| Some((name.to_owned(), sysctls.get(name).ok()?)));
    let others = beyond::NAMES.iter().filter_map(|name| {
        let value = beyond.switches.get(name).ok()?;
        Some(((*name).to_owned(), value.to_string()))
    });
    of_ipvs.chain(others).collect()
}
