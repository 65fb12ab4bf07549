//! UDP sockets of a multicast group on one interface (ipvs.md section 7.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// A group on an interface, and the ports there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Interface name.
    pub interface: String,
    /// The group's address.
    pub address: IpAddr,
    /// First port.
    pub port: u16,
    /// How many ports there are, one behind the other.
    pub ports: u16,
    /// Bytes of a socket's buffer; 0 for the system's default.
    pub buffer: usize,
}

impl Group {
    fn socket(&self) -> io::Result<Socket> {
        let domain = if self.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        Ok(socket)
    }

    fn index(&self) -> io::Result<u32> {
        Ok(if_nametoindex(self.interface.as_str())?)
    }

    fn places(&self) -> io::Result<Vec<SocketAddr>> {
        let index = self.index()?;
        let place = |port| match self.address {
            IpAddr::V4(address) => SocketAddr::new(address.into(), port),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, index).into(),
        };
        Ok((0..self.ports).map(|step| place(self.port.wrapping_add(step))).collect())
    }
}

/// The interface's first IPv4 address.
fn primary_address(interface: &str) -> io::Result<Ipv4Addr> {
    let addresses = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let mut addresses = addresses.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    addresses.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Sends to a group; nothing that it sends comes back to this machine.
#[derive(Debug)]
pub struct GroupSender {
    sockets: Vec<UdpSocket>,
}

impl GroupSender {
    /// Opens a socket for each port, of the interface's first IPv4 address if the group is of IPv4; `AddrNotAvailable` if there
    /// is none.
    pub fn open(group: &Group, ttl: u8) -> io::Result<Self> {
        let sockets = group.places()?.into_iter().map(|place| open_sender(group, ttl, place));
        Ok(GroupSender { sockets: sockets.collect::<io::Result<_>>()? })
    }

    /// Sends a datagram to the port of this number, from 0, modulo the number of ports.
    pub fn send(&self, port: usize, bytes: &[u8]) -> io::Result<()> {
        self.sockets[port % self.sockets.len()].send(bytes).map(drop)
    }
}

fn open_sender(group: &Group, ttl: u8, place: SocketAddr) -> io::Result<UdpSocket> {
    let socket = group.socket()?;
    if group.buffer != 0 {
        socket.set_send_buffer_size(group.buffer)?;
    }
    match place {
        SocketAddr::V4(_) => {
            let own = primary_address(&group.interface)?;
            socket.set_multicast_if_v4(&own)?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_multicast_ttl_v4(ttl.into())?;
            socket.bind(&SocketAddr::new(own.into(), 0).into())?;
        }
        SocketAddr::V6(_) => {
            socket.set_multicast_if_v6(group.index()?)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_hops_v6(ttl.into())?;
        }
    }
    socket.connect(&place.into())?;
    Ok(socket.into())
}

/// Receives what is sent to a group.
#[derive(Debug)]
pub struct GroupReceiver {
    sockets: Vec<UdpSocket>,
}

impl GroupReceiver {
    /// Opens a socket for each port, and joins the group.
    pub fn open(group: &Group) -> io::Result<Self> {
        let sockets = group.places()?.into_iter().map(|place| open_receiver(group, place));
        Ok(GroupReceiver { sockets: sockets.collect::<io::Result<_>>()? })
    }

    /// Waits for datagrams, but no longer than `patience`, and gives `take` all that have come; of a datagram longer than
    /// `buffer` only so much.
    pub fn receive(
        &self,
        patience: Duration,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut sources: Vec<_> =
            self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut sources, patience) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        for socket in &self.sockets {
            loop {
                match socket.recv(buffer) {
                    Ok(length) => take(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn open_receiver(group: &Group, place: SocketAddr) -> io::Result<UdpSocket> {
    let socket = group.socket()?;
    socket.set_reuse_address(true)?;
    if group.buffer != 0 {
        socket.set_recv_buffer_size(group.buffer)?;
    }
    socket.bind(&place.into())?;
    match place.ip() {
        IpAddr::V4(address) => {
            socket.join_multicast_v4_n(&address, &InterfaceIndexOrAddress::Index(group.index()?))?;
        }
        IpAddr::V6(address) => socket.join_multicast_v6(&address, group.index()?)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
