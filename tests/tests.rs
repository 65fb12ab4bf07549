//! Tests that need no privilege.
#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests misses the functions that they call")]

mod datapath;
mod defence;
mod director;
mod fragments;
mod ipvsadm;
mod layers;
mod lvscf;
mod lvscf_check;
mod marks;
mod model;
mod nanny;
mod random;
mod runner;
mod scenarios;
mod settings;
mod support;
