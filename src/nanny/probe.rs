//! One check, ready to be made again and again.

use std::sync::Arc;

use crate::nanny::check::{Check, Method, Tls};
use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;
use crate::nanny::run::Facilities;
use crate::nanny::schedule::Passed;
use crate::nanny::tls::Handshake;
use crate::nanny::{dns, exchange, grpc, http, icmp, program};

/// The I/O of one check.
#[derive(Debug)]
pub struct Probe {
    check: Arc<Check>,
    target: Target,
    handshake: Option<Handshake>,
}

impl Probe {
    /// The I/O of `check`.
    pub fn new(check: Arc<Check>, facilities: &Facilities) -> Self {
        let target = Target { server: check.endpoint, source: check.source, limit: check.timing.limit };
        let (tls, alpn): (Option<&Tls>, &[&str]) = match &check.method {
            Method::Tcp { tls, .. } => (tls.as_ref(), &[]),
            Method::Http(request) if request.http2 => (request.tls.as_ref(), &["h2"]),
            Method::Http(request) => (request.tls.as_ref(), &["http/1.1"]),
            Method::Grpc { tls, .. } => (tls.as_ref(), &["h2"]),
            Method::Udp { .. } | Method::Program { .. } | Method::Dns(_) | Method::Icmp => (None, &[]),
        };
        let handshake = tls.map(|tls| Handshake::new(tls, alpn, &facilities.tls));
        Probe { check, target, handshake }
    }

    /// Checks the server once. Each step (connect, TLS, write, read; a request with its answer; a program) may take the check's
    /// limit.
    pub async fn run(&self) -> Result<Passed, ProbeFailure> {
        let Probe { check, target, .. } = self;
        match &check.method {
            Method::Udp { send, expect } => exchange::datagram(target, send, expect).await?,
            Method::Program { words, expect } => {
                program::run(words, expect.as_deref(), target.server, target.limit).await?;
            }
            Method::Dns(query) => dns::ask(target, query).await?,
            Method::Icmp => icmp::ping(target).await?,
            Method::Tcp { .. } | Method::Http(_) | Method::Grpc { .. } => return self.connected().await,
        }
        Ok(Passed::default())
    }

    async fn connected(&self) -> Result<Passed, ProbeFailure> {
        let stream = self.target.tcp().await?;
        match &self.handshake {
            None => self.speak(stream).await.map(|()| Passed::default()),
            Some(handshake) => {
                let (stream, passed) = handshake.shake(&self.target, stream).await?;
                self.speak(stream).await.map(|()| passed)
            }
        }
    }

    async fn speak<S>(&self, mut stream: S) -> Result<(), ProbeFailure>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let Probe { check, target, .. } = self;
        match &check.method {
            Method::Tcp { send, expect, .. } => {
                exchange::stream(target, &mut stream, send, expect.as_ref()).await
            }
            Method::Http(request) => http::ask(target, stream, request).await,
            Method::Grpc { tls, host, service } => {
                grpc::ask(target, stream, tls.is_some(), host.as_deref(), service).await
            }
            Method::Udp { .. } | Method::Program { .. } | Method::Dns(_) | Method::Icmp => Ok(()),
        }
    }
}
