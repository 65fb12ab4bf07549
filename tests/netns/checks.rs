//! Health checks by the daemon, in real time: nginx, dnsmasq, a script, and servers that behave badly.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use xlvs::host::clock::Clock;

use super::daemon::Daemon;
use super::rig::{Rig, wait_until};
use crate::servers::{Dnsmasq, NAME, Nginx};

const SERVER: &str = "10.2.0.2";
/// The limit of each step of a check is a second, and so is the pause between two of them.
const WORST: Duration = Duration::from_secs(1 + 2);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(5);

/// A server that behaves badly in one way.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Takes everything, says nothing.
    Silent,
    /// Resets the connection when it is asked something.
    Resetting,
    /// Answers well, a byte in a segment.
    Bytes,
    /// A header that has no end, ten bytes a second.
    Loris,
}

impl Behaviour {
    const PORTS: [(u16, Behaviour); 4] = [
        (1001, Behaviour::Silent),
        (1002, Behaviour::Resetting),
        (1003, Behaviour::Bytes),
        (1004, Behaviour::Loris),
    ];

    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        let _question = stream.read(&mut [0; 512]).await?;
        match self {
            Behaviour::Silent => while stream.read(&mut [0; 512]).await? > 0 {},
            Behaviour::Resetting => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
            Behaviour::Bytes => {
                stream.set_nodelay(true)?;
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
                    stream.write_all(&[*byte]).await?;
                }
                let _end = stream.read(&mut [0; 512]).await?;
            }
            Behaviour::Loris => {
                for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }
}

/// Servers of every [`Behaviour`] on the rig's server; they end with the value.
fn misbehave(rig: &Rig) -> Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (port, behaviour) in Behaviour::PORTS {
        let listener = rig.server.enter(|| std::net::TcpListener::bind((SERVER, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(behaviour.serve(stream));
            }
        });
    }
    runtime
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

const GET: &str = "send = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = \"HTTP\"";

/// Those of nginx and dnsmasq.
fn of_good_servers() -> Vec<Case> {
    let host = format!("#xlvs: http_host = {NAME}");
    let dns = format!("#xlvs: check = dns\n#xlvs: dns_name = {NAME}");
    let http = |rest: &str| format!("#xlvs: check = http\n{host}\n#xlvs: {rest}");
    let https = |rest: &str| format!("#xlvs: check = https\n{host}\n#xlvs: {rest}");
    let elsewhere = format!("#xlvs: check_port = 8080\n#xlvs: check_source = 10.2.0.1\n{GET}");
    let answer = |address: &str| format!("{dns}\n#xlvs: dns_answer = {address}");
    vec![
        case("piranha", 8080, GET, None),
        case("http", 8080, http("http_body = \"it works\""), None),
        case("http2", 8082, http("http_version = 2"), None),
        case("https", 8443, https("tls_expiry = 7"), None),
        case("https2", 8443, https("http_version = 2"), None),
        case("handshake", 8443, "#xlvs: check = tls", None),
        case("other-port", 9, elsewhere, None),
        case("dns", 5353, format!("protocol = udp\n{}", answer("192.0.2.7")), None),
        case("dns-tcp", 5353, dns.clone(), None),
        case("503", 8080, http("http_path = /broken"), Some("HTTP status 503")),
        case("expired", 8443, https("tls_verify = system"), Some("TLS handshake")),
        case("other-answer", 5353, answer("192.0.2.8"), Some("192.0.2.8 is not in the answer")),
    ]
}

/// Those of servers that behave badly, of programs and of echoes.
fn of_others(directory: &Path) -> Vec<Case> {
    let program = |name, text, expect| {
        let path = script(directory, name, text);
        format!("send_program = \"{path} %h %p\"\nexpect = \"{expect}\"")
    };
    // Whatever descriptor is neither the pipe nor the script is one of the daemon's.
    let descriptors =
        "readlink /proc/$$/fd/* | grep -v -e '^pipe:' -e '^/dev/null$' -e \"^$0$\" -e '^/proc/'\necho end";
    let reset = "READ operation for 10.2.0.2:1002 returned error: Connection reset";
    let refused = "CONNECT to 10.2.0.2:1005 returned error: Connection refused";
    let absent = |case: Case| Case { address: "10.2.0.9", ..case };
    vec![
        case("silent", 1001, GET, Some("READ to 10.2.0.2:1001 timed out")),
        case("silent-http", 1001, "#xlvs: check = http", Some("READ to 10.2.0.2:1001 timed out")),
        case("silent-tls", 1001, "#xlvs: check = tls", Some("TLS handshake with 10.2.0.2:1001 timed out")),
        case("resetting", 1002, GET, Some(reset)),
        case("bytes", 1003, GET, None),
        case("bytes-http", 1003, "#xlvs: check = http\n#xlvs: http_body = \"^ok$\"", None),
        case("loris", 1004, "#xlvs: check = http", Some("READ to 10.2.0.2:1004 timed out")),
        case("closed", 1005, GET, Some(refused)),
        case("script", 7, program("good", "echo $1 $2", "10.2.0.2 7"), None),
        case("descriptors", 7, program("clean", descriptors, "end"), None),
        case("hang", 7, program("hang", "sleep 1000", "x"), Some("timeout running the following")),
        case("fails", 7, program("fail", "echo x; exit 3", "x"), Some("exit status: 3")),
        case("ping", 7, "#xlvs: check = icmp", None),
        absent(case("no-ping", 7, "#xlvs: check = icmp", Some("ECHO to 10.2.0.9"))),
        absent(case("nobody", 80, GET, Some("CONNECT to 10.2.0.9:80"))),
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

/// All must be as expected within the time that two checks may take.
fn await_states(daemon: &Daemon, what: &str, expected: &[String]) {
    let clock = Clock::start();
    let from = clock.now();
    wait_until(what, || states(daemon) == expected || clock.now().saturating_since(from) > WORST + SLACK);
    assert_eq!(states(daemon), expected, "{what}: {}", daemon.log());
}

#[test]
fn every_kind_of_server_ends_in_its_state_in_time() {
    let rig = Rig::new();
    let address: IpAddr = SERVER.parse().unwrap();
    let start = || rig.server.enter(|| (Nginx::start(address), Dnsmasq::start(address)));
    let servers = start();
    let _misbehaving = misbehave(&rig);
    let directory = tempfile::tempdir().unwrap();
    let cases: Vec<Case> = of_good_servers().into_iter().chain(of_others(directory.path())).collect();
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
