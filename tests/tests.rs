//! Tests that need no privilege.
#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests misses the functions that they call")]

mod beyond;
mod completion;
mod datapath;
mod defence;
mod director;
mod fragments;
mod ftp;
mod ipvsadm;
mod layers;
mod lvscf;
mod lvscf_check;
mod manual;
mod marks;
mod model;
mod nanny;
mod properties;
mod runner;
mod scenarios;
mod settings;
mod shortcut;
mod support;
mod sysctl;
