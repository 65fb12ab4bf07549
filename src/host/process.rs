//! Another process, by a descriptor: its number may become another's when it has ended, and it need not be a child.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process.
#[derive(Debug)]
pub struct Process {
    number: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The one that has this number now; an error if there is none.
    pub fn open(number: u32) -> io::Result<Self> {
        let pid = Pid::from_raw(number.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process { number, descriptor: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.number
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.wait(PollTimeout::ZERO)
    }

    /// Kills it, and waits until it has ended.
    pub fn end(&self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        self.wait(PollTimeout::NONE);
    }

    fn wait(&self, limit: PollTimeout) -> bool {
        loop {
            let mut ended = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ended, limit) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.is_ok_and(|ended| ended > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn one_that_is_ended_has_ended() -> io::Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let process = Process::open(child.id())?;
        assert_eq!(process.id(), child.id());
        assert!(!process.has_ended());
        process.end();
        assert!(process.has_ended());
        assert!(!child.wait()?.success());
        process.end();
        assert!(Process::open(0).is_err());
        Ok(())
    }
}
