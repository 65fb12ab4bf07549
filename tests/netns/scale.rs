//! Tables that are as large as they get, in the hands of a pair and of an upgrade. In short they have 20,000 connections; `make
//! test-scale` has two million.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use xlvs::admin::client::{ControlSocket, Transport};
use xlvs::director::protocol::{Reply, Request, Status};
use xlvs::host::clock::Clock;
use xlvs::pulse::State;

use super::daemon::Daemon;
use super::fill::{available, fill, memory, timed, wait_long};
use super::lab::{DEADTIME, Lab, VIP, states};
use super::load::Load;
use super::rig::wait_until;

const CONNECTIONS: &str = "XLVS_SCALE_CONNECTIONS";
const SERVERS: [&str; 2] = ["10.2.0.100:80", "10.2.0.101:80"];
/// Clients that notice when nothing is forwarded.
const CLIENTS: usize = 50;
/// How long packets may stay away for each million connections, and besides.
const PAUSE: Duration = Duration::from_millis(1500);

/// Comparisons are so often here, and watched for so long.
const COMPARE: &str = "replica_compare = 2\n";
const COMPARED: Duration = Duration::from_secs(5);
/// Milliseconds that a change may be on its way, on a machine that does other things as well.
const MOST_LAG: u64 = 500;

fn connections() -> usize {
    std::env::var(CONNECTIONS).map_or(20_000, |value| value.parse().unwrap())
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    let another = " server two {\n  address = 10.2.0.101\n  active = 1\n }\n}\n";
    lab.lvs = lab.lvs.strip_suffix("}\n").unwrap().to_owned() + another;
    lab.client.ip(&format!("route add 10.2.0.0/24 via {VIP}"));
    lab.client.ip("route add 224.0.0.0/4 dev eth0");
    lab
}

fn load(lab: &Lab) -> Load {
    let service: SocketAddr = format!("{VIP}:80").parse().unwrap();
    Load::start(&lab.client, service, CLIENTS, Duration::from_millis(20))
}

/// What was seen of a daemon all the time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    looks: usize,
    /// The longest that an answer took.
    answer_ms: u64,
    /// The fewest connections.
    fewest: u64,
    /// The longest silence of its partner, by heartbeats and by the replica.
    partner_ms: u64,
    replica_ms: u64,
    lag_ms: u64,
    /// How often the standby was said not to have all.
    out_of_sync: usize,
    /// Looks at which the partner was not heard.
    alone: usize,
    /// Megabytes that the machine had left.
    least_memory: u64,
}

impl Seen {
    fn take(&mut self, status: &Status, answer_ms: u64) {
        self.looks += 1;
        self.answer_ms = self.answer_ms.max(answer_ms);
        self.fewest = self.fewest.min(status.connections);
        self.least_memory = self.least_memory.min(available());
        if let Some(partner) = status.pulse.as_ref().and_then(|pulse| pulse.partner.as_ref()) {
            self.partner_ms = self.partner_ms.max(partner.public_ms.unwrap_or(0));
        }
        if let Some(replica) = &status.replica {
            self.replica_ms = self.replica_ms.max(replica.heard_ms.unwrap_or(0));
            self.lag_ms = self.lag_ms.max(replica.lag_ms);
            self.out_of_sync += usize::from(!replica.in_sync);
            self.alone += usize::from(replica.state == xlvs::ipvs::replica::State::Alone);
        }
    }
}

struct Watch(Arc<AtomicBool>, JoinHandle<Seen>);

impl Watch {
    /// Looks at the daemon all the time from now on.
    fn begin(daemon: &Daemon) -> Watch {
        let stop = Arc::<AtomicBool>::default();
        let (order, socket) = (Arc::clone(&stop), daemon.control_socket());
        Watch(stop, thread::spawn(move || watch(&order, &socket)))
    }

    fn end(self, what: &str) -> Seen {
        self.0.store(true, Ordering::Relaxed);
        let seen = self.1.join().unwrap();
        println!("{what}: {seen:?}");
        seen
    }
}

fn watch(stop: &AtomicBool, socket: &Path) -> Seen {
    let mut seen = Seen { fewest: u64::MAX, least_memory: u64::MAX, ..Seen::default() };
    let clock = Clock::start();
    while !stop.load(Ordering::Relaxed) {
        let asked = clock.now();
        let reply = ControlSocket::new(socket.to_owned()).call(Request::Status);
        let took = clock.now().saturating_since(asked).as_millis() as u64;
        let Ok(Reply::Status(status)) = reply else { panic!("{reply:?}") };
        seen.take(&status, took);
        poll(&mut [], PollTimeout::from(10u8)).unwrap();
    }
    seen
}

/// Connections at the servers of the service, active ones and others.
fn counted(daemon: &Daemon) -> (u64, u64) {
    let listing = daemon.listing("-Ln --exact");
    let servers = listing.lines().filter(|line| line.trim_start().starts_with("-> 10."));
    let counts = servers.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[4].parse::<u64>().unwrap(), words[5].parse::<u64>().unwrap())
    });
    counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
}

fn pause_allowed() -> Duration {
    PAUSE + PAUSE * (connections() / 1_000_000) as u32
}

#[test]
fn a_large_table_goes_to_the_next_process() {
    let lab = lab();
    let [a, b] = lab.start_both();
    timed("filling", || fill(&a, &lab.client, 0..connections(), &format!("{VIP}:80"), &SERVERS));
    let load = load(&lab);
    let all = (connections() + CLIENTS) as u64;
    wait_long("all are counted", || counted(&a).0 == all);
    println!("memory: {} MB; the machine has {} MB left", memory(&a), available());
    let (own, partner) = (Watch::begin(&a), Watch::begin(&b));
    load.mark();
    let (told, _) = timed("upgrade", || a.upgrade(""));
    println!("{told}");
    load.await_all(load.now(), "every client is answered");
    let silence = load.silence();
    println!("no answer for {} ms; memory: {} MB", silence.as_millis(), memory(&a));
    let (own, partner) = (own.end("the upgraded one"), partner.end("its partner"));
    assert!(own.fewest >= all, "{own:?}");
    assert!(partner.partner_ms < DEADTIME.as_millis() as u64, "{partner:?}");
    // Some that were over before may be there still.
    assert_eq!(counted(&a).0, all);
    assert!(!b.log().contains("partner dead"), "{}", b.log());
    assert!(silence < pause_allowed(), "{silence:?}");
    load.finish();
}

#[test]
fn a_large_table_goes_to_a_partner_that_joins() {
    let mut lab = lab().with_key();
    lab.settings += COMPARE;
    let a = lab.start(0);
    wait_until("it is active", || a.status().pulse.is_some_and(|pulse| pulse.state == State::Active));
    wait_until("its servers are up", || a.listing("-Ln").matches("-> 10.2").count() == 2);
    timed("filling", || fill(&a, &lab.client, 0..connections(), &format!("{VIP}:80"), &SERVERS));
    let load = load(&lab);
    let all = (connections() + CLIENTS) as u64;
    println!("memory of the active one: {} MB", memory(&a));
    let active = Watch::begin(&a);
    load.mark();
    let b = lab.start(1);
    let standby = Watch::begin(&b);
    let in_sync = |daemon: &Daemon| daemon.status().replica.is_some_and(|replica| replica.in_sync);
    timed("joining", || wait_long("the partner has all", || in_sync(&a) && in_sync(&b)));
    assert_eq!((b.status().connections, counted(&b)), (all, (all, 0)));
    println!(
        "no answer for {} ms; memory: {} MB and {} MB",
        load.silence().as_millis(),
        memory(&a),
        memory(&b)
    );
    let (active, standby) = (active.end("active, joining"), standby.end("standby, joining"));
    assert!(active.partner_ms.max(standby.partner_ms) < DEADTIME.as_millis() as u64);
    assert!(!b.log().contains("partner dead"), "{}", b.log());
    let daemons = [a, b];
    compare(&lab, &daemons, &load);
    take_over(&daemons, &load, all);
    load.finish();
}

/// Two comparisons, and what is told meanwhile.
fn compare(lab: &Lab, daemons: &[Daemon; 2], load: &Load) {
    let watches = [Watch::begin(&daemons[0]), Watch::begin(&daemons[1])];
    let before = daemons[0].status().replica.unwrap();
    let clock = Clock::start();
    let mut opened = 0;
    let is_compared = || daemons[0].status().replica.is_some_and(|replica| replica.differing.is_some());
    // What is opened all the time has to be told of in time.
    while clock.now().as_nanos() < COMPARED.as_nanos() as u64 || !is_compared() {
        opened += 1;
        assert!(lab.client.enter(|| std::net::TcpStream::connect((VIP, 80))).is_ok());
        poll(&mut [], PollTimeout::from(20u8)).unwrap();
    }
    load.check();
    let [active, standby] = watches;
    let (active, _) = (active.end("active, comparing"), standby.end("standby, comparing"));
    let after = daemons[0].status().replica.unwrap();
    let repeated = after.repeated - before.repeated;
    println!("{opened} connections opened meanwhile; {repeated} batches repeated; {after:?}");
    assert_eq!((active.out_of_sync, active.alone, after.differing), (0, 0, Some(0)));
    assert!(active.lag_ms < MOST_LAG, "{active:?}");
}

fn take_over(daemons: &[Daemon; 2], load: &Load, all: u64) {
    load.mark();
    let (done, said) = daemons[0].xlvs("standby");
    assert!(done, "{said}");
    wait_long("the work has moved", || states(daemons) == [State::Inactive, State::Active]);
    load.await_all(load.now(), "every client is answered by way of the other router");
    println!("takeover: no answer for {} ms", load.silence().as_millis());
    let log = daemons[0].log();
    assert!(!log.contains("has not acknowledged all"), "{log}");
    assert!(daemons[1].status().connections >= all);
    let in_sync = |daemon: &Daemon| daemon.status().replica.is_some_and(|replica| replica.in_sync);
    timed("joining again", || {
        wait_long("the other one has all", || in_sync(&daemons[0]) && in_sync(&daemons[1]));
    });
    let both = [0, 1].map(|router| daemons[router].status().connections);
    assert_eq!(both[0], both[1]);
}
