//! Servers that fail, come back, flap, and are taken out by hand, with real nginx behind the daemon.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use xlvs::admin::client::SOCKET_VARIABLE;
use xlvs::director::member::State;
use xlvs::director::protocol::ServerStatus;

use super::daemon::{Daemon, VIP};
use super::ldirectord::Web;
use super::rig::{PATIENCE, Rig, wait_until};

const SERVERS: [&str; 2] = ["10.2.0.2", "10.2.0.3"];
const SORRY: &str = "10.2.0.4";

/// A virtual server with both servers, which are looked at every second; `more` are lines of its block.
fn lvs(top: &str, more: &str) -> String {
    let server = |name: &str, address: &str| {
        format!(" server {name} {{\n address = {address}\n active = 1\n weight = 4\n }}\n")
    };
    format!(
        "primary = 10.1.0.1\n{top}virtual web {{\n active = 1\n address = {VIP} front:1\n \
         vip_nmask = 255.255.255.255\n port = 80\n timeout = 1\n reentry = 1\n {more}\n{}{}}}\n",
        server("one", SERVERS[0]),
        server("two", SERVERS[1])
    )
}

/// A rig with nginx at all addresses.
fn farm() -> (Rig, Vec<Web>) {
    let rig = Rig::new();
    for address in [SERVERS[1], SORRY] {
        rig.server.ip(&format!("address add {address}/24 dev eth0"));
    }
    let webs = [SERVERS[0], SERVERS[1], SORRY].map(|address| Web::start(&rig.server, address));
    (rig, webs.into())
}

fn try_to_connect(rig: &Rig) -> std::io::Result<TcpStream> {
    let address: SocketAddr = format!("{VIP}:80").parse().unwrap();
    rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE))
}

fn connect(rig: &Rig) -> TcpStream {
    let stream = try_to_connect(rig).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until both servers are up, and clients get to them: the virtual address is put up in the meantime.
fn await_service(rig: &Rig, daemon: &Daemon) {
    (0..2).for_each(|index| until(daemon, index, State::Up));
    wait_until("clients are served", || try_to_connect(rig).is_ok());
}

/// The address of the server that answers the rest of a request.
fn answer(mut stream: &TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned()
}

fn ask(rig: &Rig) -> String {
    answer(&connect(rig), "GET / HTTP/1.0\r\n\r\n")
}

fn standing(daemon: &Daemon, index: usize) -> ServerStatus {
    daemon.status().virtuals[0].servers[index].clone()
}

fn until(daemon: &Daemon, index: usize, state: State) {
    wait_until(&format!("server {index} is {}", state.word()), || standing(daemon, index).state == state);
}

/// A program in a directory.
fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The checks are refused and let through again, each time after the daemon has seen it; packets of clients pass all the time.
#[test]
fn a_server_that_flaps_keeps_its_connections_and_fills_no_log() {
    const ROUNDS: u32 = 10;
    let (rig, _webs) = farm();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let notify = script(directory.path(), "notify", &format!("echo \"$@\" >>{}", told.display()));
    let settings = format!("slow_start = false\nnotify = \"{} --from xlvs\"\n", notify.display());
    let daemon = Daemon::with_lvs_and(&rig, directory, &lvs("", "persistent = 300"), &settings);
    await_service(&rig, &daemon);

    let server = ask(&rig);
    let index = SERVERS.iter().position(|address| *address == server).expect("one of the two answered");
    let held = connect(&rig);
    (&held).write_all(b"GET / HTTP/1.0\r\n").unwrap();
    let rule = format!("INPUT -s 10.2.0.1 -d {server} -p tcp --dport 80 -j REJECT --reject-with tcp-reset");
    let cpu = daemon.cpu_time();
    let uptime = daemon.status().uptime;
    for _ in 0..ROUNDS {
        rig.server.run(&format!("iptables -I {rule}"));
        until(&daemon, index, State::Down);
        rig.server.run(&format!("iptables -D {rule}"));
        until(&daemon, index, State::Up);
    }
    let (cpu, time) = (daemon.cpu_time() - cpu, daemon.status().uptime - uptime);
    println!("{ROUNDS} rounds in {time} s took {cpu} s of CPU time");
    assert!(cpu < time as f64 / 4.0, "{cpu} s of CPU time in {time} s");

    assert_eq!(answer(&held, "\r\n"), server, "a connection from before the first round");
    assert_eq!(ask(&rig), server, "the client's template is still there");
    let endpoint = format!("{server}:80");
    let about: Vec<String> = daemon
        .log()
        .lines()
        .filter(|line| {
            line.contains(&endpoint) && (line.contains("[ active ]") || line.contains("[inactive]"))
        })
        .map(str::to_owned)
        .collect();
    assert!(about.len() <= 5, "the first time, and four changes in a minute: {about:#?}");
    let (done, events) = daemon.xlvs("events --json");
    assert!(done, "{events}");
    let down = events.lines().filter(|line| line.contains("\"event\":\"down\"")).count();
    assert!((1..=2).contains(&down), "{events}");
    wait_until("the notify command has been told", || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        let name = ["one", "two"][index];
        let down = format!("--from xlvs down web {name} {endpoint} ");
        told.contains(&down) && told.lines().filter(|line| line.contains(&endpoint)).count() <= 5
    });
    daemon.stop();
}

#[test]
fn a_sorry_server_stands_in_for_servers_that_are_killed() {
    let (rig, mut webs) = farm();
    let daemon = Daemon::with_lvs_and(
        &rig,
        tempfile::tempdir().unwrap(),
        &lvs("", &format!("sorry_server = {SORRY}")),
        "",
    );
    await_service(&rig, &daemon);
    assert!(SERVERS.contains(&ask(&rig).as_str()));
    let sorry = webs.pop().unwrap();
    webs.clear();
    (0..2).for_each(|index| until(&daemon, index, State::Down));
    assert_eq!(ask(&rig), SORRY);
    let (_, status) = daemon.xlvs("status");
    assert!(status.contains("virtual web (TCP 10.1.0.30:80): 0 of 2 servers up, since "), "{status}");
    assert!(status.contains("sorry server 10.2.0.4:80: stands in"), "{status}");
    let back = Web::start(&rig.server, SERVERS[1]);
    until(&daemon, 1, State::Up);
    assert_eq!(ask(&rig), SERVERS[1]);
    wait_until("the address has been announced", || daemon.log().contains("gratuitous lvs arps finished"));
    let log = daemon.log();
    for words in [
        "starting virtual service web active: 80",
        "[ active ] making 10.2.0.2:80 available",
        "[inactive] shutting down 10.2.0.2:80 due to connection failure",
        "Virtual Server web: No real servers; activate sorry_server 10.2.0.4",
        "Virtual Server web: 1 real servers; deactivate sorry_server 10.2.0.4",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    drop((sorry, back));
    daemon.stop();
}

/// Down by hand over a crash of the daemon; what follows from it is followed as it happens.
#[test]
fn overrides_outlive_the_daemon_and_events_are_followed() {
    let (rig, _webs) = farm();
    let (directory, desk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seen = desk.path().join("seen");
    let note = script(desk.path(), "note", &format!("echo \"$@\" >>{}", seen.display()));
    let top = format!("active_cmd = \"{0} active\"\ninactive_cmd = \"{0} inactive\"\n", note.display());
    let text = lvs(&top, "");
    let daemon = Daemon::with_lvs_and(&rig, directory, &text, "");
    (0..2).for_each(|index| until(&daemon, index, State::Up));
    let (done, said) = daemon.xlvs("server down 10.2.0.2 --virtual web");
    assert!(done, "{said}");
    assert_eq!(said, "server one 10.2.0.2:80 of web: down by hand; not in the table\n");
    let (done, said) = daemon.xlvs("server down three");
    assert!(
        !done && said.contains("lvs.cf has no active server three; it has one 10.2.0.2:80 of web"),
        "{said}"
    );

    let directory: TempDir = daemon.kill();
    let daemon = Daemon::with_lvs_and(&rig, directory, &text, "");
    until(&daemon, 1, State::Up);
    wait_until("the check of the first server has ended", || standing(&daemon, 0).check == State::Up);
    assert_eq!((standing(&daemon, 0).state, ask(&rig).as_str()), (State::Down, SERVERS[1]));
    let (_, status) = daemon.xlvs("status");
    let line = status.lines().find(|line| line.contains("one 10.2.0.2:80")).unwrap_or_default();
    assert!(line.contains("down by hand for ") && line.ends_with("not in the table"), "{status}");

    let mut follow = Command::new(env!("CARGO_BIN_EXE_xlvs"));
    follow.args(["events", "--follow"]).env(SOCKET_VARIABLE, daemon.control_socket()).stdout(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = |words: &str| {
        let found = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains(words)));
        assert!(found.is_some(), "{words} is not followed");
    };
    next("[ active ] making 10.2.0.3:80 available virtual=web server=two");
    assert!(daemon.xlvs("server auto one").0);
    next("removing glasses: the checks of 10.2.0.2:80 decide again");
    next("[ active ] making 10.2.0.2:80 available virtual=web server=one");
    follow.kill().unwrap();
    follow.wait().unwrap();
    daemon.stop();
    // As with pulse, a start begins with the inactive state. The last command is run last of all, and the daemon waits for its end.
    let told = "inactive\nactive\n".repeat(2) + "inactive\n";
    assert_eq!(fs::read_to_string(&seen).unwrap(), told);
}

/// The weight grows by the load that a program tells, which is run as often as the checks allow.
#[test]
fn a_load_program_changes_the_weight_and_a_notify_command_that_hangs_is_killed() {
    let (rig, _webs) = farm();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let asked = path.join("asked");
    let load =
        script(path, "load", &format!("echo \"$@\" >>{}\necho 'load average: 0.00, 0.00'", asked.display()));
    let pid = path.join("pid");
    let notify = script(path, "notify", &format!("sleep 1000 & echo $! >{}; wait", pid.display()));
    let text =
        lvs("", &format!("load_monitor = \"{} -1\"", load.display())).replace("timeout = 1", "timeout = 11");
    let settings = format!("slow_start = false\nnotify = \"{}\"\n", notify.display());
    let daemon = Daemon::with_lvs_and(&rig, directory, &text, &settings);
    (0..2).for_each(|index| until(&daemon, index, State::Up));
    assert_eq!(standing(&daemon, 0).weight, Some(4));
    let is_alive = || {
        let pid = fs::read_to_string(&pid).unwrap_or_default();
        !pid.trim().is_empty() && Path::new(&format!("/proc/{}", pid.trim())).exists()
    };
    wait_until("the notify command runs", is_alive);
    wait_until("its descendants are killed", || {
        daemon.log().contains("notify: ") && daemon.log().contains("took too long and was killed")
    });
    wait_until("the load has been read", || standing(&daemon, 0).weight == Some(6));
    let asked = fs::read_to_string(&asked).unwrap();
    assert!(asked.lines().any(|line| line == "-1 10.2.0.2"), "{asked}");
    daemon.stop();
}
