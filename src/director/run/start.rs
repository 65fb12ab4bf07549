//! The beginning of a daemon.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::addresses::Addresses;
use super::checks::Checks;
use super::files::{self, Configuration, Files, SiteTexts};
use super::heart::RestingHeart;
use super::journal::Events;
use super::log::LogFilter;
use super::overrides::OverrideFile;
use super::pair::{Answers, resting_heart};
use super::programs::Programs;
use super::reload::Reloading;
use super::replicas::Replicas;
use super::sync::{self, SyncThreads};
use super::watchdog::{self, notify};
use super::watcher;
use super::workers::{self, Workers};
use super::{Daemon, INBOX, RunError, RunOptions, examine, ports, upgrade};
use crate::config::settings::Settings;
use crate::director::socket::ControlSocket;
use crate::director::wanted::Wanted;
use crate::director::watch::Watch;
use crate::director::{Command, Director, Port};
use crate::host::clock::Clock;
use crate::host::memory;
use crate::host::netlink::{self, Netlink};
use crate::host::privilege;
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::snapshot::Tables;
use crate::net::route::HostNetwork;

/// A daemon that follows nobody.
pub async fn begin(options: RunOptions) -> Result<Daemon, RunError> {
    let settings = files::read_settings(&options)?;
    let log = LogFilter::start(&settings);
    privilege::require()?;
    let files = Files::new(options, &settings);
    let seen = watcher::contents(&files);
    let configuration = files.read().map_err(RunError::Configuration)?;
    let forced = files.options().force_active;
    let mut daemon = Daemon::start(settings, files, log, &configuration).await?;
    daemon.configure(configuration).await;
    if forced {
        daemon.settle().await;
    }
    daemon.watch.has_read(seen);
    daemon.watch_files();
    notify(&[NotifyState::Ready]);
    Ok(daemon)
}

/// One that takes over from the process that has started it.
pub async fn follow(options: RunOptions) -> Result<Daemon, RunError> {
    let (mut daemon, differs) = upgrade::take_over(options).await?;
    if differs {
        tracing::info!("the files have changed");
        daemon.reload(Vec::new());
    }
    daemon.watch_files();
    Ok(daemon)
}

/// What a daemon needs before it has a director.
pub struct Base {
    pub clock: Clock,
    pub settings: Settings,
    pub files: Files,
    log: LogFilter,
    pub netlink: Netlink,
    network: watch::Receiver<Arc<HostNetwork>>,
    overrides: OverrideFile,
}

impl Base {
    pub async fn open(
        settings: Settings,
        files: Files,
        log: LogFilter,
        clock: Clock,
    ) -> Result<Self, RunError> {
        let netlink = Netlink::open()?;
        let mut network = netlink::watch().await?;
        network.mark_unchanged();
        let overrides = OverrideFile::new(settings.control_socket.with_extension("overrides.json"));
        Ok(Base { clock, settings, files, log, netlink, network, overrides })
    }

    pub fn network(&self) -> Arc<HostNetwork> {
        Arc::clone(&self.network.borrow())
    }

    /// What puts addresses up and takes them away, and who answers when it asks whether they are free.
    pub fn addresses(&self) -> (Addresses, mpsc::UnboundedReceiver<Answers>) {
        let record = self.settings.control_socket.with_extension("addresses.json");
        let (to_answers, answers) = mpsc::unbounded_channel();
        let netlink = self.netlink.clone();
        (Addresses::new(netlink, record, &self.network(), self.clock, to_answers), answers)
    }

    /// A director that knows the machine and the settings.
    pub fn director(&self, tables: &Arc<Tables>, shares: usize, ports: &[Port]) -> Director {
        let Base { clock, settings, overrides, .. } = self;
        let mut director = Director::new(clock.now(), Arc::clone(tables), shares, ports.to_vec())
            .with_memory(memory::total_bytes().unwrap_or(0))
            .with_beyond(settings.beyond())
            .with_slow_start(settings.slow_start);
        director.handle(clock.now(), Command::Overrides(overrides.read()));
        director.handle(clock.now(), Command::Sysctls(Box::new(settings.sysctls())));
        director.handle(clock.now(), Command::FtpPorts(FtpPorts(settings.ftp_ports.clone())));
        director.handle(clock.now(), Command::Network((*self.network()).clone()));
        director
    }
}

impl Daemon {
    async fn start(
        settings: Settings,
        files: Files,
        log: LogFilter,
        configuration: &Configuration,
    ) -> Result<Daemon, RunError> {
        let socket = ControlSocket::bind(&settings.control_socket).await?;
        let base = Base::open(settings, files, log, Clock::start()).await?;
        let wanted = Wanted::new(&configuration.lvs);
        if wanted.services.is_empty() && !wanted.refused.is_empty() {
            return Err(RunError::Configuration(wanted.refused.join("\n")));
        }
        let (network, options) = (base.network(), base.files.options().clone());
        let heart = resting_heart(&base.settings, &options, &configuration.lvs, &network).await?;
        let ports = ports::choose(&base.settings.ports, &wanted, &network)?;
        let shares = workers::shares(workers::queues(&base.settings, &ports)?);
        let tables = Arc::new(Tables::new(shares));
        let (mut addresses, answers) = base.addresses();
        // An inactive router has no addresses, whatever an earlier run has left; and they go before what keeps the kernel from
        // answering for them.
        let is_inactive = heart.is_some() && !options.force_active;
        let kept = if is_inactive { &[][..] } else { &wanted.addresses[..] };
        addresses.remove_leftovers(&network, kept).await;
        let lasting = heart.as_ref().is_some_and(RestingHeart::is_of_pair);
        let workers = Workers::start(&base.settings, &ports, &tables, base.clock, lasting)?;
        examine::advise(&base.settings, &ports, &workers, &base.netlink).await;
        let director = base.director(&tables, shares, &ports);
        let mut daemon = Self::assemble(base, ports, director, workers, socket, (addresses, answers))?;
        if heart.is_some() {
            daemon.director.handle(daemon.clock.now(), Command::Deactivate);
            daemon.addresses.wait_for_partner(configuration.lvs.deadtime);
        }
        let carriers = netlink::watch_carriers().await?;
        daemon.heart = heart.map(|heart| {
            let ask_sync = sync::reporter(&tables, &daemon.replicas);
            heart.start(daemon.clock, options.force_active, carriers, ask_sync)
        });
        daemon.heart.iter().for_each(|heart| daemon.replicas.follow(heart));
        Ok(daemon)
    }

    /// Serves clients from now on.
    pub(super) fn assemble(
        base: Base,
        ports: Vec<Port>,
        director: Director,
        workers: Workers,
        mut socket: ControlSocket,
        (addresses, answers): (Addresses, mpsc::UnboundedReceiver<Answers>),
    ) -> Result<Daemon, RunError> {
        let tables = Arc::clone(director.tables());
        let Base { clock, settings, files, log, netlink, network, overrides } = base;
        let (to_requests, requests) = mpsc::channel(INBOX);
        let (to_health, health) = mpsc::channel(INBOX);
        let (to_loads, loads) = mpsc::channel(INBOX);
        socket.serve(to_requests.clone())?;
        Ok(Daemon {
            clock,
            files,
            log,
            watch: Watch::default(),
            watcher: None,
            reading: JoinSet::new(),
            reloading: Reloading::default(),
            is_followed: false,
            watchdog: watchdog::of_systemd(clock.now()),
            install: None,
            texts: SiteTexts::default(),
            former_texts: None,
            director,
            workers,
            addresses,
            found_ports: settings.ports.is_empty().then_some(ports),
            checks: Checks::new(clock, to_health),
            sync: SyncThreads::new(Arc::clone(&tables)),
            sync_failed: None,
            replicas: Replicas::new(tables, clock, &settings.pulse).map_err(RunError::Pair)?,
            netlink,
            network,
            requests,
            to_requests,
            health,
            loads,
            programs: Programs::new(&settings.notify, to_loads),
            events: Events::default(),
            overrides,
            socket,
            answer: None,
            changed_by_hand: Vec::new(),
            gone: None,
            heart: None,
            plan_before: None,
            answers,
            settings,
        })
    }
}
