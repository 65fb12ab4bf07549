//! The I/O of one check.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::nanny::expect::{Expect, Judgement};
use crate::nanny::failure::ProbeFailure;
use crate::nanny::program;

/// How much of a reply is read while a regular expression does not match yet, in bytes.
const REPLY_LIMIT: usize = 4096;

/// What one check does.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// Connect, send unless empty, read if something is expected.
    Tcp { send: Vec<u8>, expect: Option<Expect> },
    /// Send a datagram and judge the one that comes back.
    Udp { send: Vec<u8>, expect: Expect },
    /// Run a program and compare what it prints.
    Program { words: Vec<String>, expect: Option<Vec<u8>> },
}

/// One check, ready to run: made by [`Check::prepare`](crate::nanny::Check::prepare).
#[derive(Clone, Debug)]
pub struct Probe {
    pub(super) endpoint: SocketAddr,
    pub(super) limit: Duration,
    pub(super) method: Method,
}

impl Probe {
    /// Checks the server once. Each step (connect, write, read, program) may take the check's timeout.
    pub async fn run(&self) -> Result<(), ProbeFailure> {
        match &self.method {
            Method::Tcp { send, expect } => self.tcp(send, expect.as_ref()).await,
            Method::Udp { send, expect } => self.udp(send, expect).await,
            Method::Program { words, expect } => {
                program::run(words, expect.as_deref(), self.endpoint, self.limit).await
            }
        }
    }

    async fn tcp(&self, send: &[u8], expect: Option<&Expect>) -> Result<(), ProbeFailure> {
        let server = self.endpoint;
        let connected = timeout(self.limit, TcpStream::connect(server)).await;
        let mut stream = connected
            .map_err(|_| ProbeFailure::ConnectTimeout(server))?
            .map_err(|error| ProbeFailure::Connect(server, error))?;
        if !send.is_empty() {
            let written = timeout(self.limit, stream.write_all(send)).await;
            written
                .map_err(|_| ProbeFailure::WriteTimeout(server))?
                .map_err(|error| ProbeFailure::Write(server, error))?;
        }
        match expect {
            Some(expect) => self.reply(&mut stream, expect).await,
            None => Ok(()),
        }
    }

    async fn reply(&self, stream: &mut TcpStream, expect: &Expect) -> Result<(), ProbeFailure> {
        let mut received = Vec::new();
        let judged = timeout(self.limit, judge_stream(stream, expect, &mut received)).await;
        match judged {
            Err(_) => Err(ProbeFailure::ReadTimeout(self.endpoint, received)),
            Ok(Err(error)) => Err(ProbeFailure::Read(self.endpoint, error)),
            Ok(Ok(false)) => Err(ProbeFailure::Unexpected(self.endpoint, received)),
            Ok(Ok(true)) => Ok(()),
        }
    }

    async fn udp(&self, send: &[u8], expect: &Expect) -> Result<(), ProbeFailure> {
        let server = self.endpoint;
        let socket = connected_udp(server).await.map_err(|error| ProbeFailure::Connect(server, error))?;
        socket.send(send).await.map_err(|error| ProbeFailure::Write(server, error))?;
        let mut reply = vec![0; usize::from(u16::MAX)];
        let len = timeout(self.limit, socket.recv(&mut reply))
            .await
            .map_err(|_| ProbeFailure::ReadTimeout(server, Vec::new()))?
            .map_err(|error| ProbeFailure::Read(server, error))?;
        reply.truncate(len);
        match expect.judge(&reply, true) {
            Judgement::Good => Ok(()),
            _ => Err(ProbeFailure::Unexpected(server, reply)),
        }
    }
}

/// Reads until the reply is decided; whether it is good.
async fn judge_stream(stream: &mut TcpStream, expect: &Expect, received: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let closed = stream.read_buf(received).await? == 0;
        match expect.judge(received, closed || received.len() >= REPLY_LIMIT) {
            Judgement::Good => return Ok(true),
            Judgement::Bad => return Ok(false),
            Judgement::More => {}
        }
    }
}

/// A connected socket receives from the server alone, and hears when its port is closed.
async fn connected_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}
