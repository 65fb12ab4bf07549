//! Connections of all kinds on two routers that have the shortcut on, when the work moves.

use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use xlvs::pulse::State;

use super::daemon::Daemon;
use super::ftp::{Server, megabyte};
use super::lab::{Lab, VIP, states};
use super::rig::{receive, wait_until};
use super::shortcut::AT_ONCE;

const SECOND: Duration = Duration::from_secs(1);
/// Clients of each service: that all of them find their servers by chance does not happen.
const CLIENTS: u8 = 10;
const MARK: &str = "*mangle\n:PREROUTING ACCEPT [0:0]\n\
     -A PREROUTING -d 10.1.0.30/32 -p udp -m udp --dport 90 -j MARK --set-mark 7\nCOMMIT\n";

fn lab() -> Lab {
    let mut lab = Lab::new().with_key();
    lab.settings.insert_str(0, AT_ONCE);
    // A veth takes redirected frames if its other end merges segments.
    for port in [0, 1].into_iter().flat_map(Lab::ports) {
        lab.switch.run(&format!("ethtool -K {port} gro on"));
    }
    lab.client.ip(&format!("route add 10.2.0.0/24 via {VIP}"));
    lab
}

fn on_both(daemons: &[Daemon; 2], lines: &[String]) {
    for line in lines {
        daemons.iter().for_each(|daemon| daemon.ipvsadm(line));
    }
}

fn await_in_sync(daemons: &[Daemon; 2], active: usize, connections: u64) {
    wait_until("the standby has all", || {
        let reports = [0, 1].map(|router| daemons[router].status());
        let told = reports.iter().all(|status| status.replica.as_ref().is_some_and(|it| it.in_sync));
        let counts = reports.each_ref().map(|status| (status.connections, status.templates));
        let lag = reports[active].replica.as_ref().map(|it| it.lag_ms);
        told && lag == Some(0) && counts[0] == counts[1] && counts[0].0 >= connections
    });
}

/// Answers with its own address.
fn say_who(server: &Lab, address: &str) {
    let socket = server.server.enter(|| UdpSocket::bind((address, 5353)).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let address = address.to_owned();
    // It ends with the test's process.
    thread::spawn(move || {
        loop {
            let mut buffer = [0; 64];
            if let Ok((_, from)) = receive(&socket, &mut buffer) {
                // A client that is gone needs no answer.
                let _ = socket.send_to(address.as_bytes(), from);
            }
        }
    });
}

/// Who answers a datagram; it is sent again where that takes long.
fn ask(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    for _ in 0..20 {
        // While nobody has the address there is nobody who refuses.
        let _ = socket.send(b"who");
        if let Ok((length, _)) = receive(socket, &mut buffer) {
            return String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    panic!("no answer");
}

fn sockets(lab: &Lab, port: u16) -> Vec<UdpSocket> {
    let open = |_| {
        let socket = lab.client.enter(|| UdpSocket::bind("10.1.0.100:0").unwrap());
        socket.connect((VIP, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    (0..CLIENTS).map(open).collect()
}

fn persistent(lab: &Lab) -> Vec<String> {
    let get = |client: u8| {
        let curl = format!("curl -s --max-time 5 --interface 10.1.0.{}", 150 + client);
        lab.client.run(&format!("{curl} http://{VIP}:8080/word?word=x"))
    };
    (0..CLIENTS).map(get).collect()
}

#[test]
fn datagrams_marks_and_templates_lead_where_they_led() {
    let lab = lab();
    for client in 0..CLIENTS {
        lab.client.ip(&format!("address add 10.1.0.{}/24 dev eth0", 150 + client));
    }
    let start = |router: usize| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("iptables"), MARK).unwrap();
        lab.start_in(router, directory)
    };
    let daemons = [start(0), start(1)];
    wait_until("the primary is active", || states(&daemons) == [State::Active, State::Inactive]);
    let servers = ["10.2.0.100", "10.2.0.101"];
    servers.iter().for_each(|server| say_who(&lab, server));
    let mut lines = vec![
        format!("-A -u {VIP}:53 -s rr"),
        "-A -f 7 -s rr".to_owned(),
        format!("-A -t {VIP}:8080 -s rr -p 300"),
    ];
    for server in servers {
        lines.push(format!("-a -u {VIP}:53 -r {server}:5353 -m"));
        lines.push(format!("-a -f 7 -r {server}:5353 -m"));
        lines.push(format!("-a -t {VIP}:8080 -r {server}:80 -m"));
    }
    on_both(&daemons, &lines);
    let flows: Vec<UdpSocket> = [sockets(&lab, 53), sockets(&lab, 90)].into_iter().flatten().collect();
    let who = || flows.iter().map(ask).collect::<Vec<_>>();
    let before = (who(), persistent(&lab));
    assert!(servers.iter().all(|server| before.0.iter().any(|by| by == server)), "{before:?}");
    assert_eq!(who(), before.0);
    // A server that gets nothing new keeps what it has, but for new connections of clients that know it.
    let quiet = |line: &str| format!("-e {line} -r 10.2.0.101:5353 -m -w 0");
    let quiet = [quiet(&format!("-u {VIP}:53")), quiet("-f 7")];
    on_both(&daemons, &quiet);
    assert_eq!(who(), before.0);
    wait_until("flows take the shortcut", || daemons[0].status().shortcut.flows >= 2);
    await_in_sync(&daemons, 0, u64::from(3 * CLIENTS));
    let [a, b] = daemons;
    let left = a.kill();
    wait_until("the work has moved", || b.status().pulse.unwrap().state == State::Active);
    assert_eq!((who(), persistent(&lab)), before, "after kill -9");
    let daemons = [lab.start_in(0, left), b];
    await_in_sync(&daemons, 1, u64::from(3 * CLIENTS));
    // What was done by hand is not kept over a restart: it was told of connections to servers that it did not have.
    lines.iter().chain(&quiet).for_each(|line| daemons[0].ipvsadm(line));
    let listings = || [0, 1].map(|router: usize| daemons[router].listing("-Ln"));
    wait_until("all connections count at their servers", || {
        let [a, b] = listings();
        a == b
    });
    wait_until("the partner is heard", || {
        daemons[1].status().pulse.and_then(|pulse| pulse.partner).is_some_and(|partner| partner.heard)
    });
    let (done, said) = daemons[1].xlvs("standby");
    assert!(done, "{said}");
    wait_until("the work has moved back", || states(&daemons) == [State::Active, State::Inactive]);
    assert_eq!((who(), persistent(&lab)), before, "after standby");
}

#[test]
fn ftp_goes_on_in_the_midst_of_a_transfer() {
    let lab = lab();
    let server = Server::start_in(&lab.server, "10.2.0.100", 21);
    let daemons = lab.start_both();
    on_both(&daemons, &[format!("-A -t {VIP}:21 -s rr"), format!("-a -t {VIP}:21 -r 10.2.0.100:21 -m")]);
    for (turn, mode) in ["--disable-epsv", "--ftp-port - --disable-eprt"].iter().enumerate() {
        let received = server.received();
        // It may not be there.
        let _ = fs::remove_file(&received);
        let curl = format!(
            "curl -sS --max-time 30 --limit-rate 400k --no-ftp-skip-pasv-ip {mode} ftp://{VIP}/megabyte -o {received} \
             ftp://{VIP}/megabyte -o {received}-again ftp://{VIP}/"
        );
        let (from, to) = (turn % 2, 1 - turn % 2);
        let listing = thread::scope(|scope| {
            let curl = scope.spawn(|| lab.client.run(&curl));
            let has_some = || fs::metadata(&received).is_ok_and(|file| file.len() > 200_000);
            wait_until("a part has come", has_some);
            await_in_sync(&daemons, from, 2);
            let (done, said) = daemons[from].xlvs("standby");
            assert!(done, "{said}");
            wait_until("the work has moved", || {
                daemons[to].status().pulse.is_some_and(|pulse| pulse.state == State::Active)
            });
            curl.join().unwrap()
        });
        assert!(listing.contains("megabyte"), "{mode}: {listing}");
        for file in [received.clone(), format!("{received}-again")] {
            assert!(fs::read(file).unwrap() == megabyte(), "{mode}: another file arrived");
        }
        wait_until("it is over", || daemons[to].status().uptime > SECOND.as_secs());
    }
}
