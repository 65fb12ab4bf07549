//! What scripts know from `/proc/net/ip_vs` and its kin, in the kernel's format (reference 9.5): hexadecimal addresses and ports,
//! servers and services as they are in the tables.

use std::net::{IpAddr, SocketAddr};

use crate::ipvs::edit::{ClientMask, ServiceId, ServiceSpec};
use crate::ipvs::view::{
    ConnectionView, RateView, ServerView, ServiceView, StatsView, TableInfo, TotalsView,
};
use crate::net::addr::Family;

/// Persistence is shown in ticks of the recorded kernel, of which there are so many in a second.
const HZ: u64 = 100;
/// What the kernel knows of the FTP helper: how many services use it is not counted.
const HELPER: &str = "TCP  21      0      ftp              \n";

/// A file below `/proc/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcFile {
    /// Services and servers.
    IpVs,
    /// Connections and templates.
    Connections,
    /// The same with their origin.
    SyncedConnections,
    /// Counters and rates of everything.
    Stats,
    /// The same by worker.
    StatsPerCpu,
    /// Application helpers.
    Helpers,
}

impl ProcFile {
    /// All of them.
    pub const ALL: [ProcFile; 6] = [
        ProcFile::IpVs,
        ProcFile::Connections,
        ProcFile::SyncedConnections,
        ProcFile::Stats,
        ProcFile::StatsPerCpu,
        ProcFile::Helpers,
    ];

    /// Its name there.
    pub fn name(self) -> &'static str {
        match self {
            ProcFile::IpVs => "ip_vs",
            ProcFile::Connections => "ip_vs_conn",
            ProcFile::SyncedConnections => "ip_vs_conn_sync",
            ProcFile::Stats => "ip_vs_stats",
            ProcFile::StatsPerCpu => "ip_vs_stats_percpu",
            ProcFile::Helpers => "ip_vs_app",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<ProcFile> {
        Self::ALL.into_iter().find(|file| file.name() == name)
    }
}

/// `ip_vs`.
pub fn services(info: TableInfo, services: &[ServiceView]) -> String {
    let mut text = super::banner(info)
        + "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
    for service in services {
        text += &service_row(&service.spec);
        service.servers.iter().for_each(|server| text += &server_row(server));
    }
    text
}

fn service_row(spec: &ServiceSpec) -> String {
    let ops = if spec.one_packet { "ops " } else { "" };
    let scheduler = &spec.scheduler;
    let head = match spec.id {
        ServiceId::FwMark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {ops}"),
        ServiceId::Address { protocol, address, port } => {
            let place = endpoint(SocketAddr::new(address, port));
            match Family::from(address) {
                Family::V4 => format!("{protocol}  {place} {scheduler} {ops} "),
                Family::V6 => format!("{protocol}  {place} {scheduler} "),
            }
        }
    };
    match spec.persistence {
        Some(persistence) => {
            let mask = match persistence.mask {
                ClientMask::V4(mask) => mask,
                // The kernel shows the prefix length as if it were a mask in network byte order.
                ClientMask::V6(prefix) => u32::from(prefix).swap_bytes(),
            };
            format!("{head}persistent {} {mask:08X}\n", u64::from(persistence.timeout) * HZ)
        }
        None => head + "\n",
    }
}

fn server_row(server: &ServerView) -> String {
    let place = endpoint(SocketAddr::new(server.spec.id.address, server.spec.id.port));
    let (forward, weight) = (server.spec.forward.word(), server.spec.weight);
    format!("  -> {place}      {forward:<7} {weight:<6} {:<10} {:<10}\n", server.active, server.inactive)
}

fn endpoint(place: SocketAddr) -> String {
    match place {
        SocketAddr::V4(_) => format!("{}:{:04X}", address(place.ip()), place.port()),
        SocketAddr::V6(_) => format!("[{}]:{:04X}", address(place.ip()), place.port()),
    }
}

fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", u32::from(address)),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join(":"),
    }
}

/// The titles of `ip_vs_conn` or, with `origin`, of `ip_vs_conn_sync`.
pub fn connection_titles(origin: bool) -> String {
    let ends = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State      ";
    format!("{ends} {}\n", if origin { "Origin Expires" } else { "Expires PEName PEData" })
}

/// The rows of `ip_vs_conn` or, with `origin`, of `ip_vs_conn_sync`.
pub fn connections(connections: &[ConnectionView], origin: bool) -> String {
    connections.iter().map(|connection| connection_row(connection, origin)).collect()
}

fn connection_row(connection: &ConnectionView, origin: bool) -> String {
    let ConnectionView { protocol, state, client, virtual_address, server, expires, synced, call_id } =
        connection;
    let ends = [client, virtual_address, server]
        .map(|end| format!("{} {:04X}", address(end.ip()), end.port()))
        .join(" ");
    let head = format!("{protocol:<3} {ends} {state:<11}");
    match call_id {
        _ if origin => format!("{head} {:<6} {expires:>7}\n", if *synced { "SYNC" } else { "LOCAL" }),
        Some(id) => format!("{head} {expires:>7} sip {id}\n"),
        None => format!("{head} {expires:>7}\n"),
    }
}

/// `ip_vs_stats`.
pub fn stats(totals: &TotalsView) -> String {
    let counted = "   Total Incoming Outgoing         Incoming         Outgoing\n\
                   \u{20}  Conns  Packets  Packets            Bytes            Bytes\n";
    let rated = " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n";
    format!("{counted}{}\n\n{rated}{}\n", counters(&totals.shown), rates(&totals.rates))
}

/// `ip_vs_stats_percpu`: workers stand for processors.
pub fn stats_per_worker(totals: &TotalsView) -> String {
    let mut text = "       Total Incoming Outgoing         Incoming         Outgoing\n\
                    CPU    Conns  Packets  Packets            Bytes            Bytes\n"
        .to_owned();
    for (number, worker) in totals.workers.iter().enumerate() {
        text += &format!("{number:3X} {}\n", counters(worker));
    }
    text += &format!("  ~ {}\n\n", counters(&totals.shown));
    text + &format!(
        "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    {}\n",
        rates(&totals.rates)
    )
}

fn counters(stats: &StatsView) -> String {
    let StatsView { conns, inpkts, outpkts, inbytes, outbytes } = stats;
    format!("{conns:8X} {inpkts:8X} {outpkts:8X} {inbytes:16X} {outbytes:16X}")
}

fn rates(rates: &RateView) -> String {
    let RateView { cps, inpps, outpps, inbps, outbps } = rates;
    format!("{cps:8X} {inpps:8X} {outpps:8X} {inbps:16X} {outbps:16X}")
}

/// `ip_vs_app`.
pub fn helpers() -> String {
    format!("prot port    usecnt name\n{HELPER}")
}
