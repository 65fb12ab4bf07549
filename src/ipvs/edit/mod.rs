//! Edits of the tables: what `ipvsadm` asks of the kernel, with the kernel's checks and error numbers.

mod check;
mod words;

pub use check::{ENGINES, Outline, Present, Surroundings, is_foreign};
pub use words::{FLAG_NAMES, flag_names};

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ipvs::sync::{SyncDaemon, SyncRole};
use crate::net::addr::{Family, Protocol};
use crate::net::tunnel::Encapsulation;

/// What identifies a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceId {
    /// Protocol, virtual address and port.
    Address {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// Virtual address.
        address: IpAddr,
        /// Virtual port; 0 means any port of a persistent service.
        port: u16,
    },
    /// Packets that carry a firewall mark, of whatever protocol and address.
    FwMark {
        /// The mark, not 0.
        mark: u32,
        /// Family of the packets it takes.
        family: Family,
    },
}

impl ServiceId {
    /// Family of the service's packets.
    pub fn family(&self) -> Family {
        match self {
            ServiceId::Address { address, .. } => Family::from(*address),
            ServiceId::FwMark { family, .. } => *family,
        }
    }
}

/// Persistence of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Life of a template after its last new connection, in seconds.
    pub timeout: u32,
    /// Client addresses equal under this prefix length share a template: IPv4 masks need not be contiguous, so they are
    /// kept as a mask; IPv6 is a prefix length.
    pub mask: ClientMask,
}

/// Which client addresses count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientMask {
    /// IPv4 mask in host order; `u32::MAX` means every address by itself.
    V4(u32),
    /// IPv6 prefix length, 1 to 128.
    V6(u8),
}

/// Scheduler flags as `-b` gives them; their meaning depends on the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerFlags {
    /// flag-1: `sh-fallback`, `mh-fallback`.
    pub flag1: bool,
    /// flag-2: `sh-port`, `mh-port`.
    pub flag2: bool,
    /// flag-3.
    pub flag3: bool,
}

/// A virtual service as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Identity.
    pub id: ServiceId,
    /// Scheduler name, such as `wlc`.
    pub scheduler: String,
    /// Scheduler flags.
    pub flags: SchedulerFlags,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// Persistence, if any.
    pub persistence: Option<Persistence>,
    /// Persistence engine name, if any.
    pub engine: Option<String>,
}

/// Forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forward {
    /// NAT.
    Masquerade,
    /// The packet is for a process on this machine.
    Local,
    /// IP tunnel.
    Tunnel,
    /// Direct routing.
    Route,
}

/// Address and port of a real server within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerId {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 keeps the packet's own port.
    pub port: u16,
}

/// A real server as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Identity.
    pub id: ServerId,
    /// Forwarding method.
    pub forward: Forward,
    /// How packets are wrapped if that is a tunnel.
    #[serde(default)]
    pub tunnel: Encapsulation,
    /// Weight; 0 takes no new connections. Negative is refused.
    pub weight: i32,
    /// Connections at which the server counts as overloaded; 0 means never.
    pub upper_threshold: u32,
    /// Connections below which it no longer does; 0 means three quarters of the upper one.
    pub lower_threshold: u32,
}

/// One command for the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// `-A`.
    AddService(ServiceSpec),
    /// `-E`.
    EditService(ServiceSpec),
    /// `-D`.
    DeleteService(ServiceId),
    /// `-C`.
    Flush,
    /// `-a`.
    AddServer(ServiceId, ServerSpec),
    /// `-e`.
    EditServer(ServiceId, ServerSpec),
    /// `-d`.
    DeleteServer(ServiceId, ServerId),
    /// `-Z`.
    Zero(Option<ServiceId>),
    /// `--set`, in seconds; 0 leaves a value as it is.
    SetTimeouts {
        /// Established TCP.
        tcp: u32,
        /// TCP after a FIN.
        tcp_fin: u32,
        /// UDP.
        udp: u32,
    },
    /// `--start-daemon`.
    StartDaemon(SyncDaemon),
    /// `--stop-daemon`.
    StopDaemon(SyncRole),
}

impl fmt::Display for ServiceId {
    /// As a listing names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceId::Address { protocol, address, port } => {
                write!(f, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            ServiceId::FwMark { mark, family: Family::V4 } => write!(f, "FWM {mark}"),
            ServiceId::FwMark { mark, family: Family::V6 } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

impl fmt::Display for ServerId {
    /// `address:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

impl fmt::Display for Edit {
    /// One line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::AddService(spec) => write!(f, "service {} added, {}", spec.id, spec.scheduler),
            Edit::EditService(spec) => write!(f, "service {} changed, {}", spec.id, spec.scheduler),
            Edit::DeleteService(id) => write!(f, "service {id} deleted"),
            Edit::Flush => write!(f, "table cleared"),
            Edit::AddServer(id, spec) => {
                write!(f, "server {} added to {id}, weight {}", spec.id, spec.weight)
            }
            Edit::EditServer(id, spec) => {
                write!(f, "server {} of {id} changed, weight {}", spec.id, spec.weight)
            }
            Edit::DeleteServer(id, server) => write!(f, "server {server} deleted from {id}"),
            Edit::Zero(Some(id)) => write!(f, "counters of {id} zeroed"),
            Edit::Zero(None) => write!(f, "counters zeroed"),
            Edit::SetTimeouts { tcp, tcp_fin, udp } => write!(f, "timeouts set: {tcp} {tcp_fin} {udp}"),
            Edit::StartDaemon(daemon) => {
                write!(f, "{} sync daemon started on {}", daemon.role.name(), daemon.interface)
            }
            Edit::StopDaemon(role) => write!(f, "{} sync daemon stopped", role.name()),
        }
    }
}

/// The kernel's error numbers that an edit can meet. `Display` is the system's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Errno {
    /// Service or destination exists.
    #[error("File exists")]
    EEXIST,
    /// No such scheduler, persistence engine or destination.
    #[error("No such file or directory")]
    ENOENT,
    /// No such service.
    #[error("No such process")]
    ESRCH,
    /// A value makes no sense.
    #[error("Invalid argument")]
    EINVAL,
    /// A value is out of range.
    #[error("Numerical result out of range")]
    ERANGE,
    /// The family is not supported.
    #[error("Address family not supported by protocol")]
    EAFNOSUPPORT,
    /// Not supported here.
    #[error("Operation not supported")]
    EOPNOTSUPP,
    /// Not permitted.
    #[error("Operation not permitted")]
    EPERM,
    /// No such interface.
    #[error("No such device")]
    ENODEV,
}

/// Which of several edits is refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its place among them, from 0.
    pub index: usize,
    /// The kernel's reason.
    pub errno: Errno,
}
