//! Hands whole IP packets to the kernel, which routes them and resolves the neighbour.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Raw sockets that send packets with the header they have. The kernel looks up the route of the destination and queues
/// the packet while it resolves the neighbour. In IPv4 it recomputes total length and header checksum, and fills in the
/// identification if that is 0; an IPv6 packet leaves as it is.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    /// None on a machine without IPv6.
    v6: Option<Socket>,
}

impl RawSender {
    /// Opens the sockets in the network namespace of the calling thread; needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        let v4 = raw(Domain::IPV4)?;
        v4.set_header_included_v4(true)?;
        let v6 = match raw(Domain::IPV6) {
            Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => None,
            opened => Some(opened?),
        };
        if let Some(v6) = &v6 {
            v6.set_header_included_v6(true)?;
        }
        Ok(RawSender { v4, v6 })
    }

    /// Sends one IP packet, header included, and never waits. `InvalidInput` if it is no IP packet, or for a link-local
    /// address, since it does not say of which link; `WouldBlock` when the socket's buffer is full; `EMSGSIZE` when it is
    /// larger than the MTU of the way out, because the kernel does not fragment such packets.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let destination = destination(packet).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = match destination {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self.v6.as_ref().ok_or(io::ErrorKind::NetworkUnreachable)?,
        };
        socket.send_to(packet, &SocketAddr::from((destination, 0)).into()).map(drop)
    }
}

fn raw(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            Some(Ipv4Addr::from([header[16], header[17], header[18], header[19]]).into())
        }
        6 => {
            let (_, address) = packet.first_chunk::<40>()?.split_last_chunk::<16>()?;
            Some(Ipv6Addr::from(*address)).filter(|address| !address.is_unicast_link_local()).map(IpAddr::V6)
        }
        _ => None,
    }
}
