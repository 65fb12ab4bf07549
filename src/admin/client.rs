//! The control socket: JSON lines to the daemon and back.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::director::protocol::{Reply, Request};
use crate::ipvs::edit::Errno;

/// Where the daemon listens unless the environment says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/xlvs/control.sock";

/// Environment variable with another path of the control socket.
pub const SOCKET_VARIABLE: &str = "XLVS_SOCKET";

/// Longest silence of the daemon before the client gives up; a full connection table takes it far less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries a request to the daemon, or to a director in the same process.
pub trait Transport {
    /// Asks and waits for the answer.
    fn call(&mut self, request: Request) -> Result<Reply, TransportError>;
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum TransportError {
    /// Nobody listens.
    #[error("the xlvs daemon is not running: no answer on {} ({source}); start xlvs or set {SOCKET_VARIABLE}", socket.display())]
    NotRunning {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The user may not speak to the daemon.
    #[error("the control socket {} of the xlvs daemon is not for this user; try as root", socket.display())]
    NotPermitted {
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// The conversation broke off or timed out.
    #[error("the xlvs daemon on {} did not answer: {source}; look at its log", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer cannot be read: daemon and client are of different versions.
    #[error("the xlvs daemon on {} answers in an unknown way ({source}); are both programs of one version?", socket.display())]
    Unreadable {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// A connection to the daemon, opened by the first request and kept for the next ones.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    patience: Duration,
    stream: Option<BufReader<UnixStream>>,
}

impl ControlSocket {
    /// Will connect to `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ControlSocket { path: path.into(), patience: PATIENCE, stream: None }
    }

    /// Will connect to the path in [`SOCKET_VARIABLE`], or to [`DEFAULT_SOCKET`].
    pub fn from_environment() -> Self {
        Self::new(std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into()))
    }

    /// The same with more patience, or less.
    pub fn with_patience(self, patience: Duration) -> Self {
        ControlSocket { patience, ..self }
    }

    fn stream(&mut self) -> Result<&mut BufReader<UnixStream>, TransportError> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.path, self.patience).map_err(|error| self.refused(error))?,
        };
        Ok(self.stream.insert(stream))
    }

    fn refused(&self, source: io::Error) -> TransportError {
        let socket = self.path.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => TransportError::NotPermitted { socket },
            _ => TransportError::NotRunning { socket, source },
        }
    }
}

fn connect(path: &Path, patience: Duration) -> io::Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(BufReader::new(stream))
}

fn converse(stream: &mut BufReader<UnixStream>, request: &Request) -> io::Result<String> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A daemon that answers nobody of this user may have said so and hung up already.
    let hung_up = unless_hung_up(stream.get_mut().write_all(&line))?;
    let mut answer = String::new();
    match stream.read_line(&mut answer)? {
        0 if hung_up => Err(io::ErrorKind::BrokenPipe.into()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

/// Whether the other end has hung up.
fn unless_hung_up(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        written => written.map(|()| false),
    }
}

/// Whether nobody has read the request: the daemon has been followed by another process, perhaps.
fn is_unread(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl ControlSocket {
    fn answer(&mut self, request: &Request) -> Result<Reply, TransportError> {
        let was_open = self.stream.is_some();
        let mut answer = converse(self.stream()?, request);
        if was_open
            && answer.as_ref().is_err_and(is_unread)
            && let Ok(stream) = connect(&self.path, self.patience)
        {
            answer = converse(self.stream.insert(stream), request);
        }
        let answer = answer.map_err(|source| {
            self.stream = None;
            TransportError::Silent { socket: self.path.clone(), source }
        })?;
        serde_json::from_str(&answer)
            .map_err(|source| TransportError::Unreadable { socket: self.path.clone(), source })
    }
}

impl Transport for ControlSocket {
    fn call(&mut self, request: Request) -> Result<Reply, TransportError> {
        let mut reply = self.answer(&request)?;
        if reply == Reply::Again {
            self.stream = None;
            reply = self.answer(&request)?;
        }
        match reply {
            Reply::Refused(Errno::EPERM) => Err(TransportError::NotPermitted { socket: self.path.clone() }),
            reply => Ok(reply),
        }
    }
}
