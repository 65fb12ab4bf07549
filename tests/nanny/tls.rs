//! TLS: whom a check trusts, and when, against a server with a certificate that is valid in January 2026.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use xlvs::host::clock::Clock;
use xlvs::nanny::{Check, Facilities, Method, Probe, Slots, Tls, Trust};

use super::{ANY_PORT, check, prefix};
use crate::servers::{Certificates, NAME};

const DAY: u64 = 24 * 60 * 60;
/// Days from 1970 to 2026.
const NEW_YEAR: u64 = 20_454;

fn days_into_2026(days: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((NEW_YEAR + days) * DAY)
}

fn mid_january() -> SystemTime {
    days_into_2026(14)
}

fn late_january() -> SystemTime {
    days_into_2026(28)
}

fn february() -> SystemTime {
    days_into_2026(40)
}

/// A server that answers `PONG` and the name in SNI to whatever it is told.
async fn serve(certificates: &Certificates) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(certificates.path("server.pem")).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(certificates.path("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.expect("protocols").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like the certificate goes away, which is its right.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
            let mut question = [0; 1];
            if stream.read_exact(&mut question).await.is_ok() {
                let _ = stream.write_all(format!("PONG {name}").as_bytes()).await;
            }
        }
    });
    server
}

async fn verdict(wall: fn() -> SystemTime, server: SocketAddr, tls: Tls, exchange: Option<&str>) -> String {
    let clock = Clock::start();
    let facilities = Facilities::new(move || clock.now(), wall, Slots::new(1));
    let (send, expect) = exchange.map_or((Vec::new(), None), |text| (b"x".to_vec(), prefix(text)));
    let check = Check { endpoint: server, ..check(Method::Tcp { tls: Some(tls), send, expect }) };
    let told = match Probe::new(Arc::new(check), &facilities).run().await {
        Ok(passed) => passed.warning.map_or("good".to_owned(), |warning| format!("good, but {warning}")),
        Err(failure) => failure.to_string(),
    };
    told.replace(&server.to_string(), "SERVER")
}

#[tokio::test]
async fn whom_a_check_trusts() {
    let certificates = Certificates::new(Ipv4Addr::LOCALHOST.into());
    let server = serve(&certificates).await;
    let ca = || Trust::File(certificates.path("ca.pem"));
    let of = |name: Option<&str>, trust| Tls { name: name.map(str::to_owned), trust, expiry_days: None };
    let table = [
        (of(None, Trust::Anybody), "good"),
        (of(Some("anything.example.net"), Trust::Anybody), "good"),
        (of(Some(NAME), ca()), "good"),
        (of(None, ca()), "good"),
        (
            of(Some("other.example.com"), ca()),
            "TLS handshake with SERVER failed: invalid peer certificate: certificate not valid for name",
        ),
        (
            of(Some(NAME), Trust::File(certificates.path("server.pem"))),
            "TLS handshake with SERVER failed: invalid peer certificate: ",
        ),
        (of(Some(NAME), Trust::File(certificates.path("none.pem"))), "TLS handshake with SERVER failed: "),
        (of(Some(NAME), Trust::File(certificates.path("key.pem"))), "TLS handshake with SERVER failed: "),
        (of(Some("no name"), Trust::Anybody), "TLS handshake with SERVER failed: invalid dns name"),
    ];
    for (tls, expected) in table {
        let told = verdict(mid_january, server, tls.clone(), None).await;
        let as_expected = if expected == "good" { told == expected } else { told.starts_with(expected) };
        assert!(as_expected, "{tls:?}: {told}");
    }
    let told = verdict(mid_january, server, of(Some(NAME), ca()), Some("PONG www.example.com")).await;
    assert_eq!(told, "good", "send and expect are inside of TLS, and the name is told");
    let told = verdict(mid_january, server, of(None, ca()), Some("PONG nobody")).await;
    assert_eq!(told, "good", "an address is not told");
    let told = verdict(mid_january, server, of(None, ca()), Some("PING")).await;
    assert_eq!(told, "unexpected reply from SERVER: \"PONG nobody\"");
}

#[tokio::test]
async fn certificates_expire() {
    let certificates = Certificates::new(Ipv4Addr::LOCALHOST.into());
    let server = serve(&certificates).await;
    let of = |trust, days| Tls { name: None, trust, expiry_days: Some(days) };
    let ca = || Trust::File(certificates.path("ca.pem"));
    let good_but = |text: &str| format!("good, but the certificate of SERVER {text}");
    for trust in [Trust::Anybody, ca()] {
        assert_eq!(verdict(mid_january, server, of(trust.clone(), 14), None).await, "good");
        let told = verdict(mid_january, server, of(trust.clone(), 20), None).await;
        assert_eq!(told, good_but("expires in 17 day(s)"));
        let told = verdict(late_january, server, of(trust, 14), None).await;
        assert_eq!(told, good_but("expires in 3 day(s)"));
    }
    assert_eq!(verdict(february, server, of(Trust::Anybody, 14), None).await, good_but("has expired"));
    let told = verdict(february, server, of(ca(), 14), None).await;
    assert!(
        told.starts_with("TLS handshake with SERVER failed: invalid peer certificate: certificate expired"),
        "{told}"
    );
}
