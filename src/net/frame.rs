//! A frame as the engine sees it: a buffer, the length in use, and the port it came in by.

use crate::net::addr::{MacAddr, PortIndex};

/// An Ethernet frame in a buffer that may have room behind it, so that an answer can be longer than the question.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    len: usize,
    port: PortIndex,
    outgoing: bool,
}

impl<'a> Frame<'a> {
    /// The first `len` bytes of `buffer` are the frame; the rest is room to grow. `len` is capped to the buffer.
    pub fn new(buffer: &'a mut [u8], len: usize, port: PortIndex) -> Self {
        let len = len.min(buffer.len());
        Frame { buffer, len, port, outgoing: false }
    }

    /// The same for a frame that this machine itself is about to send by `port`.
    pub fn outgoing(buffer: &'a mut [u8], len: usize, port: PortIndex) -> Self {
        Frame { outgoing: true, ..Frame::new(buffer, len, port) }
    }

    /// Whether this machine itself is about to send it.
    pub fn is_outgoing(&self) -> bool {
        self.outgoing
    }

    /// The port the frame was received on, or is to leave by.
    pub fn port(&self) -> PortIndex {
        self.port
    }

    /// The hardware address it was sent to; `None` if it is too short to have one.
    pub fn destination(&self) -> Option<MacAddr> {
        self.bytes().first_chunk().copied().map(MacAddr)
    }

    /// The hardware address of its sender; `None` if it is too short to have one.
    pub fn source(&self) -> Option<MacAddr> {
        self.bytes().get(6..)?.first_chunk().copied().map(MacAddr)
    }

    /// Length of the frame in bytes, without FCS.
    #[expect(clippy::len_without_is_empty, reason = "an empty frame is not a case anyone asks about")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How long the frame can become.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The bytes of the frame, to be rewritten.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Sets the length; the bytes gained are what the buffer holds. Returns false, and changes nothing, past the
    /// capacity.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        let fits = len <= self.buffer.len();
        if fits {
            self.len = len;
        }
        fits
    }
}
