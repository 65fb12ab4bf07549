//! What the tables look like from outside: plain values for listings, never pointers into the engine.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::ipvs::edit::{ServerSpec, ServiceSpec};
use crate::net::addr::Protocol;

/// Counters as last sampled by the estimator (every 2 s), less what `-Z` put aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets towards servers.
    pub inpkts: u64,
    /// Packets towards clients.
    pub outpkts: u64,
    /// Bytes towards servers, IP header included.
    pub inbytes: u64,
    /// Bytes towards clients, IP header included.
    pub outbytes: u64,
}

/// Smoothed rates per second; bytes, not bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateView {
    /// Connections per second.
    pub cps: u64,
    /// Packets per second towards servers.
    pub inpps: u64,
    /// Packets per second towards clients.
    pub outpps: u64,
    /// Bytes per second towards servers.
    pub inbps: u64,
    /// Bytes per second towards clients.
    pub outbps: u64,
}

/// A real server in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Address, port, forwarding method, weight and thresholds.
    pub spec: ServerSpec,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Counters.
    pub stats: StatsView,
    /// Rates.
    pub rates: RateView,
}

/// A virtual service in a listing, its servers in the kernel's order (newest first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Identity, scheduler, flags and persistence.
    pub spec: ServiceSpec,
    /// Servers.
    pub servers: Vec<ServerView>,
    /// Counters.
    pub stats: StatsView,
    /// Rates.
    pub rates: RateView,
}

/// A connection or persistence template in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Protocol; [`Protocol::IP`] for the template of a fwmark service.
    pub protocol: Protocol,
    /// The kernel's state name, such as `ESTABLISHED`, `UDP`, `NONE` or `ASSURED`.
    pub state: String,
    /// Client; port 0 in a template.
    pub client: SocketAddr,
    /// Virtual address; the mark as an address in the template of a fwmark service.
    pub virtual_address: SocketAddr,
    /// Real server.
    pub server: SocketAddr,
    /// Remaining life in seconds.
    pub expires: u64,
    /// Whether a synchronisation message made it.
    #[serde(default)]
    pub synced: bool,
    /// What the `sip` engine knows a template by: its Call-ID, bytes past ASCII read as Latin-1.
    pub call_id: Option<String>,
}

/// Counters and rates of everything balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsView {
    /// Counters as last sampled, less what `-Z` put aside.
    pub shown: StatsView,
    /// Rates.
    pub rates: RateView,
    /// Counters of each worker, up to now and since the start.
    pub workers: Vec<StatsView>,
}

/// Timeouts in seconds as `ipvsadm -L --timeout` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutView {
    /// Established TCP.
    pub tcp: u32,
    /// TCP after a FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

/// The kernel's answer to a version question: what heads every listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInfo {
    /// Size of the connection hash table as printed in the title line.
    pub conn_tab_size: u32,
}

/// Sort key of an address as ipvsadm orders it: IPv4 before IPv6, then numerically.
pub fn address_order(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, u128::from(u32::from(address))),
        IpAddr::V6(address) => (true, u128::from(address)),
    }
}
