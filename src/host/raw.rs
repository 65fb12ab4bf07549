//! Hands whole IPv4 packets to the kernel, which routes them and resolves the neighbour.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// A raw socket that sends packets with the header they have. The kernel looks up the route of the destination,
/// queues the packet while it resolves the neighbour, recomputes total length and header checksum, and fills in the
/// identification if that is 0.
#[derive(Debug)]
pub struct RawSender {
    socket: Socket,
}

impl RawSender {
    /// Opens the socket in the network namespace of the calling thread; needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW)))?;
        socket.set_header_included_v4(true)?;
        socket.set_nonblocking(true)?;
        Ok(RawSender { socket })
    }

    /// Sends one IPv4 packet, header included, and never waits. `InvalidInput` if it is no IPv4 packet; `WouldBlock`
    /// when the socket's buffer is full; `EMSGSIZE` when it is larger than the MTU of the way out, because the kernel
    /// does not fragment such packets.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let destination = destination(packet).ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send_to(packet, &SocketAddr::from((destination, 0)).into()).map(drop)
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = packet.first_chunk::<20>().filter(|header| header[0] >> 4 == 4)?;
    Some(Ipv4Addr::from([header[16], header[17], header[18], header[19]]))
}
