//! Two routers with a cable of their own between them, which is cut: connections are told by the public path meanwhile.

use xlvs::director::protocol::Status;
use xlvs::ipvs::replica::{Path, Report};
use xlvs::pulse::State;

use super::daemon::Daemon;
use super::lab::Lab;
use super::pair::{await_active, await_synchronised, lab_with_replica, load};
use super::rig::wait_until;

const BROKEN: &str = "the private path to the partner is broken";
const MENDED: &str = "connections are told by the private path to the partner again";

/// ```text
/// A 10.3.0.1 ── cable ── 10.3.0.2 B
/// ```
fn lab_with_cable() -> Lab {
    let mut lab = lab_with_replica();
    let [a, b] = &lab.routers;
    a.ip(&format!("link add cable type veth peer name cable netns {}", b.path()));
    for (router, number) in [(a, 1), (b, 2)] {
        router.ip(&format!("address add 10.3.0.{number}/24 dev cable"));
        router.ip("link set cable up");
    }
    lab.lvs = lab.lvs.replace("private = 10.2.", "private = 10.3.").replace("links = 1", "links = 0");
    lab
}

/// What this router sends by the cable is not for anybody there.
fn misdirect(lab: &Lab, router: usize) {
    let partner = 2 - router;
    let nobody = "lladdr 02:00:00:00:00:99 dev cable nud permanent";
    lab.routers[router].ip(&format!("neighbour replace 10.3.0.{partner} {nobody}"));
}

fn set_cable(lab: &Lab, state: &str) {
    lab.routers[0].ip(&format!("link set cable {state}"));
}

fn replica(daemon: &Daemon) -> Report {
    let status: Status = daemon.status();
    status.replica.unwrap()
}

/// Waits until the standby has all that the active router has.
fn await_equal(active: &Daemon, standby: &Daemon) {
    wait_until("the standby has all connections", || {
        let (told, counts) = (replica(active), [active, standby].map(|daemon| daemon.status().connections));
        told.in_sync && told.lag_ms == 0 && counts[0] == counts[1]
    });
}

fn await_path(daemons: &[Daemon; 2], path: Path) {
    wait_until("both tell by this path", || daemons.iter().all(|daemon| replica(daemon).path == Some(path)));
}

fn times(daemon: &Daemon, text: &str) -> usize {
    daemon.log().matches(text).count()
}

#[test]
fn connections_opened_after_the_cable_is_cut_outlive_their_router() {
    const EACH: usize = 40;
    let lab = lab_with_cable();
    let [a, b] = lab.start_both();
    let first = load(&lab, EACH);
    await_synchronised(&b, EACH, &first);
    assert_eq!(replica(&a).path, Some(Path::Private));
    set_cable(&lab, "down");
    let second = load(&lab, EACH);
    await_equal(&a, &b);
    let left = a.kill();
    let settle = |daemon: &Daemon| {
        wait_until("the other router is active", || daemon.status().pulse.unwrap().state == State::Active);
        for load in [&first, &second] {
            load.await_all(load.now(), "every client is answered after the takeover");
        }
    };
    settle(&b);
    // It is told of all though the cable is still cut. New connections are told of before the end, on SIGTERM.
    let a = lab.start_in(0, left);
    await_equal(&b, &a);
    let third = load(&lab, EACH);
    b.terminate();
    settle(&a);
    third.await_all(third.now(), "every client is answered after SIGTERM");
    let (done, log) = b.wait();
    assert!(done, "{log}");
    [first, second, third].into_iter().for_each(|load| assert!(load.finish() > 0));
}

#[test]
fn a_cable_that_is_cut_is_shown_and_does_not_hinder_standby() {
    const CONNECTIONS: usize = 20;
    let lab = lab_with_cable();
    let daemons = lab.start_both();
    let load = load(&lab, CONNECTIONS);
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    let (_, shown) = daemons[0].xlvs("status");
    assert!(shown.contains("connections: telling the partner by the private path"), "{shown}");
    // In one direction only.
    misdirect(&lab, 0);
    await_path(&daemons, Path::Public);
    for (daemon, does) in daemons.iter().zip(["telling the partner", "told by the partner"]) {
        let (_, shown) = daemon.xlvs("status");
        let lines = [
            format!("connections: {does} by the public path"),
            "  the private path has carried nothing about connections for ".to_owned(),
        ];
        assert!(lines.iter().all(|line| shown.contains(line)), "{shown}");
        let (_, json) = daemon.xlvs("status --json");
        assert!(json.contains(r#""path":"public","paths_down":[{"path":"private","since_ms":"#), "{json}");
    }
    let (done, said) = daemons[0].xlvs("standby");
    assert!(done, "{said}");
    await_active(&daemons, 1);
    load.await_all(load.now(), "every client is answered by way of the other router");
    lab.routers[0].ip("neighbour del 10.3.0.2 dev cable");
    await_path(&daemons, Path::Private);
    for daemon in &daemons {
        assert_eq!((times(daemon, BROKEN), times(daemon, MENDED)), (1, 1), "{}", daemon.log());
        assert_eq!(replica(daemon).paths_down, []);
    }
    load.finish();
}

#[test]
fn an_address_that_vanishes_and_comes_back_is_no_matter() {
    const CONNECTIONS: usize = 20;
    let lab = lab_with_cable();
    let daemons = lab.start_both();
    let load = load(&lab, CONNECTIONS);
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    lab.routers[0].ip("address del 10.3.0.1/24 dev cable");
    await_path(&daemons, Path::Public);
    // Whoever starts the replica anew, as another deadtime does, cannot bind that address.
    daemons[0].write_lvs(&lab.lvs.replace("deadtime = 3", "deadtime = 4"));
    let (done, said) = daemons[0].xlvs("reload");
    assert!(done, "{said}");
    wait_until("it is tried again", || {
        daemons[0].log().contains("cannot bind 10.3.0.1:5390, which is tried again")
    });
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    lab.routers[0].ip("address add 10.3.0.1/24 dev cable");
    await_path(&daemons, Path::Private);
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    load.finish();
}
