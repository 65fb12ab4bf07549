//! Health checks: the counting in virtual time, what a reply means, and probes against real servers on loopback.

mod configured;
mod expectation;
mod grpc;
mod patterns;
mod probing;
mod running;
mod schedule;
mod tls;
mod web;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use xlvs::host::clock::{Clock, wall};
use xlvs::nanny::{Check, Expect, Facilities, Method, Pattern, Probe, Slots, Timing};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Long enough for whoever answers.
const PATIENT: Duration = Duration::from_secs(10);
/// For whoever does not.
const SHORT: Duration = Duration::from_millis(300);

fn facilities() -> Arc<Facilities> {
    let clock = Clock::start();
    Arc::new(Facilities::new(move || clock.now(), wall, Slots::new(64)))
}

fn limit(limit: Duration) -> Timing {
    Timing { limit, ..Timing::piranha(1, 1) }
}

fn check(method: Method) -> Check {
    Check { endpoint: ANY_PORT.into(), source: None, method, timing: limit(PATIENT) }
}

fn tcp(send: &str, expect: Option<Expect>) -> Check {
    check(Method::Tcp { tls: None, send: send.as_bytes().to_vec(), expect })
}

fn prefix(text: &str) -> Option<Expect> {
    Some(Expect::Prefix(text.as_bytes().to_vec()))
}

fn pattern(text: &str) -> Pattern {
    let text = xlvs::config::posix::checked(text.as_bytes()).expect("a regular expression");
    Pattern::new(&text).expect("a regular expression")
}

fn hasty(check: Check) -> Check {
    Check { timing: limit(SHORT), ..check }
}

/// What the check of `server` says: `good`, `good, but WARNING`, or the reason, with the endpoint replaced.
async fn verdict(check: Check, server: SocketAddr) -> String {
    let check = Arc::new(Check { endpoint: server, ..check });
    let told = match Probe::new(check, &facilities()).run().await {
        Ok(passed) => passed.warning.map_or("good".to_owned(), |warning| format!("good, but {warning}")),
        Err(failure) => failure.to_string(),
    };
    told.replace(&server.to_string(), "SERVER")
}
