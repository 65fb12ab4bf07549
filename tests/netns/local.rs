//! Real servers that are the router itself.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, receive, wait_until};

const LVS: &str = "primary = 10.1.0.1\nvirtual web {\n active = 1\n address = 10.1.0.30 front:1\n vip_nmask = 255.255.255.255\n port = 80\n server own {\n address = 10.2.0.1\n active = 1\n }\n}\n";

fn megabyte() -> Vec<u8> {
    (0..1_000_000u32).map(|i| (i % 251) as u8).collect()
}

fn filters(rig: &Rig) -> usize {
    rig.router.run("tc filter show dev front egress").matches("handle").count()
}

#[test]
fn a_service_is_served_by_the_router_itself() {
    let rig = Rig::new();
    // What the router sends is segmented and summed as late as possible.
    rig.router.run("ethtool -K front tx on tso on gso on");
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.1:8080 -m"));
    let listener = rig.router.enter(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    rig.exchange(&listener, &format!("{VIP}:80"), PATIENCE, &megabyte());
    rig.exchange(&listener, "10.2.0.1:8080", PATIENCE, b"not balanced");
    let packets = daemon.stop();
    assert!(packets.passed > 0 && packets.transmitted > 0, "{packets:?}");
    assert!(packets.dropped.is_empty(), "{packets:?}");
    assert_eq!(filters(&rig), 0, "nothing is left behind");
    rig.exchange(&listener, "10.2.0.1:8080", PATIENCE, b"without the daemon");
}

#[test]
fn a_datagram_server_on_any_address_is_translated() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -u {VIP}:53 -s rr"));
    daemon.ipvsadm(&format!("-a -u {VIP}:53 -r 10.1.0.1:5353 -m"));
    let server = rig.router.enter(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
    let client = rig.client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // A connected socket takes no other source.
    client.connect(format!("{VIP}:53")).unwrap();
    let mut buffer = [0; 3000];
    client.send(b"question").unwrap();
    let (length, from) = receive(&server, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", from).unwrap();
    let (length, _) = receive(&client, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    daemon.stop();
}

#[test]
fn both_families() {
    let rig = Rig::new();
    for (namespace, device, address) in [
        (&rig.client, "eth0", "fd00:1::2/64"),
        (&rig.router, "front", "fd00:1::1/64"),
        (&rig.router, "front", "fd00:1::30/128"),
        (&rig.router, "back", "fd00:2::1/64"),
    ] {
        namespace.ip(&format!("address add {address} dev {device} nodad"));
    }
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm("-A -t [fd00:1::30]:80 -s rr");
    daemon.ipvsadm("-a -t [fd00:1::30]:80 -r [fd00:2::1]:8080 -m");
    let listener = rig.router.enter(|| TcpListener::bind("[::]:8080").unwrap());
    rig.exchange(&listener, "[fd00:1::30]:80", PATIENCE, &megabyte());
    daemon.stop();
}

#[test]
fn a_killed_daemon_leaves_the_routers_own_traffic_alone() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.1:80 -m"));
    let directory = daemon.kill();
    let listener = rig.router.enter(|| TcpListener::bind("10.2.0.1:80").unwrap());
    let left = rig.router.ip("-brief link show");
    assert!(!left.contains("xlvs-"), "its devices end with it: {left}");
    assert_eq!(filters(&rig), 1, "the filter outlives it");
    rig.exchange(&listener, "10.2.0.1:80", PATIENCE, b"served directly all the same");
    let next = Daemon::with_lvs_in(&rig, directory, LVS);
    assert_eq!(filters(&rig), 0, "the next one removes it");
    next.stop();
}

/// Answers whoever comes, as a web server does.
fn serve_web(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // Whoever only looks whether it connects may be gone.
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
    }
}

#[test]
fn a_server_on_the_router_is_checked_and_then_serves() {
    let rig = Rig::new();
    let listener = rig.router.enter(|| TcpListener::bind("10.2.0.1:80").unwrap());
    thread::spawn(|| serve_web(listener));
    let daemon = Daemon::with_lvs(&rig, LVS);
    wait_until("the server is in the table", || daemon.listing("-Ln").contains("10.2.0.1:80"));
    let address = "10.1.0.30:80".parse().unwrap();
    // The daemon sees a moment later that the address which it has added is there.
    let connect = || rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).ok());
    let stream = RefCell::new(None);
    wait_until("the address is balanced", || {
        *stream.borrow_mut() = connect();
        stream.borrow().is_some()
    });
    let mut stream = stream.into_inner().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let table = daemon.listing("-Lnc");
    assert!(table.contains("10.2.0.1:80"), "it was balanced: {table}");
    daemon.stop();
}

/// Real stacks take a reset only with the right numbers (RFC 9293, 3.10.7.4; RFC 5961).
#[test]
fn idle_connections_are_reset_at_both_ends() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    daemon.sysctl("xlvs.reset_on_expiry", "1");
    daemon.ipvsadm("--set 1 0 0");
    for (namespace, port, server) in [(&rig.server, 80, "10.2.0.2:8080"), (&rig.router, 81, "10.2.0.1:8080")]
    {
        daemon.ipvsadm(&format!("-A -t {VIP}:{port} -s rr"));
        daemon.ipvsadm(&format!("-a -t {VIP}:{port} -r {server} -m"));
        let listener = namespace.enter(|| TcpListener::bind(server).unwrap());
        let address = format!("{VIP}:{port}").parse().unwrap();
        let mut client = rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        let (mut served, _) = listener.accept().unwrap();
        client.write_all(b"question").unwrap();
        served.read_exact(&mut [0; 8]).unwrap();
        served.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        for end in [&mut client, &mut served] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            let error = end.read(&mut [0]).expect_err("the end of the connection");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{server}: {error}");
        }
    }
    daemon.stop();
}
