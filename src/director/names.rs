//! Names in configuration files, looked up as the system does.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;

use crate::config::names::{Names, Services};
use crate::config::text;
use crate::net::addr::Protocol;

const SERVICES: &str = "/etc/services";

/// Calls `body` with host names from the resolver and service names from `/etc/services`.
pub fn with_system_names<T>(body: impl FnOnce(Names<'_>) -> T) -> T {
    let services = text::read(Path::new(SERVICES)).map(|text| Services::parse(&text)).unwrap_or_default();
    let service = |name: &str, protocol: Protocol| services.port(name, protocol);
    body(Names { host: &first_address, service: &service })
}

fn first_address(name: &str) -> Option<Ipv4Addr> {
    let addresses = (name, 0).to_socket_addrs().ok()?;
    addresses.map(|address| address.ip()).find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}
