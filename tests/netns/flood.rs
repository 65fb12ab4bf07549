//! A flood of SYNs at a service of the daemon, beside connections that somebody uses.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::poll::{PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, wait_until};
use crate::support::packet::{PacketSpec, build};

const CONN_MAX: u64 = 200;
const ESTABLISHED: usize = 20;
/// Many times [`CONN_MAX`].
const FLOOD: u64 = 5_000;

/// IPPROTO_RAW: what is sent brings its IP header.
const IP_HEADER_INCLUDED: i32 = 255;

/// SYNs of sources that nobody has heard of before, until told to stop.
struct Flood<'a> {
    rig: &'a Rig,
    sent: AtomicU64,
    stop: AtomicBool,
}

fn syn(number: u64) -> Vec<u8> {
    let source = Ipv4Addr::from(0xc612_0000 + (number % 0x2_0000) as u32);
    let segment = serde_json::json!({"src": source, "dst": VIP, "proto": "tcp", "id": 7, "sport": 1024 + number % 50_000,
        "dport": 80, "flags": "S", "seq": 1});
    let spec: PacketSpec = serde_json::from_value(segment).unwrap();
    build(&spec, None).remove(0)
}

impl Flood<'_> {
    fn run(&self) {
        self.rig.client.enter(|| {
            let socket =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IP_HEADER_INCLUDED))).unwrap();
            let target = SocketAddrV4::new(VIP.parse().unwrap(), 0).into();
            // It ends by itself if the test fails.
            while !self.stop.load(Ordering::Relaxed) && self.sent.load(Ordering::Relaxed) < 40 * FLOOD {
                let number = self.sent.fetch_add(1, Ordering::Relaxed);
                // A full queue loses some, as floods do.
                let _ = socket.send_to(&syn(number), &target);
                if number.is_multiple_of(32) {
                    poll(&mut [], PollTimeout::from(1u8)).unwrap();
                }
            }
        });
    }
}

/// Sends something and reads it again.
fn echo(stream: &mut TcpStream, round: usize) {
    let data: Vec<u8> = (0..3000).map(|index| (index + round) as u8).collect();
    stream.write_all(&data).unwrap();
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data, "round {round}: the bytes came back changed");
}

fn connect(rig: &Rig) -> TcpStream {
    let address: SocketAddr = format!("{VIP}:80").parse().unwrap();
    let stream = rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn serve_echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                // Whoever has gone needs no echo.
                let _ = std::io::copy(&mut stream, &mut writer);
            });
        }
    });
}

#[test]
fn established_connections_do_not_notice_a_flood() {
    let rig = Rig::new();
    // What answers the flood goes somewhere where nobody minds it.
    rig.router.ip("route add 198.18.0.0/15 via 10.1.0.2");
    rig.client.run("sysctl -qw net.ipv4.ip_forward=0");
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:80 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:80 -r 10.2.0.2:8080 -m"));
    daemon.sysctl("xlvs.conn_max", &CONN_MAX.to_string());
    serve_echo(rig.server.enter(|| TcpListener::bind("10.2.0.2:8080").unwrap()));
    let mut streams: Vec<_> = (0..ESTABLISHED).map(|_| connect(&rig)).collect();
    let flood = Flood { rig: &rig, sent: AtomicU64::new(0), stop: AtomicBool::new(false) };
    thread::scope(|scope| {
        scope.spawn(|| flood.run());
        let mut round = 0;
        while flood.sent.load(Ordering::Relaxed) < FLOOD {
            streams.iter_mut().for_each(|stream| echo(stream, round));
            round += 1;
            let connections = daemon.status().connections;
            assert!(connections <= CONN_MAX, "{connections} connections");
        }
        // Clients that come during the flood are let in.
        let mut late = connect(&rig);
        echo(&mut late, round);
        streams.push(late);
        flood.stop.store(true, Ordering::Relaxed);
    });
    wait_until("the flood has been dealt with", || daemon.status().evicted > FLOOD / 2);
    streams.iter_mut().for_each(|stream| echo(stream, 0));
    let (_, text) = daemon.xlvs("status");
    assert!(text.contains(&format!("connections: {CONN_MAX} of at most {CONN_MAX}, persistence")), "{text}");
    let established = daemon.listing("-Lnc").lines().filter(|line| line.contains(" ESTABLISHED ")).count();
    assert_eq!(established, ESTABLISHED + 1, "{text}");
    daemon.stop();
}
