//! The socket of one path between two directors.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// A UDP socket at this director's own address and the heartbeat's port, from which heartbeats are sent too: source and
/// destination port are the same (reference/piranha.md 4.2). It is closed in programs that the daemon starts, and it is not
/// shared: a second director at the same address would take heartbeats away from the first. Needs a tokio runtime, and
/// `CAP_NET_BIND_SERVICE` below port 1024.
pub fn bind(own: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(own, port).into())?;
    UdpSocket::from_std(socket.into())
}
