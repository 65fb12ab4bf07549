//! gRPC's health service, `grpc.health.v1.Health/Check`.

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;
use crate::nanny::http::{authority, beside, http2};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Field 1, a string: `HealthCheckRequest.service`.
const SERVICE: u8 = 1 << 3 | 2;
/// Field 1, a number: `HealthCheckResponse.status`.
const STATUS: u8 = 1 << 3;
/// The names of its values.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;
/// Largest answer, in bytes.
const ANSWER_LIMIT: usize = 1024;

/// Asks about `service` on a connection, which may take the limit.
pub(super) async fn ask<S>(
    target: &Target,
    stream: S,
    is_tls: bool,
    host: Option<&str>,
    service: &str,
) -> Result<(), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = target.server;
    let asked = async {
        let scheme = if is_tls { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(authority(server, is_tls, host));
        let uri = uri.path_and_query(PATH).build().map_err(|error| error.to_string())?;
        exchange(stream, uri, service).await
    };
    match target.in_time(asked).await {
        None => Err(ProbeFailure::ReadTimeout(server, Vec::new())),
        Some(Err(text)) => Err(ProbeFailure::Protocol("gRPC", server, text)),
        Some(Ok(SERVING)) => Ok(()),
        Some(Ok(status)) => {
            let name = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            Err(ProbeFailure::NotServing(server, name))
        }
    }
}

async fn exchange<S>(stream: S, uri: http::Uri, service: &str) -> Result<u64, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let words = |error: h2::Error| error.to_string();
    let request =
        Request::post(uri).header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    let request = request.body(()).map_err(|error| error.to_string())?;
    let (client, connection) = http2().handshake::<_, Bytes>(stream).await.map_err(words)?;
    let work = async {
        let mut client = client.ready().await.map_err(words)?;
        let (answer, mut sending) = client.send_request(request, false).map_err(words)?;
        sending.send_data(question(service).into(), true).map_err(words)?;
        let (head, mut body) = answer.await.map_err(words)?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(format!("status {}", head.status.as_u16()));
        }
        refusal(&head.headers)?;
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(words)?;
            body.flow_control().release_capacity(data.len()).map_err(words)?;
            received.extend_from_slice(&data);
            if received.len() > ANSWER_LIMIT {
                return Err("the answer is too long".to_owned());
            }
        }
        if let Some(trailers) = body.trailers().await.map_err(words)? {
            refusal(&trailers)?;
        }
        status(&received).ok_or_else(|| "the answer is not a HealthCheckResponse".to_owned())
    };
    beside(work, connection).await
}

/// A status other than 0 among headers or trailers: the call did not work.
fn refusal(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status") {
        None => Ok(()),
        Some(status) if status == "0" => Ok(()),
        Some(status) if status == "12" => Err("the server has no health service (grpc-status 12)".to_owned()),
        Some(status) => {
            let message = text("grpc-message").filter(|message| !message.is_empty());
            let message = message.map_or(String::new(), |message| format!(": {message}"));
            Err(format!("grpc-status {status}{message}"))
        }
    }
}

/// A `HealthCheckRequest` in gRPC's frame: not compressed, its length in four bytes.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE);
        put_number(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

/// Seven bits a byte, the lowest first.
fn put_number(message: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

fn take_number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The status in a framed `HealthCheckResponse`. A field that is not there is 0; other fields are passed over.
fn status(framed: &[u8]) -> Option<u64> {
    let (head, mut message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let field = take_number(&mut message)?;
        match field & 7 {
            0 => {
                let number = take_number(&mut message)?;
                status = if field == u64::from(STATUS) { number } else { status };
            }
            2 => {
                let length = usize::try_from(take_number(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            1 => message = message.get(8..)?,
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}
