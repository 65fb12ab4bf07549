//! Two routers, each with the real daemon, between a client and a real nginx; what a client sees when one of them fails.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use xlvs::host::clock::Clock;
use xlvs::pulse::{Role, State, Word};

use super::daemon::Daemon;
use super::lab::{DEADTIME, KEEPALIVE, LVS, Lab, VIP, states};
use super::rig::wait_until;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_work_moves_in_a_keepalive_when_told_and_stays_where_it_is() {
    let lab = Lab::new();
    let [a, b] = lab.start_both();
    assert_eq!([lab.has_vip(0), lab.has_vip(1)], [true, false]);
    let text = lab.client.run(&format!("curl -s --max-time 2 http://{VIP}/"));
    assert_eq!(text, "hello");
    let (_, shown) = b.xlvs("status");
    assert!(shown.contains("backup: inactive for "), "{shown}");
    assert!(shown.contains("partner: active; heard on the public path 0."), "{shown}");
    a.terminate();
    assert!(lab.outage("SIGTERM", 1) < KEEPALIVE + SECOND);
    let (success, log) = a.wait();
    assert!(success && log.contains("Terminating due to signal 15"), "{log}");
    assert_eq!([lab.has_vip(0), lab.has_vip(1)], [false, true]);
    assert!(b.log().contains("primary inactive: activating lvs"), "{}", b.log());
    // The primary comes back, and does not take the work.
    let a = lab.start(0);
    wait_until("it hears its partner", || {
        let partner = a.status().pulse.and_then(|pulse| pulse.partner);
        partner.is_some_and(|partner| partner.word == Some(Word::Running) && partner.private_ms.is_some())
    });
    wait_until("deadtime is over", || a.status().uptime > DEADTIME.as_secs());
    let daemons = [a, b];
    assert_eq!(states(&daemons), [State::Inactive, State::Active]);
    // An operator moves it.
    let (done, said) = daemons[1].xlvs("standby");
    assert!(done && said.starts_with("becoming inactive"), "{said}");
    assert!(lab.outage("standby", 0) < KEEPALIVE + SECOND);
    wait_until("it has moved", || states(&daemons) == [State::Active, State::Inactive]);
    let (done, said) = daemons[1].xlvs("takeover");
    assert!(!done && said.contains("run `xlvs standby' there"), "{said}");
    assert!(daemons[1].xlvs("status --json").1.contains("\"state\":\"inactive\""));
    wait_until("its neighbours have been told", || {
        daemons[0].log().contains("gratuitous lvs arps finished: 10.1.0.30")
    });
    daemons.into_iter().for_each(|daemon| drop(daemon.stop()));
    assert_eq!([lab.has_vip(0), lab.has_vip(1)], [false, false]);
}

#[test]
fn a_killed_router_is_replaced_after_deadtime_although_its_addresses_stay() {
    let lab = Lab::new();
    let [a, b] = lab.start_both();
    let left = a.kill();
    assert!(lab.outage("kill -9", 1) < DEADTIME + SECOND);
    assert!(lab.has_vip(0), "nobody has taken it away");
    let log = b.log();
    assert!(log.contains("partner dead: activating lvs"), "{log}");
    assert!(log.contains("address 10.1.0.30 is in use by "), "{log}");
    // Whoever starts it again cleans up.
    let a = Daemon::of_pair(&lab.routers[0], left, LVS, "");
    wait_until("its addresses are gone", || !lab.has_vip(0));
    let daemons = [a, b];
    assert_eq!(states(&daemons), [State::Inactive, State::Active]);
    wait_until("the service answers", || lab.answers());
}

#[test]
fn a_lost_link_moves_the_work() {
    let lab = Lab::new();
    let daemons = lab.start_both();
    let [front, _] = Lab::ports(0);
    lab.switch.ip(&format!("link set {front} down"));
    // The private path still works, so the partner is told.
    assert!(lab.outage("link down", 1) < KEEPALIVE + SECOND);
    assert_eq!(states(&daemons), [State::Inactive, State::Active]);
    let log = daemons[0].log();
    assert!(log.contains("Primary NIC: link down"), "{log}");
    assert!(log.contains("local link failure: deactivating LVS"), "{log}");
    lab.switch.ip(&format!("link set {front} up"));
    wait_until("it hears again", || daemons[0].log().contains("Local NIC link(s) restored: Pulse enabled"));
    assert_eq!(states(&daemons), [State::Inactive, State::Active], "no failback");
}

#[test]
fn a_split_brain_heals_in_favour_of_the_primary() {
    let lab = Lab::new().with_key();
    let daemons = lab.start_both();
    let isolate = |state: &str| {
        for port in (0..2).flat_map(Lab::ports) {
            lab.switch.run(&format!("bridge link set dev {port} isolated {state}"));
        }
    };
    isolate("on");
    wait_until("both are active", || states(&daemons) == [State::Active, State::Active]);
    let clock = Clock::start();
    isolate("off");
    wait_until("one is active", || states(&daemons) == [State::Active, State::Inactive]);
    let healed = Duration::from_nanos(clock.now().as_nanos());
    println!("split brain: two actives for {} ms after the path was back", healed.as_millis());
    assert!(healed < KEEPALIVE + SECOND);
    assert!(daemons[1].log().contains("partner active: deactivating LVS"), "{}", daemons[1].log());
    assert!(daemons[0].log().contains("resending arps"), "{}", daemons[0].log());
    assert!(!lab.has_vip(1));
    assert!(daemons[1].listing("-Ln").contains("10.2.0.100:80"), "the loser keeps its table");
    wait_until("clients find the primary", || lab.answers());
}

#[test]
fn a_third_hosts_heartbeats_change_nothing_and_are_counted() {
    let lab = Lab::new().with_key();
    let daemons = lab.start_both();
    lab.client.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    lab.client.ip("address add 10.1.0.2/32 dev lo");
    let send = |source: &str, bytes: &[u8]| {
        lab.client.enter(|| {
            UdpSocket::bind((source, 5390)).unwrap().send_to(bytes, ("10.1.0.1", 539)).unwrap();
        });
    };
    send("10.1.0.100", &Word::Running.to_bytes());
    send("10.1.0.2", &Word::Running.to_bytes());
    send("10.1.0.2", &[0; 68]);
    send("10.1.0.2", b"xlvP\x01");
    let refused = || daemons[0].status().pulse.and_then(|pulse| pulse.partner).unwrap().refused;
    wait_until("all are counted", || {
        (refused().stranger, refused().unlike, refused().malformed) == (1, 1, 2)
    });
    assert_eq!(states(&daemons), [State::Active, State::Inactive]);
    assert!(!daemons[0].log().contains("resending arps"), "{}", daemons[0].log());
    assert_eq!(daemons[0].status().pulse.unwrap().role, Role::Primary);
    assert!(lab.answers());
}

#[test]
fn whoever_is_neither_director_is_told_so() {
    let lab = Lab::new();
    for (lvs, said) in [
        (
            LVS.replace("backup_active = 1", "backup_active = 0").replace("10.1.0.1\n", "10.1.0.9\n"),
            "We are backup node and backup is marked inactive -- exiting pulse",
        ),
        (
            LVS.replace("10.1.0.1\n", "10.1.0.9\n").replace("10.1.0.2\n", "10.1.0.8\n"),
            "failed to bind to heartbeat address: 10.1.0.8:539: ",
        ),
        (format!("{LVS}service = fos\n"), "service = fos: failover of local services is not run"),
    ] {
        let (success, log) = Daemon::spawn_in(&lab.routers[0], tempfile::tempdir().unwrap(), &lvs, "").wait();
        assert!(!success && log.contains(said), "{log}");
    }
}

/// Asks by a connection that stays; retransmissions after a takeover take their time.
fn ask(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(10 * SECOND)).unwrap();
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").is_err() {
        return false;
    }
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while !text.ends_with(b"hello") {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => text.extend(&buffer[..length]),
            _ => return false,
        }
    }
    true
}

#[test]
fn connections_go_on_when_their_router_is_killed_and_when_the_work_moves_back() {
    const CONNECTIONS: u64 = 100;
    let lab = Lab::new().with_key();
    let [a, b] = lab.start_both();
    let address: SocketAddr = (VIP.parse::<std::net::IpAddr>().unwrap(), 80).into();
    let connect = || (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let streams: Vec<TcpStream> = lab.client.enter(connect);
    assert!(streams.iter().all(ask));
    let replica = |daemon: &Daemon| daemon.status().replica.expect("there is a key");
    let has_all = |active: &Daemon, standby: &Daemon| {
        let (told, has) = (replica(active), replica(standby));
        let count = (active.status().connections, standby.status().connections);
        told.in_sync && has.in_sync && told.lag_ms == 0 && count.0 == count.1 && count.0 >= CONNECTIONS
    };
    wait_until("the backup has all connections", || has_all(&a, &b));
    let left = a.kill();
    println!("kill -9 with connections: no answer for {} ms", lab.outage("kill -9", 1).as_millis());
    assert_eq!(streams.iter().filter(|stream| ask(stream)).count() as u64, CONNECTIONS, "after kill -9");
    let a = Daemon::of_pair(&lab.routers[0], left, LVS, &lab.settings);
    wait_until("the primary has been told of all", || has_all(&b, &a));
    let daemons = [a, b];
    assert_eq!(states(&daemons), [State::Inactive, State::Active]);
    wait_until("the backup hears it", || {
        daemons[1].status().pulse.and_then(|pulse| pulse.partner).is_some_and(|partner| partner.heard)
    });
    let (done, said) = daemons[1].xlvs("standby");
    assert!(done, "{said}");
    wait_until("it has moved", || states(&daemons) == [State::Active, State::Inactive]);
    assert_eq!(streams.iter().filter(|stream| ask(stream)).count() as u64, CONNECTIONS, "after standby");
    let (_, shown) = daemons[0].xlvs("status");
    assert!(shown.contains("connections: telling the partner"), "{shown}");
    for router in [0, 1] {
        let report = replica(&daemons[router]);
        let strange = report.refused.iter().filter(|(reason, _)| reason != "of another run").count();
        assert_eq!((strange, report.records_refused), (0, 0), "router {router}: {report:?}");
    }
}
