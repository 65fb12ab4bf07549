//! Health checks by the daemon, in real time: nginx, dnsmasq, a script, and servers that behave badly.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use socket2::SockRef;
use xlvs::host::clock::Clock;

use super::daemon::Daemon;
use super::rig::{Rig, wait_until};
use crate::servers::{Dnsmasq, NAME, Nginx};

const SERVER: &str = "10.2.0.2";
/// The limit of each step of a check is a second, and so is the pause between two of them.
const WORST: Duration = Duration::from_secs(1 + 2);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(5);

/// Servers on ports of the rig's server that behave in one way each; they end with it, as nothing keeps their connections.
fn misbehave(rig: &Rig) {
    let behave = |port: u16, behaviour: fn(TcpStream)| {
        let listener = rig.server.enter(|| TcpListener::bind((SERVER, port)).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                thread::spawn(move || behaviour(stream));
            }
        });
    };
    behave(1001, |mut stream| {
        // Takes everything, says nothing.
        while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
    });
    behave(1002, |mut stream| {
        let _ = stream.read(&mut [0; 64]);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    behave(1003, |mut stream| {
        stream.set_nodelay(true).unwrap();
        let _ = stream.read(&mut [0; 512]);
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    behave(1004, |mut stream| {
        // A header that has no end.
        let _ = stream.read(&mut [0; 512]);
        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::park_timeout(Duration::from_millis(100));
        }
    });
}

fn script(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// A virtual server with one real server, and what is to become of it: `None` it is up, else why not.
struct Case {
    name: &'static str,
    lines: String,
    port: u16,
    address: &'static str,
    down: Option<&'static str>,
}

fn case(name: &'static str, port: u16, lines: impl Into<String>, down: Option<&'static str>) -> Case {
    Case { name, lines: lines.into(), port, address: SERVER, down }
}

/// Those that depend on nginx and dnsmasq first.
fn cases(directory: &Path) -> Vec<Case> {
    let host = format!("#xlvs: http_host = {NAME}");
    let get = "send = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = \"HTTP\"";
    let program = |name, text| format!("send_program = \"{} %h %p\"", script(directory, name, text));
    let dns = format!("#xlvs: check = dns\n#xlvs: dns_name = {NAME}");
    // Whatever descriptor is neither the pipe nor the script is one of the daemon's.
    let descriptors =
        "readlink /proc/$$/fd/* | grep -v -e '^pipe:' -e '^/dev/null$' -e \"^$0$\" -e '^/proc/'\necho end";
    vec![
        case("piranha", 8080, get, None),
        case("http", 8080, format!("#xlvs: check = http\n{host}\n#xlvs: http_body = \"it works\""), None),
        case("http2", 8082, format!("#xlvs: check = http\n#xlvs: http_version = 2\n{host}"), None),
        case("https", 8443, format!("#xlvs: check = https\n{host}\n#xlvs: tls_expiry = 7"), None),
        case("https2", 8443, format!("#xlvs: check = https\n#xlvs: http_version = 2\n{host}"), None),
        case("handshake", 8443, "#xlvs: check = tls", None),
        case(
            "other-port",
            9,
            format!("#xlvs: check_port = 8080\n#xlvs: check_source = 10.2.0.1\n{get}"),
            None,
        ),
        case("dns", 5353, format!("protocol = udp\n{dns}\n#xlvs: dns_answer = 192.0.2.7"), None),
        case("dns-tcp", 5353, dns.clone(), None),
        case(
            "503",
            8080,
            format!("#xlvs: check = http\n{host}\n#xlvs: http_path = /broken"),
            Some("HTTP status 503"),
        ),
        case(
            "expired",
            8443,
            format!("#xlvs: check = https\n{host}\n#xlvs: tls_verify = system"),
            Some("TLS handshake"),
        ),
        case(
            "other-answer",
            5353,
            format!("{dns}\n#xlvs: dns_answer = 192.0.2.8"),
            Some("192.0.2.8 is not in the answer"),
        ),
        case("silent", 1001, get, Some("READ to 10.2.0.2:1001 timed out")),
        case("silent-http", 1001, "#xlvs: check = http", Some("READ to 10.2.0.2:1001 timed out")),
        case("silent-tls", 1001, "#xlvs: check = tls", Some("TLS handshake with 10.2.0.2:1001 timed out")),
        case(
            "resetting",
            1002,
            get,
            Some("READ operation for 10.2.0.2:1002 returned error: Connection reset"),
        ),
        case("bytes", 1003, get, None),
        case("bytes-http", 1003, "#xlvs: check = http\n#xlvs: http_body = \"^ok$\"", None),
        case("loris", 1004, "#xlvs: check = http", Some("READ to 10.2.0.2:1004 timed out")),
        case("closed", 1005, get, Some("CONNECT to 10.2.0.2:1005 returned error: Connection refused")),
        case("script", 7, program("good", "echo $1 $2") + "\nexpect = \"10.2.0.2 7\"", None),
        case("descriptors", 7, program("clean", descriptors) + "\nexpect = end", None),
        case(
            "hang",
            7,
            program("hang", "sleep 1000") + "\nexpect = x",
            Some("timeout running the following"),
        ),
        case("fails", 7, program("fail", "echo x; exit 3") + "\nexpect = x", Some("exit status: 3")),
        case("ping", 7, "#xlvs: check = icmp", None),
        Case { address: "10.2.0.9", ..case("no-ping", 7, "#xlvs: check = icmp", Some("ECHO to 10.2.0.9")) },
        Case { address: "10.2.0.9", ..case("nobody", 80, get, Some("CONNECT to 10.2.0.9:80")) },
    ]
}

fn configuration(cases: &[Case]) -> String {
    let mut text = "primary = 10.1.0.1\n".to_owned();
    for (number, Case { name, lines, port, address, .. }) in cases.iter().enumerate() {
        text.push_str(&format!(
            "virtual {name} {{\nactive = 1\naddress = 10.1.0.30 front:1\nvip_nmask = 255.255.255.255\nport = {}\n\
             timeout = 1\nreentry = 2\n{lines}\nserver s {{\naddress = {address}\nport = {port}\nactive = 1\n}}\n}}\n",
            2000 + number,
        ));
    }
    text
}

/// `virtual: health` of each, in file order.
fn states(daemon: &Daemon) -> Vec<String> {
    let checks = daemon.status().checks;
    checks.iter().map(|check| format!("{}: {}", check.virtual_server, check.health)).collect()
}

/// Waits until all is as expected; how long that took.
fn await_states(daemon: &Daemon, what: &str, expected: &[String]) -> Duration {
    let clock = Clock::start();
    let from = clock.now();
    wait_until(what, || states(daemon) == expected || clock.now().saturating_since(from) > WORST + SLACK);
    assert_eq!(states(daemon), expected, "{what}: {}", daemon.log());
    clock.now().saturating_since(from)
}

#[test]
fn every_kind_of_server_ends_in_its_state_in_time() {
    let rig = Rig::new();
    let address: IpAddr = SERVER.parse().unwrap();
    let start = || rig.server.enter(|| (Nginx::start(address), Dnsmasq::start(address)));
    let servers = start();
    misbehave(&rig);
    let directory = tempfile::tempdir().unwrap();
    let cases = cases(directory.path());
    let daemon = Daemon::with_lvs(&rig, &configuration(&cases));
    let states = |is_up: &dyn Fn(&Case) -> bool| -> Vec<String> {
        let state = |case: &Case| format!("{}: {}", case.name, if is_up(case) { "up" } else { "down" });
        cases.iter().map(state).collect()
    };
    await_states(&daemon, "every check has ended", &states(&|case| case.down.is_none()));
    let log = daemon.log();
    for Case { name, down, .. } in &cases {
        let told =
            |line: &str| down.is_none_or(|reason| line.contains("[inactive]") && line.contains(reason));
        assert!(log.lines().any(|line| line.contains(name) && told(line)), "{name}: {log}");
    }
    assert!(log.contains("the certificate of 10.2.0.2:8443 has expired"), "{log}");
    let tables = daemon.listing("-Ln");
    let up = cases.iter().filter(|case| case.down.is_none()).count();
    assert_eq!(tables.lines().filter(|line| line.contains("-> 10.2.0.2:")).count(), up, "{tables}");
    // nginx and dnsmasq go, and come back.
    drop(servers);
    let alone = |case: &Case| case.down.is_none() && ![8080, 8082, 8443, 5353, 9].contains(&case.port);
    await_states(&daemon, "those of nginx and dnsmasq are out", &states(&alone));
    let log = daemon.log();
    assert!(log.contains("[inactive] shutting down 10.2.0.2:8080 due to connection failure"), "{log}");
    let _servers = start();
    await_states(&daemon, "and in again after two good checks", &states(&|case| case.down.is_none()));
    daemon.stop();
}
