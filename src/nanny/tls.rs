//! TLS: the handshake, whom it trusts, and when the certificate expires.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_cert::der::Decode;

use crate::nanny::check::{Tls, Trust};
use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;
use crate::nanny::schedule::Passed;

/// What all TLS checks share.
#[derive(Debug)]
pub(super) struct TlsGround {
    provider: Arc<CryptoProvider>,
    wall: WallClock,
    /// The system's authorities, read when the first check needs them.
    system: OnceCell<Arc<RootCertStore>>,
}

/// The time of day.
#[derive(Clone, Copy)]
struct WallClock(fn() -> SystemTime);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl TlsGround {
    /// `wall` tells the time of day, by which certificates are judged.
    pub fn new(wall: fn() -> SystemTime) -> Self {
        TlsGround {
            provider: Arc::new(ring::default_provider()),
            wall: WallClock(wall),
            system: OnceCell::new(),
        }
    }

    async fn verifier(&self, trust: &Trust) -> io::Result<Arc<dyn ServerCertVerifier>> {
        let roots = match trust {
            Trust::Anybody => return Ok(Arc::new(Anybody(Arc::clone(&self.provider)))),
            Trust::System => Arc::clone(self.system.get_or_try_init(system_roots).await?),
            Trust::File(path) => Arc::new(roots_in(path).await?),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build();
        Ok(verifier.map_err(io::Error::other)?)
    }

    async fn connector(&self, trust: &Trust, alpn: &[&str]) -> io::Result<TlsConnector> {
        let verifier = self.verifier(trust).await?;
        let builder = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(self.wall));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        // Each check is to see what a new client sees.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// File systems can hang, so others read them.
async fn system_roots() -> io::Result<Arc<RootCertStore>> {
    let read = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let found = read.await.map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let text = "the system has no certificates of authorities; install them (Debian's ca-certificates), or set \
                    tls_verify to a file";
        return Err(io::Error::other(text));
    }
    Ok(Arc::new(roots))
}

async fn roots_in(path: &Path) -> io::Result<RootCertStore> {
    let name = path.display();
    let text = tokio::fs::read(path)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        roots.add(certificate).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    }
    if roots.is_empty() {
        return Err(io::Error::other(format!("{name}: has no certificate")));
    }
    Ok(roots)
}

/// One check's TLS.
#[derive(Debug)]
pub(super) struct Handshake {
    tls: Tls,
    /// Names of the protocols inside, the wanted one first.
    alpn: &'static [&'static str],
    ground: Arc<TlsGround>,
    connector: OnceCell<Connector>,
}

struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Handshake {
    /// For a check that speaks one of `alpn` inside.
    pub fn new(tls: &Tls, alpn: &'static [&'static str], ground: &Arc<TlsGround>) -> Self {
        Handshake { tls: tls.clone(), alpn, ground: Arc::clone(ground), connector: OnceCell::new() }
    }

    /// Agrees on TLS within the limit; the certificate may be worth a warning.
    pub async fn shake(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Passed), ProbeFailure> {
        let server = target.server;
        let failed = |error| ProbeFailure::Tls(server, error);
        let connector = self.connector.get_or_try_init(|| async {
            self.ground.connector(&self.tls.trust, self.alpn).await.map(Connector)
        });
        let Connector(connector) = connector.await.map_err(failed)?;
        let name = self.name(target).map_err(failed)?;
        let shaken = target.in_time(connector.connect(name, stream)).await;
        let stream = shaken.ok_or(ProbeFailure::TlsTimeout(server))?.map_err(failed)?;
        let warning = self.expiry_warning(target, &stream);
        Ok((stream, Passed { warning }))
    }

    fn name(&self, target: &Target) -> io::Result<ServerName<'static>> {
        match &self.tls.name {
            Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other),
            None => Ok(ServerName::from(target.server.ip())),
        }
    }

    fn expiry_warning(&self, target: &Target, stream: &TlsStream<TcpStream>) -> Option<String> {
        const DAY: u64 = 24 * 60 * 60;
        let days = u64::from(self.tls.expiry_days?);
        let server = target.server;
        let (_, session) = stream.get_ref();
        let Some(end) = session.peer_certificates().and_then(|chain| expiry(chain.first()?)) else {
            return Some(format!("when the certificate of {server} expires cannot be read"));
        };
        let now = self.ground.wall.current_time()?.as_secs();
        let left = end.as_secs().checked_sub(now);
        match left {
            None => Some(format!("the certificate of {server} has expired")),
            Some(left) if left / DAY > days => None,
            Some(left) => Some(format!("the certificate of {server} expires in {} day(s)", left / DAY)),
        }
    }
}

/// When a certificate expires, from the start of 1970.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration())
}

/// Takes any certificate: the check is about whether the server works, not who it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
