//! Programs that the daemon starts on behalf of the administrator.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

/// What became of a program that did not do well.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot start {0}: {1}; the path must be absolute, and there is no shell")]
    Start(String, io::Error),
    /// It ended badly.
    #[error("{0} failed: {1}")]
    Exit(String, ExitStatus),
    /// It was killed.
    #[error("{0} did not end within {1} s and was killed")]
    Late(String, u64),
}

/// Runs a program, split at blanks and without a shell, as Piranha ran `active_cmd` (reference/piranha.md 4.8). With a `limit`
/// it is killed then, together with its process group; without one it may take as long as it likes.
pub async fn run(line: &str, limit: Option<Duration>) -> Result<(), CommandError> {
    let start = |error| CommandError::Start(line.to_owned(), error);
    let mut words = line.split_ascii_whitespace();
    let program = words.next().ok_or_else(|| start(io::ErrorKind::NotFound.into()))?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(start)?;
    let ended = match limit {
        None => child.wait().await,
        Some(limit) => match timeout(limit, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                let group = child.id().and_then(|id| i32::try_from(id).ok());
                // It may have ended in this moment, and then there is nobody to kill.
                let _ = group.map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
                let _ = child.wait().await;
                return Err(CommandError::Late(line.to_owned(), limit.as_secs()));
            }
        },
    };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CommandError::Exit(line.to_owned(), status)),
        Err(error) => Err(start(error)),
    }
}
