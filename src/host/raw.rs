//! Hands whole IP packets to the kernel, which routes them and resolves the neighbour.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::fragment::{Cut, split};

/// Raw sockets that send packets with the header they have. The kernel looks up the route of the destination and queues
/// the packet while it resolves the neighbour. In IPv4 it recomputes total length and header checksum, and fills in the
/// identification if that is 0; an IPv6 packet leaves as it is.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    /// None on a machine without IPv6.
    v6: Option<Socket>,
    /// For fragments of packets that come without identification.
    next_id: AtomicU16,
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
        Ok(RawSender { v4, v6, next_id: AtomicU16::new(1) })
    }

    /// Sends one IP packet, header included, and never waits; in fragments if it is larger than the MTU of the way out and may
    /// be fragmented. `InvalidInput` if it is no IP packet, or for a link-local address, since it does not say of which link;
    /// `WouldBlock` when the socket's buffer is full; `EMSGSIZE` when it is too large and may not be fragmented.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let destination = destination(packet).ok_or(io::ErrorKind::InvalidInput)?;
        match self.send_whole(destination, packet) {
            Err(error) if is_too_large(&error) && may_be_fragmented(packet) => {
                self.send_in_fragments(destination, packet)
            }
            sent => sent,
        }
    }

    fn send_whole(&self, destination: IpAddr, packet: &[u8]) -> io::Result<()> {
        let socket = match destination {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self.v6.as_ref().ok_or(io::ErrorKind::NetworkUnreachable)?,
        };
        socket.send_to(packet, &SocketAddr::from((destination, 0)).into()).map(drop)
    }

    /// The kernel does not fragment packets that bring their header.
    fn send_in_fragments(&self, destination: IpAddr, packet: &[u8]) -> io::Result<()> {
        let mut packet = packet.to_vec();
        if packet[ID] == [0, 0] {
            // It would give each fragment an identification of its own.
            let id = self.next_id.fetch_add(1, Ordering::Relaxed).max(1);
            packet[ID].copy_from_slice(&id.to_be_bytes());
        }
        let mut outcome = Ok(());
        let mtu = mtu_towards(destination)?;
        let cut = split(&packet, Cut::Size(mtu), 0, &mut |fragment| {
            if outcome.is_ok() {
                outcome = self.send_whole(destination, fragment);
            }
        });
        if cut { outcome } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

/// The identification of an IPv4 header.
const ID: std::ops::Range<usize> = 4..6;

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

/// An IPv4 packet without "don't fragment".
fn may_be_fragmented(packet: &[u8]) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    packet[0] >> 4 == 4 && packet[6] & DONT_FRAGMENT == 0
}

/// What the kernel holds for the largest packet towards `destination`.
fn mtu_towards(destination: IpAddr) -> io::Result<usize> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Any port will do: nothing is sent.
    probe.connect((destination, 9))?;
    let mtu = getsockopt(&probe, sockopt::IpMtu)?;
    usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
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
