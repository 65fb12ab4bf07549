//! The daemon: reads the files, starts the workers, and carries out the director's effects until it is told to stop.

mod addresses;
mod checks;
mod effects;
pub mod examine;
mod files;
mod heart;
mod journal;
mod log;
mod overrides;
mod pair;
mod pair_plan;
mod peers;
mod ports;
mod programs;
mod reload;
mod replica;
mod replicas;
mod settings;
mod start;
mod sync;
mod upgrade;
mod watchdog;
mod watcher;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use super::protocol::{Reply, Request};
use super::socket::{Asked, ControlSocket, SocketError};
use super::watch::Watch;
use super::{ClientId, Command, Director, Port};
use crate::config::settings::{Settings, SettingsError};
use crate::host::clock::Clock;
use crate::host::memory;
use crate::host::netlink::{Netlink, NetlinkError};
use crate::host::privilege::PrivilegeError;
use crate::ipvs::sync::SyncRole;
use crate::nanny::HealthReport;
use crate::net::route::HostNetwork;
use crate::pulse::Wish;
use crate::xdp::XdpError;

use addresses::Addresses;
use checks::Checks;
use files::{Files, SiteTexts};
use heart::{Heart, Order};
use journal::Events;
use log::LogFilter;
use overrides::OverrideFile;
use pair::{Answers, next_order};
use pair_plan::PairPlan;
use programs::{LoadReport, Programs};
use reload::{Apply, Install, Read, Reloading};
use replicas::Replicas;
use sync::SyncThreads;
pub use upgrade::start_apart;
use watchdog::{Watchdog, notify};
use watcher::Watcher;
use workers::Workers;

/// Requests and reports that may wait for the director.
const INBOX: usize = 256;

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// `lvs.cf`, in place of the one that the settings name.
    pub lvs: Option<PathBuf>,
    /// The saved iptables rules, in place of the file that the settings name.
    pub marks: Option<PathBuf>,
    /// The saved ip6tables rules, in place of the file that the settings name.
    pub marks6: Option<PathBuf>,
    /// `xlvs.toml`, which must exist then.
    pub settings: Option<PathBuf>,
    /// Start with empty tables and no `lvs.cf`.
    pub bare: bool,
    /// Become active at once, whatever the partner does.
    pub force_active: bool,
    /// Take over from the process that has started this one.
    pub take_over: bool,
    /// Be the process that stays of the two that `take_over` makes.
    pub apart: bool,
}

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// `xlvs.toml`.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// `lvs.cf` or the marks; the text is the whole report.
    #[error("{0}")]
    Configuration(String),
    /// Not allowed.
    #[error("{0}")]
    Privilege(#[from] PrivilegeError),
    /// Netlink.
    #[error("{0}")]
    Netlink(#[from] NetlinkError),
    /// No ports.
    #[error("{0}")]
    Port(#[from] ports::PortError),
    /// A port went away.
    #[error("interface {0} has gone; xlvs stops, start it again when the interface is back")]
    PortGone(String),
    /// A worker ended.
    #[error("a packet thread has ended by itself; xlvs stops, start it again")]
    WorkerGone,
    /// The pair; the text is the whole report.
    #[error("{0}")]
    Pair(String),
    /// AF_XDP.
    #[error("{0}")]
    Xdp(#[from] XdpError),
    /// Control socket.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The process that is to be followed.
    #[error("{0}")]
    Upgrade(String),
    /// The rest of the system.
    #[error("cannot {0}: {1}")]
    System(&'static str, std::io::Error),
}

/// Runs until SIGTERM or SIGINT, or until another process has taken over.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let mut signals = Signals::listen()?;
    let mut daemon = match options.take_over {
        true => start::follow(options).await?,
        false => start::begin(options).await?,
    };
    match daemon.serve(&mut signals).await {
        Ok(Ending::Followed(process)) => {
            signals.pass_on(process).await;
            daemon.leave().await;
            signals.pass_on(process).await;
        }
        Ok(Ending::Asked(signal)) => daemon.stop(signal as i32, false).await,
        Err(error) => {
            daemon.stop(SIGTERM as i32, true).await;
            return Err(error);
        }
    }
    Ok(())
}

/// Why the daemon ends.
enum Ending {
    /// By a signal.
    Asked(nix::sys::signal::Signal),
    /// Another process serves.
    Followed(Pid),
}

/// The running daemon: the director and the hands that carry out its effects.
struct Daemon {
    clock: Clock,
    files: Files,
    /// What is in force: of keys that take a restart what they were at the start.
    settings: Settings,
    log: LogFilter,
    watch: Watch,
    watcher: Option<Watcher>,
    reading: JoinSet<Read>,
    reloading: Reloading,
    /// Whether what is read next was found changed.
    is_followed: bool,
    /// What replaces the site's lvs.cf once it is confirmed.
    install: Option<Install>,
    /// What is followed, as it was written.
    texts: SiteTexts,
    /// The same before a trial.
    former_texts: Option<SiteTexts>,
    /// The ports, unless the settings name them: then it is for the administrator to know which are needed.
    found_ports: Option<Vec<Port>>,
    gone: Option<String>,
    director: Director,
    workers: Workers,
    addresses: Addresses,
    checks: Checks,
    sync: SyncThreads,
    sync_failed: Option<(SyncRole, String)>,
    replicas: Replicas,
    netlink: Netlink,
    network: watch::Receiver<Arc<HostNetwork>>,
    requests: mpsc::Receiver<Asked>,
    to_requests: mpsc::Sender<Asked>,
    health: mpsc::Receiver<HealthReport>,
    loads: mpsc::Receiver<LoadReport>,
    programs: Programs,
    events: Events,
    overrides: OverrideFile,
    socket: ControlSocket,
    answer: Option<Reply>,
    changed_by_hand: Vec<String>,
    watchdog: Option<Watchdog>,
    /// None without `lvs.cf`: then this router is active all the time.
    heart: Option<Heart>,
    /// What the heart goes by again if a trial ends.
    plan_before: Option<PairPlan>,
    answers: mpsc::UnboundedReceiver<Answers>,
}

/// What the daemon waits for.
enum Happening {
    Asked(Asked),
    Health(HealthReport),
    Load(LoadReport),
    Network,
    Reload,
    Read(Result<Read, JoinError>),
    Files(Vec<watcher::Change>),
    FilesQuiet,
    Tick,
    Order(Order),
    Answers(Answers),
    PortGone(String),
    WorkerGone,
    Stop(nix::sys::signal::Signal),
}

impl Daemon {
    async fn serve(&mut self, signals: &mut Signals) -> Result<Ending, RunError> {
        loop {
            match self.next(signals).await {
                Happening::Asked(Asked { request: Request::Upgrade { program }, answer }) => {
                    if let Some(ending) = self.upgrade(&program, answer, signals).await? {
                        return Ok(ending);
                    }
                }
                Happening::Asked(asked) => self.serve_request(asked).await,
                Happening::Health(report) => self.take_health(report).await,
                Happening::Load(LoadReport { service, server, printed }) => {
                    self.command(Command::Load { service, server, printed }).await;
                }
                Happening::Network => {
                    let network = (**self.network.borrow_and_update()).clone();
                    self.workers.look_at_exits();
                    self.command(Command::Network(network)).await;
                }
                Happening::Reload => self.reload(Vec::new()),
                Happening::Read(read) => self.take_read(read).await,
                Happening::Files(changes) => self.files_changed(changes),
                Happening::FilesQuiet => self.look_at_files(),
                Happening::Tick => self.tick().await,
                Happening::Order(order) => self.obey(order).await,
                Happening::Answers(answers) => self.take_answers(answers).await,
                Happening::PortGone(name) => return Err(RunError::PortGone(name)),
                Happening::WorkerGone => return Err(RunError::WorkerGone),
                Happening::Stop(signal) => {
                    tracing::info!("shutting down due to signal {}", signal as i32);
                    return Ok(Ending::Asked(signal));
                }
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Happening {
        if let Some(name) = self.gone.take() {
            return Happening::PortGone(name);
        }
        if self.workers.have_lost_one() {
            return Happening::WorkerGone;
        }
        let now = self.clock.now();
        let others = [self.events.next_deadline(), self.watchdog.as_ref().map(Watchdog::next_deadline)];
        let next = others.into_iter().flatten().fold(self.director.next_deadline(), Ord::min);
        let pause = next.saturating_since(now);
        let quiet = self.watch.next_deadline().map(|quiet| quiet.saturating_since(now));
        tokio::select! {
            Some(asked) = self.requests.recv() => Happening::Asked(asked),
            Some(report) = self.health.recv() => Happening::Health(report),
            Some(report) = self.loads.recv() => Happening::Load(report),
            Ok(()) = self.network.changed() => Happening::Network,
            Some(()) = signals.reload.recv() => Happening::Reload,
            Some(read) = self.reading.join_next() => Happening::Read(read),
            signal = signals.end.next() => Happening::Stop(signal),
            Some(changes) = watcher::next(&mut self.watcher) => Happening::Files(changes),
            () = tokio::time::sleep(quiet.unwrap_or_default()), if quiet.is_some() => Happening::FilesQuiet,
            order = next_order(self.heart.as_mut()) => Happening::Order(order),
            Some(answers) = self.answers.recv() => Happening::Answers(answers),
            () = tokio::time::sleep(pause) => Happening::Tick,
        }
    }

    async fn tick(&mut self) {
        self.give_sign_of_life();
        if self.director.watches_memory()
            && let Some(pages) = memory::free_pages()
        {
            self.command(Command::FreeMemory(pages)).await;
        }
        self.command(Command::Tick).await;
        if self.workers.watch_exits() {
            let network = (**self.network.borrow()).clone();
            self.command(Command::Network(network)).await;
        }
    }

    async fn serve_request(&mut self, asked: Asked) {
        let Asked { request, answer } = asked;
        let reply = match request {
            Request::Takeover => self.wish(Wish::Takeover).await,
            Request::Standby => self.wish(Wish::Standby).await,
            Request::Reload => return self.reload(vec![answer]),
            Request::Events { after, wait } => {
                return self.events.serve(self.clock.now(), after, wait, answer);
            }
            Request::Plan(files) => return self.plan(files, answer),
            Request::Apply { files, confirm, install } => {
                return self.apply(Apply { files, confirm, install }, answer);
            }
            Request::Confirm => self.confirm().await,
            request => match self.ask(request).await {
                Reply::Status(mut status) => {
                    self.workers.describe(&mut status);
                    status.notices_lost = self.programs.notices_lost();
                    status.pulse = self.heart.as_ref().map(Heart::report);
                    status.replica = self.replicas.report();
                    Reply::Status(status)
                }
                reply => reply,
            },
        };
        // A client that has gone needs no answer.
        let _ = answer.send(reply);
    }

    async fn ask(&mut self, request: Request) -> Reply {
        self.command(Command::Request { client: ClientId(0), request }).await;
        if let Some((role, text)) = self.sync_failed.take() {
            self.command(Command::SyncFailed(role)).await;
            self.answer = Some(Reply::Failed(text));
        }
        self.answer.take().unwrap_or_else(|| Reply::Failed("no answer".into()))
    }

    async fn take_health(&mut self, report: HealthReport) {
        let HealthReport { check, change } = report;
        self.command(Command::Health { check, up: change.up, reason: change.reason }).await;
    }

    async fn command(&mut self, command: Command) {
        for effect in self.director.handle(self.clock.now(), command) {
            self.carry_out(effect).await;
        }
        self.note_addresses();
        let network = Arc::clone(&self.network.borrow());
        self.addresses.ask(&network, Duration::ZERO);
        self.events.answer(self.clock.now());
    }

    async fn stop(mut self, signal: i32, failed: bool) {
        notify(&[NotifyState::Stopping]);
        self.leave_pair(signal, failed).await;
        self.command(Command::Withdraw).await;
        self.command(Command::Stop).await;
        drop(self.socket);
        self.checks.stop_all();
        self.sync.stop_all();
        self.replicas.stop();
        self.workers.stop();
        self.programs.stop().await;
        tracing::info!("stopped");
    }
}

struct Signals {
    reload: Signal,
    end: EndSignals,
}

/// Those by which this process is told to end.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    async fn next(&mut self) -> nix::sys::signal::Signal {
        tokio::select! {
            Some(()) = self.terminate.recv() => SIGTERM,
            Some(()) = self.interrupt.recv() => SIGINT,
            else => std::future::pending().await,
        }
    }
}

impl Signals {
    /// From the very start: a SIGHUP that comes before the daemon serves must not end it.
    fn listen() -> Result<Self, RunError> {
        let hook = |kind, what| signal(kind).map_err(|error| RunError::System(what, error));
        Ok(Signals {
            reload: hook(SignalKind::hangup(), "listen for SIGHUP")?,
            end: EndSignals {
                terminate: hook(SignalKind::terminate(), "listen for SIGTERM")?,
                interrupt: hook(SignalKind::interrupt(), "listen for SIGINT")?,
            },
        })
    }

    /// Sends what has come and was not looked at to a process that serves in the place of this one.
    async fn pass_on(&mut self, process: Pid) {
        let EndSignals { terminate, interrupt } = &mut self.end;
        for (signal, kind) in [(&mut self.reload, SIGHUP), (terminate, SIGTERM), (interrupt, SIGINT)] {
            tokio::select! {
                biased;
                Some(()) = signal.recv() => {
                    // It may have ended.
                    let _ = kill(process, kind);
                }
                () = std::future::ready(()) => {}
            }
        }
    }
}
