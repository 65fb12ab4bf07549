//! ldirectord, as Debian has it, keeps the daemon's tables through our ipvsadm; nginx serves, curl asks.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xlvs::admin::client::SOCKET_VARIABLE;

use super::daemon::{Daemon, VIP};
use super::namespace::Namespace;
use super::rig::{Rig, wait_until};

const OURS: &str = env!("CARGO_BIN_EXE_ipvsadm");

/// By address servers become quiescent, by mark they go; the fallback server is the router itself. A service by mark that is
/// persistent leaves ports as they are, so all servers listen on those of the marks too.
const CONFIGURATION: &str = r#"
supervised=yes
checkinterval=1
checktimeout=5
negotiatetimeout=5
virtual=10.1.0.30:80
	real=10.2.0.2:80 masq
	real=10.2.0.3:80 masq
	fallback=10.2.0.1:80 masq
	quiescent=yes
	service=http
	request="health"
	receive="in service"
	scheduler=rr
	protocol=tcp
	checktype=negotiate
virtual=80
	real=10.2.0.2:80 masq
	real=10.2.0.3:80 masq
	fallback=10.2.0.1:80 masq
	quiescent=no
	service=http
	request="health"
	receive="in service"
	scheduler=wlc
	persistent=30
	protocol=fwm
	checktype=negotiate
"#;
const MARKS: &str = "-d 10.1.0.30/32 -p tcp -m multiport --dports 8080,8081 -j MARK --set-mark 80";

const BY_ADDRESS: &str = "TCP 10.1.0.30:80 rr";
const BY_MARK: &str = "FWM 80 wlc persistent 30";
const SERVERS: [&str; 2] = ["10.2.0.2", "10.2.0.3"];
const FALLBACK: &str = "10.2.0.1";

/// nginx, which tells its address to whoever asks; killed when dropped.
pub(super) struct Web {
    address: &'static str,
    process: Child,
    directory: TempDir,
}

impl Web {
    /// It listens, and is healthy.
    pub(super) fn start(namespace: &Namespace, address: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("nginx.conf"), web_configuration(path, address)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(path.join("error.log")).arg("-p").arg(path).arg("-c").arg("nginx.conf");
        let process = namespace.enter(|| command.spawn().unwrap());
        let web = Web { address, process, directory };
        web.report("in service");
        wait_until("nginx listens", || namespace.enter(|| TcpStream::connect((address, 80)).is_ok()));
        web
    }

    /// What its page about itself says from now on.
    fn report(&self, health: &str) {
        fs::write(self.directory.path().join("health"), health).unwrap();
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A single process: its end is the server's end. Each answer ends its connection.
fn web_configuration(directory: &Path, address: &str) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\n\
         http {{\naccess_log off;\nkeepalive_timeout 0;\n\
         client_body_temp_path t;\nproxy_temp_path t;\nfastcgi_temp_path t;\nuwsgi_temp_path t;\nscgi_temp_path t;\n\
         server {{\nlisten {address}:80;\nlisten {address}:8080;\nlisten {address}:8081;\n\
         location = /health {{ root {directory}; }}\nlocation / {{ return 200 \"{address}\\n\"; }}\n}}\n}}\n"
    )
}

/// ldirectord in the rig's router; killed when dropped.
struct Ldirectord {
    process: RefCell<Child>,
    directory: TempDir,
}

impl Ldirectord {
    /// It calls /sbin/ipvsadm, whatever PATH says. In a mount namespace of its own that is our program, and /run, where it
    /// looks for the pid of another ldirectord, is empty.
    fn start(rig: &Rig, daemon: &Daemon) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::create_dir(path("run")).unwrap();
        fs::write(path("ldirectord.cf"), CONFIGURATION).unwrap();
        let script =
            "mount --bind \"$1\" /sbin/ipvsadm && mount --bind \"$2\" /run && exec ldirectord \"$3\" start";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", OURS]);
        command.arg(path("run")).arg(path("ldirectord.cf"));
        command.env(SOCKET_VARIABLE, daemon.control_socket());
        let log = File::create(path("log")).unwrap();
        command.stderr(log.try_clone().unwrap()).stdout(log);
        let process = rig.router.enter(|| command.spawn().unwrap());
        Ldirectord { process: RefCell::new(process), directory }
    }

    /// What it has where it looks for ipvsadm is our program, and no other.
    fn assert_calls_ours(&self) {
        let seen = format!("/proc/{}/root/sbin/ipvsadm", self.process.borrow().id());
        let [seen, ours] = [seen.as_str(), OURS].map(|path| fs::metadata(path).unwrap());
        assert_eq!((seen.dev(), seen.ino()), (ours.dev(), ours.ino()));
    }

    /// Ends it as `ldirectord stop` does; that must go well. Returns what it has logged.
    fn stop(self) -> String {
        let pid = Pid::from_raw(self.process.borrow().id() as i32);
        kill(pid, Signal::SIGTERM).unwrap();
        wait_until("ldirectord ends", || self.process.borrow_mut().try_wait().unwrap().is_some());
        let status = self.process.borrow_mut().wait().unwrap();
        assert!(status.success(), "{status}");
        self.log()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Ldirectord {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        // It may have ended.
        let _ = process.kill();
        let _ = process.wait();
        if thread::panicking() {
            eprintln!("ldirectord's log:\n{}", self.log());
        }
    }
}

/// `ipvsadm -Ln` without its head, its padding and the numbers of connections, services and servers in order.
fn table(daemon: &Daemon) -> Vec<(String, Vec<String>)> {
    let mut services: Vec<(String, Vec<String>)> = Vec::new();
    for line in daemon.listing("-Ln").lines().skip(3) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), services.last_mut()) {
            (["->", server @ .., _, _], Some((_, servers))) => servers.push(server.join(" ")),
            _ => services.push((words.join(" "), Vec::new())),
        }
    }
    services.iter_mut().for_each(|(_, servers)| servers.sort());
    services.sort();
    services
}

/// Waits until these servers, and no others, are in the services by mark and by address, with these weights.
fn wait_for(daemon: &Daemon, what: &str, by_mark: &[(&str, u32)], by_address: &[(&str, u32)]) {
    let wanted = [(BY_MARK, by_mark), (BY_ADDRESS, by_address)].map(|(service, servers)| {
        let mut servers: Vec<String> =
            servers.iter().map(|(address, weight)| format!("{address}:80 Masq {weight}")).collect();
        servers.sort();
        (service.to_owned(), servers)
    });
    wait_until(what, || table(daemon) == wanted);
}

/// Who answers the client on these ports of the VIP, sorted; each request is a connection of its own, and none may fail.
fn answers(rig: &Rig, ports: [u16; 4]) -> Vec<String> {
    let urls = ports.map(|port| format!("http://{VIP}:{port}/")).join(" ");
    let said = rig.client.run(&format!("curl -sS --fail --noproxy * --max-time 5 {urls}"));
    let mut answers: Vec<String> = said.lines().map(str::to_owned).collect();
    answers.sort();
    answers
}

/// This server answers all that the client asks, by address and by mark.
fn assert_answered_by(rig: &Rig, address: &str) {
    assert_eq!(answers(rig, [80; 4]), [address; 4]);
    assert_eq!(answers(rig, [8080, 8081, 8080, 8081]), [address; 4]);
}

/// Both servers answer in turn by address; by mark, one answers on either port, by persistence. Returns that one.
fn assert_answered_by_both(rig: &Rig) -> String {
    let [one, two] = SERVERS;
    assert_eq!(answers(rig, [80; 4]), [one, one, two, two]);
    let answers = answers(rig, [8080, 8081, 8080, 8081]);
    assert!(SERVERS.contains(&answers[0].as_str()), "{answers:?}");
    assert_eq!(answers, [answers[0].as_str(); 4]);
    answers[0].clone()
}

#[test]
fn servers_leave_and_return_and_the_fallback_server_steps_in() {
    let rig = Rig::new();
    rig.server.ip("address add 10.2.0.3/24 dev eth0");
    let mut webs = SERVERS.map(|address| Web::start(&rig.server, address));
    let _fallback = Web::start(&rig.router, FALLBACK);
    let daemon = Daemon::start(&rig, &[MARKS]);
    let ldirectord = Ldirectord::start(&rig, &daemon);
    let both = SERVERS.map(|address| (address, 1));
    wait_for(&daemon, "both servers are in", &both, &both);
    ldirectord.assert_calls_ours();

    // The first to fail is the one that the client persists on.
    if assert_answered_by_both(&rig) == webs[1].address {
        webs.reverse();
    }
    let [first, second] = webs;
    let [one, two] = [first.address, second.address];
    drop(first);
    wait_for(&daemon, "the server whose nginx is killed is out", &[(two, 1)], &[(one, 0), (two, 1)]);
    assert_answered_by(&rig, two);

    second.report("closed");
    wait_for(&daemon, "the fallback server is in", &[(FALLBACK, 1)], &[(one, 0), (two, 0), (FALLBACK, 1)]);
    assert_answered_by(&rig, FALLBACK);

    let _first = Web::start(&rig.server, one);
    second.report("in service");
    wait_for(&daemon, "both servers are back, and the fallback server is out", &both, &both);
    assert_answered_by_both(&rig);

    let log = ldirectord.stop();
    assert_eq!(table(&daemon), [], "{log}");
    // Its word for an ipvsadm that ends otherwise than with 0.
    assert!(!log.contains("failed"), "{log}");
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}
