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
