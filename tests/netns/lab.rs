//! Two routers, each with the real daemon, between a client and a real nginx.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use xlvs::host::clock::Clock;
use xlvs::pulse::State;

use super::daemon::Daemon;
use super::namespace::Namespace;
use super::rig::wait_until;

/// Virtual address, on the `front` of the active router.
pub const VIP: &str = "10.1.0.30";
/// Time from one heartbeat to the next, as in [`LVS`].
pub const KEEPALIVE: Duration = Duration::from_secs(1);
/// Silence that means that a router is dead, as in [`LVS`].
pub const DEADTIME: Duration = Duration::from_secs(3);

/// What both routers are told.
pub const LVS: &str = "primary = 10.1.0.1
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
/// client 10.1.0.100 ── front LAN ── 10.1.0.1 A 10.2.0.1 ── back LAN ── 10.2.0.100, .101 server (gateway 10.2.0.254)
///                          └─────── 10.1.0.2 B 10.2.0.2 ──────┘
/// ```
pub struct Lab {
    pub switch: Namespace,
    pub client: Namespace,
    pub routers: [Namespace; 2],
    pub lvs: String,
    pub settings: String,
    pub server: Namespace,
    _nginx: Process,
    files: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let [switch, client, server, a, b] = std::array::from_fn(|_| Namespace::new());
        for lan in ["front", "back"] {
            // Groups of the synchronisation are flooded: nobody here asks who is in them.
            switch.ip(&format!("link add {lan} type bridge forward_delay 0 mcast_snooping 0"));
            switch.ip(&format!("link set {lan} up"));
        }
        plug(&switch, "front", "client", &client, "eth0", "10.1.0.100/24");
        plug(&switch, "back", "server", &server, "eth0", "10.2.0.100/24");
        server.ip("address add 10.2.0.101/24 dev eth0");
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
            lvs: LVS.to_owned(),
            settings: String::new(),
            server,
            _nginx: nginx,
            files,
        }
    }

    /// The routers use a key from here on.
    pub fn with_key(mut self) -> Self {
        let path = self.files.path().join("key");
        fs::write(&path, "a key that both routers have\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).unwrap();
        self.settings += &format!("[pulse]\nkey_file = \"{}\"\n", path.display());
        self
    }

    pub fn start(&self, router: usize) -> Daemon {
        self.start_in(router, tempfile::tempdir().unwrap())
    }

    /// The same in the directory of an earlier one.
    pub fn start_in(&self, router: usize, directory: TempDir) -> Daemon {
        Daemon::of_pair(&self.routers[router], directory, &self.lvs, &self.settings)
    }

    /// Both, the primary active and the servers in its table.
    pub fn start_both(&self) -> [Daemon; 2] {
        let daemons = [self.start(0), self.start(1)];
        wait_until("the primary is active and the backup is not", || {
            states(&daemons) == [State::Active, State::Inactive]
        });
        wait_until("the service answers", || self.answers());
        daemons
    }

    /// Whether a client gets an answer now, within a twentieth of a second for each step.
    pub fn answers(&self) -> bool {
        self.client.enter(answers)
    }

    /// For how long a client gets no answer, from now until one comes by way of router `next`.
    pub fn outage(&self, what: &str, next: usize) -> Duration {
        let clock = Clock::start();
        let (mut answered, mut longest) = (clock.now(), Duration::ZERO);
        for _ in 0..10_000 {
            // Of two that have the address the other one is dead.
            let moved = self.has_vip(next);
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

    pub fn has_vip(&self, router: usize) -> bool {
        self.routers[router].ip("-4 -brief address show").contains(VIP)
    }

    /// Ports of the switch that belong to a router.
    pub fn ports(router: usize) -> [String; 2] {
        ["front", "back"].map(|lan| format!("{}{lan}", ["a", "b"][router]))
    }

    /// Takes a router's cables away, or puts them back.
    pub fn set_cables(&self, router: usize, state: &str) {
        for port in Self::ports(router) {
            self.switch.ip(&format!("link set {port} {state}"));
        }
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

/// At `/` it says hello, at `/word` its address and the word that it was asked for.
fn nginx(server: &Namespace, files: &TempDir) -> Process {
    let directory = files.path().display();
    let path = files.path().join("nginx.conf");
    let configuration = format!(
        "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         keepalive_timeout 1h; keepalive_requests 1000000;\n\
         server {{ listen 80 backlog=4096; location / {{ return 200 hello; }}\n\
         location /word {{ return 200 \"$server_addr $arg_word\"; }} }} }}\n"
    );
    fs::write(&path, configuration).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    Process(server.enter(|| command.spawn().unwrap()))
}

fn answers() -> bool {
    const STEP: Duration = Duration::from_millis(50);
    let address: SocketAddr = (VIP.parse::<IpAddr>().unwrap(), 80).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, STEP) else { return false };
    stream.set_read_timeout(Some(STEP)).unwrap();
    let mut text = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut text).is_ok() && text.ends_with("hello")
}

/// What both say that they are.
pub fn states(daemons: &[Daemon; 2]) -> [State; 2] {
    [0, 1].map(|router| daemons[router].status().pulse.expect("there is an lvs.cf").state)
}
