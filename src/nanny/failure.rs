//! Why a check fails.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

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
    /// TLS was not agreed on in time.
    #[error("TLS handshake with {0} timed out")]
    TlsTimeout(SocketAddr),
    /// TLS was not agreed on, or the certificate is not good.
    #[error("TLS handshake with {0} failed: {1}")]
    Tls(SocketAddr, io::Error),
    /// The server does not speak the protocol, or says no in it.
    #[error("{0} with {1} failed: {2}")]
    Protocol(&'static str, SocketAddr, String),
    /// The page has another status.
    #[error("unexpected reply from {0}: HTTP status {1}")]
    Status(SocketAddr, u16),
    /// A header of the page is another, or is not there.
    #[error("unexpected reply from {0}: HTTP header {1} is {value}", value = .2.as_deref().map_or("not there".to_owned(), excerpt))]
    Header(SocketAddr, String, Option<Vec<u8>>),
    /// The gRPC service is not healthy.
    #[error("unexpected reply from {0}: gRPC health {1}")]
    NotServing(SocketAddr, String),
    /// The echo did not come back in time.
    #[error("ECHO to {ip} timed out", ip = .0.ip())]
    PingTimeout(SocketAddr),
    /// The echo request could not be sent, or a router says that it did not arrive.
    #[error("ECHO to {ip} returned error: {1}", ip = .0.ip())]
    Ping(SocketAddr, io::Error),
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

fn received(reply: &[u8]) -> String {
    if reply.is_empty() { String::new() } else { format!(" after {}", excerpt(reply)) }
}

fn excerpt(reply: &[u8]) -> String {
    const LIMIT: usize = 60;
    let shown = reply[..reply.len().min(LIMIT)].escape_ascii();
    let more = if reply.len() > LIMIT { "…" } else { "" };
    if reply.is_empty() { "nothing".to_owned() } else { format!("\"{shown}\"{more}") }
}
