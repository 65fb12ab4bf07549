//! The daemon as its systemd unit runs it: with those capabilities and no others, and telling how it is.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::daemon::{Daemon, Launch};
use super::rig::{PATIENCE, Rig, wait_until};
use super::upgrade::script;

/// A pair of which only this router runs, with a server and one that is the router itself.
const LVS: &str = "primary = 10.1.0.1
backup = 10.1.0.9
backup_active = 1
network = nat
nat_router = 10.2.0.254 back:1
virtual web {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.0
 port = 8080
 server one {
  address = 10.2.0.2
  active = 1
 }
 server itself {
  address = 10.2.0.1
  port = 8080
  active = 1
 }
}
";

/// The usual limit of locked memory has room for it; the unit lifts that limit.
const SETTINGS: &str = "frames = 512\n";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd/xlvs.service")).unwrap()
}

/// The unit's capabilities, in setpriv's words.
fn capabilities() -> Vec<String> {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    line.split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase()).collect()
}

fn with_capabilities(names: &[String]) -> Vec<String> {
    let bounding: Vec<String> = names.iter().map(|name| format!(",+{name}")).collect();
    let bounding = format!("--bounding-set=-all{}", bounding.concat());
    vec!["setpriv".into(), bounding, "--no-new-privs".into(), "--".into()]
}

fn launch<'a>(by: &'a [String], variables: &'a [(&'a str, String)]) -> Launch<'a> {
    Launch { lvs: LVS, settings: SETTINGS, arguments: &["--forceactive"], by, variables }
}

/// A listener on the router itself and one on the server, so that health checks succeed.
fn servers(rig: &Rig) -> [std::net::TcpListener; 2] {
    let on_server = rig.server.enter(|| std::net::TcpListener::bind("10.2.0.2:8080").unwrap());
    let on_router = rig.router.enter(|| std::net::TcpListener::bind("10.2.0.1:8080").unwrap());
    [on_server, on_router]
}

#[test]
fn the_units_capabilities_suffice() {
    let rig = Rig::new();
    let [server, itself] = servers(&rig);
    let by = with_capabilities(&capabilities());
    let daemon = Daemon::launch(&rig.router, tempfile::tempdir().unwrap(), &launch(&by, &[])).answering();
    wait_until("both servers are up", || daemon.listing("-Ln").matches("Masq    1").count() == 2);
    // Of two connections each server gets one; the router itself answers by the detour.
    std::thread::scope(|scope| {
        for listener in [&server, &itself] {
            scope.spawn(move || {
                // Health checks connect as well, and say nothing.
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut word = [0];
                    if std::io::Read::read(&mut stream, &mut word).unwrap() == 1 {
                        return std::io::Write::write_all(&mut stream, &word).unwrap();
                    }
                }
            });
        }
        for _ in 0..2 {
            rig.client.enter(|| {
                let address = "10.1.0.30:8080".parse().unwrap();
                let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                std::io::Write::write_all(&mut stream, b"x").unwrap();
                std::io::Read::read_exact(&mut stream, &mut [0]).unwrap();
            });
        }
    });
    daemon.ipvsadm("--start-daemon master --mcast-interface back --syncid 3");
    daemon.ipvsadm("--start-daemon backup --mcast-interface back --syncid 3");
    install_for_a_group(&daemon);
    daemon.stop();
}

/// The file has a group of its own, which stays.
fn install_for_a_group(daemon: &Daemon) {
    const GROUP: u32 = 60_000;
    chown(daemon.lvs_path(), None, Some(GROUP)).unwrap();
    let other = daemon.lvs_path().with_file_name("other.cf");
    fs::write(&other, LVS.replace("active = 1\n address", "active = 1\n scheduler = rr\n address")).unwrap();
    let (done, told) = daemon.xlvs(&format!("apply {} --confirm 60s --install", other.display()));
    assert!(done, "{told}");
    let (done, told) = daemon.xlvs("confirm");
    assert!(done && told.contains("installed as "), "{told}\n{}", daemon.read_log());
    assert_eq!(fs::metadata(daemon.lvs_path()).unwrap().gid(), GROUP);
}

#[test]
fn none_of_the_units_capabilities_is_too_many() {
    let rig = Rig::new();
    let all = capabilities();
    for missing in &all {
        let others: Vec<String> = all.iter().filter(|name| *name != missing).cloned().collect();
        let by = with_capabilities(&others);
        let daemon = Daemon::launch(&rig.router, tempfile::tempdir().unwrap(), &launch(&by, &[]));
        if missing == "chown" {
            let daemon = daemon.answering();
            chown(daemon.lvs_path(), None, Some(60_000)).unwrap();
            let again = daemon.lvs_path().with_file_name("other.cf");
            fs::write(&again, format!("# another\n{LVS}")).unwrap();
            assert!(daemon.xlvs(&format!("apply {} --confirm 60s --install", again.display())).0);
            let (_, told) = daemon.xlvs("confirm");
            assert!(told.contains("Operation not permitted"), "{told}");
            continue;
        }
        let (success, log) = daemon.wait();
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(!success && log.contains(&name), "without {name}: {log}");
    }
}

/// What systemd would hear.
struct Notifications {
    socket: UnixDatagram,
    directory: TempDir,
}

/// What the unit's WatchdogSec would be.
const WATCHDOG: Duration = Duration::from_millis(1500);

impl Notifications {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Notifications { socket, directory }
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        let path = self.directory.path().join("notify").display().to_string();
        [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())]
    }

    /// The next one, if there is one within `patience`.
    fn next(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 1024];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => return Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next one that is no sign of life.
    fn next_word(&self) -> String {
        loop {
            match self.next(PATIENCE) {
                Some(word) if word == "WATCHDOG=1\n" => {}
                Some(word) => return word,
                None => panic!("nothing is told"),
            }
        }
    }

    fn await_sign_of_life(&self) {
        let word = self.next(PATIENCE);
        assert_eq!(word.as_deref(), Some("WATCHDOG=1\n"));
    }
}

/// A daemon that has told systemd that it is ready.
fn watched(rig: &Rig) -> (Notifications, Daemon) {
    let systemd = Notifications::new();
    let variables = systemd.variables();
    let daemon = Daemon::launch(&rig.router, tempfile::tempdir().unwrap(), &launch(&[], &variables));
    assert_eq!(systemd.next_word(), "READY=1\n");
    (systemd, daemon)
}

#[test]
fn systemd_is_told_of_readiness_reloads_life_and_the_end() {
    let rig = Rig::new();
    let _servers = servers(&rig);
    let (systemd, daemon) = watched(&rig);
    let (answers, _) = daemon.xlvs("status");
    assert!(answers, "ready means that it answers");
    assert!(
        rig.router.ip("-4 -brief address show dev front").contains("10.1.0.30/24"),
        "and has its addresses"
    );
    for _ in 0..3 {
        systemd.await_sign_of_life();
    }
    let (done, told) = daemon.xlvs("reload");
    assert!(done, "{told}");
    let reloading = systemd.next_word();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(systemd.next_word(), "READY=1\n");
    daemon.terminate();
    assert_eq!(systemd.next_word(), "STOPPING=1\n");
    let (success, log) = daemon.wait();
    assert!(success, "{log}");
}

#[test]
fn signs_of_life_go_on_while_another_process_is_waited_for() {
    let rig = Rig::new();
    let _servers = servers(&rig);
    let (systemd, daemon) = watched(&rig);
    let program = script(&daemon, "program", "exec sleep 3");
    let (done, told) = daemon.try_upgrade(&format!("--program {}", program.display()));
    assert!(!done && told.contains("has ended"), "{told}");
    let reloading = systemd.next_word();
    assert!(reloading.starts_with("RELOADING=1\n"), "{reloading}");
    let mut signs = 0;
    loop {
        match systemd.next(PATIENCE).as_deref() {
            Some("READY=1\n") => break,
            Some("WATCHDOG=1\n") => signs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(signs >= 3, "{signs} signs of life in three seconds; systemd waits for {WATCHDOG:?}");
    daemon.terminate();
    let (success, log) = daemon.wait();
    assert!(success, "{log}");
}

/// The thread of a process that has this name.
fn thread_of(daemon: &Daemon, name: &str) -> Pid {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let mut paths = threads.map(|entry| entry.unwrap().path());
    let is_it = |path: &std::path::PathBuf| fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let path = paths.find(is_it).unwrap_or_else(|| panic!("no thread is called {name}"));
    Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

#[test]
fn a_packet_thread_that_hangs_is_no_life() {
    let rig = Rig::new();
    let _servers = servers(&rig);
    let (systemd, daemon) = watched(&rig);
    let thread = thread_of(&daemon, "xlvs-q0");
    // One thread of a process can be held by nothing else.
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(thread).unwrap();
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    wait_until("it is noticed", || daemon.read_log().contains("packet threads hang: xlvs-q0"));
    while systemd.next(Duration::from_millis(1)).is_some() {}
    assert_eq!(systemd.next(WATCHDOG), None, "no sign of life for as long as systemd would wait");
    ptrace::detach(thread, None).unwrap();
    systemd.await_sign_of_life();
    daemon.terminate();
    assert_eq!(systemd.next_word(), "STOPPING=1\n");
}
