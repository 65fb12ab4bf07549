//! Checks of real servers: nginx and dnsmasq, each on loopback addresses that no other process of the tests uses.

use std::net::{IpAddr, SocketAddr};

use xlvs::nanny::{DnsQuery, HttpRequest, Method, Tls, Trust};

use super::{check, hasty, pattern, verdict};
use crate::servers::{ADDRESS, Dnsmasq, NAME, Nginx};

/// An address of this process.
fn own_address(number: u8) -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 + (high << 3) + number, middle, low])
}

fn request() -> HttpRequest {
    HttpRequest {
        tls: None,
        http2: false,
        path: "/".to_owned(),
        host: Some(NAME.to_owned()),
        statuses: vec![(200, 399)],
        header: None,
        body: None,
    }
}

fn tls(trust: Trust) -> Option<Tls> {
    Some(Tls { name: Some(NAME.to_owned()), trust, expiry_days: None })
}

async fn page(server: SocketAddr, request: HttpRequest) -> String {
    verdict(check(Method::Http(request)), server).await
}

/// The same page over HTTP/1.1 and HTTP/2, without TLS and with it: what each says of each request.
#[tokio::test]
async fn pages_of_nginx() {
    let address = own_address(1);
    let nginx = Nginx::start(address);
    let ways = [
        (SocketAddr::new(address, 8080), HttpRequest { ..request() }),
        (SocketAddr::new(address, 8082), HttpRequest { http2: true, ..request() }),
        (SocketAddr::new(address, 8443), HttpRequest { tls: tls(Trust::Anybody), ..request() }),
        (SocketAddr::new(address, 8443), HttpRequest { tls: tls(Trust::Anybody), http2: true, ..request() }),
    ];
    let header = |text: &str| Some(("x-health".to_owned(), pattern(text)));
    for (server, way) in ways {
        let path = |path: &str| HttpRequest { path: path.to_owned(), ..way.clone() };
        let table = [
            (path("/"), "good"),
            (path("/any?x=1"), "good"),
            (path("/broken"), "unexpected reply from SERVER: HTTP status 503"),
            (path("/old"), "good"),
            (
                HttpRequest { statuses: vec![(200, 299)], ..path("/old") },
                "unexpected reply from SERVER: HTTP status 301",
            ),
            (HttpRequest { statuses: vec![(500, 502), (503, 503)], ..path("/broken") }, "good"),
            (HttpRequest { host: None, ..path("/") }, "unexpected reply from SERVER: HTTP status 404"),
            (HttpRequest { body: Some(pattern("^it works\n$")), ..path("/") }, "good"),
            (
                HttpRequest { body: Some(pattern("it fails")), ..path("/") },
                r#"unexpected reply from SERVER: "it works\n""#,
            ),
            (HttpRequest { body: Some(pattern("x{300}")), ..path("/large") }, "good"),
            (HttpRequest { header: header("^good"), ..path("/") }, "good"),
            (
                HttpRequest { header: header("bad"), ..path("/") },
                r#"unexpected reply from SERVER: HTTP header x-health is "good as gold""#,
            ),
            (
                HttpRequest { header: Some(("x-none".to_owned(), pattern(""))), ..path("/") },
                "unexpected reply from SERVER: HTTP header x-none is not there",
            ),
        ];
        for (request, expected) in table {
            let told = page(server, request.clone()).await;
            assert_eq!(told, expected, "{server} {request:?}");
        }
        let endless = HttpRequest { body: Some(pattern("y")), ..path("/large") };
        let told = page(server, endless).await;
        let expected = "unexpected reply from SERVER: \"xxx";
        assert!(told.starts_with(expected) && told.ends_with('…'), "a megabyte is not read: {told}");
    }
    let plain = HttpRequest { tls: tls(Trust::Anybody), ..request() };
    let told = page(SocketAddr::new(address, 8080), plain).await;
    assert!(told.starts_with("TLS handshake with SERVER failed: "), "{told}");
    let told = page(SocketAddr::new(address, 8443), request()).await;
    assert_eq!(told, "unexpected reply from SERVER: HTTP status 400", "nginx tells that it wants TLS");
    let told = page(SocketAddr::new(address, 8080), HttpRequest { http2: true, ..request() }).await;
    assert!(told.starts_with("HTTP with SERVER failed: "), "{told}");
    drop(nginx);
    let told = page(SocketAddr::new(address, 8080), request()).await;
    assert!(told.starts_with("CONNECT to SERVER returned error: Connection refused"), "{told}");
}

fn query(name: &str, record_type: &str, answer: Option<&str>) -> DnsQuery {
    DnsQuery {
        tcp: false,
        name: name.to_owned(),
        record_type: record_type.to_owned(),
        answer: answer.map(str::to_owned),
    }
}

#[tokio::test]
async fn names_of_dnsmasq() {
    let address = own_address(2);
    let server = SocketAddr::new(address, 5353);
    let dnsmasq = Dnsmasq::start(address);
    let table = [
        (query(NAME, "A", None), "good"),
        (query("www.example.com.", "A", None), "good"),
        (query(NAME, "A", Some(ADDRESS)), "good"),
        (
            query(NAME, "A", Some("192.0.2.8")),
            "DNS with SERVER failed: 192.0.2.8 is not in the answer, but 192.0.2.7",
        ),
        (query(NAME, "AAAA", Some("2001:DB8:0::7")), "good"),
        (query(NAME, "MX", None), "good"),
        (query(NAME, "MX", Some("10 x")), "DNS with SERVER failed: the answer has no record of type MX"),
        (query("example.com", "MX", Some("10 MAIL.www.example.com")), "good"),
        (query("example.com", "TXT", Some("v=spf1 -all")), "good"),
        (query("alias.example.com", "A", Some(ADDRESS)), "good"),
        (query("alias.example.com", "CNAME", Some("www.example.com.")), "good"),
        (query("none.example.com", "A", None), "DNS with SERVER failed: the answer is NXDOMAIN"),
        (query("example.org", "A", None), "DNS with SERVER failed: the answer is REFUSED"),
    ];
    for (query, expected) in table {
        for tcp in [false, true] {
            let query = DnsQuery { tcp, ..query.clone() };
            assert_eq!(verdict(check(Method::Dns(query.clone())), server).await, expected, "{query:?}");
        }
    }
    drop(dnsmasq);
    // A child of its, which serves a question over TCP, may hold the socket a moment longer.
    let told = verdict(hasty(check(Method::Dns(query(NAME, "A", None)))), server).await;
    assert!(told.starts_with("READ "), "{told}");
}

/// Servers that take a connection and then do not speak, or never come to an end: each step ends at its limit.
#[tokio::test]
async fn servers_that_do_not_answer() {
    let listener = tokio::net::TcpListener::bind(super::ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    let serving = async {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.expect("a connection"));
        }
    };
    let grpc = |tls| Method::Grpc { tls, host: None, service: String::new() };
    let dns = Method::Dns(DnsQuery { tcp: true, ..query(NAME, "A", None) });
    let table = [
        (Method::Http(request()), "READ to SERVER timed out"),
        (Method::Http(HttpRequest { http2: true, ..request() }), "READ to SERVER timed out"),
        (
            Method::Http(HttpRequest { tls: tls(Trust::Anybody), ..request() }),
            "TLS handshake with SERVER timed out",
        ),
        (grpc(None), "READ to SERVER timed out"),
        (grpc(tls(Trust::Anybody)), "TLS handshake with SERVER timed out"),
        (dns, "READ to SERVER timed out"),
    ];
    let verdicts = table.iter().map(|(method, expected)| async move {
        let told = verdict(hasty(check(method.clone())), server).await;
        assert_eq!(told, *expected, "{method:?}");
    });
    tokio::select! {
        _ = futures::future::join_all(verdicts) => {}
        () = serving => unreachable!("it serves for ever"),
    }
}

/// A slow loris: a byte now and then, for ever. The limit is that of the whole answer, not of a byte.
#[tokio::test]
async fn a_slow_loris() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(super::ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 512]).await;
                for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(super::SHORT / 20).await;
                }
            });
        }
    };
    let raw = super::tcp("x", super::prefix("HTTP/1.1 200 OK\r\nX: xxx no"));
    let endless = super::tcp("x", super::prefix(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200))));
    let page = check(Method::Http(request()));
    let checks = async {
        let (raw, endless, page) = tokio::join!(
            verdict(raw, server),
            verdict(hasty(endless), server),
            verdict(hasty(page), server),
        );
        assert_eq!(raw, r#"unexpected reply from SERVER: "HTTP/1.1 200 OK\r\nX: xxxx""#);
        assert!(endless.starts_with("READ to SERVER timed out after \"HTTP/1.1"), "{endless}");
        assert_eq!(page, "READ to SERVER timed out");
    };
    tokio::select! { () = checks => {}, () = serving => unreachable!("it serves for ever") }
}
