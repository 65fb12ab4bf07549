//! Connections that never end, between a client and two servers, while the routers between them take over from each other.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::Socket;
use xlvs::ipvs::replica::Path;
use xlvs::pulse::State;

use super::daemon::Daemon;
use super::lab::{DEADTIME, LVS, Lab, VIP, states};
use super::load::Load;
use super::rig::{PATIENCE, wait_until};
use super::wire::packet_socket;

const SECOND: Duration = Duration::from_secs(1);
/// How long no client may get an answer when the work moves on purpose. It takes less than 200 ms; other tests at the same time
/// make it more.
const HAND_OVER: Duration = Duration::from_millis(500);
/// The long form of these tests (`make test-pair`): as many connections, and as many takeovers in a row.
const CONNECTIONS: &str = "XLVS_PAIR_CONNECTIONS";
const TAKEOVERS: &str = "XLVS_PAIR_TAKEOVERS";

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// The routers tell each other of connections by IPVS's own protocol, often enough for one that has just been started.
fn lab() -> Lab {
    let mut lab = silent_lab();
    lab.lvs.insert_str(0, "syncdaemon = 1\nsyncd_iface = back\nsyncd_id = 7\n");
    lab.settings = "[sysctl]\nsync_threshold = \"2 6\"\n".to_owned();
    lab
}

/// They do so by the protocol of xlvs, which comes with a key.
pub fn lab_with_replica() -> Lab {
    silent_lab().with_key()
}

fn silent_lab() -> Lab {
    let mut lab = Lab::new();
    let another = " server two {\n  address = 10.2.0.101\n  active = 1\n }\n}\n";
    lab.lvs = LVS.strip_suffix("}\n").unwrap().to_owned() + another;
    // A client that can reach the servers directly would reset what it gets from them by mistake, and be heard.
    lab.client.ip(&format!("route add 10.2.0.0/24 via {VIP}"));
    lab
}

pub fn load(lab: &Lab, connections: usize) -> Load {
    let service: SocketAddr = format!("{VIP}:80").parse().unwrap();
    Load::start(&lab.client, service, connections, Duration::from_millis(connections as u64))
}

pub fn await_active(daemons: &[Daemon; 2], active: usize) {
    let wanted = [0, 1].map(|router| if router == active { State::Active } else { State::Inactive });
    wait_until("the work has moved", || states(daemons) == wanted);
}

/// Waits until a router knows all connections.
pub fn await_synchronised(daemon: &Daemon, connections: usize, load: &Load) {
    wait_until("the backup knows all connections", || {
        load.check();
        let status = daemon.status();
        let has_all = status.replica.is_none_or(|replica| replica.in_sync);
        has_all && status.connections as usize >= connections
    });
}

/// Waits until router `next` is active and every client has been answered by way of it; returns the longest silence.
fn settle(load: &Load, what: &str, next: &Daemon) -> Duration {
    wait_until("the other router is active", || {
        next.status().pulse.is_some_and(|pulse| pulse.state == State::Active)
    });
    load.await_all(load.now(), "every client is answered by way of the other router");
    let silence = load.silence();
    println!("{what}: no answer for {} ms", silence.as_millis());
    silence
}

#[test]
fn connections_outlive_every_kind_of_takeover() {
    outlive_every_kind_of_takeover(&lab());
}

#[test]
fn connections_outlive_every_kind_of_takeover_by_replica() {
    outlive_every_kind_of_takeover(&lab_with_replica());
}

fn outlive_every_kind_of_takeover(lab: &Lab) {
    let connections = number(CONNECTIONS, 500);
    let [a, b] = lab.start_both();
    let load = load(lab, connections);
    await_synchronised(&b, connections, &load);

    load.mark();
    a.upgrade("");
    let silence = settle(&load, "upgrade", &a);
    assert!(silence < HAND_OVER, "{silence:?}");
    let states = [&a, &b].map(|daemon| daemon.status().pulse.unwrap().state);
    assert_eq!(states, [State::Active, State::Inactive]);
    await_synchronised(&b, connections, &load);

    load.mark();
    a.terminate();
    let silence = settle(&load, "SIGTERM", &b);
    let (success, log) = a.wait();
    assert!(success, "{log}");
    assert!(silence < HAND_OVER, "{silence:?}");

    let a = lab.start(0);
    await_synchronised(&a, connections, &load);
    load.mark();
    let left = b.kill();
    let silence = settle(&load, "kill -9", &a);
    assert!(silence < DEADTIME + SECOND, "{silence:?}");

    let b = lab.start_in(1, left);
    await_synchronised(&b, connections, &load);
    load.mark();
    let [front, _] = Lab::ports(0);
    lab.switch.ip(&format!("link set {front} down"));
    let silence = settle(&load, "link down", &b);
    // The partner is told; it does not wait for silence.
    assert!(silence < DEADTIME - SECOND, "{silence:?}");

    lab.switch.ip(&format!("link set {front} up"));
    wait_until("it hears again", || a.log().contains("Local NIC link(s) restored: Pulse enabled"));
    await_synchronised(&a, connections, &load);
    load.mark();
    lab.set_cables(1, "down");
    drop(b.kill());
    let silence = settle(&load, "power-off", &a);
    assert!(silence < DEADTIME + SECOND, "{silence:?}");

    let answers = load.finish();
    println!("{connections} connections, {answers} answers, none broke");
    a.stop();
}

/// Waits until a router has told its neighbours of both addresses since it became active the last time.
fn await_announced(daemon: &Daemon) {
    wait_until("both addresses are announced", || {
        let log = daemon.log();
        let since = log.rsplit("all addresses are up").next().unwrap_or_default();
        since.matches("gratuitous lvs arps finished").count() == 2
    });
}

/// What a daemon holds of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    /// BPF programs and maps.
    bpf: usize,
    threads: usize,
    addresses: String,
}

fn holdings(lab: &Lab, router: usize, daemon: &Daemon) -> Holdings {
    let of_process = |what: &str| fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).unwrap();
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    let links: Vec<_> = of_process("fd").map(|entry| link(entry.unwrap())).collect();
    let is_bpf = |link: &&std::path::PathBuf| link.to_string_lossy().contains("bpf");
    Holdings {
        descriptors: links.len(),
        bpf: links.iter().filter(is_bpf).count(),
        threads: of_process("task").count(),
        addresses: lab.routers[router].ip("-4 -brief address show"),
    }
}

/// Resident memory in kilobytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn many_takeovers_in_a_row_lose_and_leak_nothing() {
    take_over_many_times(&lab());
}

#[test]
fn many_takeovers_in_a_row_lose_and_leak_nothing_by_replica() {
    take_over_many_times(&lab_with_replica());
}

fn take_over_many_times(lab: &Lab) {
    const MOST_GROWTH: u64 = 8 * 1024;
    let (connections, takeovers) = (number(CONNECTIONS, 200), number(TAKEOVERS, 10));
    let daemons = lab.start_both();
    let load = load(lab, connections);
    await_synchronised(&daemons[1], connections, &load);
    let move_to = |next: usize| {
        // A router that has less than the other one does not take over.
        await_synchronised(&daemons[next], connections, &load);
        load.mark();
        let (done, said) = daemons[1 - next].xlvs("standby");
        assert!(done, "{said}");
        await_active(&daemons, next);
        load.await_all(load.now(), "every client is answered by way of the other router");
        load.silence()
    };
    // The first ones open what stays open.
    let mut silences = vec![move_to(1), move_to(0)];
    let look = || [0, 1].map(|router| (holdings(lab, router, &daemons[router]), memory(&daemons[router])));
    await_announced(&daemons[0]);
    let before = look();
    silences.extend((0..takeovers).map(|turn| move_to((turn + 1) % 2)));
    if takeovers % 2 == 1 {
        silences.push(move_to(0));
    }
    silences.sort();
    let [median, longest] = [silences[silences.len() / 2], *silences.last().unwrap()];
    println!(
        "{} takeovers: no answer for {} ms in the median, {} ms at most",
        silences.len(),
        median.as_millis(),
        longest.as_millis()
    );
    await_announced(&daemons[0]);
    wait_until("what is held is what was held", || {
        look().iter().zip(&before).all(|((held, _), (former, _))| held == former)
    });
    for (router, (then, now)) in before.iter().zip(look()).enumerate() {
        println!("router {router}: {} kB, then {} kB", then.1, now.1);
        assert!(now.1 < then.1 + MOST_GROWTH, "router {router}");
    }
    let answers = load.finish();
    println!("{connections} connections, {answers} answers, none broke");
    daemons.into_iter().for_each(|daemon| drop(daemon.stop()));
    for router in 0..2 {
        assert!(!lab.has_vip(router));
        let links = lab.routers[router].ip("-details link show");
        assert!(!links.contains("prog/xdp"), "{links}");
    }
}

#[test]
fn a_partner_that_is_not_told_is_not_given_the_work() {
    let lab = lab_with_replica();
    let daemons = lab.start_both();
    let load = load(&lab, 20);
    await_synchronised(&daemons[1], 20, &load);
    // Heartbeats go on, on both paths.
    let block = |does: &str| {
        let rule = format!("rule {does} ipproto udp dport 5390 blackhole");
        for router in &lab.routers {
            router.ip(&rule);
        }
    };
    block("add");
    let telling = || daemons[0].status().replica.unwrap().state;
    wait_until("the partner is not heard there", || telling() == xlvs::ipvs::replica::State::Alone);
    let (done, said) = daemons[0].xlvs("standby");
    assert!(!done && said.contains("would take over without them"), "{said}");
    block("del");
    await_synchronised(&daemons[1], 20, &load);
    let (done, said) = daemons[0].xlvs("standby");
    assert!(done, "{said}");
    await_active(&daemons, 1);
    load.finish();
}

#[test]
fn each_router_shows_both() {
    let lab = lab().with_key();
    let daemons = lab.start_both();
    let _load = load(&lab, 20);
    let account = |router: usize| {
        let status: xlvs::director::protocol::Status = daemons[router].status();
        status.pulse.and_then(|pulse| pulse.partner).and_then(|partner| partner.account)
    };
    let told = |router: usize| account(router).and_then(|account| account.sync).map(|sync| sync.connections);
    wait_until("each knows what the other says", || [0, 1].map(told).iter().all(|count| *count >= Some(20)));
    for (router, sync, other) in [
        (0, "  synchronisation (ipvs): tells of connections, ", "\n  backup: inactive for "),
        (1, "  synchronisation (ipvs): is told of connections, ", "\n  primary: active for "),
    ] {
        let (done, text) = daemons[router].xlvs("status");
        assert!(done && text.contains(sync) && text.contains(other), "{text}");
        assert!(text.contains("heartbeats authenticated"), "{text}");
        let (_, json) = daemons[router].xlvs("status --json");
        assert!(json.contains("\"account\":{\"version\":") && json.contains("\"sends\":true"), "{json}");
    }
}

/// Where UDP has its payload in a frame of IPv4 without options.
const PAYLOAD: usize = 42;

/// Hears from now on what goes by a port of the switch.
fn listen(lab: &Lab, port: &str) -> Socket {
    let socket = lab.switch.enter(|| packet_socket(port));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What the first router has sent from its address in network `net` to this UDP port and `suits`, as frames.
fn record(
    mut socket: &Socket,
    (net, to): (u8, u16),
    count: usize,
    suits: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    const IPV4: [u8; 2] = [8, 0];
    let mut recorded = Vec::new();
    while recorded.len() < count {
        let mut frame = vec![0; 2048];
        // A child of another test that ends interrupts it.
        let length = match socket.read(&mut frame) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        frame.truncate(length);
        // The switch sends by this port, too; what it receives is the router's.
        let is_told = length > PAYLOAD && frame[12..14] == IPV4 && frame[36..38] == to.to_be_bytes();
        if is_told && frame[26..30] == [10, net, 0, 1] && suits(&frame[PAYLOAD..]) {
            recorded.push(frame);
        }
    }
    recorded
}

/// A frame with another last byte.
fn forge(frame: &[u8]) -> Vec<u8> {
    let mut forged = frame.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    // No checksum, so that the kernel hands it on.
    forged[40..PAYLOAD].fill(0);
    forged
}

#[test]
fn what_a_third_host_has_recorded_changes_nothing_and_is_counted() {
    let lab = lab().with_key();
    let daemons = lab.start_both();
    wait_until("they have met", || {
        let partner = daemons[1].status().pulse.and_then(|pulse| pulse.partner);
        partner.is_some_and(|partner| partner.account.is_some())
    });
    // The primary says that it is active. A backup that believes that later gives way.
    let recorded = record(&listen(&lab, "afront"), (1, 539), 4, |_| true);
    let (done, said) = daemons[0].xlvs("standby");
    assert!(done, "{said}");
    await_active(&daemons, 1);
    let refused = || daemons[1].status().pulse.and_then(|pulse| pulse.partner).unwrap().refused;
    let (before, count) = (refused(), recorded.len() as u64);
    let third = lab.client.enter(|| packet_socket("eth0"));
    for frame in &recorded {
        (&third).write_all(frame).unwrap();
        (&third).write_all(&forge(frame)).unwrap();
    }
    wait_until("all are counted", || {
        refused().repeated >= before.repeated + count && refused().forged == before.forged + count
    });
    assert_eq!(states(&daemons), [State::Inactive, State::Active]);
    assert!(!daemons[1].log().contains("partner active: deactivating LVS"), "{}", daemons[1].log());
}

#[test]
fn what_a_third_host_says_of_connections_changes_nothing_and_is_counted() {
    const CONNECTIONS: usize = 20;
    let lab = lab_with_replica();
    let daemons = lab.start_both();
    let [front, back] = ["afront", "aback"].map(|port| listen(&lab, port));
    let load = load(&lab, CONNECTIONS);
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    let refused = |reason: &str| -> u64 {
        let replica = daemons[1].status().replica.unwrap();
        replica.refused.iter().filter(|(name, _)| name == reason).map(|(_, count)| count).sum()
    };
    let reasons = ["repeated", "forged", "stranger"];
    let (before, connections) = (reasons.map(refused), daemons[1].status().connections);
    let records = daemons[1].status().replica.unwrap().records;
    let mut attacks = 0;
    // Batches, which tell of connections, go by the private path; by the other one it is told that it works.
    for (net, host, ear, kind) in [(2, &lab.server, &back, 1), (1, &lab.client, &front, 0)] {
        let third = host.enter(|| packet_socket("eth0"));
        let own = host.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        // As they were, with another last byte, and genuine from an address that is not the partner's.
        for frame in record(ear, (net, 5390), 2, |payload| payload[6] == kind) {
            (&third).write_all(&frame).unwrap();
            (&third).write_all(&forge(&frame)).unwrap();
            own.send_to(&frame[PAYLOAD..], format!("10.{net}.0.2:5390")).unwrap();
            attacks += 1;
        }
    }
    let wanted = before.map(|count| count + attacks);
    wait_until("all are counted", || reasons.map(refused) == wanted);
    let replica = daemons[1].status().replica.unwrap();
    assert_eq!((replica.records, replica.path), (records, Some(Path::Private)));
    assert_eq!(states(&daemons), [State::Active, State::Inactive]);
    assert_eq!(daemons[1].status().connections, connections);
    await_synchronised(&daemons[1], CONNECTIONS, &load);
    load.finish();
}
