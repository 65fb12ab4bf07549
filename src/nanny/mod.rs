//! Layer 2: one health check of one endpoint, as Piranha's nanny does it (reference/piranha.md 2), and others.
//!
//! [`Check`] says what is checked and how, [`Nanny`] decides and knows neither clock nor socket, [`Probe`] does the I/O of one
//! check, [`run`] joins them. [`Facilities`] is what all running checks share.

mod check;
mod connect;
mod dns;
mod exchange;
mod expect;
mod failure;
mod grpc;
mod http;
mod icmp;
mod probe;
mod program;
mod run;
mod schedule;
mod slots;
mod tls;

pub use check::{Check, DnsQuery, HttpRequest, Method, Timing, Tls, Trust};
pub use expect::{Expect, Judgement, Pattern, PatternError};
pub use failure::ProbeFailure;
pub use probe::Probe;
pub use program::{Leftovers, run_program};
pub use run::{Facilities, HealthReport, run};
pub use schedule::{Action, Event, HealthChange, Nanny, Passed};
pub use slots::Slots;
