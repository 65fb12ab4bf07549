//! What an engine sends besides the frames that it was given, and what became of frames that it held.

use crate::ipvs::verdict::{DropReason, PacketCounters};
use crate::net::addr::PortIndex;

/// Where a frame that the engine made goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Out of this port.
    Port(PortIndex),
    /// To this machine's IP stack, as if just received on this port.
    Stack(PortIndex),
    /// To the kernel's routing. The IP packet starts at byte 14.
    Kernel,
}

/// An Ethernet frame of the engine's own making.
#[derive(Clone, Copy, Debug)]
pub struct MadeFrame<'a> {
    /// Where it goes.
    pub exit: Exit,
    /// The frame; valid until the outbox is cleared.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    exit: Exit,
    end: usize,
}

/// Frames to send, in order, and held frames to count. Filled by the engine, emptied by the I/O loop after each call of the
/// engine's.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    absorbed: u32,
    dropped: Vec<(DropReason, u32)>,
}

impl Outbox {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.absorbed == 0 && self.dropped.is_empty()
    }

    /// Adds a frame, given in parts that follow one another.
    pub fn send(&mut self, exit: Exit, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.entries.push(Entry { exit, end: self.bytes.len() });
    }

    /// The content of `packets` held frames is in frames that were sent here.
    pub fn absorb(&mut self, packets: u32) {
        self.absorbed += packets;
    }

    /// `packets` held frames are dropped.
    pub fn discard(&mut self, packets: u32, reason: DropReason) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += packets,
            None => self.dropped.push((reason, packets)),
        }
    }

    /// The frames, in the order in which they were added.
    pub fn frames(&self) -> impl Iterator<Item = MadeFrame<'_>> {
        let starts = [0].into_iter().chain(self.entries.iter().map(|entry| entry.end));
        self.entries
            .iter()
            .zip(starts)
            .map(|(entry, start)| MadeFrame { exit: entry.exit, bytes: &self.bytes[start..entry.end] })
    }

    /// Enters into the books what became of held frames.
    pub fn settle(&self, counters: &PacketCounters) {
        counters.absorb_held(self.absorbed);
        self.dropped.iter().for_each(|(reason, packets)| counters.drop_held(*packets, *reason));
    }

    /// Empties it; the memory is kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.absorbed = 0;
        self.dropped.clear();
    }
}
