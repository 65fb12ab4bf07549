//! Probes against real sockets on loopback, with ports that the system chooses.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use xlvs::nanny::{Check, Expect, Method};

use super::{ANY_PORT, check, hasty, pattern, prefix, tcp, verdict};

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

fn udp(send: &str, expect: Expect) -> Check {
    check(Method::Udp { send: send.as_bytes().to_vec(), expect })
}

fn running(program: &str, expect: Option<&str>) -> Check {
    let words = program.split(' ').map(str::to_owned).collect();
    check(Method::Program { words, expect: expect.map(|text| text.as_bytes().to_vec()) })
}

#[tokio::test]
async fn the_right_answer_to_the_right_question() {
    let told = verdict_of_tcp(tcp("PING\r\n", prefix("PONG")), async |mut stream| {
        let mut question = [0; 6];
        stream.read_exact(&mut question).await.expect("a question");
        assert_eq!(&question, b"PING\r\n");
        stream.write_all(b"PONG and more").await.expect("an answer");
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn an_answer_in_single_bytes() {
    let told = verdict_of_tcp(tcp("x", prefix("HTTP")), async |mut stream| {
        stream.set_nodelay(true).expect("a TCP option");
        for byte in b"HTTP/1.0 200" {
            stream.write_all(&[*byte]).await.unwrap_or_default();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn a_connection_is_enough_if_nothing_is_expected() {
    assert_eq!(verdict_of_tcp(tcp("", None), async |_| pending().await).await, "good");
}

#[tokio::test]
async fn a_wrong_answer() {
    let told = verdict_of_tcp(tcp("x", prefix("HTTP")), async |mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.expect("an answer");
    });
    assert_eq!(told.await, r#"unexpected reply from SERVER: "SSH-2.0-OpenSSH\r\n""#);
}

#[tokio::test]
async fn an_answer_that_breaks_off() {
    let told = verdict_of_tcp(tcp("x", prefix("HTTP")), async |mut stream| {
        let mut question = [0; 1];
        stream.read_exact(&mut question).await.expect("a question");
        stream.write_all(b"HT").await.expect("an answer");
    });
    assert_eq!(told.await, r#"unexpected reply from SERVER: "HT""#);
}

#[tokio::test]
async fn a_regular_expression_waits_for_its_match() {
    let check = tcp("x", Some(Expect::Pattern(pattern("status: (up|idle)$"))));
    let told = verdict_of_tcp(check, async |mut stream| {
        stream.write_all(b"hello\nstatus: ").await.expect("an answer");
        tokio::task::yield_now().await;
        stream.write_all(b"idle").await.expect("the rest");
    });
    assert_eq!(told.await, "good");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers() {
    let told = verdict_of_tcp(hasty(tcp("x", prefix("HTTP"))), async |_stream| pending().await);
    assert_eq!(told.await, "READ to SERVER timed out");
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle() {
    let told = verdict_of_tcp(hasty(tcp("x", prefix("HTTP"))), async |mut stream| {
        stream.write_all(b"HT").await.expect("half an answer");
        pending().await
    });
    assert_eq!(told.await, r#"READ to SERVER timed out after "HT""#);
}

#[tokio::test]
async fn a_server_that_resets() {
    let told = verdict_of_tcp(tcp("x", prefix("HTTP")), async |mut stream| {
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
    let told = verdict(tcp("", None), server).await;
    assert!(told.starts_with("CONNECT to SERVER returned error: Connection refused"), "{told}");
}

#[tokio::test]
async fn a_connection_that_nobody_accepts() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(ANY_PORT).into()).expect("loopback");
    socket.listen(0).expect("listening");
    let server = socket.local_addr().ok().and_then(|it| it.as_socket()).expect("bound");
    let _first = TcpStream::connect(server).await.expect("the queue holds one");
    assert_eq!(verdict(hasty(tcp("", None)), server).await, "CONNECT to SERVER timed out");
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
    tokio::select! { verdict = verdict(check, server) => verdict, () = serving => unreachable!() }
}

#[tokio::test]
async fn udp_answers() {
    let pong = || prefix("PONG").expect("a prefix");
    assert_eq!(verdict_of_udp(udp("PING", pong()), b"PONG!").await, "good");
    assert_eq!(verdict_of_udp(udp("PING", Expect::Anything), b"?").await, "good");
    let told = verdict_of_udp(udp("PING", pong()), b"PANG").await;
    assert_eq!(told, r#"unexpected reply from SERVER: "PANG""#);
}

#[tokio::test]
async fn udp_silence_and_a_closed_port() {
    let silent = UdpSocket::bind(ANY_PORT).await.expect("loopback");
    let server = silent.local_addr().expect("bound");
    let check = udp("PING", Expect::Anything);
    assert_eq!(verdict(hasty(check.clone()), server).await, "READ to SERVER timed out");
    drop(silent);
    let told = verdict(check, server).await;
    assert!(told.starts_with("READ operation for SERVER returned error: Connection refused"), "{told}");
}

/// A source address that the machine has not is an error of ours that the log tells.
#[tokio::test]
async fn checks_come_from_the_address_that_is_said() {
    let source = "127.9.8.7".parse().expect("an address");
    let from = Check { source: Some(source), ..tcp("x", prefix("127.9.8.7")) };
    let told = verdict_of_tcp(from, async |mut stream| {
        let client = stream.peer_addr().expect("connected").ip().to_string();
        stream.write_all(client.as_bytes()).await.expect("an answer");
    });
    assert_eq!(told.await, "good");
    let from = Check { source: Some(source), ..udp("PING", Expect::Anything) };
    assert_eq!(verdict_of_udp(from, b"?").await, "good");
    let from = Check { source: "192.0.2.1".parse().ok(), ..tcp("", None) };
    let told = verdict(from, ([127, 0, 0, 1], 9).into()).await;
    assert!(told.starts_with("CONNECT to SERVER returned error: Cannot assign requested address"), "{told}");
}

#[tokio::test]
async fn programs() {
    let server = SocketAddr::from(([127, 0, 0, 1], 4711));
    let table = [
        ("echo OK", Some("OK"), "good"),
        ("echo %h %p x%hx", Some("127.0.0.1 4711 x%hx"), "good"),
        ("printf OK", Some("OK"), "good"),
        ("echo OKAY", Some("OK"), r#"Received results are not what we expected from (SERVER): "OKAY\n""#),
        ("true", Some("OK"), "Received results are not what we expected from (SERVER): nothing"),
        ("true", Some(""), "Received results are not what we expected from (SERVER): nothing"),
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
    let told = verdict(hasty(running(&program, Some("OK"))), ([127, 0, 0, 1], 4711).into()).await;
    assert_eq!(told, format!("timeout running the following: {program} (checking SERVER)"));
    let pids = std::fs::read_to_string(pids).expect("the script ran");
    for pid in pids.split_whitespace() {
        until_gone(pid).await;
    }
}

/// What a program leaves in the background ends with it; and it sees nothing that systemd told the daemon.
#[tokio::test]
async fn a_program_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("leave");
    let pid = directory.path().join("pid");
    let text = format!("sleep 1000 >/dev/null &\necho $! >{}\npwd\n", pid.display());
    std::fs::write(&script, text).expect("a script");
    let program = format!("sh {}", script.display());
    assert_eq!(verdict(running(&program, Some("/")), ([127, 0, 0, 1], 4711).into()).await, "good");
    until_gone(std::fs::read_to_string(pid).expect("the script ran").trim()).await;
}

/// What a program leaves in the background may have its pipe; it has ended all the same, and what it printed counts.
#[tokio::test]
async fn a_program_ends_when_it_ends_whoever_has_its_pipe() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    for (name, child) in [("group", "sleep 1000"), ("session", "setsid sleep 1000")] {
        let script = directory.path().join(name);
        let text = format!("{child} &\necho $! >{}\necho OK\n", pid.display());
        std::fs::write(&script, text).expect("a script");
        let program = format!("sh {}", script.display());
        let check = running(&program, Some("OK"));
        assert_eq!(verdict(check, ([127, 0, 0, 1], 4711).into()).await, "good", "{name}");
        let pid = std::fs::read_to_string(&pid).expect("the script ran");
        if name == "session" {
            // It has a group of its own, and goes on.
            let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        } else {
            until_gone(pid.trim()).await;
        }
    }
}

/// Also if it has ended before anybody was told that there is something in its pipe.
#[tokio::test]
async fn what_a_program_printed_is_never_missed() {
    for _ in 0..300 {
        assert_eq!(verdict(running("echo OK", Some("OK")), ([127, 0, 0, 1], 4711).into()).await, "good");
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
