//! The names of the network that the samples were recorded in.

use std::net::{IpAddr, Ipv4Addr};

use xlvs::admin::Resolver;
use xlvs::net::addr::Protocol;

pub const HOSTS: [(&str, &str); 5] = [
    ("10.10.1.30", "vip.example.net"),
    ("10.8.8.33", "rs1.example.net"),
    ("10.10.1.100", "a-client-with-a-rather-long-name.example.net"),
    ("fd00:8::33", "rs1-6.example.net"),
    ("127.0.0.1", "localhost"),
];

/// Name, port, protocols.
pub const PORTS: [(&str, u16, &[Protocol]); 13] = [
    ("http", 80, &[Protocol::TCP]),
    ("https", 443, &[Protocol::TCP, Protocol::UDP]),
    ("http-alt", 8080, &[Protocol::TCP]),
    ("domain", 53, &[Protocol::TCP, Protocol::UDP]),
    ("sip", 5060, &[Protocol::TCP, Protocol::UDP]),
    ("tcpmux", 1, &[Protocol::TCP]),
    ("echo", 7, &[Protocol::TCP, Protocol::UDP]),
    ("discard", 9, &[Protocol::TCP, Protocol::UDP]),
    ("systat", 11, &[Protocol::TCP]),
    ("daytime", 13, &[Protocol::TCP, Protocol::UDP]),
    ("iso-tsap", 102, &[Protocol::TCP]),
    ("acr-nema", 104, &[Protocol::TCP]),
    ("poppassd", 106, &[Protocol::TCP]),
];

/// Looks names up in [`HOSTS`] and [`PORTS`].
pub struct SampleNames;

impl Resolver for SampleNames {
    fn host_name(&self, address: IpAddr) -> Option<String> {
        let text = address.to_string();
        HOSTS.iter().find(|host| host.0 == text).map(|host| host.1.to_owned())
    }

    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        HOSTS.iter().find(|host| host.1 == name).and_then(|host| host.0.parse().ok())
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        let entry = PORTS.iter().find(|entry| entry.1 == port && entry.2.contains(&protocol));
        entry.map(|entry| entry.0.to_owned())
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        PORTS.iter().find(|entry| entry.0 == name && entry.2.contains(&protocol)).map(|entry| entry.1)
    }
}
