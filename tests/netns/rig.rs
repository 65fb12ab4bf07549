//! A router between a client and a server, and packet processing in it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver};
use nix::poll::{PollTimeout, poll};
use xlvs::ipvs::datapath::Engine;
use xlvs::ipvs::outbox::Outbox;
use xlvs::ipvs::verdict::{PacketTotals, Verdict};
use xlvs::net::frame::Frame;
use xlvs::net::time::Instant;
use xlvs::xdp::{
    self, AttachSetting, Clock, HugePageSetting, ShortcutSetting, Xdp, XdpConfig, XdpError, XdpPort,
    ZeroCopySetting,
};

use super::namespace::Namespace;

/// How long a connection or a packet may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A datagram. A signal, such as that a child of another test has ended, interrupts a receive that has a time limit.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
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
        self.router.await_carrier(interface);
        peer.await_carrier("eth0");
    }

    /// Sets the MTUs of the cables to client and server.
    pub fn set_mtu(&self, client: u32, server: u32) {
        for (peer, interface, mtu) in [(&self.client, "front", client), (&self.server, "back", server)] {
            self.router.run(&format!("ip link set dev {interface} mtu {mtu}"));
            peer.run(&format!("ip link set dev eth0 mtu {mtu}"));
        }
    }

    /// Has client and server send half-made checksums, as a veth does if nobody forbids it.
    pub fn offload_checksums(&self) {
        for peer in [&self.client, &self.server] {
            peer.run("ethtool -K eth0 tx on");
        }
    }

    /// The client sends `data` to `address`, within `patience` for the connection; whoever has the listener sends it back.
    pub fn exchange(&self, listener: &TcpListener, address: &str, patience: Duration, data: &[u8]) {
        let address: SocketAddr = address.parse().unwrap();
        thread::scope(|scope| {
            let mut stream = self.client.enter(|| TcpStream::connect_timeout(&address, patience).unwrap());
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                impatient(&stream);
                let mut received = vec![0; data.len()];
                stream.read_exact(&mut received).unwrap();
                stream.write_all(&received).unwrap();
            });
            impatient(&stream);
            let mut writer = stream.try_clone().unwrap();
            scope.spawn(move || writer.write_all(data).unwrap());
            let mut echo = vec![0; data.len()];
            stream.read_exact(&mut echo).unwrap();
            assert!(echo == data, "the bytes came back changed");
        });
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

fn impatient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// All queues of two interfaces, with small rings.
pub fn config(ports: [XdpPort; 2], mode: AttachSetting) -> XdpConfig {
    let (frame_size, frames) = (2048, 1024);
    let (zero_copy, huge_pages) = (ZeroCopySetting::Auto, HugePageSetting::Off);
    XdpConfig {
        ports: ports.into(),
        queues: 0,
        frame_size,
        frames,
        mode,
        zero_copy,
        huge_pages,
        busy_poll: false,
        shortcut: ShortcutSetting::Auto,
        shortcut_flows: 64,
        lasting: false,
    }
}

/// Starts packet processing in the namespace of the calling thread.
pub fn start(config: &XdpConfig, decision: Decision) -> Result<(Xdp, Receiver<Vec<u8>>), XdpError> {
    let (hand_over, handed_over) = channel::bounded(64);
    let xdp = xdp::start(config, |_| Every(decision, Outbox::default()), &ticking_clock(), hand_over)?;
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
struct Every(Decision, Outbox);

impl Engine for Every {
    fn process(&mut self, _now: Instant, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.extend(frames.iter_mut().map(self.0));
    }

    fn advance(&mut self, _now: Instant) {}

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.1
    }
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
