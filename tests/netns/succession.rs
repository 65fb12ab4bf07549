//! Upgrades of a router that is one of a pair, when something else happens at the same time.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xlvs::pulse::State;

use super::daemon::Daemon;
use super::lab::{Lab, VIP, states};
use super::rig::wait_until;
use super::upgrade::{ALL, PREDECESSOR, READY, SWITCH, await_kind, from_predecessor, program, say_hello};

/// The pid of the partner, in a file beside the program that is started.
const PARTNER: &str = "partner.pid";

fn state(daemon: &Daemon) -> State {
    daemon.status().pulse.unwrap().state
}

/// The upgrade is refused for this reason, and the same process goes on.
fn refused(daemon: &Daemon, arguments: &str, why: &str) {
    let former = daemon.pid();
    let (done, text) = daemon.try_upgrade(arguments);
    assert!(!done && text.contains("the present process goes on") && text.contains(why), "{text}");
    assert!(daemon.xlvs("status").0, "{}", daemon.log());
    assert_eq!(daemon.pid(), former);
}

#[test]
fn what_could_not_be_of_the_pair_does_not_take_over() {
    let lab = Lab::new().with_key();
    let daemons = lab.start_both();
    daemons[0].change_settings("key_file = \"", "key_file = \"/nowhere");
    refused(&daemons[0], "", "cannot read the key");
    daemons[0].change_settings("key_file = \"/nowhere", "key_file = \"");
    lab.routers[0].ip("address del 10.2.0.1/24 dev back");
    refused(&daemons[0], "", "10.2.0.1 is not an address of this machine");
    assert_eq!(states(&daemons), [State::Active, State::Inactive]);
    assert!(lab.has_vip(0));
}

#[test]
fn a_partner_that_is_being_fenced_is_waited_for() {
    let mut lab = Lab::new();
    lab.settings = "[pulse]\nfence = \"/bin/sleep 4\"\nfence_timeout = 20\n".to_owned();
    let [a, b] = lab.start_both();
    drop(a.kill());
    wait_until("the partner is being fenced", || state(&b) == State::Fencing);
    refused(&b, "", "the partner is just being fenced; ask again");
    wait_until("the work has moved", || state(&b) == State::Active);
    b.upgrade("");
    assert_eq!(state(&b), State::Active);
}

#[test]
fn a_takeover_in_the_midst_ends_the_upgrade_and_not_the_connections() {
    let lab = Lab::new();
    let [a, b] = lab.start_both();
    let program = program(&b, "succession::successor_that_sees_a_takeover");
    std::fs::write(program.with_file_name(PARTNER), a.pid().to_string()).unwrap();
    refused(
        &b,
        &format!("--program {}", program.display()),
        "this router has become active meanwhile; ask again",
    );
    assert!(a.wait().0);
    wait_until("the work has moved", || state(&b) == State::Active);
    wait_until("the service answers", || lab.answers());
    b.upgrade("");
    assert!(lab.answers());
}

/// A file beside the program that this child was started as.
fn beside(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(PREDECESSOR).unwrap()).with_file_name(name)
}

/// Ends the partner once it has been told everything, and is ready when the work has moved.
#[test]
#[ignore = "a part of another test"]
fn successor_that_sees_a_takeover() {
    let Some(channel) = from_predecessor() else { return };
    say_hello(&channel, 1);
    await_kind(&channel, ALL);
    let pid = std::fs::read_to_string(beside(PARTNER)).unwrap();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGTERM).unwrap();
    wait_until("the address is here", || {
        let shown = Command::new("ip").args(["-4", "-brief", "address", "show"]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains(VIP)
    });
    channel.send(READY, &[], None).unwrap();
    await_kind(&channel, SWITCH);
}

/// A stopped process says nothing, but its kernel still answers for the address.
#[test]
fn who_follows_waits_for_an_address_as_long_as_the_one_before() {
    let lab = Lab::new();
    let [a, b] = lab.start_both();
    a.terminate();
    assert!(a.wait().0);
    wait_until("the work has moved", || state(&b) == State::Active);
    let a = lab.start(0);
    wait_until("it hears its partner", || {
        a.status().pulse.unwrap().partner.is_some_and(|partner| partner.heard)
    });
    a.upgrade("");
    b.signal(Signal::SIGSTOP);
    let (done, said) = a.xlvs("takeover");
    assert!(done, "{said}");
    wait_until("it has asked for the address", || a.log().contains(&format!("address {VIP} is in use")));
    b.signal(Signal::SIGCONT);
    wait_until("the work has moved back", || state(&a) == State::Active && state(&b) == State::Inactive);
    assert!(!a.log().contains("it is put up all the same"), "{}", a.log());
}
