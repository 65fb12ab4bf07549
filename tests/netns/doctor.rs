//! `xlvs doctor` on routers with known faults.

use std::process::Command;

use serde_json::Value;
use xlvs::admin::client::SOCKET_VARIABLE;

use super::daemon::Daemon;
use super::rig::Rig;

/// What it says in a rig's router: the exit code, and the findings.
fn findings(rig: &Rig, socket: &str, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xlvs"));
    command.arg("doctor").args(arguments).arg("--json").env(SOCKET_VARIABLE, socket);
    let output = rig.router.enter(|| command.output().unwrap());
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer["findings"].as_array().unwrap().clone())
}

/// Without a daemon.
fn without_daemon(rig: &Rig) -> (Option<i32>, Vec<Value>) {
    findings(rig, "/nonexistent", &["front", "back"])
}

#[track_caller]
fn of<'a>(findings: &'a [Value], interface: Option<&str>, topic: &str) -> &'a Value {
    let is_it = |finding: &&Value| finding["interface"].as_str() == interface && finding["topic"] == topic;
    findings.iter().find(is_it).unwrap_or_else(|| panic!("no {topic} of {interface:?} in {findings:#?}"))
}

#[track_caller]
fn check(finding: &Value, grade: &str, found: &str) {
    assert_eq!(finding["grade"], grade, "{finding}");
    assert!(finding["found"].as_str().unwrap().contains(found), "{finding}");
}

fn forwarding(rig: &Rig) {
    rig.router.run("sysctl -qw net.ipv4.ip_forward=1");
}

#[test]
fn nothing_is_bad_about_the_rig_of_the_tests() {
    let rig = Rig::new();
    forwarding(&rig);
    let (code, findings) = without_daemon(&rig);
    let bad: Vec<_> = findings.iter().filter(|finding| finding["grade"] == "bad").collect();
    assert_eq!((code, &bad[..]), (Some(0), &[][..]));
    check(of(&findings, Some("front"), "native XDP"), "good", "veth");
    check(of(&findings, Some("front"), "zero-copy"), "fair", "(veth) cannot");
    check(of(&findings, Some("back"), "checksums"), "fair", "another network namespace");
    check(of(&findings, Some("back"), "MTU"), "good", "1500");
}

#[test]
fn faults_are_found_and_told_with_their_remedy() {
    let rig = Rig::with_queues(2);
    rig.router.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.front.rp_filter=1");
    rig.router.run("ip link set dev back mtu 9300");
    rig.router.run("ethtool -L back rx 1 tx 1");
    let object = format!("{}/inject.bpf.o", env!("OUT_DIR"));
    rig.router.run(&format!("ip link set dev front xdpgeneric obj {object} sec xdp"));
    let (code, findings) = without_daemon(&rig);
    assert_eq!(code, Some(1));
    check(of(&findings, None, "ip_forward"), "bad", "not forwarded");
    check(of(&findings, Some("front"), "reverse-path filter"), "fair", "strict");
    check(of(&findings, Some("front"), "XDP program"), "bad", "xlvs_inject");
    check(of(&findings, Some("front"), "queues"), "bad", "only 1 served");
    check(of(&findings, Some("back"), "MTU"), "bad", "9300");
    // What is advised is done, and the faults are gone.
    for (interface, topic, command) in [
        (None, "ip_forward", "sysctl -w net.ipv4.ip_forward=1"),
        (Some("front"), "XDP program", "ip link set dev front xdpgeneric off"),
        (Some("front"), "queues", "ethtool -L front rx 1 tx 1"),
        (Some("back"), "MTU", "ip link set dev back mtu 9216"),
    ] {
        let finding = of(&findings, interface, topic);
        assert!(finding["advice"].as_str().unwrap().contains(command), "{finding}");
        rig.router.run(command);
    }
    let (code, findings) = without_daemon(&rig);
    assert_eq!(code, Some(0), "{findings:#?}");
}

#[test]
fn the_other_end_of_a_cable_is_looked_at_where_it_can_be() {
    let rig = Rig::new();
    forwarding(&rig);
    rig.router.run("ip link add here type veth peer name there");
    let told = || findings(&rig, "/nonexistent", &["here"]).1;
    check(of(&told(), Some("here"), "checksums"), "fair", "half-made by there");
    rig.router.run("ethtool -K there tx off");
    check(of(&told(), Some("here"), "checksums"), "good", "whole");
}

#[test]
fn a_running_daemon_is_asked_what_it_has_got() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    let socket = daemon.control_socket();
    let (code, findings) = findings(&rig, socket.to_str().unwrap(), &[]);
    assert_eq!(code, Some(0), "{findings:#?}");
    check(of(&findings, Some("front"), "XDP program"), "good", "the daemon's own");
    check(of(&findings, Some("back"), "zero-copy"), "fair", "copy, not zero-copy: front refuses it");
    daemon.stop();
}
