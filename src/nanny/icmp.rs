//! An echo request.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;
use crate::nanny::run::random;
use crate::net::checksum::Sum;

/// Type of an echo request and of its answer.
struct Types {
    request: u8,
    reply: u8,
}

const V4: Types = Types { request: 8, reply: 0 };
const V6: Types = Types { request: 128, reply: 129 };
/// Bytes before the payload of an echo.
const HEADER: usize = 8;

/// Sends a request and waits for its answer.
pub(super) async fn ping(target: &Target) -> Result<(), ProbeFailure> {
    let server = target.server;
    let failed = |error| ProbeFailure::Ping(server, error);
    let types = if server.is_ipv4() { V4 } else { V6 };
    let socket = open(target).and_then(|socket| UdpSocket::from_std(socket.into())).map_err(failed)?;
    let token = random();
    let exchange = async {
        socket.send(&echo(types.request, token)).await?;
        answer(&socket, types.reply, token).await
    };
    target.in_time(exchange).await.ok_or(ProbeFailure::PingTimeout(server))?.map_err(failed)
}

/// The kernel's own sockets for echoes, if it lets us; else a raw one. It is connected, so that the kernel gives it nothing but
/// the server's packets. For tokio each is a datagram socket like any other.
fn open(target: &Target) -> io::Result<Socket> {
    let (domain, protocol) = match target.server {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(protocol))
        .or_else(|_| Socket::new(domain, Type::RAW.nonblocking(), Some(protocol)))?;
    socket.bind(&SockAddr::from(SocketAddr::new(target.source_or_any(), 0)))?;
    socket.connect(&SockAddr::from(SocketAddr::new(target.server.ip(), 0)))?;
    Ok(socket)
}

/// An echo with the token as its payload and its sequence number. The kernel sums up that of IPv6.
fn echo(kind: u8, token: u64) -> [u8; HEADER + 8] {
    let token = token.to_be_bytes();
    let mut echo = [0; HEADER + 8];
    echo[0] = kind;
    echo[4..8].copy_from_slice(&token[..4]);
    echo[HEADER..].copy_from_slice(&token);
    let sum = Sum::default().bytes(&echo).finish();
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    echo
}

async fn answer(socket: &UdpSocket, reply: u8, token: u64) -> io::Result<()> {
    let mut packet = [0; 512];
    loop {
        let len = socket.recv(&mut packet).await?;
        let echo = without_ip(&packet[..len]);
        if echo.first() == Some(&reply) && echo.get(HEADER..HEADER + 8) == Some(&token.to_be_bytes()) {
            return Ok(());
        }
    }
}

/// A raw IPv4 socket gives the IP header, too. No ICMP type begins as that does.
fn without_ip(packet: &[u8]) -> &[u8] {
    match packet.first() {
        Some(first) if first >> 4 == 4 => packet.get(usize::from(first & 0xf) * 4..).unwrap_or_default(),
        _ => packet,
    }
}
