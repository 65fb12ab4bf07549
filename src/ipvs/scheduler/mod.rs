//! Schedulers: who takes the next new connection (ipvs.md section 5). One file each; [`by_name`] is the list.

mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod locality;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

use std::net::IpAddr;
use std::sync::Arc;

use crate::ipvs::edit::SchedulerFlags;
use crate::ipvs::server::RealServer;
use crate::ipvs::sysctl::Sysctls;
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// A new flow that wants a server.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// From the client to the virtual address.
    pub flow: &'a FlowKey,
    /// The destination of the packet. Of one that an ICMP error quotes it is the client: those who go by it do not turn such a
    /// packet round (golden `schedule-icmp-schedulers`).
    pub addressed: IpAddr,
    /// The service's scheduler flags.
    pub flags: SchedulerFlags,
    /// The settings.
    pub sysctls: &'a Sysctls,
    /// The time.
    pub now: Instant,
}

/// What happened to a service's list of servers.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A server was added at the head.
    Added,
    /// Weight, thresholds or forwarding of a server were edited.
    Edited,
    /// This server was deleted; it stood behind `before`, or first.
    Deleted {
        /// The server that has gone.
        server: &'a Arc<RealServer>,
        /// The one before it.
        before: Option<&'a Arc<RealServer>>,
    },
}

/// Picks servers. State lives inside and is shared by all workers.
pub trait Scheduler: Send + Sync {
    /// The server for a new flow, from `servers` in list order (newest first); `None` when no server may take it.
    fn schedule(&self, servers: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>>;

    /// `servers` is the list after a change, about to be published; also called with the whole list for a new scheduler.
    fn servers_changed(&self, servers: &[Arc<RealServer>], change: Change<'_>) {
        let _ = (servers, change);
    }
}

/// A new scheduler by the name that `ipvsadm -s` takes; `None` if there is none of that name.
pub fn by_name(name: &str) -> Option<Arc<dyn Scheduler>> {
    Some(match name {
        "rr" => Arc::new(rr::RoundRobin::default()),
        "wrr" => Arc::new(wrr::WeightedRoundRobin::default()),
        "lc" => Arc::new(lc::LeastConnection),
        "wlc" => Arc::new(wlc::WeightedLeastConnection),
        "sed" => Arc::new(sed::ShortestExpectedDelay),
        "nq" => Arc::new(nq::NeverQueue),
        "dh" => Arc::new(dh::DestinationHashing::default()),
        "sh" => Arc::new(sh::SourceHashing::default()),
        "mh" => Arc::new(mh::Maglev::default()),
        "lblc" => Arc::new(lblc::Locality::default()),
        "lblcr" => Arc::new(lblcr::ReplicatedLocality::default()),
        "fo" => Arc::new(fo::FailOver),
        "ovf" => Arc::new(ovf::Overflow),
        "twos" => Arc::new(twos::TwoChoices::default()),
        "none" => Arc::new(NoScheduler),
        _ => return None,
    })
}

/// Whether there is a scheduler of that name.
pub fn is_known(name: &str) -> bool {
    by_name(name).is_some()
}

/// The kernel's `none`: a service without a scheduler has no destination for anybody.
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn schedule(&self, _: &[Arc<RealServer>], _: &Arrival<'_>) -> Option<Arc<RealServer>> {
        None
    }
}

/// Whether a server may be given a new connection.
fn is_usable(server: &RealServer) -> bool {
    server.weight() > 0 && !server.is_overloaded()
}

/// The greatest common divisor of weights; 1 if there are none.
fn common_divisor(weights: impl Iterator<Item = i64>) -> i64 {
    fn of_two(a: i64, b: i64) -> i64 {
        if b == 0 { a } else { of_two(b, a % b) }
    }
    weights.fold(0, of_two).max(1)
}

/// The server of the least `cost` for its weight; on a tie the earlier in the list.
fn least_by_weight<'a>(
    servers: impl Iterator<Item = &'a Arc<RealServer>>,
    cost: impl Fn(&RealServer) -> i64,
) -> Option<&'a Arc<RealServer>> {
    let weighed = servers.map(|server| (server, cost(server), i64::from(server.weight())));
    let lighter = |least: Weighed<'a>, other: Weighed<'a>| {
        if least.1 * other.2 > other.1 * least.2 { other } else { least }
    };
    weighed.reduce(lighter).map(|(server, _, _)| server)
}

/// A server with its cost and its weight.
type Weighed<'a> = (&'a Arc<RealServer>, i64, i64);

/// The server that outdoes all others in `rank`; on a tie the earlier in the list.
fn first_of_highest<'a, R: PartialOrd>(
    servers: impl Iterator<Item = &'a Arc<RealServer>>,
    rank: impl Fn(&RealServer) -> R,
) -> Option<&'a Arc<RealServer>> {
    servers.reduce(|best, other| if rank(other) > rank(best) { other } else { best })
}
