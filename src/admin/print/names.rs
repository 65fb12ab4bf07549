//! Addresses and ports as listings show them.

use std::net::IpAddr;

use super::mark_text;
use crate::admin::resolver::Resolver;
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::net::addr::Protocol;

/// Longest IPv4 name and port in a table of services; longer ones are cut.
const COLUMN: usize = 28;

/// Turns addresses and ports into text: numbers, or names where there are any.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    resolver: Option<&'a dyn Resolver>,
}

impl<'a> Names<'a> {
    /// Numbers only if `numeric`.
    pub fn new(numeric: bool, resolver: &'a dyn Resolver) -> Self {
        Names { resolver: (!numeric).then_some(resolver) }
    }

    /// `address:port`, the address in brackets if it is IPv6.
    pub fn endpoint(self, protocol: Protocol, address: IpAddr, port: u16) -> String {
        let host = self.resolver.and_then(|resolver| resolver.host_name(address));
        let host = host.unwrap_or_else(|| number(address));
        let service = self.resolver.and_then(|resolver| resolver.service_name(port, protocol));
        let service = service.unwrap_or_else(|| port.to_string());
        if address.is_ipv6() { format!("[{host}]:{service}") } else { format!("{host}:{service}") }
    }

    /// A service in a table.
    pub fn service_column(self, id: &ServiceId) -> String {
        match *id {
            ServiceId::Address { protocol, address, port } => self.column(protocol, address, port),
            ServiceId::FwMark { mark, family } => mark_text(mark, family, " IPv6"),
        }
    }

    /// A server in a table.
    pub fn server_column(self, service: &ServiceId, server: &ServerId) -> String {
        self.column(protocol_of(service), server.address, server.port)
    }

    /// A service as `-A` takes it.
    pub fn service_argument(self, id: &ServiceId) -> String {
        match *id {
            ServiceId::Address { protocol, address, port } => {
                let option = match protocol {
                    Protocol::UDP => "-u",
                    Protocol::SCTP => "--sctp-service",
                    _ => "-t",
                };
                format!("{option} {}", self.endpoint(protocol, address, port))
            }
            ServiceId::FwMark { mark, family } => format!("-f {}", mark_text(mark, family, " -6")),
        }
    }

    /// A server as `-r` takes it.
    pub fn server_argument(self, service: &ServiceId, server: &ServerId) -> String {
        self.endpoint(protocol_of(service), server.address, server.port)
    }

    fn column(self, protocol: Protocol, address: IpAddr, port: u16) -> String {
        let name = self.endpoint(protocol, address, port);
        if address.is_ipv6() { name } else { name.chars().take(COLUMN).collect() }
    }
}

/// Ports of a fwmark service's servers belong to no protocol, so they have no names.
fn protocol_of(service: &ServiceId) -> Protocol {
    match service {
        ServiceId::Address { protocol, .. } => *protocol,
        ServiceId::FwMark { .. } => Protocol::IP,
    }
}

/// As `inet_ntop` writes an address: one with IPv4 in its last 32 bits and nothing before shows that with dots.
fn number(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => match (v6.segments(), v6.to_ipv4()) {
            ([0, 0, 0, 0, 0, 0, high, _], Some(v4)) if high != 0 => format!("::{v4}"),
            _ => v6.to_string(),
        },
        IpAddr::V4(v4) => v4.to_string(),
    }
}
