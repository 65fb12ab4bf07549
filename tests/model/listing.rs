//! The tables of both as lines of text, so that they can be compared, and read when they differ.

use xlvs::ipvs::view::{ConnectionView, ServiceView, StatsView};

use crate::model::tables::{Counters, Key, Model, SCTP, TCP};
use crate::model::{sctp, tcp};

/// A service's line and those of its servers.
pub type ServiceLines = (String, Vec<String>);

/// The model's connections and templates.
pub fn of_connections(model: &Model) -> Vec<String> {
    let left = |deadline: u64| deadline.saturating_sub(model.now) / 1000;
    let connections = model.connections.iter().map(|connection| {
        let protocol = name(connection.protocol);
        let state = match connection.protocol {
            TCP => tcp::NAMES[connection.state],
            SCTP => sctp::NAMES[connection.state],
            _ => "UDP",
        };
        format!(
            "{protocol} {state} {} {} {} {} s",
            connection.client,
            connection.target,
            connection.server_address,
            left(connection.deadline)
        )
    });
    let templates = model.templates.iter().map(|template| {
        let protocol = name(template.protocol);
        let state = if template.assured { "ASSURED" } else { "NONE" };
        let client = std::net::SocketAddr::new(template.client, 0);
        format!(
            "{protocol} {state} {client} {} {} {} s",
            template.target,
            template.server_address,
            left(template.deadline)
        )
    });
    connections.chain(templates).collect()
}

fn name(protocol: u8) -> &'static str {
    match protocol {
        0 => "IP",
        TCP => "TCP",
        SCTP => "SCTP",
        _ => "UDP",
    }
}

/// One of the engine's.
pub fn of_connection(view: &ConnectionView) -> String {
    let ConnectionView { protocol, state, client, virtual_address, server, expires, .. } = view;
    format!("{protocol} {state} {client} {virtual_address} {server} {expires} s")
}

/// The model's services.
pub fn of_services(model: &Model) -> Vec<ServiceLines> {
    let services = model.services.iter().map(|service| {
        let key = match service.key {
            Key::Address(protocol, target) => format!("{} {target}", name(protocol)),
            Key::Mark(mark) => format!("FWM {mark}"),
        };
        let line = format!("{key} {} {}", service.options.scheduler, traffic(&service.counters));
        let servers = service.servers.iter().map(|server| {
            let server = &model.servers[*server];
            format!(
                "{} weight {} thresholds {} {} active {} inactive {} templates {} {}",
                server.address,
                server.terms.weight,
                server.terms.upper,
                server.terms.lower,
                server.active,
                server.total - server.active,
                server.persistent,
                traffic(&server.counters)
            )
        });
        (line, servers.collect())
    });
    services.collect()
}

/// One of the engine's.
pub fn of_service(view: &ServiceView) -> ServiceLines {
    // The model plays one family at a time, and so names none.
    let id = view.spec.id.to_string().replace(" IPv6", "");
    let line = format!("{id} {} {}", view.spec.scheduler, numbers(&view.stats));
    let servers = view.servers.iter().map(|server| {
        let spec = &server.spec;
        format!(
            "{} weight {} thresholds {} {} active {} inactive {} templates {} {}",
            spec.id,
            spec.weight,
            spec.upper_threshold,
            spec.lower_threshold,
            server.active,
            server.inactive,
            server.persistent,
            numbers(&server.stats)
        )
    });
    (line, servers.collect())
}

fn traffic(counters: &Counters) -> String {
    let shown = counters.shown();
    format!(
        "conns {} in {}/{} out {}/{}",
        shown.conns, shown.inpkts, shown.inbytes, shown.outpkts, shown.outbytes
    )
}

fn numbers(stats: &StatsView) -> String {
    format!(
        "conns {} in {}/{} out {}/{}",
        stats.conns, stats.inpkts, stats.inbytes, stats.outpkts, stats.outbytes
    )
}
