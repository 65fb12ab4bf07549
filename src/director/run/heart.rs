//! The pair's state machine with its sockets, in a task of its own: heartbeats must not wait for a reload.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::pair_plan::{PairPlan, Way};
use super::programs::run_command;
use crate::host::clock::Clock;
use crate::host::heartbeat;
use crate::host::netlink::Carriers;
use crate::nanny::Leftovers;
use crate::net::time::Instant;
use crate::pulse::account::ACCOUNT_LEN_MAX;
use crate::pulse::wire::{Key, Refusal, Refused, Wire};
use crate::pulse::{Account, Action, Event, Hook, Level, Path, Pulse, Report, State, SyncReport, Wish, Word};

/// How often it is tried to bind sockets that another process lets go of, or one that has been killed and is not quite gone, and
/// the pause between two tries.
const BIND_TRIES: usize = 50;
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// More than any heartbeat or account.
const DATAGRAM_LEN_MAX: usize = ACCOUNT_LEN_MAX + 1;

/// Tells how the synchronisation is.
pub type AskSync = Arc<dyn Fn() -> Option<SyncReport> + Send + Sync>;

/// What the heart wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// See [`Action::Activate`].
    Activate,
    /// See [`Action::Deactivate`].
    Deactivate,
    /// See [`Action::AnnounceAgain`].
    AnnounceAgain,
    /// See [`Action::Run`].
    Run(Hook),
    /// See [`Action::Exit`].
    Exit,
}

/// What the heart is told.
enum Told {
    Event(Event),
    Plan(Box<PairPlan>),
    Wish(Wish, oneshot::Sender<Result<String, String>>),
}

/// What is to be seen of it.
#[derive(Clone, Debug)]
struct Seen {
    pulse: Pulse,
    authenticated: bool,
    refused: Refused,
    /// What the partner has said of itself, and when.
    account: Option<(Instant, Account)>,
}

/// The running heart.
pub struct Heart {
    told: mpsc::UnboundedSender<Told>,
    orders: mpsc::UnboundedReceiver<Order>,
    seen: watch::Receiver<Seen>,
    ask_sync: AskSync,
    clock: Clock,
    /// The one that it was told last.
    plan: PairPlan,
    task: JoinHandle<()>,
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A heart that does not beat yet: its sockets are bound.
pub struct RestingHeart {
    plan: PairPlan,
    wire: Wire,
    sockets: Vec<UdpSocket>,
}

impl RestingHeart {
    /// Binds the sockets; `boot` is a random number.
    pub async fn new(plan: PairPlan, key: Option<&Key>, boot: u64) -> Result<RestingHeart, String> {
        plan.notes.iter().for_each(|note| tracing::warn!("{note}"));
        let wire = Wire::new(plan.settings.role, key, boot);
        let mut sockets = bind(&plan);
        for _ in 0..BIND_TRIES {
            match &sockets {
                Err((_, io::ErrorKind::AddrInUse)) => tokio::time::sleep(BIND_PAUSE).await,
                _ => break,
            }
            sockets = bind(&plan);
        }
        Ok(RestingHeart { sockets: sockets.map_err(|(text, _)| text)?, plan, wire })
    }

    /// Whether there is to be another director.
    pub fn is_of_pair(&self) -> bool {
        self.plan.settings.pair
    }

    /// Starts, once this router could do the work; `forced` makes it active at once.
    pub fn start(
        self,
        clock: Clock,
        forced: bool,
        carriers: watch::Receiver<Carriers>,
        ask_sync: AskSync,
    ) -> Heart {
        if !self.plan.settings.pair && !forced {
            let wait = self.plan.settings.deadtime.as_secs();
            tracing::info!(
                "no partner, and active in {wait} s (deadtime) as with Piranha; --forceactive: at once"
            );
        }
        let (pulse, first) = Pulse::start(clock.now(), self.plan.settings.clone(), forced);
        self.beat(clock, (pulse, first), carriers, ask_sync)
    }

    /// Starts where the heart of another process has stopped, with the same clock.
    pub fn go_on(
        self,
        clock: Clock,
        pulse: Pulse,
        carriers: watch::Receiver<Carriers>,
        ask_sync: AskSync,
    ) -> Heart {
        let (pulse, first) = pulse.go_on(self.plan.settings.clone());
        self.beat(clock, (pulse, first), carriers, ask_sync)
    }

    fn beat(
        self,
        clock: Clock,
        (pulse, first): (Pulse, Vec<Action>),
        carriers: watch::Receiver<Carriers>,
        ask_sync: AskSync,
    ) -> Heart {
        let RestingHeart { plan, wire, sockets } = self;
        let (told, inbox) = mpsc::unbounded_channel();
        let (to_daemon, orders) = mpsc::unbounded_channel();
        let (publisher, seen) = watch::channel(Seen {
            pulse: pulse.clone(),
            authenticated: wire.is_authenticated(),
            refused: Refused::default(),
            account: None,
        });
        let beating = Beating {
            clock,
            plan: plan.clone(),
            pulse,
            wire,
            sockets,
            carriers,
            inbox,
            own_inbox: told.clone(),
            orders: to_daemon,
            publisher,
            answer: None,
            account: None,
            ask_sync: Arc::clone(&ask_sync),
        };
        Heart { told, orders, seen, ask_sync, clock, plan, task: tokio::spawn(beating.run(first)) }
    }
}

impl Heart {
    /// Tells it.
    pub fn tell(&self, event: Event) {
        // It has ended by itself then.
        let _ = self.told.send(Told::Event(event));
    }

    /// Tells it from another thread.
    pub fn teller(&self) -> impl Fn(Event) + Send + use<> {
        let told = self.told.clone();
        move |event| drop(told.send(Told::Event(event)))
    }

    /// What it goes by.
    pub fn plan(&self) -> &PairPlan {
        &self.plan
    }

    /// Goes on by another plan.
    pub fn follow(&mut self, plan: PairPlan) {
        self.plan = plan.clone();
        let _ = self.told.send(Told::Plan(Box::new(plan)));
    }

    /// What it says to an operator's wish.
    pub async fn wish(&self, wish: Wish) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.told.send(Told::Wish(wish, answer));
        answered.await.unwrap_or_else(|_| Err("xlvs is ending".to_owned()))
    }

    /// The next order.
    pub async fn order(&mut self) -> Order {
        self.orders.recv().await.unwrap_or(Order::Exit)
    }

    /// Whether the partner says that it is active.
    pub fn partner_is_active(&self) -> bool {
        self.seen.borrow().pulse.partner_is_active(self.clock.now())
    }

    /// Its state, for another process.
    pub fn pulse(&self) -> Pulse {
        self.seen.borrow().pulse.clone()
    }

    /// For the administrator.
    pub fn report(&self) -> Report {
        let (seen, now) = (self.seen.borrow(), self.clock.now());
        let report = seen.pulse.report(now).with_wire(seen.authenticated, &seen.refused);
        report.with_accounts((self.ask_sync)(), seen.account.as_ref(), now)
    }

    /// Whether it has the work, or is about to.
    pub fn is_active(&self) -> bool {
        self.seen.borrow().pulse.is_active()
    }

    /// Whether it is active with all addresses up.
    pub fn is_settled(&self) -> bool {
        self.report().state == State::Active
    }
}

fn bind(plan: &PairPlan) -> Result<Vec<UdpSocket>, (String, io::ErrorKind)> {
    let bind = |way: &Way| {
        let at = format!("{}:{}", way.own, plan.port);
        heartbeat::bind(way.own, plan.port).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "; another xlvs or pulse runs here",
                io::ErrorKind::AddrNotAvailable => {
                    "; neither director of lvs.cf has an address of this machine on this path"
                }
                io::ErrorKind::PermissionDenied => "; CAP_NET_BIND_SERVICE is needed",
                _ => "",
            };
            (format!("failed to bind to heartbeat address: {at}: {error}{remedy}"), error.kind())
        })
    };
    plan.ways.iter().map(bind).collect()
}

/// The inside of the task.
struct Beating {
    clock: Clock,
    plan: PairPlan,
    pulse: Pulse,
    wire: Wire,
    /// In the order of the plan's ways.
    sockets: Vec<UdpSocket>,
    carriers: watch::Receiver<Carriers>,
    inbox: mpsc::UnboundedReceiver<Told>,
    own_inbox: mpsc::UnboundedSender<Told>,
    orders: mpsc::UnboundedSender<Order>,
    publisher: watch::Sender<Seen>,
    answer: Option<oneshot::Sender<Result<String, String>>>,
    account: Option<(Instant, Account)>,
    ask_sync: AskSync,
}

enum Happening {
    Told(Told),
    Datagram(IpAddr, Vec<u8>),
    Carriers,
    Tick,
}

impl Beating {
    async fn run(mut self, first: Vec<Action>) {
        let mut alive = self.carry_out(first).await;
        self.look_at_links().await;
        while alive {
            self.publish();
            alive = match self.next().await {
                Happening::Told(Told::Event(event)) => self.handle(event).await,
                Happening::Told(Told::Plan(plan)) => self.follow(*plan).await,
                Happening::Told(Told::Wish(wish, answer)) => {
                    self.answer = Some(answer);
                    self.handle(Event::Wish(wish)).await
                }
                Happening::Datagram(source, bytes) => self.receive(source, &bytes).await,
                Happening::Carriers => self.look_at_links().await,
                Happening::Tick => self.handle(Event::Tick).await,
            };
        }
        self.publish();
    }

    async fn next(&mut self) -> Happening {
        let (now, deadline) = (self.clock.now(), self.pulse.next_deadline());
        let tick = async {
            match deadline {
                Some(at) => tokio::time::sleep(at.saturating_since(now)).await,
                None => pending().await,
            }
        };
        let (mut first, mut second) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
        let datagram = |received: io::Result<(usize, SocketAddr)>, buffer: &[u8]| match received {
            Ok((length, source)) => Happening::Datagram(source.ip(), buffer[..length].to_vec()),
            Err(error) => {
                tracing::debug!("heartbeat: {error}");
                Happening::Tick
            }
        };
        tokio::select! {
            Some(told) = self.inbox.recv() => Happening::Told(told),
            received = receive(self.sockets.first(), &mut first) => datagram(received, &first),
            received = receive(self.sockets.get(1), &mut second) => datagram(received, &second),
            Ok(()) = self.carriers.changed() => Happening::Carriers,
            () = tick => Happening::Tick,
        }
    }

    fn publish(&self) {
        self.publisher.send_replace(Seen {
            pulse: self.pulse.clone(),
            authenticated: self.wire.is_authenticated(),
            refused: *self.wire.refused(),
            account: self.account.clone(),
        });
    }

    /// False when nothing more comes.
    async fn handle(&mut self, event: Event) -> bool {
        let actions = self.pulse.handle(self.clock.now(), event);
        self.carry_out(actions).await
    }

    async fn receive(&mut self, source: IpAddr, bytes: &[u8]) -> bool {
        let way = self.plan.ways.iter().find(|way| IpAddr::V4(way.partner) == source);
        let Some(path) = way.map(|way| way.path) else {
            self.wire.refuse(Refusal::Stranger);
            tracing::debug!("{} {source}", Refusal::Stranger);
            return true;
        };
        if Wire::is_account(bytes) {
            return self.receive_account(path, bytes);
        }
        let refusal = match self.wire.receive(path, bytes) {
            Ok(word) => return self.handle(Event::Heartbeat(path, word)).await,
            Err(refusal) => refusal,
        };
        match refusal {
            Refusal::Unfresh => {
                let answer = self.wire.answer(self.pulse.word(), path);
                self.send(path, &answer).await;
            }
            // Two of each are nothing unusual: some networks duplicate.
            Refusal::Repeated => tracing::debug!("{refusal} from {source}"),
            _ => {
                let total = self.wire.refused().total();
                if total.is_power_of_two() {
                    tracing::warn!("{refusal} from {source} ({total} refused so far)");
                }
            }
        }
        true
    }

    async fn look_at_links(&mut self) -> bool {
        let carriers = self.carriers.borrow_and_update().clone();
        for way in self.plan.ways.clone() {
            // An interface that is not found counts as up, as in Piranha.
            let up = way.link.and_then(|link| carriers.get(&link).copied()).unwrap_or(true);
            self.handle(Event::Link(way.path, up)).await;
        }
        true
    }

    /// Other addresses need other sockets; if there are none, the present ones stay.
    async fn follow(&mut self, plan: PairPlan) -> bool {
        if plan.settings.role != self.plan.settings.role {
            tracing::error!("the role in the pair does not change while xlvs runs; restart it");
            return true;
        }
        let places =
            |plan: &PairPlan| -> Vec<_> { plan.ways.iter().map(|way| (way.own, plan.port)).collect() };
        if places(&plan) != places(&self.plan) {
            // Some of the new ones may be the former ones.
            self.sockets.clear();
            match bind(&plan) {
                Ok(sockets) => self.sockets = sockets,
                Err((error, _)) => {
                    tracing::error!("{error}; the heartbeat goes on as before");
                    self.sockets = bind(&self.plan).unwrap_or_default();
                    return true;
                }
            }
        }
        self.plan = plan;
        let settings = self.plan.settings.clone();
        self.handle(Event::Settings(settings)).await && self.look_at_links().await
    }

    async fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        for action in actions {
            match action {
                Action::Send(word) => self.beat(word).await,
                Action::Activate => self.order(Order::Activate),
                Action::Deactivate => self.order(Order::Deactivate),
                Action::AnnounceAgain => self.order(Order::AnnounceAgain),
                Action::Run(hook) => self.order(Order::Run(hook)),
                Action::Fence => self.fence(),
                Action::Answer(answer) => {
                    // Whoever asked may have gone.
                    let _ = self.answer.take().map(|asker| asker.send(answer));
                }
                Action::Log(Level::Info, text) => tracing::info!("{text}"),
                Action::Log(Level::Warn, text) => tracing::warn!("{text}"),
                Action::Log(Level::Error, text) => tracing::error!("{text}"),
                Action::Exit => {
                    self.order(Order::Exit);
                    return false;
                }
            }
        }
        true
    }

    fn order(&self, order: Order) {
        // Without the daemon there is nothing to do.
        let _ = self.orders.send(order);
    }

    /// What the partner says of itself changes nothing here; it is shown.
    fn receive_account(&mut self, path: Path, bytes: &[u8]) -> bool {
        match self.wire.receive_account(path, bytes) {
            Ok(account) => self.account = Some((self.clock.now(), account)),
            Err(refusal) => tracing::debug!("account of the partner: {refusal}"),
        }
        true
    }

    async fn beat(&mut self, word: Word) {
        let paths: Vec<Path> = self.plan.ways.iter().map(|way| way.path).collect();
        let mut messages = self.wire.heartbeats(word, &paths);
        if self.wire.is_authenticated() {
            let account = self.pulse.report(self.clock.now()).account((self.ask_sync)());
            messages.extend(self.wire.accounts(&account, &paths));
        }
        for (path, bytes) in messages {
            self.send(path, &bytes).await;
        }
    }

    async fn send(&self, path: Path, bytes: &[u8]) {
        let ways = self.plan.ways.iter().zip(&self.sockets);
        for (way, socket) in ways.filter(|(way, _)| way.path == path) {
            if let Err(error) = socket.send_to(bytes, (way.partner, self.plan.port)).await {
                tracing::debug!("heartbeat to {}: {error}", way.partner);
            }
        }
    }

    fn fence(&self) {
        let (line, limit) = (self.plan.fence.as_deref().unwrap_or_default(), self.plan.fence_timeout);
        let words = line.split_whitespace().map(str::to_owned).collect();
        let inbox = self.own_inbox.clone();
        tokio::spawn(async move {
            let outcome = match run_command(words, limit, Leftovers::Killed).await {
                Some(problem) => Err(format!("the partner is not fenced: {problem}")),
                None => Ok(()),
            };
            let _ = inbox.send(Told::Event(Event::Fenced(outcome)));
        });
    }
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => pending().await,
    }
}
