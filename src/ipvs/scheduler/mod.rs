//! Schedulers: who takes the next new connection (ipvs.md section 5). One file each; [`ENTRIES`] is the list.

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

/// A scheduler as users know it.
pub struct Entry {
    /// The name that `ipvsadm -s` takes.
    pub name: &'static str,
    /// How it chooses, in a sentence.
    pub about: &'static str,
    make: fn() -> Arc<dyn Scheduler>,
}

/// Every scheduler.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "rr",
        about: "Round robin: one server after the other.",
        make: || Arc::new(rr::RoundRobin::default()),
    },
    Entry {
        name: "wrr",
        about: "Weighted round robin: in turn, a server of weight 2 twice as often as one of weight 1.",
        make: || Arc::new(wrr::WeightedRoundRobin::default()),
    },
    Entry {
        name: "lc",
        about: "Least connection: the server with the fewest connections.",
        make: || Arc::new(lc::LeastConnection),
    },
    Entry {
        name: "wlc",
        about: "Weighted least connection: the server with the fewest connections for its weight.",
        make: || Arc::new(wlc::WeightedLeastConnection),
    },
    Entry {
        name: "sed",
        about: "Shortest expected delay: the server that the new connection would load least for its weight.",
        make: || Arc::new(sed::ShortestExpectedDelay),
    },
    Entry {
        name: "nq",
        about: "Never queue: an idle server if there is one, whatever its weight, else as sed.",
        make: || Arc::new(nq::NeverQueue),
    },
    Entry {
        name: "fo",
        about: "Failover: always the server of the highest weight.",
        make: || Arc::new(fo::FailOver),
    },
    Entry {
        name: "ovf",
        about: "Overflow: the server of the highest weight, until it has as many active connections; then the next.",
        make: || Arc::new(ovf::Overflow),
    },
    Entry {
        name: "twos",
        about: "Two choices: of two servers drawn at random by weight the one with fewer connections for its weight.",
        make: || Arc::new(twos::TwoChoices::default()),
    },
    Entry {
        name: "sh",
        about: "Source hashing: the client's address means a server.",
        make: || Arc::new(sh::SourceHashing::default()),
    },
    Entry {
        name: "dh",
        about: "Destination hashing: the destination's address means a server.",
        make: || Arc::new(dh::DestinationHashing::default()),
    },
    Entry {
        name: "mh",
        about: "Maglev hashing: as sh, and few clients change servers when a server comes or goes.",
        make: || Arc::new(mh::Maglev::default()),
    },
    Entry {
        name: "lblc",
        about: "Locality: an address stays with its server until that is overloaded and another is half idle.",
        make: || Arc::new(lblc::Locality::default()),
    },
    Entry {
        name: "lblcr",
        about: "Locality with replication: as lblc, and an address in demand gets several servers.",
        make: || Arc::new(lblcr::ReplicatedLocality::default()),
    },
    Entry { name: "none", about: "No server for anybody.", make: || Arc::new(NoScheduler) },
];

/// A new scheduler by the name that `ipvsadm -s` takes; `None` if there is none of that name.
pub fn by_name(name: &str) -> Option<Arc<dyn Scheduler>> {
    ENTRIES.iter().find(|entry| entry.name == name).map(|entry| (entry.make)())
}

/// Whether there is a scheduler of that name.
pub fn is_known(name: &str) -> bool {
    ENTRIES.iter().any(|entry| entry.name == name)
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
