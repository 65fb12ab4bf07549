//! Health checks: the counting in virtual time, what a reply means, and probes against sockets on loopback.

mod expectation;
mod probing;
mod schedule;
