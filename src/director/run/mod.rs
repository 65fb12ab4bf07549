//! The daemon: reads the files, starts the workers, and carries out the director's effects until it is told to stop.

mod addresses;
mod checks;
pub mod examine;
mod files;
mod heart;
mod pair;
mod plan;
mod ports;
mod workers;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::{SIGINT, SIGTERM};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::protocol::{Reply, Request};
use super::socket::{Asked, ControlSocket, SocketError};
use super::wanted::Wanted;
use super::{ClientId, Command, Director, Effect, Level, Port};
use crate::config::pair::PulseSettings;
use crate::config::settings::{Settings, SettingsError};
use crate::host::clock::Clock;
use crate::host::memory;
use crate::host::netlink::{self, Netlink, NetlinkError};
use crate::host::privilege::{self, PrivilegeError};
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::snapshot::Tables;
use crate::nanny::HealthReport;
use crate::net::route::HostNetwork;
use crate::net::time::Instant;
use crate::pulse::Wish;
use crate::xdp::XdpError;

use addresses::Addresses;
use checks::Checks;
use files::{Configuration, Files};
use heart::{Heart, Order};
use pair::{Answers, next_order, resting_heart};
use plan::Plan;
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
    let mut daemon = Daemon::start(settings, files, &configuration, &options).await?;
    daemon.configure(configuration).await;
    if options.force_active {
        daemon.settle().await;
    }
    daemon.notify(NotifyState::Ready);
    let outcome = daemon.serve(&mut signals).await;
    daemon.stop(*outcome.as_ref().unwrap_or(&SIGTERM), outcome.is_err()).await;
    outcome.map(drop)
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
    netlink: Netlink,
    network: watch::Receiver<Arc<HostNetwork>>,
    requests: mpsc::Receiver<Asked>,
    health: mpsc::Receiver<HealthReport>,
    socket: tokio::task::JoinHandle<()>,
    answer: Option<Reply>,
    changed_by_hand: Vec<String>,
    /// None without `lvs.cf`: then this router is active all the time.
    heart: Option<Heart>,
    pulse_settings: PulseSettings,
    answers: mpsc::UnboundedReceiver<Answers>,
}

/// What the daemon waits for.
enum Happening {
    Asked(Asked),
    Health(HealthReport),
    Network,
    Reload,
    Tick,
    Order(Order),
    Answers(Answers),
    PortGone(String),
    WorkerGone,
    Stop(&'static str, i32),
}

impl Daemon {
    async fn start(
        settings: Settings,
        files: Files,
        configuration: &Configuration,
        options: &RunOptions,
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
        let heart = resting_heart(&settings, options, configuration, &now_network)?;
        let ports = ports::choose(&settings.ports, &wanted, &now_network)?;
        let queues = workers::queues(&settings, &ports)?;
        let shares = workers::shares(queues);
        let tables = Arc::new(Tables::new(shares));
        let workers = Workers::start(&settings, &ports, &tables, clock)?;
        examine::advise(&settings, &ports, &workers, &netlink).await;
        let mut director =
            new_director(clock.now(), &settings, (tables, shares), ports.clone(), &now_network);
        let (to_requests, requests) = mpsc::channel(INBOX);
        let (to_health, health) = mpsc::channel(INBOX);
        let record = settings.control_socket.with_extension("addresses.json");
        let (to_answers, answers) = mpsc::unbounded_channel();
        let mut addresses = Addresses::new(netlink.clone(), record, &now_network, clock, to_answers);
        let mut kept = &wanted.addresses[..];
        if heart.is_some() {
            director.handle(clock.now(), Command::Deactivate);
            addresses.wait_for_partner(configuration.lvs.deadtime);
            // An inactive router has no addresses, whatever an earlier run has left.
            kept = if options.force_active { kept } else { &[] };
        }
        addresses.remove_leftovers(&now_network, kept).await;
        let carriers = netlink::watch_carriers().await?;
        let heart = heart.map(|heart| heart.start(clock, options.force_active, carriers));
        Ok(Daemon {
            clock,
            files,
            director,
            workers,
            addresses,
            found_ports: settings.ports.is_empty().then_some(ports),
            checks: Checks::new(clock, to_health),
            netlink,
            network,
            requests,
            health,
            socket: tokio::spawn(socket.serve(to_requests)),
            answer: None,
            changed_by_hand: Vec::new(),
            gone: None,
            heart,
            pulse_settings: settings.pulse.clone(),
            answers,
        })
    }

    /// Returns the signal that ended it.
    async fn serve(&mut self, signals: &mut Signals) -> Result<i32, RunError> {
        loop {
            match self.next(signals).await {
                Happening::Asked(asked) => self.serve_request(asked).await,
                Happening::Health(report) => self.take_health(report).await,
                Happening::Network => {
                    let network = (**self.network.borrow_and_update()).clone();
                    self.workers.look_at_exits();
                    self.command(Command::Network(network)).await;
                }
                Happening::Reload => drop(self.reload().await),
                Happening::Tick => self.tick().await,
                Happening::Order(order) => self.obey(order).await,
                Happening::Answers(answers) => self.take_answers(answers).await,
                Happening::PortGone(name) => return Err(RunError::PortGone(name)),
                Happening::WorkerGone => return Err(RunError::WorkerGone),
                Happening::Stop(name, signal) => {
                    tracing::info!("stopping on {name}");
                    return Ok(signal);
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
        let pause = self.director.next_deadline().saturating_since(self.clock.now());
        tokio::select! {
            Some(asked) = self.requests.recv() => Happening::Asked(asked),
            Some(report) = self.health.recv() => Happening::Health(report),
            Ok(()) = self.network.changed() => Happening::Network,
            Some(()) = signals.reload.recv() => Happening::Reload,
            Some(()) = signals.terminate.recv() => Happening::Stop("SIGTERM", SIGTERM),
            Some(()) = signals.interrupt.recv() => Happening::Stop("SIGINT", SIGINT),
            order = next_order(self.heart.as_mut()) => Happening::Order(order),
            Some(answers) = self.answers.recv() => Happening::Answers(answers),
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
    }

    async fn serve_request(&mut self, asked: Asked) {
        let wish = match asked.request {
            Request::Takeover => self.wish(Wish::Takeover).await,
            Request::Standby => self.wish(Wish::Standby).await,
            _ => None,
        };
        let reply = match asked.request {
            _ if wish.is_some() => wish.unwrap_or(Reply::Done),
            Request::Reload => self.reload().await,
            request => {
                self.command(Command::Request { client: ClientId(0), request }).await;
                match self.answer.take() {
                    Some(Reply::Status(mut status)) => {
                        self.workers.describe(&mut status);
                        status.pulse = self.heart.as_ref().map(Heart::report);
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
        if self.heart.is_some() {
            Plan::new(&configuration.lvs, &self.pulse_settings, &self.network.borrow())?;
        }
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
        if let Some(heart) = &self.heart
            && let Ok(plan) = Plan::new(&lvs, &self.pulse_settings, &self.network.borrow())
        {
            heart.follow(plan);
        }
        self.command(Command::Configure { lvs: Box::new(lvs), marks }).await;
    }

    async fn command(&mut self, command: Command) {
        for effect in self.director.handle(self.clock.now(), command) {
            self.carry_out(effect).await;
        }
        let network = Arc::clone(&self.network.borrow());
        self.addresses.ask(&network, Duration::ZERO);
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(_, reply) => self.answer = Some(reply),
            Effect::Steer(steering) => {
                if let Err(error) = self.workers.steer(&steering) {
                    tracing::error!("{error}");
                }
            }
            Effect::AddAddress(address) => {
                let network = Arc::clone(&self.network.borrow());
                self.addresses.add(&network, &address).await;
            }
            Effect::RemoveAddress(address) => {
                let network = Arc::clone(&self.network.borrow());
                self.addresses.remove(&network, &address).await;
            }
            Effect::StartCheck(check) => self.checks.start(check),
            Effect::StopCheck(check) => self.checks.stop(&check),
            Effect::Resolve(neighbours) => {
                for (link, address) in neighbours {
                    if let Err(error) = self.netlink.resolve(link, address).await {
                        tracing::debug!("{error}");
                    }
                }
            }
            Effect::PortGone(name) => self.gone = Some(name),
            Effect::ChangedByHand(text) => {
                tracing::warn!("{text}");
                self.changed_by_hand.push(text);
            }
            Effect::Log(Level::Info, text) => tracing::info!("{text}"),
            Effect::Log(Level::Warn, text) => tracing::warn!("{text}"),
            Effect::Log(Level::Error, text) => tracing::error!("{text}"),
        }
    }

    /// Without systemd there is nobody to notify.
    fn notify(&self, state: NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::debug!("systemd: {error}");
        }
    }

    async fn stop(mut self, signal: i32, failed: bool) {
        self.notify(NotifyState::Stopping);
        self.leave_pair(signal, failed).await;
        self.command(Command::Stop).await;
        self.socket.abort();
        self.checks.stop_all();
        self.workers.stop();
        tracing::info!("stopped");
    }
}

/// With all that the settings and the network say.
fn new_director(
    now: Instant,
    settings: &Settings,
    (tables, shares): (Arc<Tables>, usize),
    ports: Vec<Port>,
    network: &HostNetwork,
) -> Director {
    let mut director = Director::new(now, tables, shares, ports)
        .with_memory(memory::total_bytes().unwrap_or(0))
        .with_beyond(settings.beyond());
    director.handle(now, Command::Sysctls(Box::new(settings.sysctls())));
    director.handle(now, Command::FtpPorts(FtpPorts(settings.ftp_ports.clone())));
    director.handle(now, Command::Network(network.clone()));
    director
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
