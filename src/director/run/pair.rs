//! The daemon as one of a pair: it does what its heart orders.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::heart::{Heart, Order, RestingHeart};
use super::pair_plan::{PairPlan, read_key};
use super::{Daemon, RunError, RunOptions, sync};
use crate::config::lvs::LvsConfig;
use crate::config::settings::Settings;
use crate::director::Command;
use crate::director::protocol::Reply;
use crate::host::netlink;
use crate::net::addr::MacAddr;
use crate::net::route::HostNetwork;
use crate::pulse::{Event, Pulse, Wish};

/// How long the end may take: addresses go, and the partner is told.
const END: Duration = Duration::from_secs(5);
/// How long a forced start is waited for before anybody is served.
const FORCED_START: Duration = Duration::from_secs(10);

/// How long packets that still come this way are translated after the partner has been told: it asks whether the addresses are free,
/// puts them up and tells the neighbours, all of which takes less.
const LINGER: Duration = Duration::from_secs(1);

/// Who answered a round of probes.
pub type Answers = BTreeMap<IpAddr, Option<MacAddr>>;

/// The heart of a router that has an `lvs.cf`, in a pair or not.
pub async fn resting_heart(
    settings: &Settings,
    options: &RunOptions,
    lvs: &LvsConfig,
    network: &HostNetwork,
) -> Result<Option<RestingHeart>, RunError> {
    if options.bare {
        return Ok(None);
    }
    let plan = PairPlan::new(lvs, &settings.pulse, network).map_err(RunError::Pair)?;
    let key = read_key(&settings.pulse).map_err(RunError::Pair)?;
    let boot = boot_number().map_err(|error| RunError::System("read /dev/urandom", error))?;
    RestingHeart::new(plan, key.as_ref(), boot).await.map(Some).map_err(RunError::Pair)
}

/// Whether there is to be another director. An error if this router could not be one of the two, as far as can be told while
/// another process has the sockets.
pub fn is_of_pair(
    settings: &Settings,
    options: &RunOptions,
    lvs: &LvsConfig,
    network: &HostNetwork,
) -> Result<bool, RunError> {
    read_key(&settings.pulse).map_err(RunError::Pair)?;
    if options.bare {
        return Ok(false);
    }
    let plan = PairPlan::new(lvs, &settings.pulse, network).map_err(RunError::Pair)?;
    if let Some(way) = plan.ways.iter().find(|way| way.link.is_none()) {
        let text =
            format!("failed to bind to heartbeat address: {} is not an address of this machine", way.own);
        return Err(RunError::Pair(text));
    }
    Ok(plan.settings.pair)
}

/// A number by which this run can be told from others.
pub(super) fn boot_number() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes) | 1)
}

/// The next order; none ever comes without a heart.
pub async fn next_order(heart: Option<&mut Heart>) -> Order {
    match heart {
        Some(heart) => heart.order().await,
        None => pending().await,
    }
}

impl Daemon {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Activate => {
                self.replicas.set_active(true);
                self.command(Command::Activate).await;
                self.report_sync().await;
                self.tell_if_activated();
            }
            Order::Deactivate => {
                self.command(Command::Deactivate).await;
                self.report_sync().await;
                self.replicas.leave().await;
                self.tell(Event::Deactivated);
            }
            Order::Run(hook) => self.command(Command::RunHook(hook)).await,
            Order::AnnounceAgain => self.command(Command::AnnounceAgain).await,
            Order::Exit => {}
        }
    }

    /// Has the heart go by another `lvs.cf`, which has been found usable. Returns the plan to go back to.
    pub(super) fn follow(&mut self, lvs: &LvsConfig) -> Option<PairPlan> {
        let heart = self.heart.as_mut()?;
        let plan = PairPlan::new(lvs, &self.settings.pulse, &self.network.borrow()).ok()?;
        let former = heart.plan().clone();
        heart.follow(plan);
        self.addresses.wait_for_partner(lvs.deadtime);
        self.replicas.follow(heart);
        Some(former)
    }

    /// A synchronisation daemon of `lvs.cf` that does not start is no reason to stop.
    pub(super) async fn report_sync(&mut self) {
        if let Some((role, text)) = self.sync_failed.take() {
            tracing::error!("syncdaemon of lvs.cf: {text}");
            self.command(Command::SyncFailed(role)).await;
        }
    }

    pub(super) fn note_addresses(&mut self) {
        for address in self.addresses.take_put() {
            self.director.handle(self.clock.now(), Command::AddressUp(address));
        }
    }

    pub(super) async fn take_answers(&mut self, answers: Answers) {
        let network = Arc::clone(&self.network.borrow());
        let partner_active = self.heart.as_ref().is_some_and(Heart::partner_is_active);
        self.addresses.judge(&network, answers, partner_active).await;
        self.note_addresses();
        self.tell_if_activated();
    }

    /// Goes on as one of a pair where another process has left off, with the heart's state as it was there; one that was killed
    /// has not told it.
    pub(super) async fn go_on_in_pair(
        &mut self,
        lvs: &LvsConfig,
        pulse: Option<Pulse>,
    ) -> Result<(), RunError> {
        let carriers = netlink::watch_carriers().await?;
        let network = Arc::clone(&self.network.borrow());
        // The former process lets go of its sockets in a moment.
        let heart = resting_heart(&self.settings, self.files.options(), lvs, &network).await?;
        let Some(heart) = heart else { return Ok(()) };
        self.addresses.wait_for_partner(lvs.deadtime);
        let is_active = self.director.is_active();
        let wanted = pulse.as_ref().map_or(is_active, Pulse::is_active);
        let ask_sync = sync::reporter(self.director.tables(), &self.replicas);
        let heart = self.heart.insert(match pulse {
            Some(pulse) => heart.go_on(self.clock, pulse, carriers, ask_sync),
            None => heart.start(self.clock, is_active, carriers, ask_sync),
        });
        self.replicas.set_active(is_active);
        self.replicas.follow(heart);
        match (wanted, is_active) {
            (true, false) => self.obey(Order::Activate).await,
            (false, true) => self.obey(Order::Deactivate).await,
            (true, true) => self.tell_if_activated(),
            // It may have left off in the midst of becoming inactive.
            (false, false) => self.tell(Event::Deactivated),
        }
        Ok(())
    }

    fn tell_if_activated(&self) {
        if self.addresses.are_settled() {
            self.tell(Event::Activated);
        }
    }

    fn tell(&self, event: Event) {
        self.heart.iter().for_each(|heart| heart.tell(event.clone()));
    }

    pub(super) async fn wish(&self, wish: Wish) -> Reply {
        let Some(heart) = &self.heart else {
            return Reply::Failed("this daemon is not of a pair: it was started without lvs.cf".into());
        };
        if wish == Wish::Standby && self.replicas.is_telling_anew() {
            let text = "xlvs: the partner has not been told of all connections yet; ask again";
            return Reply::Failed(text.into());
        }
        let heard = heart.report().partner.is_some_and(|partner| partner.heard);
        if wish == Wish::Standby && heard && self.replicas.is_alone() {
            let text = "xlvs: the partner is heard, but not at the address and port where it is told of connections (docs/replica.md), \
                        and would take over without them; stop xlvs if that is to be";
            return Reply::Failed(text.into());
        }
        heart.wish(wish).await.map_or_else(|why| Reply::Failed(format!("xlvs: {why}")), Reply::Text)
    }

    /// A forced start serves nobody before it is active.
    pub(super) async fn settle(&mut self) {
        let settling = async {
            while self.heart.as_ref().is_some_and(|heart| !heart.is_settled()) {
                tokio::select! {
                    order = next_order(self.heart.as_mut()) => self.obey(order).await,
                    Some(answers) = self.answers.recv() => self.take_answers(answers).await,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        };
        if timeout(FORCED_START, settling).await.is_err() {
            tracing::warn!("not all addresses are up yet");
        }
    }

    /// Takes the addresses away, and tells the partner, which takes over at once.
    pub(super) async fn leave_pair(&mut self, signal: i32, failed: bool) {
        let Some(heart) = &self.heart else { return };
        let is_handed_over = heart.is_active() && heart.report().partner.is_some_and(|partner| partner.heard);
        if failed {
            self.tell(Event::LocalFailure);
        }
        self.tell(Event::Terminate(signal));
        let leaving = async {
            loop {
                match next_order(self.heart.as_mut()).await {
                    Order::Exit => return,
                    order => self.obey(order).await,
                }
            }
        };
        if timeout(END, leaving).await.is_err() {
            tracing::error!("the partner is not told of the end within {} s", END.as_secs());
        } else if is_handed_over && !failed {
            tokio::time::sleep(LINGER).await;
        }
    }
}
