//! Two routers, each with the real daemon, between a client and a real nginx; what a client sees when one of them fails.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use xlvs::host::clock::Clock;
use xlvs::pulse::{Role, State, Word};

use super::daemon::Daemon;
use super::namespace::Namespace;
use super::rig::wait_until;

const VIP: &str = "10.1.0.30";
const KEEPALIVE: Duration = Duration::from_secs(1);
const DEADTIME: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

const LVS: &str = "primary = 10.1.0.1
primary_private = 10.2.0.1
backup = 10.1.0.2
backup_private = 10.2.0.2
backup_active = 1
keepalive = 1
deadtime = 3
monitor_links = 1
network = nat
nat_router = 10.2.0.254 back:1
nat_nmask = 255.255.255.0
virtual web {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.0
 port = 80
 timeout = 1
 reentry = 1
 server one {
  address = 10.2.0.100
  active = 1
 }
}
";

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ```text
/// client 10.1.0.100 ── front LAN ── 10.1.0.1 A 10.2.0.1 ── back LAN ── 10.2.0.100 server (gateway 10.2.0.254)
///                          └─────── 10.1.0.2 B 10.2.0.2 ──────┘
/// ```
struct Lab {
    switch: Namespace,
    client: Namespace,
    routers: [Namespace; 2],
    settings: String,
    _server: Namespace,
    _nginx: Process,
    files: TempDir,
}

impl Lab {
    fn new() -> Self {
        let [switch, client, server, a, b] = std::array::from_fn(|_| Namespace::new());
        for lan in ["front", "back"] {
            switch.ip(&format!("link add {lan} type bridge forward_delay 0"));
            switch.ip(&format!("link set {lan} up"));
        }
        plug(&switch, "front", "client", &client, "eth0", "10.1.0.100/24");
        plug(&switch, "back", "server", &server, "eth0", "10.2.0.100/24");
        for (number, name, router) in [(1, "a", &a), (2, "b", &b)] {
            for (lan, net) in [("front", 1), ("back", 2)] {
                plug(&switch, lan, &format!("{name}{lan}"), router, lan, &format!("10.{net}.0.{number}/24"));
            }
        }
        server.ip("route add default via 10.2.0.254");
        let files = tempfile::tempdir().unwrap();
        let nginx = nginx(&server, &files);
        Lab {
            switch,
            client,
            routers: [a, b],
            settings: String::new(),
            _server: server,
            _nginx: nginx,
            files,
        }
    }

    /// The routers use a key from here on.
    fn with_key(mut self) -> Self {
        let path = self.files.path().join("key");
        fs::write(&path, "a key that both routers have\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).unwrap();
        self.settings = format!("[pulse]\nkey_file = \"{}\"\n", path.display());
        self
    }

    fn start(&self, router: usize) -> Daemon {
        Daemon::of_pair(&self.routers[router], tempfile::tempdir().unwrap(), LVS, &self.settings)
    }

    /// Both, the primary active and the server in its table.
    fn start_both(&self) -> [Daemon; 2] {
        let daemons = [self.start(0), self.start(1)];
        wait_until("the primary is active and the backup is not", || {
            states(&daemons) == [State::Active, State::Inactive]
        });
        wait_until("the service answers", || self.answers());
        daemons
    }

    /// Whether a client gets an answer now, within a twentieth of a second for each step.
    fn answers(&self) -> bool {
        self.client.enter(answers)
    }

    /// For how long a client gets no answer, from now until one comes by way of router `next`.
    fn outage(&self, what: &str, next: usize) -> Duration {
        let clock = Clock::start();
        let (mut answered, mut longest) = (clock.now(), Duration::ZERO);
        for _ in 0..10_000 {
            let moved = self.has_vip(next) && !self.has_vip_in_use(1 - next);
            if self.answers() {
                longest = longest.max(clock.now().saturating_since(answered));
                answered = clock.now();
                if moved {
                    println!("{what}: no answer for {} ms", longest.as_millis());
                    return longest;
                }
            }
        }
        panic!("{what}: the work has not moved");
    }

    /// A killed router has it, too, and nobody is behind it.
    fn has_vip_in_use(&self, router: usize) -> bool {
        self.has_vip(router) && self.routers[router].ip("-details link show dev front").contains("prog/xdp")
    }

    fn has_vip(&self, router: usize) -> bool {
        self.routers[router].ip("-4 -brief address show").contains(VIP)
    }

    /// Ports of the switch that belong to a router.
    fn ports(router: usize) -> [String; 2] {
        ["front", "back"].map(|lan| format!("{}{lan}", ["a", "b"][router]))
    }
}

fn plug(switch: &Namespace, lan: &str, port: &str, host: &Namespace, interface: &str, address: &str) {
    switch.ip(&format!("link add {port} type veth peer name {interface} netns {}", host.path()));
    switch.ip(&format!("link set {port} master {lan} up"));
    host.ip(&format!("address add {address} dev {interface}"));
    host.ip(&format!("link set {interface} up"));
    host.run(&format!("ethtool -K {interface} tx off"));
    switch.run(&format!("ethtool -K {port} tx off"));
    host.await_carrier(interface);
}

fn nginx(server: &Namespace, files: &TempDir) -> Process {
    let directory = files.path().display();
    let path = files.path().join("nginx.conf");
    let configuration = format!(
        "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         server {{ listen 80; location / {{ return 200 hello; }} }} }}\n"
    );
    fs::write(&path, configuration).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    Process(server.enter(|| command.spawn().unwrap()))
}

fn answers() -> bool {
    const STEP: Duration = Duration::from_millis(50);
    let address: SocketAddr = (VIP.parse::<std::net::IpAddr>().unwrap(), 80).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, STEP) else { return false };
    stream.set_read_timeout(Some(STEP)).unwrap();
    let mut text = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut text).is_ok() && text.ends_with("hello")
}

fn states(daemons: &[Daemon; 2]) -> [State; 2] {
    [0, 1].map(|router| daemons[router].status().pulse.expect("there is an lvs.cf").state)
}

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
