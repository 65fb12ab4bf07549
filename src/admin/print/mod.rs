//! Listings, byte for byte as ipvsadm 1.31 prints them, trailing blanks included (reference 9.3).

pub mod json;
mod names;
pub mod order;
pub mod proc;
mod save;

pub use names::Names;
pub use save::save;

use std::fmt::Write;

use super::request::{Columns, Layout};
use crate::ipvs::edit::ServiceId;
use crate::ipvs::sync::SyncDaemon;
use crate::ipvs::view::{ConnectionView, ServerView, ServiceView, TableInfo, TimeoutView};
use crate::net::addr::Family;

/// The line that heads a listing of the whole table.
pub fn banner(info: TableInfo) -> String {
    format!("IP Virtual Server version 1.2.1 (size={})\n", info.conn_tab_size)
}

/// The column titles and all `services` with their servers.
pub fn services(services: &[ServiceView], layout: Layout, names: Names) -> String {
    let mut text = titles(layout.columns);
    for service in order::services(services, layout.sorted) {
        text += &service_row(service, layout, names);
        for server in order::servers(&service.servers, layout.sorted) {
            text += &server_row(service, server, layout, names);
        }
    }
    text
}

fn titles(columns: Columns) -> String {
    let service = "Prot LocalAddress:Port";
    let server = "  -> RemoteAddress:Port";
    match columns {
        Columns::Plain => {
            format!("{service} Scheduler Flags\n{server}           Forward Weight ActiveConn InActConn\n")
        }
        Columns::TunInfo => format!(
            "{service} Scheduler Flags\n{server}           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        Columns::Stats => format!(
            "{service:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n{server}\n",
            "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"
        ),
        Columns::Rate => format!(
            "{service:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n{server}\n",
            "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"
        ),
        Columns::Thresholds => format!(
            "{service:<33} {:<10} {:<10} {:<10} {:<10}\n{server}\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        Columns::PersistentConn => format!(
            "{service:<33} {:<9} {:<11} {:<10} {:<10}\n{server}\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
    }
}

fn service_row(service: &ServiceView, layout: Layout, names: Names) -> String {
    let kind = match service.spec.id {
        ServiceId::Address { protocol, .. } => protocol.to_string(),
        ServiceId::FwMark { .. } => "FWM".to_owned(),
    };
    let name = names.service_column(&service.spec.id);
    let (stats, rates) = (service.stats, service.rates);
    let numbers = match layout.columns {
        Columns::Stats => [stats.conns, stats.inpkts, stats.outpkts, stats.inbytes, stats.outbytes],
        Columns::Rate => [rates.cps, rates.inpps, rates.outpps, rates.inbps, rates.outbps],
        _ => return format!("{kind:<4} {name} {}\n", service.spec.terms()),
    };
    let cells: String = numbers.iter().map(|&number| cell(number, layout.exact)).collect();
    format!("{kind:<4} {name:<28}{cells}\n")
}

fn server_row(service: &ServiceView, server: &ServerView, layout: Layout, names: Names) -> String {
    let name = names.server_column(&service.spec.id, &server.spec.id);
    let (spec, active, inactive) = (&server.spec, server.active, server.inactive);
    let forward = spec.forward.word();
    let rest = match layout.columns {
        Columns::Plain => format!(" {forward:<7} {:<6} {active:<10} {inactive:<10}", spec.weight),
        Columns::TunInfo => {
            let tunnel = spec.tunnel_word();
            format!(" {forward:<7} {tunnel:<13} {:<6} {active:<10} {inactive:<10}", spec.weight)
        }
        Columns::Thresholds => {
            let (upper, lower) = (spec.upper_threshold, spec.lower_threshold);
            format!(" {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Columns::PersistentConn => {
            format!(" {:<9} {:<11} {active:<10} {inactive:<10}", spec.weight, server.persistent)
        }
        Columns::Stats => server_stats(server, layout.exact),
        Columns::Rate => server_rates(server, layout.exact),
    };
    format!("  -> {name:<28}{rest}\n")
}

fn server_stats(server: &ServerView, exact: bool) -> String {
    let stats = server.stats;
    let numbers = [stats.conns, stats.inpkts, stats.outpkts, stats.inbytes, stats.outbytes];
    numbers.iter().map(|&number| cell(number, exact)).collect()
}

/// In a server's rates only the bytes are ever shortened.
fn server_rates(server: &ServerView, exact: bool) -> String {
    let rates = server.rates;
    let counts = [rates.cps, rates.inpps, rates.outpps].map(|number| cell(number, true));
    let bytes = [rates.inbps, rates.outbps].map(|number| cell(number, exact));
    counts.concat() + &bytes.concat()
}

/// A number in nine places, shortened by powers of a thousand from nine digits on unless `exact`.
fn cell(number: u64, exact: bool) -> String {
    match number {
        _ if exact => format!(" {number:>8}"),
        0..100_000_000 => format!(" {number:>8}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

fn mark_text(mark: u32, family: Family, ipv6: &str) -> String {
    match family {
        Family::V4 => mark.to_string(),
        Family::V6 => format!("{mark}{ipv6}"),
    }
}

/// The titles of `-L -c`; `engine_columns` adds what the persistence engine knows.
pub fn connection_titles(engine_columns: bool) -> String {
    let titles = "pro expire state       source             virtual            destination";
    let more = if engine_columns { "        pe name          pe_data" } else { "" };
    format!("IPVS connection entries\n{titles}{more}\n")
}

/// `-L -c`: connections in the order given.
pub fn connections(connections: &[ConnectionView], engine_columns: bool, names: Names) -> String {
    connections.iter().map(|connection| connection_row(connection, engine_columns, names)).collect()
}

fn connection_row(connection: &ConnectionView, engine_columns: bool, names: Names) -> String {
    let name = |end: std::net::SocketAddr| names.endpoint(connection.protocol, end.ip(), end.port());
    let expire = format!("{:02}:{:02}", connection.expires / 60, connection.expires % 60);
    let (client, virtual_address) = (name(connection.client), name(connection.virtual_address));
    let mut row = format!("{:<3} {expire:<6} {:<11} ", connection.protocol, connection.state);
    let server = name(connection.server);
    // Writing into a String cannot fail.
    let _ = match connection.call_id.as_ref().filter(|_| engine_columns) {
        Some(id) => writeln!(row, "{client:<18} {virtual_address:<18} {server:<16} {:<18} {id}", "sip"),
        None => writeln!(row, "{client:<18} {virtual_address:<18} {server}"),
    };
    row
}

/// `-L --timeout`.
pub fn timeouts(timeouts: TimeoutView) -> String {
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
}

/// `-L --daemon`.
pub fn daemons(daemons: &[SyncDaemon]) -> String {
    daemons.iter().map(daemon_row).collect()
}

fn daemon_row(daemon: &SyncDaemon) -> String {
    let SyncDaemon { role, interface, sync_id, max_len, group, port, ttl } = daemon;
    let (role, group) = (role.name(), group.map(|group| group.to_string()).unwrap_or_default());
    format!(
        "{role} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={max_len}, group={group}, port={port}, ttl={ttl})\n"
    )
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_shortened_at_nine_ten_twelve_and_fifteen_digits() {
        let shortened = [
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
        ];
        for (number, text) in shortened {
            assert_eq!(cell(number, false), text);
        }
        assert_eq!(cell(999_999_999, true), " 999999999");
        assert_eq!(cell(7, true), "        7");
    }
}
