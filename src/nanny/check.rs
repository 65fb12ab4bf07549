//! What is checked, and how: a value without the names of those who want to know.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::nanny::expect::{Expect, Pattern};

/// One health check. Two equal values check the same thing in the same way, so that one run of them serves all who ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is checked.
    pub endpoint: SocketAddr,
    /// The address that the check comes from; `None` leaves it to the kernel. A program chooses its own.
    pub source: Option<IpAddr>,
    /// What is done.
    pub method: Method,
    /// When, and what the results mean.
    pub timing: Timing,
}

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Connect, agree on TLS if wanted, send unless empty, read if something is expected.
    Tcp {
        /// TLS, if wanted.
        tls: Option<Tls>,
        /// What is sent.
        send: Vec<u8>,
        /// What must be answered.
        expect: Option<Expect>,
    },
    /// Send a datagram and judge the one that comes back.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// What must be answered.
        expect: Expect,
    },
    /// Run a program and compare what it prints.
    Program {
        /// The program and its arguments; `%h` and `%p` stand for the endpoint's address and port.
        words: Vec<String>,
        /// What it must print, a line end apart; `None`: its exit status alone counts.
        expect: Option<Vec<u8>>,
    },
    /// Ask for a page.
    Http(HttpRequest),
    /// Ask for a name.
    Dns(DnsQuery),
    /// Ask the health service of gRPC.
    Grpc {
        /// TLS, if wanted.
        tls: Option<Tls>,
        /// Host that is asked for; `None`: the endpoint.
        host: Option<String>,
        /// Service that is asked about; empty for the server as a whole.
        service: String,
    },
    /// Send an echo request.
    Icmp,
}

impl Method {
    /// How many descriptors a check has open at most.
    pub fn descriptors(&self) -> u32 {
        match self {
            // While it starts: both ends of two pipes, /dev/null twice, the process itself.
            Method::Program { .. } => 8,
            _ => 1,
        }
    }
}

/// When a check is made, and how many results of a kind make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From the end of one check to the next.
    pub interval: Duration,
    /// Limit of each step of a check.
    pub limit: Duration,
    /// Good checks in a row that bring a server back; 0 counts as 1.
    pub rise: u32,
    /// Failed checks in a row that take it out; 0 counts as 1.
    pub fall: u32,
    /// By how many percent of the interval a pause may be longer or shorter.
    pub jitter: u32,
}

impl Timing {
    /// Piranha's (reference/piranha.md 2.3): `timeout` is interval and limit, and a server is back after `reentry / timeout` good
    /// checks. Both in seconds, as in lvs.cf; a `timeout` of 0 counts as 1, a `reentry` of 0 as 180.
    pub fn piranha(timeout: u32, reentry: u32) -> Self {
        const DEFAULT_REENTRY: u32 = 180;
        let timeout = timeout.max(1);
        let reentry = if reentry == 0 { DEFAULT_REENTRY } else { reentry };
        let pause = Duration::from_secs(timeout.into());
        Timing { interval: pause, limit: pause, rise: reentry / timeout, fall: 1, jitter: 0 }
    }
}

/// How a TLS server is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Name for SNI and for the certificate; `None`: the endpoint's address, which is not told.
    pub name: Option<String>,
    /// Whose certificates are good.
    pub trust: Trust,
    /// Warn when the certificate has no more days than these.
    pub expiry_days: Option<u32>,
}

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Anybody's.
    Anybody,
    /// Those of the system's authorities.
    System,
    /// Those of the authorities in a PEM file.
    File(PathBuf),
}

/// A page, and what makes it good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRequest {
    /// TLS, if wanted.
    pub tls: Option<Tls>,
    /// HTTP/2 from the first byte on, in place of HTTP/1.1.
    pub http2: bool,
    /// Path and query.
    pub path: String,
    /// Host that is asked for; `None`: the endpoint.
    pub host: Option<String>,
    /// Good statuses, as ranges with both ends.
    pub statuses: Vec<(u16, u16)>,
    /// A header that must be there, and what its value must match.
    pub header: Option<(String, Pattern)>,
    /// What must be found in the body.
    pub body: Option<Pattern>,
}

/// A query, and what makes its answer good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsQuery {
    /// Over TCP instead of UDP.
    pub tcp: bool,
    /// Name.
    pub name: String,
    /// Type of record, such as `A`.
    pub record_type: String,
    /// Data of a record that must be in the answer, as dig prints it; `None`: any answer without an error.
    pub answer: Option<String>,
}
