//! The sockets of the replica, one for each path to the partner. One that cannot be bound is tried again; the other path goes on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::host::peer::{PeerSocket, await_any};
use crate::ipvs::replica::Path;
use crate::net::time::Instant;

/// How long after an error, such as an address that is not there, a socket is bound anew.
const PAUSE: Duration = Duration::from_millis(250);

/// One path between the routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerWay {
    /// Which one.
    pub path: Path,
    /// This machine's place.
    pub own: SocketAddr,
    /// The partner's.
    pub partner: SocketAddr,
}

/// One end of it, with its socket if there is one now.
struct Peer {
    way: PeerWay,
    socket: Option<PeerSocket>,
    next_try: Instant,
    /// Whether what goes wrong is news.
    fine: bool,
}

impl Peer {
    fn bind(&mut self, now: Instant) {
        if self.socket.is_some() || now < self.next_try {
            return;
        }
        self.next_try = now + PAUSE;
        let PeerWay { own, partner, .. } = self.way;
        match PeerSocket::bind(own, partner) {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => self.complain(&format!("cannot bind {own}, which is tried again: {error}")),
        }
    }

    fn complain(&mut self, what: &str) {
        if std::mem::replace(&mut self.fine, false) {
            tracing::warn!("connections are not told by the {} path: {what}", self.way.path);
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(socket) = &self.socket else { return };
        match socket.send(bytes) {
            Ok(()) => self.fine = true,
            // What does not leave now is sent again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn receive<'a>(&mut self, now: Instant, buffer: &'a mut [u8]) -> Option<(bool, &'a [u8])> {
        let received = self.socket.as_ref()?.receive(buffer);
        received.unwrap_or_else(|error| {
            self.complain(&error.to_string());
            (self.socket, self.next_try) = (None, now + PAUSE);
            None
        })
    }
}

/// All of them.
pub struct Peers(Vec<Peer>);

impl Peers {
    /// Binds what can be bound.
    pub fn new(now: Instant, ways: &[PeerWay]) -> Self {
        let peer = |way: &PeerWay| Peer { way: *way, socket: None, next_try: now, fine: true };
        let mut peers = Peers(ways.iter().map(peer).collect());
        peers.bind(now);
        peers
    }

    /// Tries again what could not be bound.
    pub fn bind(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|peer| peer.bind(now));
    }

    /// Sends a datagram by this path, if it can be.
    pub fn send(&mut self, path: Path, bytes: &[u8]) {
        self.0.iter_mut().filter(|peer| peer.way.path == path).for_each(|peer| peer.send(bytes));
    }

    /// Waits for a datagram, but no longer than `patience`.
    pub fn wait(&self, patience: Duration) -> io::Result<()> {
        let sockets: Vec<&PeerSocket> = self.0.iter().filter_map(|peer| peer.socket.as_ref()).collect();
        await_any(&sockets, patience)
    }

    /// The next datagram that has come by this path, cut to `buffer`, and whether it is from the partner's address.
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        path: Path,
        buffer: &'a mut [u8],
    ) -> Option<(bool, &'a [u8])> {
        self.0.iter_mut().find(|peer| peer.way.path == path)?.receive(now, buffer)
    }
}
