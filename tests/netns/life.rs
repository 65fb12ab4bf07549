//! The daemon's life: what it leaves behind, what it finds, and what happens around it.

use std::fs;
use std::net::TcpStream;

use super::daemon::Daemon;
use super::rig::{PATIENCE, Rig, wait_until};

const LVS: &str = "primary = 10.1.0.1\nvirtual web {\n active = 1\n address = 10.1.0.30 front:1\n vip_nmask = 255.255.255.255\n port = 80\n server one {\n address = 10.2.0.2\n active = 1\n }\n}\n";

fn addresses(rig: &Rig) -> String {
    rig.router.ip("-4 -brief address show dev front")
}

#[test]
fn an_interface_that_is_deleted_ends_the_daemon_with_a_word() {
    let rig = Rig::new();
    let daemon = Daemon::with_lvs(&rig, LVS);
    rig.router.ip("link delete back");
    let (success, log) = daemon.wait();
    assert!(!success, "{log}");
    assert!(log.contains("interface back has gone"), "{log}");
    assert!(!addresses(&rig).contains("10.1.0.30"), "its address is taken back: {}", addresses(&rig));
}

#[test]
fn what_a_killed_daemon_left_is_taken_back_by_the_next() {
    let rig = Rig::new();
    let before = addresses(&rig);
    let directory = Daemon::with_lvs(&rig, LVS).kill();
    assert!(addresses(&rig).contains("10.1.0.30"), "left by the killed one: {}", addresses(&rig));
    let moved = LVS.replace("10.1.0.30", "10.1.0.40");
    let next = Daemon::with_lvs_in(&rig, directory, &moved);
    wait_until("the address has moved", || {
        addresses(&rig).contains("10.1.0.40") && !addresses(&rig).contains("10.1.0.30")
    });
    next.stop();
    assert_eq!(addresses(&rig), before, "as found");
}

#[test]
fn an_address_that_is_flushed_is_put_back() {
    let rig = Rig::new();
    let daemon = Daemon::with_lvs(&rig, LVS);
    wait_until("the daemon takes the address for its own", || {
        let address = "10.1.0.30:80".parse().unwrap();
        let refused = rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
        refused.is_err() && daemon.packets().received > 0
    });
    rig.router.ip("address delete 10.1.0.30/32 dev front");
    wait_until("the address is back", || addresses(&rig).contains("10.1.0.30"));
    daemon.stop();
}

#[test]
fn an_address_of_the_administrators_stays() {
    let rig = Rig::new();
    rig.router.ip("address add 10.1.0.30/32 dev front");
    let before = addresses(&rig);
    Daemon::with_lvs(&rig, LVS).stop();
    assert_eq!(addresses(&rig), before);
}

#[test]
fn a_file_in_the_sockets_place_is_not_touched() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("control.sock");
    fs::write(&precious, "precious").unwrap();
    let (success, log) = Daemon::spawn(&rig, directory, Some(LVS), &[]).wait();
    assert!(!success, "{log}");
    assert!(log.contains("is not a socket"), "{log}");
}

#[test]
fn settings_of_ipvs_are_listed_read_set_and_refused() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    let (_, all) = daemon.xlvs("sysctl");
    assert_eq!(daemon.xlvs("sysctl -a").1, all);
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines.is_sorted() && lines.len() == 32, "{all}");
    assert!(all.contains("net.ipv4.vs.sync_threshold = 3\t50\n"), "{all}");
    assert_eq!(
        daemon.xlvs("sysctl -w net.ipv4.vs.drop_entry=3"),
        (true, "net.ipv4.vs.drop_entry = 3\n".into())
    );
    assert_eq!(daemon.xlvs("sysctl net/ipv4/vs/drop_entry"), (true, "net.ipv4.vs.drop_entry = 3\n".into()));
    // Memory is looked at while a mode is automatic; there is more than `amemthresh`.
    daemon.xlvs("sysctl net.ipv4.vs.drop_packet=2");
    assert_eq!(daemon.xlvs("sysctl net.ipv4.vs.drop_packet"), (true, "net.ipv4.vs.drop_packet = 1\n".into()));
    daemon.xlvs("sysctl net.ipv4.vs.amemthresh=2147483647");
    wait_until("scarce memory makes the mode active", || {
        daemon.xlvs("sysctl net.ipv4.vs.drop_packet").1 == "net.ipv4.vs.drop_packet = 2\n"
    });
    let (done, refusal) = daemon.xlvs("sysctl net.ipv4.vs.drop_entry=4");
    assert!(!done);
    assert_eq!(
        refusal,
        "sysctl: setting key \"net.ipv4.vs.drop_entry\": Invalid argument\n\
         it takes a whole number from 0 to 3, not `4'\n"
    );
    assert!(!daemon.xlvs("sysctl net.ipv4.vs.nonsense").0);
    daemon.stop();
}
