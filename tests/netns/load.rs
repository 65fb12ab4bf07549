//! Clients that never let go of their connections, and notice whatever happens to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use xlvs::host::clock::Clock;
use xlvs::net::time::Instant;

use super::namespace::Namespace;

/// How long a client waits for an answer, or to be connected.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer in bytes.
const ANSWER_MAX: usize = 1024;

/// What is known of all connections.
struct Books {
    clock: Clock,
    stop: AtomicBool,
    /// When each connection got its last answer, in nanoseconds of the clock; 0 before the first.
    answered: Vec<AtomicU64>,
    answers: AtomicU64,
    last: AtomicU64,
    longest: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Books {
    fn note_answer(&self, connection: usize) {
        let now = self.clock.now().as_nanos();
        self.answered[connection].store(now, Ordering::Relaxed);
        self.answers.fetch_add(1, Ordering::Relaxed);
        let before = self.last.swap(now, Ordering::Relaxed);
        self.longest.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }

    fn fail(&self, connection: usize, why: &str) {
        let at = self.clock.now().as_nanos() / 1_000_000;
        self.failures.lock().unwrap().push(format!("connection {connection} after {at} ms: {why}"));
    }
}

/// Connections on which a request follows the other, each answered by the server that took the connection.
pub struct Load {
    books: Arc<Books>,
    clients: Option<JoinHandle<()>>,
}

impl Load {
    /// Opens so many connections from the client; on each there is a request every `pace`. Returns when all have been
    /// answered.
    pub fn start(client: &Namespace, service: SocketAddr, connections: usize, pace: Duration) -> Load {
        let books = Arc::new(Books {
            clock: Clock::start(),
            stop: AtomicBool::new(false),
            answered: (0..connections).map(|_| AtomicU64::new(0)).collect(),
            answers: AtomicU64::new(0),
            last: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            failures: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&books);
        let clients = client.enter(|| std::thread::spawn(move || run(&shared, service, pace)));
        let load = Load { books, clients: Some(clients) };
        load.await_all(Instant::START, "every client has its first answer");
        load
    }

    /// Now, on the clients' clock. Silence is measured from here on.
    pub fn mark(&self) -> Instant {
        self.books.longest.store(0, Ordering::Relaxed);
        self.now()
    }

    /// Now, on the clients' clock.
    pub fn now(&self) -> Instant {
        self.books.clock.now()
    }

    /// The longest time since the mark in which no client at all got an answer.
    pub fn silence(&self) -> Duration {
        let last = Instant::from_nanos(self.books.last.load(Ordering::Relaxed));
        let present = self.now().saturating_since(last);
        Duration::from_nanos(self.books.longest.load(Ordering::Relaxed)).max(present)
    }

    /// Waits until each connection has been answered after `since`.
    pub fn await_all(&self, since: Instant, what: &str) {
        let fine = |answered: &AtomicU64| answered.load(Ordering::Relaxed) > since.as_nanos();
        let begun = self.now();
        while !self.books.answered.iter().all(fine) {
            self.check();
            let missing = self.books.answered.iter().filter(|answered| !fine(answered)).count();
            let waited = self.now().saturating_since(begun);
            assert!(
                waited < PATIENCE,
                "waited in vain until {what}: {missing} connections without an answer"
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.check();
    }

    /// Nothing may have gone wrong so far.
    pub fn check(&self) {
        let failures = self.books.failures.lock().unwrap();
        let few: Vec<&String> = failures.iter().take(5).collect();
        assert!(failures.is_empty(), "{} connections broke: {few:#?}", failures.len());
    }

    /// Ends all connections in an orderly way; returns how many answers there were. Nothing may have gone wrong.
    pub fn finish(mut self) -> u64 {
        self.end();
        self.check();
        self.books.answers.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.books.stop.store(true, Ordering::Relaxed);
        if let Some(clients) = self.clients.take() {
            clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
        // Else its thread sees that it is to stop, and nobody waits for it.
        self.books.stop.store(true, Ordering::Relaxed);
    }
}

fn run(books: &Arc<Books>, service: SocketAddr, pace: Duration) {
    let connections = books.answered.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clients = (0..connections).map(|connection| {
            let books = Arc::clone(books);
            let start = pace * connection as u32 / connections as u32;
            tokio::spawn(async move {
                sleep(start).await;
                if let Err(why) = converse(&books, connection, service, pace).await {
                    books.fail(connection, &why);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
}

async fn converse(
    books: &Books,
    connection: usize,
    service: SocketAddr,
    pace: Duration,
) -> Result<(), String> {
    let connected = timeout(PATIENCE, TcpStream::connect(service)).await;
    let mut stream = connected.map_err(|_| "not connected")?.map_err(|error| format!("connect: {error}"))?;
    let mut server = None;
    for turn in 0u64.. {
        let word = format!("{connection}-{turn}");
        let said = timeout(PATIENCE, ask(&mut stream, &word)).await;
        let said = said.map_err(|_| format!("no answer to request {turn}"))?;
        let said = said.map_err(|error| format!("request {turn}: {error}"))?;
        let Some((by, word_back)) = said.split_once(' ') else { return Err(format!("answer: {said:?}")) };
        if word_back != word || *server.get_or_insert(by.to_owned()) != by {
            return Err(format!("asked {word} of {server:?}, answer: {said:?}"));
        }
        books.note_answer(connection);
        if books.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        sleep(pace).await;
    }
    Ok(())
}

/// What the server says: its address and the word.
async fn ask(stream: &mut TcpStream, word: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET /word?word={word} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((header, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = header.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(usize::MAX);
        if body.len() >= length {
            return Ok(body.to_owned());
        }
    }
    Err(std::io::Error::other("an answer without end"))
}
