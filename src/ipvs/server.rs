//! A real server: identity, what an administrator may change, and the counters that schedulers weigh.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use crossbeam::atomic::AtomicCell;

use crate::ipvs::edit::{Forward, ServerId, ServerSpec, ServiceId};
use crate::ipvs::stats::{Stats, StatsCell};
use crate::ipvs::view::ServerView;
use crate::net::addr::Family;
use crate::net::time::Instant;
use crate::net::tunnel::Encapsulation;

/// Linux's defaults of `net.ipv4.route.mtu_expires` and `net.ipv4.route.min_pmtu`.
const PATH_MTU_LIFE: Duration = Duration::from_secs(600);
const PATH_MTU_MIN: u32 = 552;

/// What is known of a tunnel's way.
#[derive(Clone, Copy, Debug, Default)]
struct PathMtu {
    mtu: u32,
    until: Instant,
}

/// A real server of one virtual service. It outlives snapshots: connections point at it, also after its deletion.
#[derive(Debug)]
pub struct RealServer {
    id: ServerId,
    service: ServiceId,
    forward: AtomicU8,
    tunnel: AtomicCell<Encapsulation>,
    path_mtu: AtomicCell<PathMtu>,
    weight: AtomicI32,
    last_weight: AtomicI32,
    upper_threshold: AtomicU32,
    lower_threshold: AtomicU32,
    available: AtomicBool,
    draining: AtomicBool,
    overloaded: AtomicBool,
    stranger: bool,
    active: AtomicU32,
    total: AtomicU32,
    persistent: AtomicU32,
    slot: AtomicU32,
    stats: Stats,
    service_stats: Arc<Stats>,
}

impl RealServer {
    /// A server as asked for, of the service that `service_stats` belongs to.
    pub fn new(spec: &ServerSpec, service: ServiceId, workers: usize, service_stats: Arc<Stats>) -> Self {
        let server = RealServer {
            id: spec.id,
            service,
            forward: AtomicU8::new(0),
            tunnel: AtomicCell::default(),
            path_mtu: AtomicCell::default(),
            weight: AtomicI32::new(0),
            last_weight: AtomicI32::new(0),
            upper_threshold: AtomicU32::new(0),
            lower_threshold: AtomicU32::new(0),
            available: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            overloaded: AtomicBool::new(false),
            stranger: false,
            active: AtomicU32::new(0),
            total: AtomicU32::new(0),
            persistent: AtomicU32::new(0),
            slot: AtomicU32::new(0),
            stats: Stats::new(workers),
            service_stats,
        };
        server.update(spec);
        server
    }

    /// The same as another process leaves it.
    pub fn inheriting(self, last_weight: i32, draining: bool, overloaded: bool) -> Self {
        self.last_weight.store(last_weight, Ordering::Relaxed);
        self.draining.store(draining, Ordering::Relaxed);
        self.overloaded.store(overloaded, Ordering::Relaxed);
        self
    }

    /// What stands for all servers that are in no service here and are reached by this method: a synchronised connection names
    /// them (ipvs.md section 7.5). It is not available, has a weight, and of no service's address.
    pub fn stranger(forward: Forward) -> Self {
        let spec = ServerSpec {
            id: ServerId { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 },
            forward,
            tunnel: Encapsulation::default(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let service = ServiceId::FwMark { mark: 0, family: Family::V4 };
        let server = RealServer::new(&spec, service, 0, Arc::new(Stats::new(0)));
        server.set_available(false);
        RealServer { stranger: true, ..server }
    }

    /// Whether it only stands for servers that are in no service.
    pub fn is_stranger(&self) -> bool {
        self.stranger
    }

    /// Address and port.
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// The service whose server it is.
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// Forwarding method for new connections.
    pub fn forward(&self) -> Forward {
        match self.forward.load(Ordering::Relaxed) {
            0 => Forward::Masquerade,
            1 => Forward::Local,
            2 => Forward::Tunnel,
            _ => Forward::Route,
        }
    }

    /// How packets are wrapped if the method is a tunnel.
    pub fn tunnel(&self) -> Encapsulation {
        self.tunnel.load()
    }

    /// Largest packet that reaches the server through the tunnel, as far as an ICMP error has told; in bytes.
    pub fn path_mtu(&self, now: Instant) -> Option<u32> {
        let known = self.path_mtu.load();
        (now < known.until).then_some(known.mtu)
    }

    /// Takes note of it, for as long as Linux does by default (`net.ipv4.route.mtu_expires`), and never below `min_pmtu`.
    pub fn set_path_mtu(&self, now: Instant, mtu: u32) {
        if self.stranger {
            return;
        }
        self.path_mtu.store(PathMtu { mtu: mtu.max(PATH_MTU_MIN), until: now + PATH_MTU_LIFE });
    }

    /// Weight.
    pub fn weight(&self) -> i32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The last weight that was not 0; Maglev keeps a quiesced server's place by it.
    pub fn last_weight(&self) -> i32 {
        self.last_weight.load(Ordering::Relaxed)
    }

    /// Whether the server is in its service; false after deletion.
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Whether it is drained: its templates make no connections any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Starts draining it; a weight other than 0 ends that.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends draining it.
    pub fn end_drain(&self) {
        self.draining.store(false, Ordering::Relaxed);
    }

    /// It has left the schedulers' sight: it is shown with weight 0, and drained.
    pub fn retire(&self) {
        self.update(&ServerSpec { weight: 0, ..self.spec() });
        self.drain();
    }

    /// Whether a threshold keeps schedulers away.
    pub fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Relaxed)
    }

    /// Active connections.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// All connections, templates not counted.
    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Connections that are not active.
    pub fn inactive(&self) -> u32 {
        self.total().saturating_sub(self.active())
    }

    /// Persistence templates.
    pub fn persistent(&self) -> u32 {
        self.persistent.load(Ordering::Relaxed)
    }

    /// Whether any connection or template still points here.
    pub fn is_idle(&self) -> bool {
        self.total() == 0 && self.persistent() == 0
    }

    /// What lc and wlc compare: active connections weigh 256, inactive ones 1 (golden `sched-wlc-overhead`).
    pub fn overhead(&self) -> i64 {
        i64::from(self.active()) * 256 + i64::from(self.inactive())
    }

    /// The server's own counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Which of the shortcut's accounts are its own; 0 for none.
    pub fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Notes them.
    pub fn set_slot(&self, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// The counters of its service.
    pub fn service_stats(&self) -> &Arc<Stats> {
        &self.service_stats
    }

    /// Lets `count` count at the server and its service, unless the server has been deleted.
    pub fn count(&self, worker: usize, count: impl Fn(&StatsCell)) {
        if self.is_available() {
            count(self.stats.cell(worker));
            count(self.service_stats.cell(worker));
        }
    }

    /// Takes over weight, thresholds and forwarding method. A higher upper threshold, or none, ends an overload at once
    /// (golden `thresholds`).
    pub fn update(&self, spec: &ServerSpec) {
        let forward = match spec.forward {
            Forward::Masquerade => 0,
            Forward::Local => 1,
            Forward::Tunnel => 2,
            Forward::Route => 3,
        };
        self.forward.store(forward, Ordering::Relaxed);
        self.tunnel.store(spec.tunnel);
        self.weight.store(spec.weight, Ordering::Relaxed);
        if spec.weight != 0 {
            self.last_weight.store(spec.weight, Ordering::Relaxed);
            self.draining.store(false, Ordering::Relaxed);
        }
        let former = self.upper_threshold.swap(spec.upper_threshold, Ordering::Relaxed);
        self.lower_threshold.store(spec.lower_threshold, Ordering::Relaxed);
        if spec.upper_threshold == 0 || spec.upper_threshold > former {
            self.overloaded.store(false, Ordering::Relaxed);
        }
    }

    /// Back from the trash as asked for now. As with a new server, the weight counts as the last one even if it is 0 (golden
    /// `sched-mh-revived-idle`).
    pub fn revive(&self, spec: &ServerSpec) {
        self.update(spec);
        self.last_weight.store(spec.weight, Ordering::Relaxed);
        self.set_available(true);
    }

    /// After one connection more.
    fn judge_after_bind(&self, total: u32) {
        let upper = self.upper_threshold.load(Ordering::Relaxed);
        if upper != 0 && total >= upper {
            self.overloaded.store(true, Ordering::Relaxed);
        }
    }

    /// After one connection less: below the lower threshold, or three quarters of the upper one if there is no lower.
    fn judge_after_unbind(&self, total: u32) {
        if !self.is_overloaded() {
            return;
        }
        let upper = self.upper_threshold.load(Ordering::Relaxed);
        let over = match self.lower_threshold.load(Ordering::Relaxed) {
            0 => u64::from(total) * 4 >= u64::from(upper) * 3 && upper != 0,
            lower => total >= lower,
        };
        self.overloaded.store(over, Ordering::Relaxed);
    }

    /// Marks the server as deleted, or as back.
    pub fn set_available(&self, available: bool) {
        self.available.store(available, Ordering::Relaxed);
    }

    /// A connection now points here.
    pub fn bind_connection(&self) {
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        self.judge_after_bind(total);
    }

    /// A connection no longer does; `active` says whether it counted as active.
    pub fn unbind_connection(&self, active: bool) {
        if active {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
        let total = self.total.fetch_sub(1, Ordering::Relaxed) - 1;
        self.judge_after_unbind(total);
    }

    /// A connection became active, or ceased to be.
    pub fn count_active(&self, active: bool) {
        if active {
            self.active.fetch_add(1, Ordering::Relaxed);
        } else {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A template points here, or ceased to.
    pub fn count_template(&self, more: bool) {
        if more {
            self.persistent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.persistent.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The specification as it stands.
    pub fn spec(&self) -> ServerSpec {
        ServerSpec {
            id: self.id,
            forward: self.forward(),
            tunnel: self.tunnel(),
            weight: self.weight(),
            upper_threshold: self.upper_threshold.load(Ordering::Relaxed),
            lower_threshold: self.lower_threshold.load(Ordering::Relaxed),
        }
    }

    /// For a listing.
    pub fn view(&self) -> ServerView {
        let estimator = *self.stats.estimator();
        ServerView {
            spec: self.spec(),
            active: self.active(),
            inactive: self.inactive(),
            persistent: self.persistent(),
            stats: estimator.stats(),
            rates: estimator.rates(),
        }
    }
}
