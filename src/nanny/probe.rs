//! The I/O of one check.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::nanny::expect::{Expect, Judgement};
use crate::nanny::program;

/// How much of a reply is read while a regular expression does not match yet, in bytes.
const REPLY_LIMIT: usize = 4096;

/// Why a check failed. The words of the first lines of each variant are Piranha's (reference/piranha.md 2.4 and 2.5),
/// because people search logs for them.
#[derive(Debug, Error)]
pub enum ProbeFailure {
    /// The connection was not established in time.
    #[error("CONNECT to {0} timed out")]
    ConnectTimeout(SocketAddr),
    /// The connection was refused, or there is no way to the server.
    #[error("CONNECT to {0} returned error: {1}")]
    Connect(SocketAddr, io::Error),
    /// The request was not taken in time.
    #[error("WRITE to {0} timed out")]
    WriteTimeout(SocketAddr),
    /// The request could not be sent.
    #[error("WRITE operation for {0} returned error: {1}")]
    Write(SocketAddr, io::Error),
    /// The reply, or the rest of it, did not come in time.
    #[error("READ to {0} timed out{received}", received = received(.1))]
    ReadTimeout(SocketAddr, Vec<u8>),
    /// The connection broke.
    #[error("READ operation for {0} returned error: {1}")]
    Read(SocketAddr, io::Error),
    /// The server answered something else.
    #[error("unexpected reply from {0}: {reply}", reply = excerpt(.1))]
    Unexpected(SocketAddr, Vec<u8>),
    /// The program could not be started.
    #[error("cannot run {0} to check {1}: {2}")]
    Start(String, SocketAddr, io::Error),
    /// The program did not end in time and was killed.
    #[error("timeout running the following: {0} (checking {1})")]
    ProgramTimeout(String, SocketAddr),
    /// The program says no, or was killed.
    #[error("the following exited abnormally: {0} (checking {1}): {2}")]
    Exit(String, SocketAddr, std::process::ExitStatus),
    /// The program printed something else.
    #[error("Received results are not what we expected from ({0}): {printed}", printed = excerpt(.1))]
    Printed(SocketAddr, Vec<u8>),
}

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

fn excerpt(reply: &[u8]) -> String {
    const LIMIT: usize = 60;
    let shown = reply[..reply.len().min(LIMIT)].escape_ascii();
    let more = if reply.len() > LIMIT { "…" } else { "" };
    if reply.is_empty() { "nothing".to_owned() } else { format!("\"{shown}\"{more}") }
}

fn received(reply: &[u8]) -> String {
    if reply.is_empty() { String::new() } else { format!(" after {}", excerpt(reply)) }
}
