//! `-S`: the tables as command lines for `-R` (reference 9.4). Thresholds and timeouts are not among them.

use super::{Names, order};
use crate::ipvs::edit::{Forward, ServerSpec, ServiceId, ServiceSpec};
use crate::ipvs::view::ServiceView;
use crate::net::tunnel::{Encapsulation, GueChecksum};

/// One line per service, each followed by one line per server, sorted.
pub fn save(services: &[ServiceView], names: Names) -> String {
    let mut text = String::new();
    for service in order::services(services, true) {
        text += &service_line(&service.spec, names);
        for server in order::servers(&service.servers, true) {
            text += &server_line(&service.spec.id, &server.spec, names);
        }
    }
    text
}

fn service_line(spec: &ServiceSpec, names: Names) -> String {
    let mut line = format!("-A {} -s {}", names.service_argument(&spec.id), spec.scheduler);
    if let Some(persistence) = spec.persistence {
        line += &format!(" -p {}", persistence.timeout);
        if let Some(mask) = persistence.mask.unless_full() {
            line += &format!(" -M {mask}");
        }
    }
    if let Some(engine) = &spec.engine {
        line += &format!(" --pe {engine}");
    }
    if spec.one_packet {
        line += " -o";
    }
    let flags = spec.flags.names(&spec.scheduler);
    if !flags.is_empty() {
        line += &format!(" -b {}", flags.join(","));
    }
    line + "\n"
}

fn server_line(service: &ServiceId, spec: &ServerSpec, names: Names) -> String {
    let forward = match spec.forward {
        Forward::Masquerade => "-m",
        Forward::Tunnel => "-i",
        Forward::Local | Forward::Route => "-g",
    };
    let tunnel = if spec.forward == Forward::Tunnel { tunnel_options(spec.tunnel) } else { String::new() };
    let server = names.server_argument(service, &spec.id);
    format!("-a {} -r {server} {forward} -w {}{tunnel}\n", names.service_argument(service), spec.weight)
}

fn tunnel_options(tunnel: Encapsulation) -> String {
    match tunnel {
        Encapsulation::Ipip => " --tun-type ipip".to_owned(),
        Encapsulation::Gre { checksum } => {
            format!(" --tun-type gre {}", if checksum { "--tun-csum" } else { "--tun-nocsum" })
        }
        Encapsulation::Gue { port, checksum } => {
            let checksum = match checksum {
                GueChecksum::None => "--tun-nocsum",
                GueChecksum::Udp => "--tun-csum",
                GueChecksum::Remote => "--tun-remcsum",
            };
            format!(" --tun-type gue --tun-port {port} {checksum}")
        }
    }
}
