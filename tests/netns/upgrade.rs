//! Upgrades: another process takes over while connections go on.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use serde_json::Value;
use tempfile::TempDir;
use xlvs::host::channel::{Channel, Message};
use xlvs::host::clock::Clock;
use xlvs::host::process::Process;

use super::daemon::{Daemon, VIP};
use super::namespace::Namespace;
use super::rig::{PATIENCE, Rig, wait_until};

/// What ends each answer of the web server.
const SERVED: &[u8] = b"served\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
/// Kinds of messages between the two processes.
pub const READY: u8 = 7;
pub const ALL: u8 = 6;
pub const SWITCH: u8 = 8;
const HELLO: u8 = 1;
pub const LISTENER: u8 = 4;
/// What a child of this test is told: the file by which it was started.
pub const PREDECESSOR: &str = "XLVS_TEST_PREDECESSOR";
/// How long packets may stay away on a machine that does other things as well; the goal is 200 ms.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

/// nginx, whose connections live for ever; killed when dropped.
pub struct Web {
    process: Child,
    _directory: TempDir,
}

impl Web {
    /// Serves at this address and port.
    pub fn start(namespace: &Namespace, listen: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let configuration = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\n\
             worker_rlimit_nofile 4096;\nevents { worker_connections 2048; }\n\
             http {\naccess_log off;\nkeepalive_timeout 300;\nkeepalive_requests 100000000;\n\
             client_body_temp_path t;\nproxy_temp_path t;\nfastcgi_temp_path t;\nuwsgi_temp_path t;\nscgi_temp_path t;\n\
             server {\nlisten LISTEN;\nlocation / { return 200 \"served\\n\"; }\n}\n}\n";
        fs::write(path.join("nginx.conf"), configuration.replace("LISTEN", listen)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(path.join("error.log")).arg("-p").arg(path).arg("-c").arg("nginx.conf");
        let process = namespace.enter(|| command.spawn().unwrap());
        let web = Web { process, _directory: directory };
        wait_until("nginx listens", || namespace.enter(|| TcpStream::connect(listen).is_ok()));
        web
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Clients that exchange data all the time.
pub struct Talk {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Talk {
    /// So many connections to the service at port 80, and datagrams to and from that at port 7.
    pub fn begin(rig: &Rig, connections: usize) -> Self {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let echo = rig.server.enter(|| UdpSocket::bind("10.2.0.2:7").unwrap());
        let probe = rig.client.enter(|| UdpSocket::bind("10.1.0.2:0").unwrap());
        probe.connect((VIP, 7)).unwrap();
        let streams: Vec<TcpStream> = rig.client.enter(|| (0..connections).map(|_| connect()).collect());
        let mut threads = Vec::new();
        let (order, counter) = (Arc::clone(&stop), Arc::clone(&rounds));
        threads.push(thread::spawn(move || converse(streams, &order, &counter)));
        let order = Arc::clone(&stop);
        threads.push(thread::spawn(move || probe_all_the_time(&probe, &order)));
        let order = Arc::clone(&stop);
        threads.push(thread::spawn(move || send_back(&echo, &order)));
        let talk = Talk { stop, rounds, threads };
        talk.go_on();
        talk
    }

    /// Every connection has got some answers from now on.
    pub fn go_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_until("every connection gets answers", || {
            self.rounds.load(Ordering::Relaxed) > before + 2 || self.has_failed()
        });
        assert!(!self.has_failed(), "a connection has failed");
    }

    fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Returns how long a connection, and a datagram, had to wait at the most.
    pub fn end(self) -> [Duration; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let mut waited = self.threads.into_iter().map(|it| it.join().expect("nobody was turned away"));
        [waited.next().unwrap(), waited.next().unwrap()]
    }
}

fn connect() -> TcpStream {
    let address: SocketAddr = format!("{VIP}:80").parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks on each connection and then reads the answers, again and again; returns the longest time from a question to its answer.
fn converse(mut streams: Vec<TcpStream>, stop: &AtomicBool, rounds: &AtomicU64) -> Duration {
    let clock = Clock::start();
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let asked = clock.now();
        streams.iter_mut().for_each(|stream| stream.write_all(REQUEST).expect("the connection is there"));
        for stream in &mut streams {
            let mut answer = Vec::new();
            while !answer.ends_with(SERVED) {
                let mut buffer = [0; 1024];
                // A child of this or another test that ends interrupts it.
                let length = match stream.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => read.expect("the connection is there"),
                };
                assert_ne!(length, 0, "the connection is open");
                answer.extend(&buffer[..length]);
            }
        }
        longest = longest.max(clock.now().saturating_since(asked));
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

/// Returns the longest time between two answers to datagrams of which one is sent each millisecond.
fn probe_all_the_time(probe: &UdpSocket, stop: &AtomicBool) -> Duration {
    probe.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let clock = Clock::start();
    let (mut last, mut longest) = (clock.now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        // While packets are dropped there is nobody who refuses them.
        let _ = probe.send(b"?");
        if probe.recv(&mut [0; 16]).is_ok() {
            let now = clock.now();
            longest = longest.max(now.saturating_since(last));
            last = now;
        }
    }
    longest
}

fn send_back(echo: &UdpSocket, stop: &AtomicBool) -> Duration {
    echo.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = echo.recv_from(&mut buffer) {
            // A client that is gone needs no answer.
            let _ = echo.send_to(&buffer[..length], from);
        }
    }
    Duration::ZERO
}

/// Services by hand, so that what a file says does not help.
fn serve(daemon: &Daemon) {
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s wlc -p 300"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2:80 -m -w 3"));
    daemon.ipvsadm(&format!("-A -u {VIP}:7 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:7 -r 10.2.0.2:7 -m"));
}

fn listed(daemon: &Daemon) -> String {
    daemon.listing("-Ln")
}

/// Connections of the service at port 80, as counted; that is looked at every two seconds.
fn counted(daemon: &Daemon) -> String {
    let stats = daemon.listing("-Ln --stats --exact");
    let web = stats.lines().find(|line| line.contains(&format!("{VIP}:80"))).expect("the service is there");
    web.split_whitespace().nth(2).expect("there are counters").to_owned()
}

/// A program in the daemon's place, that does what this test says.
pub fn program(daemon: &Daemon, test: &str) -> PathBuf {
    script(
        daemon,
        "program",
        &format!(
            "{PREDECESSOR}=$0 exec {} netns::{test} --exact --ignored --nocapture",
            std::env::current_exe().unwrap().display()
        ),
    )
}

/// A program of its own, made of this text.
pub fn script(daemon: &Daemon, name: &str, text: &str) -> PathBuf {
    let path = daemon.control_socket().with_file_name(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn two_hundred_connections_go_on() {
    let rig = Rig::new();
    let _web = Web::start(&rig.server, "10.2.0.2:80");
    let daemon = Daemon::start(&rig, &[]);
    serve(&daemon);
    daemon.sysctl("expire_nodest_conn", "1");
    let talk = Talk::begin(&rig, 200);
    for round in 0..3 {
        let before = (listed(&daemon), daemon.status().templates);
        let told = daemon.upgrade("");
        println!("{round}: {told}");
        assert_eq!((listed(&daemon), daemon.status().templates), before, "as before");
        talk.go_on();
    }
    let [connection, datagram] = talk.end();
    println!("longest wait: an answer {connection:?}, a datagram {datagram:?}");
    assert!(connection < LONGEST_PAUSE && datagram < LONGEST_PAUSE, "{connection:?}, {datagram:?}");
    assert!(daemon.xlvs("sysctl net.ipv4.vs.expire_nodest_conn").1.ends_with("= 1\n"));
    wait_until("connections are counted on, and none twice", || counted(&daemon) == "200");
    let packets = daemon.stop();
    assert_eq!(packets.imbalance(), 0, "{packets:?}");
}

#[test]
fn whatever_does_not_start_changes_nothing() {
    let rig = Rig::new();
    let _web = Web::start(&rig.server, "10.2.0.2:80");
    let daemon = Daemon::start(&rig, &[]);
    serve(&daemon);
    let talk = Talk::begin(&rig, 20);
    let (former, before) = (daemon.pid(), listed(&daemon));
    let refused = |arguments: &str, why: &str| {
        let (done, text) = daemon.try_upgrade(arguments);
        assert!(!done && text.contains("the present process goes on") && text.contains(why), "{text}");
        assert_eq!((daemon.pid(), listed(&daemon)), (former, before.clone()));
        talk.go_on();
    };
    let at = |path: PathBuf| format!("--program {}", path.display());
    refused("--program /bin/false", "has ended (exit status: 1)");
    let unfit = daemon.control_socket().with_file_name("xlvs.toml");
    refused(&at(unfit), "cannot be started: Permission denied");
    refused(&at(program(&daemon, "upgrade::successor_of_another_version")), "cannot follow xlvs");
    refused(&at(program(&daemon, "upgrade::successor_that_dies_before_the_switch")), "has ended");
    refused(&at(program(&daemon, "upgrade::successor_that_dies_after_the_switch")), "has ended");
    daemon.append_settings("nonsense = 1\n");
    refused("", "nonsense");
    talk.end();
    let packets = daemon.packets();
    assert_eq!(packets.imbalance(), 0, "{packets:?}");
    daemon.signal(Signal::SIGTERM);
    let (done, log) = daemon.wait();
    assert!(done, "{log}");
}

#[test]
fn an_order_to_end_is_obeyed_in_the_midst() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    let xlvs = env!("CARGO_BIN_EXE_xlvs");
    let program = script(&daemon, "program", &format!("kill -TERM $PPID\nexec {xlvs} \"$@\""));
    let (done, text) = daemon.try_upgrade(&format!("--program {}", program.display()));
    assert!(!done, "{text}");
    let (done, log) = daemon.wait();
    assert!(done && log.contains("xlvs is told to end by signal 15"), "{log}");
}

/// What has started it has ended by then, and its own number is not known yet.
#[test]
fn an_order_to_end_does_not_wait_for_one_that_says_nothing() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    // A shell gives what runs in the background another standard input. It ends when the channel does.
    let program = script(&daemon, "program", "exec 3<&0\ncat <&3 >/dev/null &\nkill -TERM $PPID");
    let clock = Clock::start();
    let begin = clock.now();
    let (done, text) = daemon.try_upgrade(&format!("--program {}", program.display()));
    assert!(!done, "{text}");
    let (done, log) = daemon.wait();
    assert!(done && log.contains("xlvs is told to end by signal 15"), "{log}");
    // A hello is waited for ten seconds.
    let took = clock.now().saturating_since(begin);
    assert!(took < Duration::from_secs(5), "{took:?}\n{log}");
}

#[test]
fn a_predecessor_that_is_killed_is_followed_all_the_same() {
    let rig = Rig::new();
    let _web = Web::start(&rig.server, "10.2.0.2:80");
    let daemon = Daemon::start(&rig, &[]);
    serve(&daemon);
    let talk = Talk::begin(&rig, 50);
    let before = listed(&daemon);
    let relay = program(&daemon, "upgrade::successor_whose_predecessor_is_killed");
    let (done, text) = daemon.try_upgrade(&format!("--program {}", relay.display()));
    assert!(!done, "{text}");
    daemon.followed_by(relayed(&daemon));
    wait_until("the successor answers", || daemon.xlvs("status").0);
    assert_eq!(listed(&daemon), before);
    talk.go_on();
    talk.end();
    daemon.stop();
}

/// What a process has open, by kind, and its memory in kilobytes.
fn possessions(pid: Pid) -> (Vec<String>, u64) {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let kind = |target: PathBuf| target.display().to_string().split(['[', ':']).next().unwrap().to_owned();
    let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let mut kinds: Vec<String> = open
        .map(|target| match target.to_string_lossy().strip_prefix("anon_inode:") {
            Some(inode) => inode.to_owned(),
            None => kind(target),
        })
        .collect();
    kinds.sort();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (kinds, resident.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn nothing_is_left_of_twenty_upgrades() {
    let rig = Rig::new();
    let _web = Web::start(&rig.server, "10.2.0.2:80");
    let daemon = Daemon::start(&rig, &[]);
    serve(&daemon);
    let talk = Talk::begin(&rig, 20);
    daemon.upgrade("");
    let (open, memory) = possessions(daemon.pid());
    let links = rig.router.run("ip -o link");
    for _ in 0..20 {
        daemon.upgrade("");
        talk.go_on();
    }
    // What is left behind is left behind twenty times. The others come and go: what asks for a neighbour or answers a client,
    // and what a task had not opened yet when the first were counted.
    let count = |all: &[String], kind: &String| all.iter().filter(|each| *each == kind).count();
    let (now, _) = possessions(daemon.pid());
    let grown = now.iter().find(|kind| count(&now, kind) > count(&open, kind) + 3);
    assert_eq!(grown, None, "{now:?}, {open:?} before");
    let (_, memory_now) = possessions(daemon.pid());
    assert!(memory_now < memory + memory / 4, "{memory_now} kB, {memory} kB before");
    let attached = |links: &str| links.matches("prog/xdp").count() + links.matches("xdp").count();
    assert_eq!(attached(&rig.router.run("ip -o link")), attached(&links), "programs");
    talk.end();
    daemon.stop();
}

/// Does nothing unless a daemon has started it.
pub fn from_predecessor() -> Option<Channel> {
    std::env::var_os(PREDECESSOR).map(|_| Channel::from_standard_input().unwrap())
}

pub fn say_hello(channel: &Channel, version: u32) {
    let hello = format!("{{\"version\":{version},\"program\":\"0.0.1\"}}");
    channel.send(HELLO, hello.as_bytes(), None).unwrap();
}

pub fn await_kind(channel: &Channel, kind: u8) {
    while channel.receive().unwrap().expect("the predecessor is there").kind != kind {}
}

/// What a child of this test does that stands between a daemon and a true successor.
pub struct Relay {
    upper: Channel,
    lower: Channel,
    successor: Process,
}

impl Relay {
    /// Starts the successor, lets it greet the daemon, and leaves its pid beside the settings. Does nothing unless a daemon has started
    /// this process.
    pub fn start() -> Option<Self> {
        let upper = from_predecessor()?;
        let (lower, end) = Channel::new().unwrap();
        let arguments = fs::read(format!("/proc/{}/cmdline", getppid())).unwrap();
        let arguments = String::from_utf8(arguments).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xlvs"));
        let own = arguments.trim_end_matches('\0').split('\0').skip(1).filter(|word| *word != "--take-over");
        command.args(own).arg("--take-over").stdin(end);
        assert!(command.status().unwrap().success(), "it starts another process and ends");
        drop(command);
        let hello = lower.receive().unwrap().unwrap();
        let said: Value = serde_json::from_slice(&hello.body).unwrap();
        let successor = Process::open(said["process"].as_u64().unwrap().try_into().unwrap()).unwrap();
        let settings = arguments.split('\0').find(|word| word.ends_with("xlvs.toml")).unwrap();
        fs::write(PathBuf::from(settings).with_file_name("pid"), successor.id().to_string()).unwrap();
        upper.send(HELLO, &hello.body, None).unwrap();
        Some(Relay { upper, lower, successor })
    }

    /// Has the successor hear what the daemon says, up to a word of this kind.
    pub fn pass_until(&self, kind: u8) {
        while pass(&self.upper, &self.lower) != kind {}
    }

    /// Kills the successor.
    pub fn kill(&self) {
        self.successor.end();
    }

    /// The next word of the successor, which the daemon does not hear.
    pub fn answer(&self) -> u8 {
        self.lower.receive().unwrap().unwrap().kind
    }
}

fn pass(from: &Channel, to: &Channel) -> u8 {
    let Message { kind, body, descriptor } = from.receive().unwrap().unwrap();
    to.send(kind, &body, descriptor.as_ref().map(std::os::fd::AsFd::as_fd)).unwrap();
    kind
}

/// The process that the relay has started.
pub fn relayed(daemon: &Daemon) -> Pid {
    let pid = fs::read_to_string(daemon.control_socket().with_file_name("pid")).unwrap();
    Pid::from_raw(pid.parse().unwrap())
}

#[test]
#[ignore = "a part of another test"]
fn successor_of_another_version() {
    if let Some(channel) = from_predecessor() {
        say_hello(&channel, 1000);
        assert!(channel.receive().is_ok());
    }
}

#[test]
#[ignore = "a part of another test"]
fn successor_that_dies_before_the_switch() {
    if let Some(channel) = from_predecessor() {
        say_hello(&channel, 1);
        await_kind(&channel, ALL);
    }
}

#[test]
#[ignore = "a part of another test"]
fn successor_that_dies_after_the_switch() {
    if let Some(channel) = from_predecessor() {
        say_hello(&channel, 1);
        await_kind(&channel, ALL);
        channel.send(READY, &[], None).unwrap();
        await_kind(&channel, SWITCH);
    }
}

/// Carries what is said between the daemon and a true successor, and kills the daemon when that one is ready.
#[test]
#[ignore = "a part of another test"]
fn successor_whose_predecessor_is_killed() {
    let Some(relay) = Relay::start() else { return };
    relay.pass_until(ALL);
    assert_eq!(relay.answer(), READY);
    kill(getppid(), Signal::SIGKILL).unwrap();
    // This end of the channel closes with this process: the successor is alone then.
}
