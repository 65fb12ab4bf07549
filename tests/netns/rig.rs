//! Network namespaces without names: each is held by a descriptor alone, so the kernel removes it, with all that is in
//! it, however the test ends.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam::channel::{self, Receiver};
use nix::poll::{PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use xlvs::ipvs::datapath::Engine;
use xlvs::ipvs::verdict::{PacketTotals, Verdict};
use xlvs::net::frame::Frame;
use xlvs::net::time::Instant;
use xlvs::xdp::{self, AttachSetting, Clock, Xdp, XdpConfig, XdpError, XdpPort, ZeroCopySetting};

/// A network namespace.
pub struct Namespace(File);

impl Namespace {
    /// A new one with its loopback interface up.
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
                panic!("cannot make a network namespace: {error}; the netns tests need root")
            });
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let namespace = Namespace(file);
        namespace.run("ip link set lo up");
        namespace
    }

    /// Does `body` inside, on a thread of its own. Threads and processes that it starts are inside too.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    body()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command inside, which must succeed.
    pub fn run(&self, command: &str) -> String {
        let (ok, text) = self.try_run(command);
        assert!(ok, "`{command}`: {text}");
        text
    }

    /// Runs a command inside; returns whether it succeeded and what it said.
    pub fn try_run(&self, command: &str) -> (bool, String) {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let output = self.enter(|| Command::new(program).args(words).output().unwrap());
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// A name under which `ip` finds this namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A router with a veth to a client and one to a server.
///
/// ```text
/// client 10.1.0.2 ── 10.1.0.1 `front` router `back` 10.2.0.1 ── 10.2.0.2 server
/// ```
pub struct Rig {
    pub client: Namespace,
    pub router: Namespace,
    pub server: Namespace,
}

impl Rig {
    pub fn new() -> Self {
        Rig::with_queues(1)
    }

    /// Each interface with so many receive and transmit queues.
    pub fn with_queues(queues: u32) -> Self {
        let rig = Rig { client: Namespace::new(), router: Namespace::new(), server: Namespace::new() };
        rig.connect(&rig.client, "front", "10.1.0.1/24", "10.1.0.2/24", queues);
        rig.connect(&rig.server, "back", "10.2.0.1/24", "10.2.0.2/24", queues);
        rig.client.run("ip route add default via 10.1.0.1");
        rig.server.run("ip route add default via 10.2.0.1");
        rig
    }

    fn connect(&self, peer: &Namespace, interface: &str, near: &str, far: &str, queues: u32) {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let path = peer.path();
        self.router
            .run(&format!("ip link add {interface} {queues} type veth peer name eth0 {queues} netns {path}"));
        self.router.run(&format!("ip address add {near} dev {interface}"));
        self.router.run(&format!("ip link set {interface} up"));
        peer.run(&format!("ip address add {far} dev eth0"));
        peer.run("ip link set eth0 up");
        // Without it, checksums are only half made when they arrive.
        peer.run("ethtool -K eth0 tx off");
        self.router.run(&format!("ethtool -K {interface} tx off"));
    }

    /// The index of a router interface.
    pub fn ifindex(&self, interface: &str) -> u32 {
        self.router.enter(|| nix::net::if_::if_nametoindex(interface).unwrap())
    }

    /// The hardware address of an interface.
    pub fn mac(namespace: &Namespace, interface: &str) -> String {
        let text = namespace.run(&format!("ip -br link show dev {interface}"));
        text.split_whitespace().nth(2).unwrap_or_else(|| panic!("no address in {text:?}")).to_owned()
    }

    /// Both router interfaces, with small rings.
    pub fn config(&self, mode: AttachSetting) -> XdpConfig {
        config(["front", "back"].map(|name| XdpPort { name: name.into(), ifindex: self.ifindex(name) }), mode)
    }

    /// Starts packet processing in the router with this decision about every frame; the receiver gets what is handed
    /// over.
    pub fn start(
        &self,
        config: &XdpConfig,
        decision: Decision,
    ) -> Result<(Xdp, Receiver<Vec<u8>>), XdpError> {
        self.router.enter(|| start(config, decision))
    }
}

/// All queues of two interfaces, with small rings.
pub fn config(ports: [XdpPort; 2], mode: AttachSetting) -> XdpConfig {
    let (frame_size, frames) = (2048, 1024);
    XdpConfig { ports: ports.into(), queues: 0, frame_size, frames, mode, zero_copy: ZeroCopySetting::Auto }
}

/// Starts packet processing in the namespace of the calling thread.
pub fn start(config: &XdpConfig, decision: Decision) -> Result<(Xdp, Receiver<Vec<u8>>), XdpError> {
    let (hand_over, handed_over) = channel::bounded(64);
    let xdp = xdp::start(config, |_| Every(decision), &ticking_clock(), hand_over)?;
    Ok((xdp, handed_over))
}

/// A clock that goes on by a millisecond whenever it is read.
fn ticking_clock() -> Clock {
    let reads = AtomicU64::new(0);
    Arc::new(move || Instant::from_nanos(reads.fetch_add(1, Ordering::Relaxed) * 1_000_000))
}

/// What becomes of a frame.
pub type Decision = fn(&mut Frame<'_>) -> Verdict;

/// An engine that decides about each frame alone.
struct Every(Decision);

impl Engine for Every {
    fn process(&mut self, _now: Instant, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.extend(frames.iter_mut().map(self.0));
    }

    fn advance(&mut self, _now: Instant) {}
}

/// Waits until the condition holds, for ten seconds at most.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        poll(&mut [], PollTimeout::from(1u8)).unwrap();
    }
    panic!("waited in vain until {what}");
}

/// Stops, and checks that no frame was lost and every packet was counted once; returns the counts.
pub fn stop_and_check(xdp: Xdp) -> PacketTotals {
    let counters = xdp.counters();
    let balances = xdp.stop();
    assert_eq!(balances.len(), counters.len(), "every worker ended well");
    for balance in balances {
        assert_eq!(balance.lost(), 0, "lost frames: {balance:?}");
        assert_eq!(balance.in_transmit, 0, "frames stuck in a transmit ring: {balance:?}");
    }
    let mut totals = PacketTotals::default();
    counters.iter().for_each(|counters| totals.merge(&counters.totals()));
    assert_eq!(totals.imbalance(), 0, "unbalanced: {totals:?}");
    totals
}
