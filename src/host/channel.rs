//! A channel between two processes of this machine, for messages and open descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// No message is longer, in bytes.
const LONGEST: usize = 1 << 28;
/// Kind and length.
const HEADER: usize = 5;

/// A message.
#[derive(Debug)]
pub struct Message {
    /// What it is; the two processes agree about that.
    pub kind: u8,
    /// What it says.
    pub body: Vec<u8>,
    /// A copy of a descriptor of the other process.
    pub descriptor: Option<OwnedFd>,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// A channel, and the descriptor that is its other end for a process that is started.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (own, others) = UnixStream::pair()?;
        Ok((Channel(own), others.into()))
    }

    /// The end that this process was started with as its standard input.
    pub fn from_standard_input() -> io::Result<Self> {
        let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Channel(descriptor.into()))
    }

    /// How long sending or receiving may take without any progress; for ever if absent.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)?;
        self.0.set_write_timeout(patience)
    }

    /// The same end once more.
    pub fn again(&self) -> io::Result<Self> {
        self.0.try_clone().map(Channel)
    }

    /// Ends it for both processes, also for one that is waiting just now.
    pub fn hang_up(&self) {
        // The other one may have gone.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Sends a message, with a copy of a descriptor or without.
    pub fn send(&self, kind: u8, body: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut header = [kind; HEADER];
        header[1..].copy_from_slice(&length.to_be_bytes());
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL)?;
        (&self.0).write_all(&header[sent..])?;
        (&self.0).write_all(body)
    }

    /// The next message; `None` if the other process has gone.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut header = [0; HEADER];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut header)];
        let received = match recvmsg(&self.0, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::CONNRESET) => 0,
            received => received?.bytes,
        };
        if received == 0 {
            return Ok(None);
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (&self.0).read_exact(&mut header[received..])?;
        let [kind, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        (&self.0).read_exact(&mut body)?;
        Ok(Some(Message { kind, body, descriptor }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_then_the_end() {
        let (one, other) = Channel::new().unwrap();
        let other = Channel(other.into());
        let (mut reading, writing) = io::pipe().unwrap();
        one.send(1, b"plain", None).unwrap();
        one.send(2, b"", Some(writing.as_fd())).unwrap();
        one.send(3, &[7; 70_000], None).unwrap();
        drop((one, writing));
        let first = other.receive().unwrap().unwrap();
        assert_eq!((first.kind, &*first.body, first.descriptor.is_none()), (1, &b"plain"[..], true));
        let second = other.receive().unwrap().unwrap();
        let mut copy = io::PipeWriter::from(second.descriptor.unwrap());
        copy.write_all(b"by the copy").unwrap();
        drop(copy);
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        assert_eq!((second.kind, &*text), (2, "by the copy"));
        let third = other.receive().unwrap().unwrap();
        assert_eq!((third.kind, third.body.len(), third.descriptor.is_none()), (3, 70_000, true));
        assert!(other.receive().unwrap().is_none());
    }

    #[test]
    fn who_waits_too_long_is_told() {
        let (one, _other) = Channel::new().unwrap();
        one.set_patience(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(one.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
