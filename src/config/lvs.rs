//! `lvs.cf` as a typed value (reference piranha.md, sections 1.3 to 1.5). A default is already in place where the
//! original has one; `None` is a key that is absent and has none.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::health::HealthKeys;
use crate::net::addr;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LvsConfig {
    /// Informational; the web tool counts it up.
    pub serial_no: i64,
    /// Public address of the primary director.
    pub primary: Option<Ipv4Addr>,
    /// Its private address, for a second heartbeat path; `None` when there is no second path.
    pub primary_private: Option<Ipv4Addr>,
    /// Shared SCSI device of the primary, `service = fos` only.
    pub primary_shared: Option<String>,
    /// Public address of the backup director.
    pub backup: Option<Ipv4Addr>,
    /// Its private address; always `None` without `primary_private`, as in the original.
    pub backup_private: Option<Ipv4Addr>,
    /// Shared SCSI device of the backup, `service = fos` only.
    pub backup_shared: Option<String>,
    /// Whether there is a failover pair.
    pub backup_active: bool,
    /// Has no effect.
    pub heartbeat: bool,
    /// UDP port of the heartbeat, as written; see [`port_number`].
    pub heartbeat_port: i32,
    /// Seconds between heartbeats.
    pub keepalive: i32,
    /// Seconds of silence before a takeover.
    pub deadtime: i32,
    /// How packets reach the real servers of all virtual servers.
    pub network: Network,
    /// Floating gateway address of the real servers.
    pub nat_router: Option<DeviceAddress>,
    /// Its netmask.
    pub nat_nmask: Option<Ipv4Addr>,
    /// Which kind of block is run.
    pub service: Service,
    /// `rsh` or `ssh`, for `load_monitor = uptime`.
    pub rsh_command: String,
    /// Has no effect.
    pub debug_level: String,
    /// `service = fos` with shared devices only.
    pub reservation_conflict_action: Option<ReservationConflict>,
    /// Not 0: link loss on the director's NICs is a reason to fail over.
    pub monitor_links: i32,
    /// Whether the connection table is sent to the backup.
    pub syncdaemon: bool,
    /// Interface for that.
    pub syncd_iface: String,
    /// Identity in that, the low 8 bits of what was written.
    pub syncd_id: u8,
    /// Seconds for established TCP connections; 0 leaves the value alone.
    pub tcp_timeout: i32,
    /// Seconds for TCP connections after a FIN; 0 leaves the value alone.
    pub tcpfin_timeout: i32,
    /// Seconds for UDP; 0 leaves the value alone.
    pub udp_timeout: i32,
    /// Program to run on activation, with arguments.
    pub active_cmd: Option<String>,
    /// Program to run on deactivation, with arguments.
    pub inactive_cmd: Option<String>,
    /// Whether the death of a health check stops everything.
    pub hard_shutdown: bool,
    /// Path of the ipvsadm program.
    pub ipvsadm: String,
    /// Has no effect.
    pub sync: bool,
    /// `virtual` blocks in file order.
    pub virtuals: Vec<VirtualServer>,
    /// `failover` blocks in file order.
    pub failovers: Vec<VirtualServer>,
    /// `#xlvs:` lines outside of all blocks.
    pub health: HealthKeys,
}

impl Default for LvsConfig {
    fn default() -> Self {
        LvsConfig {
            serial_no: 0,
            primary: None,
            primary_private: None,
            primary_shared: None,
            backup: None,
            backup_private: None,
            backup_shared: None,
            backup_active: false,
            heartbeat: false,
            heartbeat_port: 539,
            keepalive: 2,
            deadtime: 5,
            network: Network::Nat,
            nat_router: None,
            nat_nmask: None,
            service: Service::Lvs,
            rsh_command: "rsh".to_owned(),
            debug_level: "NONE".to_owned(),
            reservation_conflict_action: None,
            monitor_links: 0,
            syncdaemon: false,
            syncd_iface: "eth0".to_owned(),
            syncd_id: 0,
            tcp_timeout: 0,
            tcpfin_timeout: 0,
            udp_timeout: 0,
            active_cmd: None,
            inactive_cmd: None,
            hard_shutdown: true,
            ipvsadm: "/sbin/ipvsadm".to_owned(),
            sync: false,
            virtuals: Vec::new(),
            failovers: Vec::new(),
            health: HealthKeys::default(),
        }
    }
}

/// A `virtual` or `failover` block; both have the same keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// Name on the header line.
    pub name: String,
    /// Whether it is run; absent means no.
    pub active: bool,
    /// Virtual address and the device that carries it.
    pub address: Option<DeviceAddress>,
    /// Netmask of the virtual address; 0.0.0.0 is read as absent.
    pub vip_nmask: Option<Ipv4Addr>,
    /// Server of last resort.
    pub sorry_server: Option<Ipv4Addr>,
    /// Firewall mark; not 0 means that the mark alone identifies the service.
    pub fwmark: u32,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual port as written; see [`port_number`].
    pub port: i32,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Persistence in seconds; 0 is none.
    pub persistent: i32,
    /// Netmask of the clients that persistence keeps together; 255.255.255.255 is read as absent.
    pub pmask: Option<Ipv4Addr>,
    /// Text that the health check sends, backslashes as written. Double quotes around it are gone, single quotes
    /// are part of it, as in the original.
    pub send: Option<String>,
    /// Text that the health check wants; quotes as in `send`.
    pub expect: Option<String>,
    /// Whether `expect` is a POSIX extended regular expression.
    pub use_regex: bool,
    /// Program that checks instead of `send`; quotes as in `send`.
    pub send_program: Option<String>,
    /// Seconds between checks and limit of each step of one.
    pub timeout: i32,
    /// Seconds that a server must have been good before it is used again.
    pub reentry: i32,
    /// Whether a dead server gets weight 0 instead of being removed.
    pub quiesce_server: bool,
    /// `none`, `uptime`, `rup`, `ruptime` or a program.
    pub load_monitor: Option<String>,
    /// Path of the health check program.
    pub client_monitor: String,
    /// `failover` only; quotes as in `send`.
    pub start_cmd: Option<String>,
    /// `failover` only; quotes as in `send`.
    pub stop_cmd: Option<String>,
    /// `server` blocks in file order.
    pub servers: Vec<RealServer>,
    /// `#xlvs:` lines of the block.
    pub health: HealthKeys,
}

impl VirtualServer {
    /// A block of this name with every key absent.
    pub fn named(name: &str) -> VirtualServer {
        VirtualServer {
            name: name.to_owned(),
            active: false,
            address: None,
            vip_nmask: None,
            sorry_server: None,
            fwmark: 0,
            protocol: Protocol::Tcp,
            port: 80,
            scheduler: Scheduler::Wlc,
            persistent: 0,
            pmask: None,
            send: None,
            expect: None,
            use_regex: false,
            send_program: None,
            timeout: 10,
            reentry: 180,
            quiesce_server: false,
            load_monitor: None,
            client_monitor: "/usr/sbin/nanny".to_owned(),
            start_cmd: None,
            stop_cmd: None,
            servers: Vec::new(),
            health: HealthKeys::default(),
        }
    }
}

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Name on the header line.
    pub name: String,
    /// Address.
    pub address: Option<Ipv4Addr>,
    /// Whether it is run; absent means no.
    pub active: bool,
    /// Weight as written.
    pub weight: i32,
    /// Port as written, or the virtual server's port as known at the line of the header; see [`port_number`].
    pub port: i32,
    /// `#xlvs:` lines of the block.
    pub health: HealthKeys,
}

/// A port as written in the file as a port number; `None` when it cannot be one (the original does not look).
pub fn port_number(written: i32) -> Option<u16> {
    u16::try_from(written).ok()
}

/// `IP DEVICE`, where the device may be an alias such as `eth0:1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAddress {
    /// Address.
    pub address: Ipv4Addr,
    /// Device as written.
    pub device: String,
}

impl DeviceAddress {
    /// The interface without the alias: `eth0` of `eth0:1`.
    pub fn interface(&self) -> &str {
        self.device.split(':').next().unwrap_or_default()
    }

    /// Whether the device is an alias.
    pub fn is_alias(&self) -> bool {
        self.device.contains(':')
    }
}

/// An enum whose values are words of `lvs.cf`.
pub trait Choice: Copy + Sized + 'static {
    /// Every word with its value.
    const WORDS: &'static [(&'static str, Self)];

    /// The value of a word; case matters.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
    }

    /// All words, for a message.
    fn words() -> String {
        Self::WORDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl Choice for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant)),+];
        }

        impl $name {
            /// The word of `lvs.cf`.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

pub(super) use choice;

choice! {
    /// `network`.
    Network {
        /// Addresses are rewritten.
        Nat = "nat",
        /// Direct routing.
        Direct = "direct",
        /// IP in IP.
        Tunnel = "tunnel",
    }
}

choice! {
    /// `service`.
    Service {
        /// Load balancing: `virtual` blocks.
        Lvs = "lvs",
        /// Failover of local services: `failover` blocks.
        Fos = "fos",
    }
}

choice! {
    /// `protocol`.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

impl Protocol {
    /// The IP protocol.
    pub fn number(self) -> addr::Protocol {
        match self {
            Protocol::Tcp => addr::Protocol::TCP,
            Protocol::Udp => addr::Protocol::UDP,
        }
    }
}

choice! {
    /// `scheduler`; IPVS has more, the original accepts these.
    Scheduler {
        /// Least-connection.
        Lc = "lc",
        /// Round robin.
        Rr = "rr",
        /// Weighted least-connection.
        Wlc = "wlc",
        /// Weighted round robin.
        Wrr = "wrr",
        /// Locality-based least-connection.
        Lblc = "lblc",
        /// Locality-based least-connection with replication.
        Lblcr = "lblcr",
        /// Destination hashing.
        Dh = "dh",
        /// Source hashing.
        Sh = "sh",
    }
}

choice! {
    /// `reservation_conflict_action`.
    ReservationConflict {
        /// Wait.
        Nothing = "nothing",
        /// Take the reservation.
        Preempt = "preempt",
    }
}
