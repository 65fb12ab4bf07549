//! The machines around the router, played by the test: frames out of and into the other ends of its two cables.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;
use crate::support::decode::decode;
use crate::support::device::{Departure, Side};
use crate::support::ethernet::{self, neighbour_mac, router_mac};
use crate::support::packet::{Hex, IcmpSpec, PacketSpec, build};
use crate::support::sync;

/// All protocols, as a packet socket wants it.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;
const PING_ID: u16 = 0xbeef;
/// How long the router may take to answer a ping.
const PATIENCE: Duration = Duration::from_secs(2);
/// A silence after which nothing more comes: ping answers come from the kernel, the others from the daemon's thread.
const SILENCE: Duration = Duration::from_millis(12);
/// The same while nothing has come at all, which is rare and may be the daemon's thread waiting for a processor.
const FIRST_SILENCE: Duration = Duration::from_millis(300);

/// Both cables.
pub struct Wire {
    cables: [Cable; 2],
    pings: u16,
}

impl Wire {
    /// Takes the ends `tapc` (client side) and `taps` (server side) in this namespace.
    pub fn open(namespace: &Namespace) -> Self {
        let cables = [("tapc", Side::Client), ("taps", Side::Server)];
        let cables = namespace.enter(|| cables.map(|(interface, side)| Cable::open(interface, side)));
        Wire { cables, pings: 0 }
    }

    /// Sends an IP packet to the router.
    pub fn send(&self, side: Side, packet: &[u8]) {
        self.cable(side).send(&ethernet::frame(side, packet));
    }

    /// The next IP packet from the router; `None` once nothing has come for so long. Questions for neighbours are answered, other
    /// chatter of the kernel's is ignored.
    pub fn next(&self, silence: Duration) -> Option<Departure> {
        loop {
            let mut ready =
                self.cables.each_ref().map(|cable| PollFd::new(cable.socket.as_fd(), PollFlags::POLLIN));
            if poll(&mut ready, PollTimeout::try_from(silence).unwrap()).unwrap() == 0 {
                return None;
            }
            let readable = ready.map(|ready| ready.any() == Some(true));
            let cables = self.cables.iter().zip(readable).filter(|(_, readable)| *readable);
            let arrived = cables.map(|(cable, _)| cable).find_map(Cable::read);
            if arrived.is_some() {
                return arrived;
            }
        }
    }

    /// Everything that comes out until the router has answered a ping that went in on `side` after what was sent before,
    /// and is silent.
    pub fn settle(&mut self, side: Side) -> Vec<Departure> {
        let ping = self.ping(side);
        self.send(side, &ping);
        let (mut answered, mut out) = (false, Vec::new());
        loop {
            let silence = match (answered, out.is_empty()) {
                (false, _) => PATIENCE,
                (true, true) => FIRST_SILENCE,
                (true, false) => SILENCE,
            };
            match self.next(silence) {
                Some(arrived) if self.is_pong(&arrived.packet) => answered = true,
                Some(arrived) => out.push(arrived),
                None if answered => return out,
                None => panic!("the router does not answer a ping on side {side}"),
            }
        }
    }

    /// A new echo request to the router's own address on `side`.
    fn ping(&mut self, side: Side) -> Vec<u8> {
        let (source, destination) = match side {
            Side::Client => ([10, 10, 1, 254], [10, 10, 1, 1]),
            Side::Server => ([10, 8, 8, 33], [10, 8, 8, 1]),
        };
        self.pings += 1;
        let mut spec = PacketSpec::new(source.into(), destination.into(), "icmp");
        let (id, seq) = (Some(PING_ID), Some(self.pings));
        spec.icmp = Some(IcmpSpec { kind: 8, code: 0, mtu: 0, rest: None, id, seq });
        build(&spec, None).remove(0)
    }

    /// Whether this is the answer to the last ping.
    fn is_pong(&self, packet: &[u8]) -> bool {
        let [id, seq] = [PING_ID, self.pings].map(u16::to_be_bytes);
        let Some(head) = packet.first_chunk::<28>() else { return false };
        head[9] == 1 && head[20..22] == [0, 0] && head[24..] == [id, seq].concat()
    }

    fn cable(&self, side: Side) -> &Cable {
        &self.cables[usize::from(side == Side::Server)]
    }
}

/// A socket for whole frames by an interface of the calling thread's namespace.
pub fn packet_socket(interface: &str) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING))).unwrap();
    let mut addresses = getifaddrs().unwrap();
    // Of the addresses of an interface, one is that of the link.
    let address = addresses.find_map(|found| {
        let address = found.address.filter(|_| found.interface_name == interface)?;
        address.as_link_addr().copied()
    });
    bind(socket.as_raw_fd(), &address.unwrap()).unwrap();
    socket
}

/// The far end of a cable of the router's.
struct Cable {
    side: Side,
    socket: Socket,
}

impl Cable {
    fn open(interface: &str, side: Side) -> Self {
        Cable { side, socket: packet_socket(interface) }
    }

    fn send(&self, frame: &[u8]) {
        (&self.socket).write_all(frame).unwrap();
    }

    /// Reads one frame, for which it waits; `None` if it is no IP packet of the router's to one machine, and no
    /// message of the synchronisation.
    fn read(&self) -> Option<Departure> {
        let mut buffer = [0; 4096];
        let length = (&self.socket).read(&mut buffer).unwrap();
        let frame = &buffer[..length];
        if frame[6..12] != router_mac(self.side) {
            return None;
        }
        if let Some(answer) = self.arp_answer(frame).or_else(|| self.advertisement(frame)) {
            self.send(&answer);
            return None;
        }
        let to_many = frame[0] & 1 == 1;
        let packet = ethernet::packet(frame)?.to_vec();
        if to_many && decode(&packet).packet().and_then(sync::lines).is_none() {
            return None;
        }
        Some(Departure { side: self.side, to: ethernet::receiver(frame), packet })
    }

    /// The answer to an ARP request (RFC 826) for an address that is not the asker's own.
    fn arp_answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let is_request = frame[12..14] == [8, 6] && frame[20..22] == [0, 1];
        if !is_request || frame[28..32] == frame[38..42] {
            return None;
        }
        let (asker, mac) = (&frame[6..12], neighbour_mac(self.side));
        Some([asker, &mac, &frame[12..20], &[0, 2], &mac, &frame[38..42], &frame[22..32]].concat())
    }

    /// The answer to a neighbour solicitation (RFC 4861 section 4.3), unless the asker looks for a duplicate of its own address.
    fn advertisement(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let is_solicitation = frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135;
        let address = |at: usize| Some(IpAddr::from(*frame.get(at..at + 16)?.first_chunk::<16>()?));
        let (asker, target) = (address(22)?, address(62)?);
        if !is_solicitation || asker.is_unspecified() {
            return None;
        }
        let mut spec = PacketSpec::new(target, asker, "icmp6");
        let solicited_override = Some(Hex(vec![0x60, 0, 0, 0]));
        spec.icmp = Some(IcmpSpec { kind: 136, rest: solicited_override, ..IcmpSpec::default() });
        spec.ttl = 255;
        let option = [&[2, 1][..], &neighbour_mac(self.side)].concat();
        let packet = build(&spec, Some(&[&frame[62..78], &option].concat())).remove(0);
        Some(ethernet::frame(self.side, &packet))
    }
}
