//! Which NICs the workers serve.

use thiserror::Error;

use crate::director::Port;
use crate::director::wanted::Wanted;
use crate::net::route::{HostNetwork, RouteTable};

/// Why the NICs are not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// A name that the machine does not have.
    #[error("interface {0} does not exist; this machine has {1}")]
    NoInterface(String, String),
    /// A configuration needs one that is not served.
    #[error("interface {0} is needed but not served; restart xlvs to serve it")]
    NotServed(String),
    /// Neither file nor settings name any.
    #[error("no interface to serve: lvs.cf names none, so set `ports = [\"eth0\", …]` in xlvs.toml")]
    None,
}

/// The ports by name, or those that `wanted` needs: the interfaces of its addresses, and those that lead to its servers.
pub fn choose(names: &[String], wanted: &Wanted, network: &HostNetwork) -> Result<Vec<Port>, PortError> {
    let mut chosen: Vec<String> = names.to_vec();
    if chosen.is_empty() {
        chosen.extend(wanted.addresses.iter().map(|address| address.interface.clone()));
        let routes = RouteTable::new(network, &[]);
        for (_, server) in wanted.servers() {
            let link = routes.neighbour(server.spec.id.address).map(|(link, _)| link);
            let link = network.links.iter().find(|candidate| Some(candidate.index) == link);
            chosen.extend(link.map(|link| link.name.clone()));
        }
    }
    let mut ports: Vec<Port> = Vec::new();
    for name in chosen {
        if ports.iter().all(|port| port.name != name) {
            ports.push(find(name, network)?);
        }
    }
    if ports.is_empty() { Err(PortError::None) } else { Ok(ports) }
}

/// Whether the ports that are served do for a new configuration.
pub fn check(served: &[Port], wanted: &Wanted, network: &HostNetwork) -> Result<(), PortError> {
    if wanted.services.is_empty() {
        return Ok(());
    }
    let missing = |port: &Port| !served.contains(port);
    match choose(&[], wanted, network)?.into_iter().find(missing) {
        Some(port) => Err(PortError::NotServed(port.name)),
        None => Ok(()),
    }
}

fn find(name: String, network: &HostNetwork) -> Result<Port, PortError> {
    match network.links.iter().find(|link| link.name == name) {
        Some(link) => Ok(Port { name, index: link.index }),
        None => {
            let present: Vec<&str> = network.links.iter().map(|link| link.name.as_str()).collect();
            Err(PortError::NoInterface(name, present.join(", ")))
        }
    }
}
