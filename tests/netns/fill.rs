//! Tables with as many connections as nobody opens in a test: a router is told of them by IPVS's own protocol.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use xlvs::ipvs::sync::{Entry, Version};
use xlvs::net::addr::Protocol;

use super::daemon::Daemon;
use super::namespace::Namespace;

const ENTRIES: usize = 38;
/// Messages that a daemon has room for.
const AT_ONCE: usize = 48;
/// Clients have ports from here on, so many each.
const PORTS: usize = 50_000;
const FIRST_PORT: usize = 1024;
const ESTABLISHED: u16 = 1;

fn entry(number: usize, virtual_address: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let client = Ipv4Addr::from(0x1400_0001 + (number / PORTS) as u32);
    let entry = Entry {
        protocol: Protocol::TCP,
        flags: 0x20,
        state: ESTABLISHED,
        client: SocketAddr::new(client.into(), (FIRST_PORT + number % PORTS) as u16),
        virtual_address,
        server,
        mark: 0,
        timeout: 3600,
        call_id: None,
    };
    entry.bytes(Version::V1).unwrap()
}

fn message(entries: &[Vec<u8>]) -> Vec<u8> {
    let bytes = entries.concat();
    let [high, low] = (bytes.len() as u16 + 8).to_be_bytes();
    [&[0, 0, high, low, entries.len() as u8, 1, 0, 0][..], &bytes].concat()
}

/// Waits for as long as it takes here.
pub fn wait_long(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..24_000 {
        if condition() {
            return;
        }
        poll(&mut [], PollTimeout::from(5u8)).unwrap();
    }
    panic!("waited in vain until {what}");
}

/// Has the daemon know established connections of a service, one for each number, to servers that take turns. `teller` shares
/// the daemon's network `front`.
pub fn fill(
    daemon: &Daemon,
    teller: &Namespace,
    numbers: std::ops::Range<usize>,
    service: &str,
    servers: &[&str],
) {
    let group: SocketAddr = "224.0.0.81:8848".parse().unwrap();
    let place = |text: &str| text.parse::<SocketAddr>().unwrap();
    let socket = teller.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let wanted = daemon.status().connections + numbers.len() as u64;
    daemon.ipvsadm("--start-daemon backup --mcast-interface front --syncid 0");
    let numbers: Vec<usize> = numbers.collect();
    for burst in numbers.chunks(ENTRIES * AT_ONCE) {
        let received = daemon.status().sync.entries_received + burst.len() as u64;
        for part in burst.chunks(ENTRIES) {
            let entries: Vec<Vec<u8>> = part
                .iter()
                .map(|number| entry(*number, place(service), place(servers[number % servers.len()])))
                .collect();
            socket.send_to(&message(&entries), group).unwrap();
        }
        wait_long("a burst of messages is taken in", || daemon.status().sync.entries_received >= received);
    }
    daemon.ipvsadm("--stop-daemon backup");
    wait_long("all are there", || daemon.status().connections >= wanted);
    let sync = daemon.status().sync;
    assert!(sync.refused.is_empty() && sync.lost == 0, "{sync:?}");
}

/// Resident memory of a process, in megabytes.
pub fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// What the machine has left, in megabytes.
pub fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// How long something took.
pub fn timed<T>(what: &str, act: impl FnOnce() -> T) -> (T, Duration) {
    let clock = xlvs::host::clock::Clock::start();
    let done = act();
    let took = Duration::from_nanos(clock.now().as_nanos());
    println!("{what}: {} ms", took.as_millis());
    (done, took)
}
