//! Probes against real sockets on loopback, with ports that the system chooses.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use xlvs::host::clock::Clock;
use xlvs::nanny::{Check, run};
use xlvs::net::addr::Protocol;

use super::expectation::check;

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// What the check of `server` says: `good`, or the reason with the endpoint replaced.
async fn verdict(check: Check, server: SocketAddr) -> String {
    let probe = Check { endpoint: server, ..check }.prepare().expect("a valid check");
    match probe.run().await {
        Ok(()) => "good".to_owned(),
        Err(failure) => failure.to_string().replace(&server.to_string(), "SERVER"),
    }
}

/// The check's verdict about a TCP server that does `serve` with its first connection.
async fn verdict_of_tcp<F>(check: Check, serve: impl FnOnce(TcpStream) -> F) -> String
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind(ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream).await;
        pending::<()>().await;
    };
    tokio::select! {
        verdict = verdict(check, server) => verdict,
        () = serving => unreachable!("the server waits for ever"),
    }
}

fn expecting(send: &str, expect: &str) -> Check {
    Check { send: Some(send.to_owned()), expect: Some(expect.to_owned()), ..check() }
}

fn running(program: &str, expect: Option<&str>) -> Check {
    let expect = expect.map(str::to_owned);
    Check { send_program: Some(format!("\"{program}\"")), expect, ..check() }
}

#[tokio::test]
async fn the_right_answer_to_the_right_question() {
    let told = verdict_of_tcp(expecting(r#""PING\r\n""#, "PONG"), async |mut stream| {
        let mut question = [0; 6];
        stream.read_exact(&mut question).await.expect("a question");
        assert_eq!(&question, b"PING\r\n");
        stream.write_all(b"PONG and more").await.expect("an answer");
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn an_answer_in_single_bytes() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |mut stream| {
        stream.set_nodelay(true).expect("a TCP option");
        for byte in b"HTTP/1.0 200" {
            stream.write_all(&[*byte]).await.unwrap_or_default();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn port_80_asks_for_the_home_page() {
    let web = Check { virtual_port: 80, ..check() };
    let told = verdict_of_tcp(web, async |mut stream| {
        let mut question = [0; 18];
        stream.read_exact(&mut question).await.expect("a question");
        assert_eq!(&question, b"GET / HTTP/1.0\r\n\r\n");
        stream.write_all(b"HTTP/1.1 503 No").await.expect("an answer");
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn a_connection_is_enough_if_nothing_is_expected() {
    assert_eq!(verdict_of_tcp(check(), async |_| pending().await).await, "good");
}

#[tokio::test]
async fn a_wrong_answer() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.expect("an answer");
    });
    assert_eq!(told.await, r#"unexpected reply from SERVER: "SSH-2.0-OpenSSH\r\n""#);
}

#[tokio::test]
async fn an_answer_that_breaks_off() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |mut stream| {
        let mut question = [0; 1];
        stream.read_exact(&mut question).await.expect("a question");
        stream.write_all(b"HT").await.expect("an answer");
    });
    assert_eq!(told.await, r#"unexpected reply from SERVER: "HT""#);
}

#[tokio::test]
async fn a_regular_expression_waits_for_its_match() {
    let check = Check { use_regex: true, ..expecting("x", r#""status: (up|idle)$""#) };
    let told = verdict_of_tcp(check, async |mut stream| {
        stream.write_all(b"hello\nstatus: ").await.expect("an answer");
        tokio::task::yield_now().await;
        stream.write_all(b"idle").await.expect("the rest");
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |_stream| pending().await);
    assert_eq!(told.await, "READ to SERVER timed out");
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |mut stream| {
        stream.write_all(b"HT").await.expect("half an answer");
        pending().await
    });
    assert_eq!(told.await, r#"READ to SERVER timed out after "HT""#);
}

#[tokio::test]
async fn a_server_that_resets() {
    let told = verdict_of_tcp(expecting("x", "HTTP"), async |mut stream| {
        let mut question = [0; 1];
        stream.read_exact(&mut question).await.expect("a question");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    });
    let told = told.await;
    assert!(told.starts_with("READ operation for SERVER returned error: Connection reset"), "{told}");
}

#[tokio::test]
async fn a_closed_port() {
    let listener = TcpListener::bind(ANY_PORT).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    drop(listener);
    let told = verdict(check(), server).await;
    assert!(told.starts_with("CONNECT to SERVER returned error: Connection refused"), "{told}");
}

#[tokio::test]
async fn a_connection_that_nobody_accepts() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(ANY_PORT).into()).expect("loopback");
    socket.listen(0).expect("listening");
    let server = socket.local_addr().ok().and_then(|it| it.as_socket()).expect("bound");
    let _first = TcpStream::connect(server).await.expect("the queue holds one");
    assert_eq!(verdict(check(), server).await, "CONNECT to SERVER timed out");
}

/// The check's verdict about a UDP server that answers every datagram with `answer`.
async fn verdict_of_udp(check: Check, answer: &[u8]) -> String {
    let socket = UdpSocket::bind(ANY_PORT).await.expect("loopback");
    let server = socket.local_addr().expect("bound");
    let serving = async {
        let mut question = [0; 64];
        loop {
            let (len, client) = socket.recv_from(&mut question).await.expect("a question");
            assert_eq!(&question[..len], b"PING");
            socket.send_to(answer, client).await.expect("an answer");
        }
    };
    let check = Check { protocol: Protocol::UDP, ..check };
    tokio::select! { verdict = verdict(check, server) => verdict, () = serving => unreachable!() }
}

#[tokio::test]
async fn udp_answers() {
    assert_eq!(verdict_of_udp(expecting("PING", "PONG"), b"PONG!").await, "good");
    assert_eq!(verdict_of_udp(expecting("PING", "*"), b"?").await, "good");
    assert_eq!(verdict_of_udp(Check { expect: None, ..expecting("PING", "") }, b"?").await, "good");
    let told = verdict_of_udp(expecting("PING", "PONG"), b"PANG").await;
    assert_eq!(told, r#"unexpected reply from SERVER: "PANG""#);
}

#[tokio::test]
async fn udp_silence_and_a_closed_port() {
    let silent = UdpSocket::bind(ANY_PORT).await.expect("loopback");
    let server = silent.local_addr().expect("bound");
    let check = Check { protocol: Protocol::UDP, ..expecting("PING", "PONG") };
    assert_eq!(verdict(check.clone(), server).await, "READ to SERVER timed out");
    drop(silent);
    let told = verdict(check, server).await;
    assert!(told.starts_with("READ operation for SERVER returned error: Connection refused"), "{told}");
}

#[tokio::test]
async fn programs() {
    let server = SocketAddr::from(([127, 0, 0, 1], 4711));
    let table = [
        ("echo OK", Some("OK"), "good"),
        ("echo %h %p x%hx", Some("\"127.0.0.1 4711 x%hx\""), "good"),
        ("printf OK", Some("OK"), "good"),
        ("echo OKAY", Some("OK"), r#"Received results are not what we expected from (SERVER): "OKAY\n""#),
        ("true", Some("OK"), "Received results are not what we expected from (SERVER): nothing"),
        ("true", Some("\"\""), "Received results are not what we expected from (SERVER): nothing"),
        ("true", None, "good"),
        ("false", Some("OK"), "the following exited abnormally: false (checking SERVER): exit status: 1"),
    ];
    for (program, expect, expected) in table {
        assert_eq!(verdict(running(program, expect), server).await, expected, "{program} {expect:?}");
    }
    let told = verdict(running("/no/such/program", Some("OK")), server).await;
    assert!(told.starts_with("cannot run /no/such/program to check SERVER: No such file"), "{told}");
    let told = verdict(running("yes", Some("y")), server).await;
    assert!(told.starts_with("the following exited abnormally: yes (checking SERVER): signal"), "{told}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("hang");
    let pids = directory.path().join("pids");
    // The child holds the pipe too: killing the shell alone would leave both.
    let text = format!("sleep 1000 &\necho $$ $! > {}\nwait\n", pids.display());
    std::fs::write(&script, text).expect("a script");
    let program = format!("sh {}", script.display());
    let told = verdict(running(&program, Some("OK")), ([127, 0, 0, 1], 4711).into()).await;
    assert_eq!(told, format!("timeout running the following: {program} (checking SERVER)"));
    let pids = std::fs::read_to_string(pids).expect("the script ran");
    for pid in pids.split_whitespace() {
        until_gone(pid).await;
    }
}

/// Waits until the process has ended; a zombie has.
async fn until_gone(pid: &str) {
    let running = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.split(") ").nth(1).is_some_and(|state| !state.starts_with('Z'))
    };
    let gone = async {
        while running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), gone).await;
    assert!(waited.is_ok(), "process {pid} is still there");
}

#[tokio::test]
async fn the_loop_reports_a_server_that_comes_and_goes() {
    let listener = TcpListener::bind(ANY_PORT).await.expect("loopback");
    let endpoint = listener.local_addr().expect("bound");
    let check = Arc::new(Check { endpoint, ..check() });
    let (sender, mut reports) = mpsc::channel(4);
    let clock = Clock::start();
    let checking = tokio::spawn(run(check.clone(), move || clock.now(), sender));
    let first = reports.recv().await.expect("a report");
    assert!(first.change.up && Arc::ptr_eq(&first.check, &check), "{first:?}");
    drop(listener);
    let second = reports.recv().await.expect("a report");
    assert!(!second.change.up, "{second:?}");
    assert!(second.change.reason.contains("Connection refused"), "{second:?}");
    checking.abort();
    assert!(reports.recv().await.is_none(), "an aborted check says no more");
}

#[tokio::test]
async fn a_check_that_cannot_be_made_says_so() {
    let check = Arc::new(Check { use_regex: true, expect: Some("(".to_owned()), ..check() });
    let (sender, mut reports) = mpsc::channel(4);
    let clock = Clock::start();
    run(check, move || clock.now(), sender).await;
    let report = reports.recv().await.expect("a report");
    assert!(!report.change.up && report.change.reason.contains("unclosed group"), "{report:?}");
}
