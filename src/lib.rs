//! xlvs is Linux Virtual Server without the kernel module: a userspace NAT load balancer on AF_XDP.
//!
//! # Architecture
//!
//! Everything with state is a pure function of (now, input): the datapath, a health check, the failover pair and the
//! director have no clock, socket, thread or log line inside. The AF_XDP loop, a recorded scenario and a benchmark call
//! the same functions on the same bytes.
//!
//! Imports go down only; siblings do not see each other:
//!
//! ```text
//! net → ipvs → {xdp, host, config, nanny, pulse} → director → admin → bin
//! ```
//!
//! | layer | module | what it knows |
//! |---|---|---|
//! | 0 | [`net`] | packets as bytes, routes, time; no state and no IPVS word |
//! | 1 | [`ipvs`] | the semantics of IPVS: services, servers, connections, templates, schedulers, states |
//! | 2 | [`xdp`] | AF_XDP rings, UMEM frames and the steering program; the only unsafe code |
//! | 2 | [`host`] | this machine: the clock, netlink, raw sockets, privileges |
//! | 2 | [`config`] | `lvs.cf`, saved iptables marks, `xlvs.toml` |
//! | 2 | [`nanny`] | one health check: a pure state machine and the probe that does its I/O |
//! | 2 | [`pulse`] | the failover pair: a pure state machine and its heartbeats as bytes |
//! | 3 | [`director`] | the single writer: commands in, effects out |
//! | 4 | [`admin`] | `ipvsadm` and the operator's tool: what was typed, what it means, what is printed |
//!
//! A packet: [`xdp`] receives a burst → [`net::parse`] → connection table → on a miss service, persistence,
//! scheduler → protocol state → [`net::rewrite`] → out of the other port. A change: command → director → edit
//! with the kernel's checks → one immutable snapshot is published → effects run.

pub mod admin;
pub mod config;
pub mod director;
pub mod host;
pub mod ipvs;
pub mod nanny;
pub mod net;
pub mod pulse;
pub mod xdp;
