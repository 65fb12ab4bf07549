//! The daemon: reads the files, starts the workers, and carries out the director's effects until it is told to stop.

mod addresses;
mod checks;
mod effects;
pub mod examine;
mod files;
mod journal;
mod overrides;
mod ports;
mod programs;
mod sync;
mod workers;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::signal::Signal::{SIGINT, SIGTERM};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::doctor::{Grade, judge};
use super::protocol::{Reply, Request};
use super::socket::{Asked, ControlSocket, SocketError};
use super::wanted::Wanted;
use super::{ClientId, Command, Director, Port};
use crate::config::settings::{Settings, SettingsError};
use crate::host::clock::Clock;
use crate::host::memory;
use crate::host::netlink::{self, Netlink, NetlinkError};
use crate::host::privilege::{self, PrivilegeError};
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::snapshot::Tables;
use crate::ipvs::sync::SyncRole;
use crate::nanny::HealthReport;
use crate::net::route::HostNetwork;
use crate::xdp::XdpError;

use addresses::Addresses;
use checks::Checks;
use files::{Configuration, Files};
use journal::Events;
use overrides::OverrideFile;
use programs::{LoadReport, Programs};
use sync::SyncThreads;
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
    /// AF_XDP.
    #[error("{0}")]
    Xdp(#[from] XdpError),
    /// Control socket.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The rest of the system.
    #[error("cannot {0}: {1}")]
    System(&'static str, std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let mut signals = Signals::listen()?;
    let settings = files::read_settings(&options)?;
    start_log(&settings);
    privilege::require()?;
    let files = Files::new(&options, &settings);
    let configuration = files.read().map_err(RunError::Configuration)?;
    let mut daemon = Daemon::start(settings, files, &configuration).await?;
    daemon.configure(configuration).await;
    daemon.notify(NotifyState::Ready);
    let outcome = daemon.serve(&mut signals).await;
    daemon.stop().await;
    outcome
}

fn start_log(settings: &Settings) {
    let level = tracing_subscriber::EnvFilter::new(settings.log_level.word());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second subscriber in one process (a test) is not an error: the first one goes on.
    let _ = subscriber.with_env_filter(level).try_init();
}

/// The running daemon: the director and the hands that carry out its effects.
struct Daemon {
    clock: Clock,
    files: Files,
    /// The ports, unless the settings name them: then it is for the administrator to know which are needed.
    found_ports: Option<Vec<Port>>,
    gone: Option<String>,
    director: Director,
    workers: Workers,
    addresses: Addresses,
    checks: Checks,
    sync: SyncThreads,
    sync_failed: Option<(SyncRole, String)>,
    netlink: Netlink,
    network: watch::Receiver<Arc<HostNetwork>>,
    requests: mpsc::Receiver<Asked>,
    health: mpsc::Receiver<HealthReport>,
    loads: mpsc::Receiver<LoadReport>,
    programs: Programs,
    events: Events,
    overrides: OverrideFile,
    socket: tokio::task::JoinHandle<()>,
    answer: Option<Reply>,
    changed_by_hand: Vec<String>,
}

/// What the daemon waits for.
enum Happening {
    Asked(Asked),
    Health(HealthReport),
    Load(LoadReport),
    Network,
    Reload,
    Tick,
    PortGone(String),
    Stop(nix::sys::signal::Signal),
}

impl Daemon {
    async fn start(
        settings: Settings,
        files: Files,
        configuration: &Configuration,
    ) -> Result<Daemon, RunError> {
        let clock = Clock::start();
        let socket = ControlSocket::bind(&settings.control_socket).await?;
        let netlink = Netlink::open()?;
        let mut network = netlink::watch().await?;
        let now_network = Arc::clone(&network.borrow_and_update());
        let wanted = Wanted::new(&configuration.lvs);
        if wanted.services.is_empty() && !wanted.refused.is_empty() {
            return Err(RunError::Configuration(wanted.refused.join("\n")));
        }
        let ports = ports::choose(&settings.ports, &wanted, &now_network)?;
        let queues = workers::queues(&settings, &ports)?;
        let shares = workers::shares(queues);
        let tables = Arc::new(Tables::new(shares));
        let workers = Workers::start(&settings, &ports, &tables, clock)?;
        let sync = SyncThreads::new(Arc::clone(&tables));
        advise(&settings, &ports, &workers, &netlink).await;
        let mut director = Director::new(clock.now(), tables, shares, ports.clone())
            .with_memory(memory::total_bytes().unwrap_or(0))
            .with_beyond(settings.beyond())
            .with_slow_start(settings.slow_start);
        let overrides = OverrideFile::new(settings.control_socket.with_extension("overrides.json"));
        director.handle(clock.now(), Command::Overrides(overrides.read()));
        director.handle(clock.now(), Command::Sysctls(Box::new(settings.sysctls())));
        director.handle(clock.now(), Command::FtpPorts(FtpPorts(settings.ftp_ports.clone())));
        director.handle(clock.now(), Command::Network((*now_network).clone()));
        let (to_requests, requests) = mpsc::channel(INBOX);
        let (to_health, health) = mpsc::channel(INBOX);
        let (to_loads, loads) = mpsc::channel(INBOX);
        let record = settings.control_socket.with_extension("addresses.json");
        let mut addresses = Addresses::new(netlink.clone(), record, &now_network);
        addresses.remove_leftovers(&now_network, &wanted.addresses).await;
        Ok(Daemon {
            clock,
            files,
            director,
            workers,
            addresses,
            found_ports: settings.ports.is_empty().then_some(ports),
            checks: Checks::new(clock, to_health),
            sync,
            sync_failed: None,
            netlink,
            network,
            requests,
            health,
            loads,
            programs: Programs::new(&settings.notify, to_loads),
            events: Events::default(),
            overrides,
            socket: tokio::spawn(socket.serve(to_requests)),
            answer: None,
            changed_by_hand: Vec::new(),
            gone: None,
        })
    }

    async fn serve(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        loop {
            match self.next(signals).await {
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
                Happening::Reload => drop(self.reload().await),
                Happening::Tick => self.tick().await,
                Happening::PortGone(name) => return Err(RunError::PortGone(name)),
                Happening::Stop(signal) => {
                    tracing::info!("shutting down due to signal {}", signal as i32);
                    return Ok(());
                }
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Happening {
        if let Some(name) = self.gone.take() {
            return Happening::PortGone(name);
        }
        let next = self.director.next_deadline();
        let next = self.events.next_deadline().map_or(next, |due| due.min(next));
        let pause = next.saturating_since(self.clock.now());
        tokio::select! {
            Some(asked) = self.requests.recv() => Happening::Asked(asked),
            Some(report) = self.health.recv() => Happening::Health(report),
            Some(report) = self.loads.recv() => Happening::Load(report),
            Ok(()) = self.network.changed() => Happening::Network,
            Some(()) = signals.reload.recv() => Happening::Reload,
            Some(()) = signals.terminate.recv() => Happening::Stop(SIGTERM),
            Some(()) = signals.interrupt.recv() => Happening::Stop(SIGINT),
            () = tokio::time::sleep(pause) => Happening::Tick,
        }
    }

    async fn tick(&mut self) {
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
        let reply = match asked.request {
            Request::Reload => self.reload().await,
            Request::Events { after, wait } => {
                return self.events.serve(self.clock.now(), after, wait, asked.answer);
            }
            request => {
                self.command(Command::Request { client: ClientId(0), request }).await;
                if let Some((role, text)) = self.sync_failed.take() {
                    self.command(Command::SyncFailed(role)).await;
                    self.answer = Some(Reply::Failed(text));
                }
                match self.answer.take() {
                    Some(Reply::Status(mut status)) => {
                        self.workers.describe(&mut status);
                        status.notices_lost = self.programs.notices_lost();
                        Reply::Status(status)
                    }
                    Some(reply) => reply,
                    None => Reply::Failed("no answer".into()),
                }
            }
        };
        // A client that has gone needs no answer.
        let _ = asked.answer.send(reply);
    }

    async fn take_health(&mut self, report: HealthReport) {
        let HealthReport { check, change } = report;
        self.command(Command::Health { check, up: change.up, reason: change.reason }).await;
    }

    /// Reads the files again. A fault in them, or something in them that cannot be run, changes nothing.
    async fn reload(&mut self) -> Reply {
        self.notify(NotifyState::Reloading);
        let reply = match self.files.read().and_then(|configuration| self.judge(configuration)) {
            Ok(configuration) => {
                self.configure(configuration).await;
                tracing::info!("configuration reloaded");
                let mut lines = vec!["reloaded".to_owned()];
                lines.append(&mut self.changed_by_hand);
                Reply::Text(lines.join("\n"))
            }
            Err(report) => {
                tracing::error!("reload refused, the present configuration stays:\n{report}");
                Reply::Failed(format!("reload refused, the present configuration stays:\n{report}"))
            }
        };
        self.notify(NotifyState::Ready);
        reply
    }

    fn judge(&self, configuration: Configuration) -> Result<Configuration, String> {
        if let Some(objection) = self.director.objection(&configuration.lvs, &configuration.marks) {
            return Err(objection);
        }
        if let Some(ports) = &self.found_ports {
            let wanted = Wanted::new(&configuration.lvs);
            ports::check(ports, &wanted, &self.network.borrow()).map_err(|error| error.to_string())?;
        }
        Ok(configuration)
    }

    async fn configure(&mut self, configuration: Configuration) {
        let Configuration { lvs, marks, warnings } = configuration;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.command(Command::Configure { lvs: Box::new(lvs), marks }).await;
    }

    async fn command(&mut self, command: Command) {
        for effect in self.director.handle(self.clock.now(), command) {
            self.carry_out(effect).await;
        }
        self.events.answer(self.clock.now());
    }

    /// Without systemd there is nobody to notify.
    fn notify(&self, state: NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::debug!("systemd: {error}");
        }
    }

    async fn stop(mut self) {
        self.notify(NotifyState::Stopping);
        self.command(Command::Stop).await;
        self.socket.abort();
        self.checks.stop_all();
        self.sync.stop_all();
        self.workers.stop();
        self.programs.stop().await;
        tracing::info!("stopped");
    }
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From the very start: a SIGHUP that comes before the daemon serves must not end it.
    fn listen() -> Result<Self, RunError> {
        let hook = |kind, what| signal(kind).map_err(|error| RunError::System(what, error));
        Ok(Signals {
            reload: hook(SignalKind::hangup(), "listen for SIGHUP")?,
            terminate: hook(SignalKind::terminate(), "listen for SIGTERM")?,
            interrupt: hook(SignalKind::interrupt(), "listen for SIGINT")?,
        })
    }
}

/// Logs what the administrator should not overlook; `xlvs doctor` says the rest.
async fn advise(settings: &Settings, ports: &[Port], workers: &Workers, netlink: &Netlink) {
    match examine::facts(settings, ports, &workers.ports(), netlink).await {
        Ok(facts) => judge(&facts)
            .iter()
            .filter(|finding| finding.grade == Grade::Bad)
            .for_each(|finding| tracing::warn!("{}", finding.line())),
        Err(error) => tracing::debug!("{error}"),
    }
}
