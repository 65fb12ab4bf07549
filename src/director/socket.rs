//! The control socket: JSON lines in, JSON lines out, any number of clients.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Uid;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{RwLock, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::protocol::{Reply, Request};
use crate::ipvs::edit::Errno;

/// Longest request in bytes; ends a connection that sends no line end. A table of a million servers is restored by one.
const REQUEST_MAX: u64 = 1 << 28;
/// How long a living daemon may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How long a client may take to read an answer; one that never does must not keep it in memory.
const READING_TIME: Duration = Duration::from_secs(30);
/// How long the last answers may take before a process leaves the socket to another one.
const LEAVING_TIME: Duration = Duration::from_secs(1);
/// Owner only: whoever writes here rules the balancer.
const MODE: u32 = 0o600;

/// A request on its way to the director, and where the answer goes.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub request: Request,
    /// The way back.
    pub answer: oneshot::Sender<Reply>,
}

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("{0}: another xlvs is running there; stop it first, or give this one its own control_socket")]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{0}: is there already and is not a socket; move it away, or set another control_socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{path}: cannot {what}: {source}")]
    System {
        /// The socket or its directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// The listening socket. Its file goes when it is dropped, unless another process has taken it over.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    accepting: Option<JoinHandle<()>>,
    /// Whether another process has taken the socket over; held by whoever carries out a request, until it is answered.
    is_left: Arc<RwLock<bool>>,
    keeps_file: bool,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.pause();
        if !self.keeps_file {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl ControlSocket {
    /// Listens at `path`. A socket that a dead daemon left behind is replaced.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let system = |what| move |source| SocketError::System { path: path.to_owned(), what, source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(system("make its directory"))?;
        }
        if std::fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        if is_served(path).await {
            return Err(SocketError::InUse(path.to_owned()));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system("replace what is there")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(system("listen"))?;
        let socket = Self::new(path, listener);
        std::fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(system("set its mode"))?;
        socket.listener.set_nonblocking(true).map_err(system("set its waiting"))?;
        Ok(socket)
    }

    /// The socket at `path` that another process has listened on.
    pub fn take_over(path: &Path, listener: OwnedFd) -> Self {
        Self::new(path, listener.into())
    }

    fn new(path: &Path, listener: UnixListener) -> Self {
        ControlSocket {
            listener,
            path: path.to_owned(),
            accepting: None,
            is_left: Arc::default(),
            keeps_file: false,
        }
    }

    /// Serves clients from now on; requests go to `inbox`.
    pub fn serve(&mut self, inbox: mpsc::Sender<Asked>) -> Result<(), SocketError> {
        let system = |source| SocketError::System { path: self.path.clone(), what: "serve clients", source };
        let listener = self.listener.try_clone().map_err(system)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(system)?;
        self.accepting = Some(tokio::spawn(accept(listener, inbox, Arc::clone(&self.is_left))));
        Ok(())
    }

    /// Accepts no more clients. They wait, until this process serves again or another one does.
    pub fn pause(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    /// The listening socket, for a process that takes over.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Leaves the socket to a process that has taken it over, once all answers have been given that are due. Whoever asks later is
    /// sent there.
    pub async fn leave(mut self) {
        self.keeps_file = true;
        self.pause();
        match tokio::time::timeout(LEAVING_TIME, self.is_left.write()).await {
            Ok(mut is_left) => *is_left = true,
            Err(_) => tracing::warn!("control socket: a client does not read its answer"),
        }
    }
}

async fn accept(listener: tokio::net::UnixListener, inbox: mpsc::Sender<Asked>, is_left: Arc<RwLock<bool>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_allowed(&stream) => {
                drop(tokio::spawn(converse(stream, inbox.clone(), Arc::clone(&is_left))));
            }
            Ok((stream, _)) => drop(tokio::spawn(refuse(stream))),
            Err(error) => {
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether a daemon answers at `path`. One that was killed a moment ago may still accept, but says nothing any more.
async fn is_served(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path).await else { return false };
    let answer = async {
        stream.write_all(b"\"get_timeouts\"\n").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(ANSWER_TIME, answer).await, Ok(Ok(_)))
}

/// Whether a client may rule: root, or whoever the daemon runs as. The mode of the socket's file says the same, but does so only
/// a moment after the socket is there, and may be changed.
fn is_allowed(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == Uid::effective().as_raw())
}

/// Tells a client that it may not.
async fn refuse(mut stream: UnixStream) {
    if let Ok(mut text) = serde_json::to_vec(&Reply::Refused(Errno::EPERM)) {
        text.push(b'\n');
        // A client that has gone needs no answer.
        let _ = stream.write_all(&text).await;
    }
}

/// One client, until it hangs up or the director is gone.
async fn converse(stream: UnixStream, inbox: mpsc::Sender<Asked>, is_left: Arc<RwLock<bool>>) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut reading).take(REQUEST_MAX).read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_left = is_left.read().await;
        let reply = if *is_left { None } else { ask(&line, &inbox).await };
        let reply = reply.unwrap_or(Reply::Again);
        let Ok(mut text) = serde_json::to_vec(&reply) else { return };
        text.push(b'\n');
        match tokio::time::timeout(READING_TIME, writing.write_all(&text)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

async fn ask(line: &str, inbox: &mpsc::Sender<Asked>) -> Option<Reply> {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return Some(Reply::Failed(format!("not a request: {error}"))),
    };
    let (answer, reply) = oneshot::channel();
    inbox.send(Asked { request, answer }).await.ok()?;
    reply.await.ok()
}
