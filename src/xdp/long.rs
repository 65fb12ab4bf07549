//! A worker's part with packets that lie in several frames. The engine sees each in one piece, which is copied together and
//! spread over frames again.

use std::mem;

use crate::ipvs::datapath::Engine;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::addr::PortIndex;
use crate::net::frame::Frame;
use crate::net::time::Instant;
use crate::xdp::parts::{self, GROWTH};
use crate::xdp::umem::OwnedFrame;
use crate::xdp::worker::Worker;
use crate::xdp::{Buffers, ETHERNET, LARGEST_MTU};

/// Longest frame of any served interface.
const LONGEST: usize = (LARGEST_MTU + ETHERNET) as usize;

/// The memory of a worker for long packets.
pub(super) struct LongPackets {
    /// Where one is in one piece while it is decided about; empty if there are none.
    whole: Box<[u8]>,
    /// The frames of one.
    frames: Vec<OwnedFrame>,
    /// Packets of one frame that came before it in a burst.
    before: Vec<OwnedFrame>,
    /// Frames for what the engine made.
    made: Vec<OwnedFrame>,
}

impl LongPackets {
    /// Room for one, if there are any.
    pub(super) fn new(buffers: Buffers) -> Self {
        let room = if buffers == Buffers::Several { LONGEST + GROWTH } else { 0 };
        LongPackets { whole: vec![0; room].into(), frames: Vec::new(), before: Vec::new(), made: Vec::new() }
    }
}

impl<E: Engine> Worker<E> {
    /// A burst with long packets. They keep their place among the others, and those between two of them go together.
    pub(super) fn serve_long(&mut self, port: PortIndex, now: Instant, burst: &mut Vec<OwnedFrame>) {
        let mut before = mem::take(&mut self.long.before);
        let mut frames = mem::take(&mut self.long.frames);
        for frame in burst.drain(..) {
            let continues = frame.continues();
            if frames.is_empty() && !continues && frame.len() <= self.longest_in_place {
                before.push(frame);
                continue;
            }
            frames.push(frame);
            if !continues {
                self.serve_short(port, now, &mut before);
                self.serve_one(port, now, &mut frames);
            }
        }
        self.serve_short(port, now, &mut before);
        self.long.before = before;
        self.long.frames = frames;
    }

    fn serve_one(&mut self, port: PortIndex, now: Instant, frames: &mut Vec<OwnedFrame>) {
        let mut whole = mem::take(&mut self.long.whole);
        match parts::gather(&self.pool, frames, &mut whole) {
            Some(len) => {
                let mut packet = [Frame::new(&mut whole, len, port)];
                self.engine.process(now, &mut packet, &mut self.verdicts);
                let verdict = self.verdicts.first().copied().unwrap_or(Verdict::Pass);
                self.settle_long(port, frames, packet[0].bytes(), verdict);
            }
            None => self.books.packets.add_dropped(DropReason::NoRoom),
        }
        frames.drain(..).for_each(|frame| self.pool.put(frame));
        self.long.whole = whole;
        self.send_made();
    }

    /// Frames that are left are free afterwards.
    fn settle_long(&mut self, port: PortIndex, frames: &mut Vec<OwnedFrame>, bytes: &[u8], verdict: Verdict) {
        let result = match verdict {
            Verdict::Transmit(way_out) => self.transmit_bytes(way_out, bytes, frames),
            Verdict::Pass => self.pass_bytes(port, bytes),
            Verdict::HandOver => self.hand_over_bytes(bytes),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Hold => {
                self.books.packets.add_held();
                Ok(())
            }
        };
        if let Err(reason) = result {
            self.books.packets.add_dropped(reason);
        }
    }

    /// Sends what the engine made, whatever its length.
    pub(super) fn transmit_made(&mut self, way_out: PortIndex, bytes: &[u8]) -> Result<(), DropReason> {
        let mut frames = mem::take(&mut self.long.made);
        let result = self.transmit_bytes(way_out, bytes, &mut frames);
        frames.drain(..).for_each(|frame| self.pool.put(frame));
        self.long.made = frames;
        result
    }

    /// Copies a packet into `frames`, and more if it takes more, and notes them for the port.
    fn transmit_bytes(
        &mut self,
        way_out: PortIndex,
        bytes: &[u8],
        frames: &mut Vec<OwnedFrame>,
    ) -> Result<(), DropReason> {
        let port = self.ports.get_mut(usize::from(way_out.0)).ok_or(DropReason::Unreachable)?;
        parts::scatter(&mut self.pool, bytes, frames)?;
        if frames.len() > 1 && self.buffers == Buffers::One {
            return Err(DropReason::NoRoom);
        }
        frames.drain(..).for_each(|frame| port.queue(frame));
        Ok(())
    }
}
