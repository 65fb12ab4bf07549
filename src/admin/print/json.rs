//! Listings for programs. The names of the fields are a promise: they may become more, but none changes or goes.

use serde::Serialize;
use serde_json::{Value, json};

use crate::ipvs::edit::{ClientMask, Forward, Persistence, ServerSpec, ServiceId};
use crate::ipvs::sync::SyncDaemon;
use crate::ipvs::view::{ConnectionView, ServerView, ServiceView, TimeoutView};
use crate::net::addr::Family;
use crate::net::tunnel::{Encapsulation, GueChecksum};

/// One value on a line.
pub fn line(value: &impl Serialize) -> String {
    // Plain values with text keys have no reason to fail.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// `-L --json`: `{"services": […]}`.
pub fn services(services: &[&ServiceView]) -> String {
    line(&json!({ "services": services.iter().map(|service| service_value(service)).collect::<Value>() }))
}

fn service_value(service: &ServiceView) -> Value {
    let spec = &service.spec;
    let (mut value, family) = match spec.id {
        ServiceId::Address { protocol, address, port } => {
            let value =
                json!({ "protocol": protocol.to_string().to_lowercase(), "address": address, "port": port });
            (value, Family::from(address))
        }
        ServiceId::FwMark { mark, family } => (json!({ "fwmark": mark }), family),
    };
    value["family"] = json!(match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    });
    value["scheduler"] = json!(spec.scheduler);
    value["flags"] = json!(spec.flags.names(&spec.scheduler));
    value["persistence"] = spec.persistence.map_or(Value::Null, persistence);
    value["engine"] = json!(spec.engine);
    value["one_packet"] = json!(spec.one_packet);
    value["stats"] = json!(service.stats);
    value["rates"] = json!(service.rates);
    value["servers"] = service.servers.iter().map(server_value).collect();
    value
}

fn persistence(persistence: Persistence) -> Value {
    let mask = match persistence.mask {
        ClientMask::V4(mask) => json!(std::net::Ipv4Addr::from(mask)),
        ClientMask::V6(prefix) => json!(prefix),
    };
    json!({ "timeout": persistence.timeout, "mask": mask })
}

fn server_value(server: &ServerView) -> Value {
    let ServerSpec { id, forward, tunnel, weight, upper_threshold, lower_threshold } = &server.spec;
    json!({
        "address": id.address,
        "port": id.port,
        "forward": forward.word().to_lowercase(),
        "tunnel": if *forward == Forward::Tunnel { tunnel_value(*tunnel) } else { Value::Null },
        "weight": weight,
        "upper_threshold": upper_threshold,
        "lower_threshold": lower_threshold,
        "active": server.active,
        "inactive": server.inactive,
        "persistent": server.persistent,
        "stats": server.stats,
        "rates": server.rates,
    })
}

fn tunnel_value(tunnel: Encapsulation) -> Value {
    match tunnel {
        Encapsulation::Ipip => json!({ "type": "ipip" }),
        Encapsulation::Gre { checksum } => json!({ "type": "gre", "checksum": checksum }),
        Encapsulation::Gue { port, checksum } => {
            let checksum = match checksum {
                GueChecksum::None => "none",
                GueChecksum::Udp => "udp",
                GueChecksum::Remote => "remote",
            };
            json!({ "type": "gue", "port": port, "checksum": checksum })
        }
    }
}

/// One of the rows between `{"connections": [` and `]}`.
pub fn connection(connection: &ConnectionView) -> Value {
    let ConnectionView { protocol, state, client, virtual_address, server, expires, synced, call_id } =
        connection;
    json!({
        "protocol": protocol.to_string().to_lowercase(),
        "state": state,
        "client": client,
        "virtual": virtual_address,
        "server": server,
        "expires": expires,
        "synced": synced,
        "call_id": call_id,
    })
}

/// `-L --timeout --json`: `{"timeouts": {…}}`, in seconds.
pub fn timeouts(timeouts: TimeoutView) -> String {
    line(&json!({ "timeouts": timeouts }))
}

/// `-L --daemon --json`: `{"daemons": […]}`.
pub fn daemons(daemons: &[SyncDaemon]) -> String {
    line(&json!({ "daemons": daemons }))
}
