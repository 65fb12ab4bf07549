//! What goes along with an upgrade besides connections that live, and what is left where one fails.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;
use xlvs::pulse::State;

use super::daemon::{Daemon, VIP};
use super::lab::Lab;
use super::load::Load;
use super::rig::{Rig, wait_until};
use super::shortcut::{self, ask, ask_until_lent, sockets, udp_service};
use super::upgrade::{ALL, LISTENER, Relay, program, relayed};

fn words(listing: &str) -> String {
    listing.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_takes_the_shortcut_is_counted_once() {
    let rig = Rig::new();
    shortcut::open(&rig);
    let daemon = Daemon::start_with(&rig, shortcut::AT_ONCE);
    udp_service(&daemon);
    let (client, server) = sockets(&rig);
    let mut asked = ask_until_lent(&daemon, &client, &server);
    for _ in 0..3 {
        assert!((0..300).all(|_| ask(&client, &server)));
        daemon.upgrade("");
        assert!(daemon.listing("-Lnc").contains("UDP 04:5"), "{}", daemon.listing("-Lnc"));
        asked += 300 + ask_until_lent(&daemon, &client, &server);
    }
    let status = daemon.status();
    assert_eq!((status.packets.received, status.packets.imbalance()), (2 * asked, 0), "{status:?}");
    let counted = format!("UDP {VIP}:53 1 {asked} {asked} {} {}", 33 * asked, 32 * asked);
    let stats = || words(&daemon.listing("-Ln --stats --exact"));
    wait_until("the counters are right", || stats().contains(&counted));
    daemon.stop();
}

#[test]
fn a_deleted_server_keeps_its_connections_and_gets_nothing() {
    let rig = Rig::new();
    let daemon = Daemon::start_with(&rig, "shortcut = false\n");
    udp_service(&daemon);
    let (client, server) = sockets(&rig);
    wait_until("the server answers", || ask(&client, &server));
    daemon.ipvsadm(&format!("-d -u {VIP}:53 -r 10.2.0.2:5353"));
    assert!(!ask(&client, &server), "a deleted one gets nothing");
    daemon.upgrade("");
    assert!(!ask(&client, &server), "nor does it from the next process");
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.2.0.2:5353 -m"));
    assert!(ask(&client, &server));
    let listed = words(&daemon.listing("-Ln"));
    assert!(listed.contains("10.2.0.2:5353 Masq 1 0 1"), "it has its connection back: {listed}");
    assert_eq!(daemon.status().connections, 1);
    daemon.stop();
}

#[test]
fn status_tells_the_service_from_the_process() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    assert_eq!(daemon.status().upgraded, None);
    wait_until("it runs for a while", || daemon.status().uptime >= 2);
    daemon.upgrade("");
    let status = daemon.status();
    assert!(status.uptime >= 2 && status.upgraded < Some(status.uptime), "{status:?}");
    let (_, text) = daemon.xlvs("status");
    assert!(text.contains(" s, upgraded "), "{text}");
    daemon.stop();
}

/// A new port's program would drop what its kernel serves, for good.
#[test]
fn a_port_that_was_to_be_added_is_left_as_it_was() {
    let lab = Lab::new();
    let [a, _b] = lab.start_both();
    lab.routers[0].ip("link add spare type veth peer name other");
    lab.routers[0].ip("link set spare up");
    lab.routers[0].ip("link set other up");
    a.change_settings("\"back\"]", "\"back\", \"spare\"]");
    let relay = program(&a, "heritage::successor_that_is_killed_when_it_is_ready");
    let (done, text) = a.try_upgrade(&format!("--program {}", relay.display()));
    assert!(!done, "{text}");
    let has_program = |port: &str| lab.routers[0].ip(&format!("-d link show {port}")).contains("prog/xdp");
    wait_until("the new port is as it was", || !has_program("spare"));
    assert!(has_program("front"));
    a.upgrade("");
    assert!(has_program("spare") && has_program("front"));
}

#[test]
#[ignore = "a part of another test"]
fn successor_that_is_killed_when_it_is_ready() {
    let Some(relay) = Relay::start() else { return };
    relay.pass_until(ALL);
    relay.answer();
    relay.kill();
}

#[test]
#[ignore = "a part of another test"]
fn successor_of_one_that_is_killed_before_it_has_told() {
    let Some(relay) = Relay::start() else { return };
    relay.pass_until(LISTENER);
    kill(getppid(), Signal::SIGKILL).unwrap();
}

const TELLS_NOTHING: &str = "heritage::successor_of_one_that_is_killed_before_it_has_told";

#[test]
fn who_has_no_partner_goes_on_with_a_part_and_says_so() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    udp_service(&daemon);
    let relay = program(&daemon, TELLS_NOTHING);
    let (done, text) = daemon.try_upgrade(&format!("--program {}", relay.display()));
    assert!(!done, "{text}");
    daemon.followed_by(relayed(&daemon));
    wait_until("the successor answers", || daemon.xlvs("status").0);
    assert!(daemon.log().contains("goes on with 0 of them, and all others are lost"), "{}", daemon.log());
    let (client, server) = sockets(&rig);
    wait_until("it serves", || ask(&client, &server));
}

#[test]
fn who_has_a_partner_leaves_it_all_connections() {
    const CONNECTIONS: usize = 20;
    let lab = Lab::new().with_key();
    let [a, b] = lab.start_both();
    let service = format!("{}:80", super::lab::VIP).parse().unwrap();
    let load = Load::start(&lab.client, service, CONNECTIONS, std::time::Duration::from_millis(20));
    let has_all = || b.status().replica.is_some_and(|replica| replica.in_sync);
    wait_until("the partner knows them", || has_all() && b.status().connections >= CONNECTIONS as u64);
    let relay = program(&a, TELLS_NOTHING);
    let (done, text) = a.try_upgrade(&format!("--program {}", relay.display()));
    assert!(!done, "{text}");
    wait_until("the partner is active", || b.status().pulse.unwrap().state == State::Active);
    load.await_all(load.now(), "every client is answered by way of the partner");
    load.finish();
    let successor = relayed(&a);
    wait_until("the successor has ended", || !Path::new(&format!("/proc/{successor}/ns/net")).exists());
    assert!(a.log().contains("this one leaves them to the partner"), "{}", a.log());
}
