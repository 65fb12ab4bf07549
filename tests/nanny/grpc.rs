//! gRPC's health service. The server's bytes are written down by hand from grpc.health.v1 and gRPC over HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::net::TcpListener;
use xlvs::nanny::Method;

use super::{ANY_PORT, check, verdict};

/// What the server answers: a body in gRPC's frames, and the status in the trailers.
#[derive(Clone)]
struct Answer(&'static [u8], &'static str);

/// A server that answers calls about `service` with `answer`, and others with NOT_FOUND.
async fn serve(service: &'static str, answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((mut request, respond))) = connection.accept().await {
                let answer = answer.clone();
                let work = async move {
                    let question = request.body_mut().data().await.expect("a question").expect("a question");
                    let message = [&[0x0a, service.len() as u8], service.as_bytes()].concat();
                    let message = if service.is_empty() { Vec::new() } else { message };
                    let framed = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
                    let is_right = request.uri().path() == "/grpc.health.v1.Health/Check"
                        && request.headers()["content-type"] == "application/grpc"
                        && request.headers()["te"] == "trailers"
                        && question == framed;
                    reply(respond, if is_right { answer } else { Answer(b"", "5") });
                };
                tokio::spawn(work);
            }
        }
    });
    server
}

fn reply(mut respond: h2::server::SendResponse<Bytes>, Answer(body, status): Answer) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
    let mut sending = respond.send_response(head, false).expect("a connection");
    sending.send_data(Bytes::from_static(body), false).expect("a connection");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a number"));
    trailers.insert("grpc-message", "said the test".parse().expect("a text"));
    sending.send_trailers(trailers).expect("a connection");
}

#[tokio::test]
async fn health_over_grpc() {
    let failed = |text: &str| format!("gRPC with SERVER failed: {text}");
    let health = |text: &str| format!("unexpected reply from SERVER: gRPC health {text}");
    let table = [
        ("", Answer(&[0, 0, 0, 0, 2, 0x08, 1], "0"), "good".to_owned()),
        ("shop.Cart", Answer(&[0, 0, 0, 0, 2, 0x08, 1], "0"), "good".to_owned()),
        ("", Answer(&[0, 0, 0, 0, 2, 0x08, 2], "0"), health("NOT_SERVING")),
        ("", Answer(&[0, 0, 0, 0, 2, 0x08, 3], "0"), health("SERVICE_UNKNOWN")),
        ("", Answer(&[0, 0, 0, 0, 0], "0"), health("UNKNOWN")),
        ("", Answer(&[0, 0, 0, 0, 3, 0x08, 0xac, 2], "0"), health("300")),
        // Fields that are not known: a text, 32 and 64 bits.
        (
            "",
            Answer(
                &[0, 0, 0, 0, 19, 0x12, 1, b'x', 0x1d, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1],
                "0",
            ),
            "good".to_owned(),
        ),
        ("", Answer(&[0, 0, 0, 0, 3, 0x08, 1, 0x10], "0"), failed("the answer is not a HealthCheckResponse")),
        ("", Answer(&[1, 0, 0, 0, 2, 0x08, 1], "0"), failed("the answer is not a HealthCheckResponse")),
        ("", Answer(b"", "0"), failed("the answer is not a HealthCheckResponse")),
        ("", Answer(b"", "12"), failed("the server has no health service (grpc-status 12)")),
        ("", Answer(b"", "14"), failed("grpc-status 14: said the test")),
        ("", Answer(&[0; 2000], "0"), failed("the answer is too long")),
    ];
    for (service, answer, expected) in table {
        let server = serve(service, answer.clone()).await;
        let method = Method::Grpc { tls: None, host: None, service: service.to_owned() };
        assert_eq!(verdict(check(method), server).await, expected, "{service} {:?}", answer.0);
    }
    let server = serve("other", Answer(b"", "0")).await;
    let method = Method::Grpc { tls: None, host: None, service: "shop".to_owned() };
    assert_eq!(verdict(check(method), server).await, failed("grpc-status 5: said the test"));
}
