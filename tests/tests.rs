//! Tests that need no privilege.
#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests misses the functions that they call")]

mod allocation;
mod beyond;
mod completion;
mod datapath;
mod defence;
mod director;
mod flood;
mod fragments;
mod ftp;
mod install;
mod ipvsadm;
mod layers;
mod lvscf;
mod lvscf_check;
mod lvscf_health;
mod lvscf_traps;
mod manual;
mod marks;
mod model;
mod nanny;
mod properties;
mod pulse;
mod replica;
#[path = "../benches/rig/mod.rs"]
#[allow(dead_code, reason = "the benchmarks use more of it")]
mod rig;
mod runner;
mod scenarios;
mod servers;
mod settings;
mod shortcut;
mod support;
mod sync;
mod sysctl;
mod table;
