//! `send` and `expect`: something sent, something wanted back.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::nanny::connect::Target;
use crate::nanny::expect::{Expect, Judgement};
use crate::nanny::failure::ProbeFailure;

/// How much of a reply is read while it is undecided, in bytes.
const REPLY_LIMIT: usize = 4096;

/// Sends `send` unless it is empty, and reads if something is expected. Each of the two may take the limit.
pub(super) async fn stream<S>(
    target: &Target,
    stream: &mut S,
    send: &[u8],
    expect: Option<&Expect>,
) -> Result<(), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = target.server;
    if !send.is_empty() {
        let writing = async {
            stream.write_all(send).await?;
            stream.flush().await
        };
        let written = target.in_time(writing).await;
        written
            .ok_or(ProbeFailure::WriteTimeout(server))?
            .map_err(|error| ProbeFailure::Write(server, error))?;
    }
    let Some(expect) = expect else { return Ok(()) };
    let mut received = Vec::new();
    match target.in_time(judge(stream, expect, &mut received)).await {
        None => Err(ProbeFailure::ReadTimeout(server, received)),
        Some(Err(error)) => Err(ProbeFailure::Read(server, error)),
        Some(Ok(false)) => Err(ProbeFailure::Unexpected(server, received)),
        Some(Ok(true)) => Ok(()),
    }
}

/// Reads until the reply is decided; whether it is good.
async fn judge<S>(stream: &mut S, expect: &Expect, received: &mut Vec<u8>) -> io::Result<bool>
where
    S: AsyncRead + Unpin,
{
    loop {
        let closed = stream.read_buf(received).await? == 0;
        match expect.judge(received, closed || received.len() >= REPLY_LIMIT) {
            Judgement::Good => return Ok(true),
            Judgement::Bad => return Ok(false),
            Judgement::More => {}
        }
    }
}

/// Sends a datagram and judges the one that comes back.
pub(super) async fn datagram(target: &Target, send: &[u8], expect: &Expect) -> Result<(), ProbeFailure> {
    let server = target.server;
    let socket = target.udp().await?;
    socket.send(send).await.map_err(|error| ProbeFailure::Write(server, error))?;
    let mut reply = vec![0; REPLY_LIMIT];
    let received = target.in_time(socket.recv(&mut reply)).await;
    let len = received
        .ok_or_else(|| ProbeFailure::ReadTimeout(server, Vec::new()))?
        .map_err(|error| ProbeFailure::Read(server, error))?;
    reply.truncate(len);
    match expect.judge(&reply, true) {
        Judgement::Good => Ok(()),
        _ => Err(ProbeFailure::Unexpected(server, reply)),
    }
}
