//! A virtual service by its name, as `xlvs.toml` and the operator's commands write it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ipvs::edit::ServiceId;
use crate::net::addr::{Family, Protocol};

/// `tcp ADDRESS:PORT`, `udp ADDRESS:PORT`, `sctp ADDRESS:PORT`, `fwmark N` or, for IPv6, `fwmark6 N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(pub ServiceId);

/// The text names no service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a service such as \"tcp 192.0.2.1:80\", \"udp [2001:db8::1]:53\", \"fwmark 80\" or \"fwmark6 80\""
)]
pub struct NoServiceName(String);

impl TryFrom<String> for ServiceName {
    type Error = NoServiceName;

    fn try_from(text: String) -> Result<Self, NoServiceName> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let id = match words[..] {
            [kind, name] => parse(kind, name),
            _ => None,
        };
        id.map(ServiceName).ok_or(NoServiceName(text))
    }
}

fn parse(kind: &str, name: &str) -> Option<ServiceId> {
    let mark = |family| {
        let mark = name.parse().ok().filter(|mark| *mark != 0)?;
        Some(ServiceId::FwMark { mark, family })
    };
    let at = |protocol| {
        let place: SocketAddr = name.parse().ok()?;
        Some(ServiceId::Address { protocol, address: place.ip(), port: place.port() })
    };
    match kind {
        "tcp" => at(Protocol::TCP),
        "udp" => at(Protocol::UDP),
        "sctp" => at(Protocol::SCTP),
        "fwmark" => mark(Family::V4),
        "fwmark6" => mark(Family::V6),
        _ => None,
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> String {
        match name.0 {
            ServiceId::Address { protocol, address, port } => {
                format!("{protocol} {}", SocketAddr::new(address, port)).to_ascii_lowercase()
            }
            ServiceId::FwMark { mark, family: Family::V4 } => format!("fwmark {mark}"),
            ServiceId::FwMark { mark, family: Family::V6 } => format!("fwmark6 {mark}"),
        }
    }
}
