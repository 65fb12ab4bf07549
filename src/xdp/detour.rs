//! Replies of real servers that are this machine itself. They leave by the kernel's own way out, which no receive ring
//! sees: the program at that way out redirects them to a TAP device, an engine decides about them as about any packet,
//! and a packet socket sends them on by the interface that they were going to.

use std::mem;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Sender;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::ipvs::datapath::Engine;
use crate::ipvs::outbox::Exit;
use crate::ipvs::verdict::{DropReason, PacketCounters, Verdict};
use crate::net::addr::PortIndex;
use crate::net::frame::Frame;
use crate::xdp::XdpPort;
use crate::xdp::error::XdpError;
use crate::xdp::tap::{Tap, WayOut};
use crate::xdp::worker::{Clock, StopOrder, network_layer, refusal};

/// Larger than any frame that a served interface can send.
const BUFFER: usize = 16 * 1024;
/// Frames of one device before the next has its turn.
const TURN: usize = 64;
const TICK_MS: u8 = 25;

/// One interface's detour.
pub(super) struct Way {
    tap: Tap,
    out: WayOut,
}

impl Way {
    /// Makes both ends for `port`.
    pub(super) fn open(port: &XdpPort) -> Result<Self, XdpError> {
        let refused = |source| XdpError::Detour { interface: port.name.clone(), source };
        let tap = Tap::create(&format!("xlvs-{}", port.ifindex)).map_err(refused)?;
        let out = WayOut::open(port.ifindex).map_err(refused)?;
        Ok(Way { tap, out })
    }

    /// Where the program has to redirect to.
    pub(super) fn entrance(&self) -> u32 {
        self.tap.ifindex()
    }
}

/// The thread's part: an engine of its own, and the ways by [`PortIndex`].
pub(super) struct Detour {
    pub(super) ways: Vec<Way>,
    pub(super) engine: Box<dyn Engine>,
    pub(super) clock: Clock,
    pub(super) counters: Arc<PacketCounters>,
    pub(super) handed_over: Sender<Vec<u8>>,
    pub(super) stop: StopOrder,
}

impl Detour {
    /// Works until the stop order, and returns the engine.
    pub(super) fn run(mut self) -> Box<dyn Engine> {
        let mut buffer = vec![0; BUFFER];
        let mut verdicts = Vec::new();
        while !self.stop.flag.load(Ordering::Relaxed) {
            let mut received = 0;
            for port in 0..self.ways.len() {
                received += self.serve(port, &mut buffer, &mut verdicts);
            }
            self.engine.advance((self.clock)());
            self.send_made();
            if received == 0 {
                self.sleep();
            }
        }
        self.engine
    }

    fn serve(&mut self, port: usize, buffer: &mut [u8], verdicts: &mut Vec<Verdict>) -> usize {
        for frame in 0..TURN {
            let Some(length) = self.ways[port].tap.receive(buffer) else { return frame };
            self.counters.add_received(1);
            let mut frames = [Frame::outgoing(buffer, length, PortIndex(port as u8))];
            self.engine.process((self.clock)(), &mut frames, verdicts);
            let verdict = verdicts.first().copied().unwrap_or(Verdict::Pass);
            self.settle(port, frames[0].bytes(), verdict);
            self.send_made();
        }
        TURN
    }

    fn settle(&self, port: usize, frame: &[u8], verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.send(port, frame),
            Verdict::Transmit(way_out) => self.send(usize::from(way_out.0), frame),
            Verdict::HandOver => self.hand_over(frame),
            Verdict::Drop(reason) => self.counters.add_dropped(reason),
            Verdict::Hold => self.counters.add_held(),
        }
    }

    /// Does what the engine's outbox says. What it returns to this machine's stack was on its way out.
    fn send_made(&mut self) {
        if self.engine.outbox().is_empty() {
            return;
        }
        let mut outbox = mem::take(self.engine.outbox());
        outbox.settle(&self.counters);
        for made in outbox.frames() {
            self.counters.add_made();
            match made.exit {
                Exit::Port(port) | Exit::Stack(port) => self.send(usize::from(port.0), made.bytes),
                Exit::Kernel => self.hand_over(made.bytes),
            }
        }
        outbox.clear();
        *self.engine.outbox() = outbox;
    }

    fn send(&self, port: usize, frame: &[u8]) {
        match self.ways.get(port).map(|way| way.out.send(frame)) {
            Some(Ok(())) => self.counters.add_transmitted(1),
            Some(Err(error)) => {
                tracing::debug!("the kernel refuses a frame of {} bytes: {error}", frame.len());
                self.counters.add_dropped(DropReason::KernelRefused);
            }
            None => self.counters.add_dropped(DropReason::Unreachable),
        }
    }

    fn hand_over(&self, frame: &[u8]) {
        let Some(packet) = network_layer(frame) else {
            return self.counters.add_dropped(DropReason::Malformed);
        };
        match self.handed_over.try_send(packet.to_vec()) {
            Ok(()) => self.counters.add_handed_over(),
            Err(error) => self.counters.add_dropped(refusal(&error)),
        }
    }

    /// Waits for a frame, the stop order or the next tick.
    fn sleep(&self) {
        let descriptors = self.ways.iter().map(|way| way.tap.descriptor()).chain([self.stop.pipe.as_fd()]);
        let mut sources: Vec<PollFd<'_>> = descriptors.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
        // An interrupted or failed wait is a short one.
        let _ = poll(&mut sources, PollTimeout::from(TICK_MS));
    }
}
