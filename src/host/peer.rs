//! UDP between this machine and one other.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of the receive buffer that are asked for: what a partner may send at once, and more.
const BUFFER: usize = 4 << 20;

/// A socket of one place here and one there.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UdpSocket,
    there: SocketAddr,
}

impl PeerSocket {
    /// Binds `here`. It is not connected: who else sends there is to be counted, and an error about a datagram that was sent is
    /// no matter.
    pub fn bind(here: SocketAddr, there: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(here), Type::DGRAM, Some(Protocol::UDP))?;
        // A smaller one costs repetitions, but works.
        let _ = socket.set_recv_buffer_size(BUFFER);
        socket.bind(&here.into())?;
        socket.set_nonblocking(true)?;
        Ok(PeerSocket { socket: socket.into(), there })
    }

    /// Sends a datagram to the other one.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.there).map(drop)
    }

    /// The next datagram that has come, cut to `buffer`, and whether it is from the other one's address.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(bool, &'a [u8])>> {
        match self.socket.recv_from(buffer) {
            Ok((length, source)) => Ok(Some((source.ip() == self.there.ip(), &buffer[..length]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Waits until one of the sockets has a datagram, but no longer than `patience`.
pub fn await_any(sockets: &[&PeerSocket], patience: Duration) -> io::Result<()> {
    let mut sources: Vec<_> =
        sockets.iter().map(|socket| PollFd::new(socket.socket.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up, lest nothing be waited for at all.
    let patience = patience + Duration::from_micros(999);
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut sources, patience) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
