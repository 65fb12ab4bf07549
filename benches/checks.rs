//! What health checks cost: thousands of them each second, on loopback, against a server in a process of its own.
//! `make bench-checks OPTIONS='--servers 2000 --seconds 20 --kind http'`; docs/health-checks.md has results.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use xlvs::host::clock::{Clock, wall};
use xlvs::host::descriptors;
use xlvs::nanny::{Check, Expect, Facilities, HttpRequest, Method, Slots, Timing, Tls, Trust, run};
use xlvs::net::time::Instant;

/// The first check of one server and that of the next one are so far apart in the daemon, too.
const PACE: Duration = Duration::from_micros(500);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

struct Options {
    servers: u32,
    hung: u32,
    seconds: u64,
    kind: String,
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut options = Options { servers: 2000, hung: 0, seconds: 10, kind: "tcp".to_owned() };
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| usage());
        match word.as_str() {
            "--serve" => return serve(),
            "--servers" => options.servers = number(&value()),
            "--hung" => options.hung = number(&value()),
            "--seconds" => options.seconds = number(&value()).into(),
            "--kind" => options.kind = value(),
            _ => usage(),
        }
    }
    measure(&options);
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| usage())
}

fn usage() -> ! {
    eprintln!("options: --servers N  --hung N (of them)  --seconds N  --kind connect|tcp|http|https|icmp");
    std::process::exit(2);
}

fn runtime() -> Runtime {
    // As the daemon's.
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The servers: a port that answers, one that answers inside of TLS and one that takes connections and says nothing, on every
/// loopback address. Tells the ports, then the number of answers with each line that it is sent.
fn serve() {
    descriptors::allow(1 << 20);
    let answers = Arc::new(AtomicU64::new(0));
    let runtime = runtime();
    let ports = runtime.block_on(async {
        let answering = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("loopback");
        let protected = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("loopback");
        let silent = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("loopback");
        let ports =
            [&answering, &protected, &silent].map(|listener| listener.local_addr().expect("bound").port());
        let counter = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = answering.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(stream));
            }
        });
        let (counter, acceptor) = (Arc::clone(&answers), acceptor());
        tokio::spawn(async move {
            while let Ok((stream, _)) = protected.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let shaking = acceptor.accept(stream);
                tokio::spawn(async move {
                    // A check whose time is over has gone.
                    if let Ok(stream) = shaking.await {
                        answer(stream).await;
                    }
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = silent.accept().await {
                // Until the client closes.
                tokio::spawn(async move { while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {} });
            }
        });
        ports
    });
    println!("{} {} {}", ports[0], ports[1], ports[2]);
    for _ in std::io::stdin().lines() {
        println!("{}", answers.load(Ordering::Relaxed));
    }
}

fn acceptor() -> TlsAcceptor {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("protocols").with_no_client_auth();
    let config = config.with_single_cert(vec![issued.cert.der().clone()], key).expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut question = [0; 512];
    // A check that only connects asks nothing, and no answer can be wrong here.
    if matches!(stream.read(&mut question).await, Ok(1..)) {
        let _ = stream.write_all(ANSWER).await;
    }
}

fn method(kind: &str) -> Method {
    let get = b"GET / HTTP/1.0\r\n\r\n".to_vec();
    match kind {
        "connect" => Method::Tcp { tls: None, send: Vec::new(), expect: None },
        "tcp" => Method::Tcp { tls: None, send: get, expect: Some(Expect::Prefix(b"HTTP".to_vec())) },
        "http" | "https" => Method::Http(HttpRequest {
            tls: (kind == "https").then_some(Tls { name: None, trust: Trust::Anybody, expiry_days: Some(1) }),
            http2: false,
            path: "/".to_owned(),
            host: None,
            statuses: vec![(200, 399)],
            header: None,
            body: None,
        }),
        "icmp" => Method::Icmp,
        _ => usage(),
    }
}

fn measure(options: &Options) {
    let program = std::env::current_exe().expect("a program");
    let mut server = Command::new(program)
        .arg("--serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the servers");
    let mut asking = server.stdin.take().expect("a pipe");
    let mut told = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut line = String::new();
    told.read_line(&mut line).expect("two ports");
    let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    let mut answers = || {
        asking.write_all(b"\n").expect("the servers listen");
        let mut line = String::new();
        told.read_line(&mut line).expect("a number");
        line.trim().parse::<u64>().expect("a number")
    };
    let runtime = runtime();
    let (sender, mut reports) = mpsc::channel(256);
    let started = runtime.block_on(start(options, &ports, sender));
    let until_up = runtime.block_on(async {
        let good = options.servers - options.hung;
        let mut up = 0;
        while up < good {
            up += u32::from(reports.recv().await.expect("a report").change.up);
        }
        started()
    });
    // Reports are about changes, of which there are none now.
    runtime.spawn(async move { while reports.recv().await.is_some() {} });
    runtime.block_on(async { sleep(Duration::from_secs(2)).await });
    let before = (usage_of_cpu(), answers());
    let from = started();
    let mut most = 0;
    for _ in 0..options.seconds * 10 {
        runtime.block_on(async { sleep(Duration::from_millis(100)).await });
        most = most.max(open_descriptors());
    }
    let seconds = started().saturating_since(from).as_secs_f64();
    let cpu = (usage_of_cpu() - before.0) / seconds;
    let rate = (answers() - before.1) as f64 / seconds;
    let Options { servers, hung, kind, .. } = options;
    println!("{servers} servers at an interval of 1 s, {hung} of them hung, kind {kind}:");
    println!("  all good ones up after {:.2} s", until_up.saturating_since(Instant::START).as_secs_f64());
    println!(
        "  {:.1} % of a CPU, {rate:.0} answered checks a second, at most {most} descriptors open",
        cpu * 100.0
    );
    runtime.shutdown_background();
    drop(asking);
    let mut rest = String::new();
    let _ = told.read_to_string(&mut rest);
    let _ = server.wait();
}

/// Starts the checks; returns the clock, which begins now.
async fn start(
    options: &Options,
    ports: &[u16],
    reports: mpsc::Sender<xlvs::nanny::HealthReport>,
) -> impl Fn() -> Instant + use<> {
    let clock = Clock::start();
    let slots = descriptors::allow(u64::from(options.servers) + 512);
    let slots = usize::try_from(slots).expect("a number").saturating_sub(256);
    let facilities = Arc::new(Facilities::new(move || clock.now(), wall, Slots::new(slots)));
    for number in 0..options.servers {
        let [_, high, middle, low] = (number + 1).to_be_bytes();
        let port = if number < options.hung { ports[2] } else { ports[usize::from(options.kind == "https")] };
        let check = Check {
            endpoint: SocketAddr::from(([127, 1 + high, middle, low], port)),
            source: None,
            method: method(&options.kind),
            timing: Timing::piranha(1, 1),
        };
        let first = Instant::START + PACE * number;
        tokio::spawn(run(Arc::new(check), Arc::clone(&facilities), first, reports.clone()));
    }
    move || clock.now()
}

/// Seconds of CPU of this process, in the program and in the kernel for it.
fn usage_of_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}
