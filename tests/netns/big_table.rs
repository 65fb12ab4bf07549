//! Ten thousand services with ten servers each are restored and listed beside traffic, which must not notice.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use xlvs::host::clock::Clock;
use xlvs::net::time::Instant;

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, receive};

const SERVICES: u32 = 10_000;
const SERVERS: u32 = 10;
/// Thrice what a datagram may wait here, so that only a lost one takes longer.
const LOST: Duration = Duration::from_secs(3);
const END: [u8; 4] = [0xff; 4];

/// One service with traffic, and all the others, on a virtual address of the router's.
fn table() -> String {
    let mut lines = format!("-A -u {VIP}:5000 -s rr\n-a -u {VIP}:5000 -r 10.2.0.2:5000 -m -w 1\n");
    for service in 0..SERVICES {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "-A -t {VIP}:{} -s wlc", 10_000 + service);
        for server in 0..SERVERS {
            let [_, a, b, c] = (service * SERVERS + server).to_be_bytes();
            let _ = writeln!(lines, "-a -t {VIP}:{} -r 10.{}.{b}.{c}:80 -m -w 1", 10_000 + service, 100 + a);
        }
    }
    lines
}

/// Sends datagrams one after the other, each when the one before has come back, until told to stop. Returns how many and the
/// longest time that one took.
fn converse(stop: &AtomicBool, clock: Clock) -> (u32, Duration) {
    let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
    socket.connect((VIP, 5000)).unwrap();
    socket.set_read_timeout(Some(LOST)).unwrap();
    let (mut number, mut longest) = (0_u32, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let start = clock.now();
        socket.send(&number.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        receive(&socket, &mut answer).unwrap_or_else(|error| panic!("datagram {number} is lost: {error}"));
        assert_eq!(u32::from_be_bytes(answer), number);
        longest = longest.max(clock.now().saturating_since(start));
        number += 1;
    }
    (number, longest)
}

/// Sends everything back, until [`END`] comes.
fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 4];
    while buffer != END {
        let (_, client) = receive(socket, &mut buffer).unwrap();
        socket.send_to(&buffer, client).unwrap();
    }
}

fn since(clock: Clock, start: Instant) -> Duration {
    clock.now().saturating_since(start)
}

#[test]
fn restoring_and_listing_a_big_table_disturbs_nobody() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig, &[]);
    let table = table();
    daemon.restore("-A -u 10.1.0.30:5000 -s rr\n-a -u 10.1.0.30:5000 -r 10.2.0.2:5000 -m\n");
    let server = rig.server.enter(|| UdpSocket::bind("10.2.0.2:5000").unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (stop, clock) = (AtomicBool::new(false), Clock::start());
    thread::scope(|scope| {
        scope.spawn(|| echo(&server));
        let client = scope.spawn(|| rig.client.enter(|| converse(&stop, clock)));
        for _ in 0..3 {
            let start = clock.now();
            daemon.restore(&table);
            let restored = since(clock, start);
            let start = clock.now();
            let listing = daemon.listing("-Ln");
            println!("restored in {restored:?}, listed in {:?}", since(clock, start));
            assert_eq!(listing.lines().count() as u32, 3 + SERVICES * (SERVERS + 1) + 2);
        }
        stop.store(true, Ordering::Relaxed);
        let (datagrams, longest) = client.join().unwrap();
        println!("{datagrams} datagrams meanwhile, the slowest took {longest:?}");
        assert!(datagrams > 1000, "only {datagrams} datagrams meanwhile");
        let last = rig.client.enter(|| UdpSocket::bind("10.1.0.2:0").unwrap());
        last.send_to(&END, (VIP, 5000)).unwrap();
    });
    let saved = daemon.listing("-Sn");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&saved) == sorted(&table), "what was restored is not what is there");
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}
