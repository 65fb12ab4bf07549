//! External programs: `send_program` as the check (reference/piranha.md 2.5), and others that are bounded alike.

use std::io;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::nanny::failure::ProbeFailure;

/// The longest output that counts, in bytes.
const OUTPUT_LIMIT: usize = 4096;

/// Runs the program without a shell, `%h` and `%p` replaced by the server's address and port. It must exit with 0
/// within `limit` and print exactly `expect` (a trailing line end aside); without `expect` its exit status alone counts.
/// Its process group is killed when it ends or takes longer, and so is what it has left in the background.
pub(super) async fn run(
    words: &[String],
    expect: Option<&[u8]>,
    server: SocketAddr,
    limit: Duration,
) -> Result<(), ProbeFailure> {
    let line = words.join(" ");
    let filled = words.iter().map(|word| match word.as_str() {
        "%h" => server.ip().to_string(),
        "%p" => server.port().to_string(),
        _ => word.clone(),
    });
    let (output, status) = match run_program(filled.collect(), Stdio::piped(), limit, Leftovers::Killed).await
    {
        Ok(finished) => finished,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ProbeFailure::ProgramTimeout(line, server));
        }
        Err(error) => return Err(ProbeFailure::Start(line, server, error)),
    };
    let printed = output.strip_suffix(b"\n").unwrap_or(&output);
    let as_expected = expect.is_none_or(|expect| !output.is_empty() && printed == expect);
    match (status.success(), as_expected) {
        (false, _) => Err(ProbeFailure::Exit(line, server, status)),
        (true, false) => Err(ProbeFailure::Printed(server, output)),
        (true, true) => Ok(()),
    }
}

/// What systemd tells a service about itself. A program that took it for its own would speak for the daemon.
const OF_THE_SERVICE: [&str; 9] = [
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Where programs are looked for if the daemon has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What becomes of what a program has left in the background when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// It is killed.
    Killed,
    /// It goes on.
    GoOn,
}

/// Runs a program without a shell, and returns how it ended and, if `stdout` is a pipe, the first 4,097 bytes of what it printed. One
/// that takes longer than `limit` is killed together with its process group, and the error is [`io::ErrorKind::TimedOut`].
pub async fn run_program(
    words: Vec<String>,
    stdout: Stdio,
    limit: Duration,
    leftovers: Leftovers,
) -> io::Result<(Vec<u8>, ExitStatus)> {
    let mut group = ProcessGroup::start(words, stdout)?;
    let finish = group.finish(leftovers);
    timeout(limit, finish).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A running program and its descendants, killed when dropped before the program has ended.
struct ProcessGroup {
    child: Child,
    /// The process as a descriptor, readable once it has ended. That it is no pipe does not matter for that.
    ended: pipe::Receiver,
}

impl ProcessGroup {
    fn start(words: Vec<String>, stdout: Stdio) -> io::Result<Self> {
        let mut words = words.into_iter();
        let program = words.next().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        for name in OF_THE_SERVICE {
            command.env_remove(name);
        }
        if std::env::var_os("PATH").is_none() {
            command.env("PATH", PATH);
        }
        let child = command
            .args(words)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(ProcessGroup { child, ended: pipe::Receiver::from_owned_fd_unchecked(ended)? })
    }

    async fn finish(&mut self, leftovers: Leftovers) -> io::Result<(Vec<u8>, ExitStatus)> {
        let output = match self.child.stdout.take() {
            // Closed again at once: that ends a program that prints too much.
            Some(stdout) => {
                read(&pipe::Receiver::from_owned_fd(stdout.into_owned_fd()?)?, &self.ended).await?
            }
            None => Vec::new(),
        };
        self.ended.readable().await?;
        if leftovers == Leftovers::Killed {
            self.kill();
        }
        Ok((output, self.child.wait().await?))
    }

    /// The id is there as long as the program has not been waited for, so it cannot be another's. Once the program has ended
    /// this is about what it left behind.
    fn kill(&self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group {
            // There may be nobody left to kill.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Reads until the program has ended, and not for as long as something that it has left behind has the pipe open; or until it has
/// printed a byte more than allowed, which tells that it is too much.
async fn read(pipe: &pipe::Receiver, ended: &pipe::Receiver) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    loop {
        let is_over = tokio::select! {
            biased;
            over = ended.readable() => over.map(|()| true)?,
            more = pipe.readable() => more.map(|()| false)?,
        };
        if is_over {
            // What a program has printed is in the pipe when it ends, whether or not tokio has heard of it.
            take(&mut output, |room| Ok(rustix::io::read(pipe, room)?))?;
            return Ok(output);
        }
        if take(&mut output, |room| pipe.try_read(room))? {
            return Ok(output);
        }
    }
}

/// Takes what is there. Whether nothing more can come, or is wanted.
fn take(output: &mut Vec<u8>, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
    let mut room = [0; OUTPUT_LIMIT + 1];
    while output.len() <= OUTPUT_LIMIT {
        let left = room.len() - output.len();
        match read(&mut room[..left]) {
            Ok(0) => return Ok(true),
            Ok(count) => output.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
