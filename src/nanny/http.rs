//! A page over HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::Builder;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::nanny::check::HttpRequest;
use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;

/// How much of a body is looked at, in bytes.
const BODY_LIMIT: usize = 1 << 16;
/// How much of it may come in pieces of any size before it is looked at only now and then, in bytes.
const EVERY_PIECE: usize = 4096;
/// Largest head of an answer, in bytes.
const HEAD_LIMIT: usize = 1 << 14;
/// What the server sees as our name.
const USER_AGENT: &str = "xlvs";

/// Asks for the page on a connection, which may take the limit from the first byte to the last one.
pub(super) async fn ask<S>(target: &Target, stream: S, wanted: &HttpRequest) -> Result<(), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = target.server;
    let mut page = Page { server, wanted, body: Vec::new(), looked_at: 0 };
    let asked = async {
        let request = request(server, wanted).map_err(|error| error.to_string())?;
        match wanted.http2 {
            true => page.over_http2(stream, request).await,
            false => page.over_http1(stream, request).await,
        }
    };
    match target.in_time(asked).await {
        None => Err(ProbeFailure::ReadTimeout(server, page.body)),
        Some(Err(text)) => Err(ProbeFailure::Protocol("HTTP", server, text)),
        Some(Ok(verdict)) => verdict,
    }
}

fn request(server: SocketAddr, wanted: &HttpRequest) -> Result<Request<()>, http::Error> {
    let host = authority(server, wanted.tls.is_some(), wanted.host.as_deref());
    let request = Request::get(&wanted.path);
    let request = request.header(header::USER_AGENT, USER_AGENT).header(header::ACCEPT, "*/*");
    if wanted.http2 {
        let scheme = if wanted.tls.is_some() { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(&*wanted.path);
        request.uri(uri.build()?).body(())
    } else {
        request.header(header::HOST, host).header(header::CONNECTION, "close").body(())
    }
}

/// The host as a request names it: the port is left out where it is the usual one.
pub(super) fn authority(server: SocketAddr, is_tls: bool, host: Option<&str>) -> String {
    let usual = if is_tls { 443 } else { 80 };
    match (host, server) {
        (Some(host), _) => host.to_owned(),
        (None, SocketAddr::V4(server)) if server.port() == usual => server.ip().to_string(),
        (None, SocketAddr::V6(server)) if server.port() == usual => format!("[{}]", server.ip()),
        (None, server) => server.to_string(),
    }
}

/// Does `work` while `driver` moves the bytes for it. If both fail it is the driver that knows why.
pub(super) async fn beside<T, E: ToString>(
    work: impl Future<Output = Result<T, String>>,
    driver: impl Future<Output = Result<(), E>>,
) -> Result<T, String> {
    let mut why = None;
    let driving = async {
        why = driver.await.err();
        std::future::pending().await
    };
    let done = tokio::select! { biased; done = work => done, done = driving => done };
    match (done, why) {
        (Err(_), Some(why)) => Err(why.to_string()),
        (done, _) => done,
    }
}

/// An HTTP/2 connection with room for one small answer.
pub(super) fn http2() -> Builder {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_LIMIT as u32);
    builder.initial_window_size(BODY_LIMIT as u32).initial_connection_window_size(BODY_LIMIT as u32);
    builder
}

/// The verdict about the server, or what is wrong with its HTTP.
type Verdict = Result<Result<(), ProbeFailure>, String>;

struct Page<'a> {
    server: SocketAddr,
    wanted: &'a HttpRequest,
    body: Vec<u8>,
    /// How much of the body the pattern has seen.
    looked_at: usize,
}

impl Page<'_> {
    async fn over_http1<S>(&mut self, stream: S, request: Request<()>) -> Verdict
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let words = |error: hyper::Error| error.to_string();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_LIMIT);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(words)?;
        let work = async {
            let request = request.map(|()| Empty::<Bytes>::new());
            let (head, mut body) = sender.send_request(request).await.map_err(words)?.into_parts();
            if let Some(verdict) = self.head(head.status, &head.headers) {
                return Ok(verdict);
            }
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(words)?;
                if let Some(verdict) = frame.data_ref().and_then(|data| self.take(data)) {
                    return Ok(verdict);
                }
            }
            Ok(self.end())
        };
        beside(work, connection).await
    }

    async fn over_http2<S>(&mut self, stream: S, request: Request<()>) -> Verdict
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let words = |error: h2::Error| error.to_string();
        let (client, connection) = http2().handshake::<_, Bytes>(stream).await.map_err(words)?;
        let work = async {
            let mut client = client.ready().await.map_err(words)?;
            let (answer, _) = client.send_request(request, true).map_err(words)?;
            let (head, mut body) = answer.await.map_err(words)?.into_parts();
            if let Some(verdict) = self.head(head.status, &head.headers) {
                return Ok(verdict);
            }
            while let Some(data) = body.data().await {
                let data = data.map_err(words)?;
                body.flow_control().release_capacity(data.len()).map_err(words)?;
                if let Some(verdict) = self.take(&data) {
                    return Ok(verdict);
                }
            }
            Ok(self.end())
        };
        beside(work, connection).await
    }

    /// The verdict, unless it depends on the body.
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Result<(), ProbeFailure>> {
        let is_good = |(from, to): &(u16, u16)| (*from..=*to).contains(&status.as_u16());
        if !self.wanted.statuses.iter().any(is_good) {
            return Some(Err(ProbeFailure::Status(self.server, status.as_u16())));
        }
        if let Some((name, pattern)) = &self.wanted.header {
            let values = headers.get_all(name);
            if !values.iter().any(|value| pattern.is_in(value.as_bytes())) {
                let first = values.iter().next().map(|value| value.as_bytes().to_vec());
                return Some(Err(ProbeFailure::Header(self.server, name.clone(), first)));
            }
        }
        self.wanted.body.is_none().then_some(Ok(()))
    }

    /// Takes a piece of the body; the verdict once what is wanted is in it, or once the body is too long to go on.
    fn take(&mut self, piece: &[u8]) -> Option<Result<(), ProbeFailure>> {
        let room = BODY_LIMIT - self.body.len();
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
        let is_full = self.body.len() == BODY_LIMIT;
        if self.body.len() > EVERY_PIECE && self.body.len() - self.looked_at < EVERY_PIECE && !is_full {
            return None;
        }
        self.looked_at = self.body.len();
        (is_full || self.matches()).then(|| self.end())
    }

    fn matches(&self) -> bool {
        self.wanted.body.as_ref().is_none_or(|pattern| pattern.is_in(&self.body))
    }

    fn end(&mut self) -> Result<(), ProbeFailure> {
        match self.matches() {
            true => Ok(()),
            false => Err(ProbeFailure::Unexpected(self.server, std::mem::take(&mut self.body))),
        }
    }
}
