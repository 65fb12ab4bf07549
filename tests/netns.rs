//! Privileged tests: they need root, and do all they do in network namespaces of their own.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod netns {
    mod attach;
    mod big_table;
    mod checks;
    mod daemon;
    mod doctor;
    mod dut;
    mod fill;
    mod flood;
    mod fragments;
    mod ftp;
    mod heritage;
    mod host;
    mod jumbo;
    mod kinds;
    mod lab;
    mod ldirectord;
    mod life;
    mod load;
    mod local;
    mod machine;
    mod namespace;
    mod pair;
    mod pair_cables;
    mod pulse;
    mod queues;
    mod reconfigure;
    mod rig;
    mod samples;
    mod scale;
    mod scenarios;
    mod sending;
    mod servers;
    mod service;
    mod shortcut;
    mod steering;
    mod succession;
    mod systemd;
    mod traffic;
    mod unit;
    mod upgrade;
    mod wire;
}

mod servers;
#[allow(dead_code, reason = "the modelled devices serve the unprivileged tests")]
mod support;
