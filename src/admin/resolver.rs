//! Names for addresses and ports, and back. Never waits for a name server for long.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::net::addr::Protocol;

/// Longest wait for one name; after the first that takes longer no more are asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where names come from.
pub trait Resolver {
    /// Name of a host.
    fn host_name(&self, address: IpAddr) -> Option<String>;

    /// IPv4 address of a host.
    fn host_address(&self, name: &str) -> Option<Ipv4Addr>;

    /// Name of a port.
    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String>;

    /// Port of a service name.
    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16>;
}

/// Knows no names: numbers in, numbers out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Resolver for NoNames {
    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn host_address(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn service_name(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }

    fn service_port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
}

/// The system's resolver (hosts file, DNS) and `/etc/services`.
#[derive(Debug, Default)]
pub struct SystemResolver {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
    services: OnceCell<Vec<ServiceEntry>>,
    gave_up: Cell<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceEntry {
    port: u16,
    protocol: &'static str,
    /// The official name first.
    names: Vec<String>,
}

impl SystemResolver {
    /// Runs a lookup beside this thread, since the system's resolver cannot be told how long to try.
    fn bounded<T: Send + 'static>(&self, lookup: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
        if self.gave_up.get() {
            return None;
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(lookup()));
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            self.gave_up.set(true);
            None
        })
    }

    fn services(&self) -> &[ServiceEntry] {
        self.services.get_or_init(|| {
            let text = std::fs::read_to_string("/etc/services").unwrap_or_default();
            text.lines().filter_map(service_entry).collect()
        })
    }
}

/// `name port/protocol alias...`, `#` starting a comment.
fn service_entry(line: &str) -> Option<ServiceEntry> {
    let mut words = line.split('#').next()?.split_whitespace();
    let name = words.next()?;
    let (port, protocol) = words.next()?.split_once('/')?;
    let names = std::iter::once(name).chain(words).map(str::to_owned).collect();
    let protocol = ["tcp", "udp", "sctp"].into_iter().find(|known| *known == protocol)?;
    Some(ServiceEntry { port: port.parse().ok()?, protocol, names })
}

fn protocol_name(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::TCP => Some("tcp"),
        Protocol::UDP => Some("udp"),
        Protocol::SCTP => Some("sctp"),
        _ => None,
    }
}

impl Resolver for SystemResolver {
    fn host_name(&self, address: IpAddr) -> Option<String> {
        if let Some(known) = self.hosts.borrow().get(&address) {
            return known.clone();
        }
        let found = self.bounded(move || dns_lookup::lookup_addr(&address).ok());
        // The system answers with the number itself when there is no name.
        let name = found.filter(|name| name.parse::<IpAddr>().is_err());
        self.hosts.borrow_mut().insert(address, name.clone());
        name
    }

    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        let host = name.to_owned();
        self.bounded(move || {
            (host.as_str(), 0).to_socket_addrs().ok()?.find_map(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
        })
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        let protocol = protocol_name(protocol)?;
        let entry = self.services().iter().find(|entry| entry.port == port && entry.protocol == protocol)?;
        entry.names.first().cloned()
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let protocol = protocol_name(protocol)?;
        let has_name = |entry: &&ServiceEntry| entry.names.iter().any(|known| known == name);
        self.services()
            .iter()
            .filter(has_name)
            .find(|entry| entry.protocol == protocol)
            .map(|entry| entry.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_line_has_name_port_protocol_and_aliases() {
        let entry = ServiceEntry { port: 80, protocol: "tcp", names: vec!["http".into(), "www".into()] };
        assert_eq!(service_entry("http\t\t80/tcp\t\twww\t\t# WorldWideWeb HTTP"), Some(entry));
        assert_eq!(service_entry("# http 80/tcp"), None);
        assert_eq!(service_entry("kerberos 88/ddp"), None);
        assert_eq!(service_entry(""), None);
    }
}
