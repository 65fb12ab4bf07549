//! One thread per queue index: receives bursts, asks the engine, and does what the verdicts say.

use std::hint;
use std::io::PipeReader;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::atomic::AtomicCell;
use crossbeam::channel::{Sender, TrySendError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smallvec::SmallVec;

use crate::ipvs::datapath::Engine;
use crate::ipvs::outbox::{Exit, MadeFrame};
use crate::ipvs::verdict::{DropReason, PacketCounters, Verdict};
use crate::net::addr::PortIndex;
use crate::net::frame::Frame;
use crate::net::time::Instant;
use crate::xdp::Buffers;
use crate::xdp::idle::Idle;
use crate::xdp::inject::PassedFrame;
use crate::xdp::long::LongPackets;
use crate::xdp::open::QueueSet;
use crate::xdp::parts;
use crate::xdp::port::{BURST, Port, RingLosses, Submitted};
use crate::xdp::umem::{FramePool, OwnedFrame};

/// Longest sleep when there is no traffic; the engine's timers advance as often.
const TICK: Duration = Duration::from_millis(25);
const TICK_MS: u8 = 25;
/// Sleep while a device does not take what it is to send.
const BACKLOG_MS: u8 = 1;
/// How many times it is looked whether the last frames have left the transmit rings when the worker stops, which makes a second.
const DRAIN_TURNS: u32 = 1000;

/// Reads the time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Where frames go that no transmit ring takes. Both channels are bounded; what does not fit is dropped and counted.
#[derive(Clone)]
pub(super) struct Outlets {
    /// Frames for this machine's stack.
    pub(super) passed: Sender<PassedFrame>,
    /// IP packets for the kernel's routing.
    pub(super) handed_over: Sender<Vec<u8>>,
}

/// What a worker tells while it runs.
#[derive(Clone, Default)]
pub(super) struct Books {
    /// What became of the received packets.
    pub(super) packets: Arc<PacketCounters>,
    /// What was lost before, as of the last tick.
    pub(super) losses: Arc<AtomicCell<RingLosses>>,
    /// How often the engine's timers have been advanced: a thread that does not hang does so all the time.
    pub(super) ticks: Arc<AtomicU64>,
}

/// The order to stop: the flag says so, the closed pipe wakes the sleeper.
pub(super) struct StopOrder {
    pub(super) flag: Arc<AtomicBool>,
    pub(super) pipe: PipeReader,
}

/// Where a worker's frames were when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameBalance {
    /// All frames of the UMEM.
    pub frames: usize,
    /// Free frames.
    pub free: usize,
    /// Frames given to the kernel to receive into.
    pub in_fill: usize,
    /// Frames that the kernel had not finished sending.
    pub in_transmit: usize,
}

impl FrameBalance {
    /// Frames that nobody holds: 0, or there is a defect.
    pub fn lost(&self) -> i64 {
        let held = self.free + self.in_fill + self.in_transmit;
        self.frames as i64 - held as i64
    }
}

/// A worker: queue `i` of every port, one UMEM for them all, one engine.
pub(super) struct Worker<E> {
    pub(super) pool: FramePool,
    pub(super) ports: Vec<Port>,
    pub(super) engine: E,
    clock: Clock,
    pub(super) books: Books,
    outlets: Outlets,
    stop: StopOrder,
    advanced: Instant,
    idle: Idle,
    polling: bool,
    burst: Vec<OwnedFrame>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) buffers: Buffers,
    pub(super) longest_in_place: usize,
    pub(super) long: LongPackets,
}

impl<E: Engine> Worker<E> {
    /// A worker whose ports can receive at once. `ports[i]` belongs to [`PortIndex`] `i`.
    pub(super) fn new(
        queues: QueueSet,
        engine: E,
        clock: Clock,
        books: Books,
        outlets: Outlets,
        stop: StopOrder,
    ) -> Self {
        let QueueSet { mut pool, mut ports, polling, buffers, longest_in_place, .. } = queues;
        for port in &mut ports {
            port.refill(&mut pool);
        }
        let advanced = clock();
        Worker {
            pool,
            ports,
            engine,
            clock,
            books,
            outlets,
            stop,
            advanced,
            idle: Idle::new(advanced, polling),
            polling,
            burst: Vec::with_capacity(BURST),
            verdicts: Vec::new(),
            buffers,
            longest_in_place,
            long: LongPackets::new(buffers),
        }
    }

    /// Works until the stop order, then finishes what it has received and gives its queues back. Tells where its frames were, and
    /// returns the engine with all that it knows.
    pub(super) fn run(mut self) -> (FrameBalance, E) {
        while !self.stop.flag.load(Ordering::Relaxed) {
            let now = (self.clock)();
            if self.turn(now) > 0 {
                self.idle.frames(now);
            } else if self.idle.may_sleep(now) {
                self.sleep();
            } else {
                hint::spin_loop();
            }
        }
        self.drain()
    }

    /// Serves every port once, a burst each, so that none waits for long; returns the number of frames received.
    fn turn(&mut self, now: Instant) -> usize {
        let received = (0..self.ports.len()).map(|port| self.serve(port, now)).sum();
        for port in &mut self.ports {
            port.kick(&mut self.pool);
            port.refill(&mut self.pool);
        }
        if now.saturating_since(self.advanced) >= TICK {
            self.tick(now);
        }
        received
    }

    fn tick(&mut self, now: Instant) {
        self.engine.advance(now);
        self.send_made();
        self.submit();
        self.advanced = now;
        self.books.losses.store(self.ports.iter().map(Port::losses).sum());
        self.books.ticks.fetch_add(1, Ordering::Relaxed);
    }

    fn serve(&mut self, port: usize, now: Instant) -> usize {
        let mut burst = mem::take(&mut self.burst);
        if self.polling {
            self.ports[port].poll_device();
        }
        let received = self.ports[port].receive(&mut burst, &self.pool);
        let pressed = self.ports[port].is_pressed(now, received.frames);
        if received.frames > 0 {
            let port = PortIndex(port as u8);
            self.engine.set_pressed(pressed);
            if received.long {
                self.books.packets.add_received(parts::packets(&burst) as u64);
                self.serve_long(port, now, &mut burst);
            } else {
                self.books.packets.add_received(received.frames as u64);
                self.serve_short(port, now, &mut burst);
            }
            self.submit();
        }
        self.burst = burst;
        received.frames
    }

    /// Packets of one frame each.
    pub(super) fn serve_short(&mut self, port: PortIndex, now: Instant, burst: &mut Vec<OwnedFrame>) {
        if burst.is_empty() {
            return;
        }
        self.decide(port, now, burst);
        let verdicts = mem::take(&mut self.verdicts);
        for (frame, verdict) in burst.drain(..).zip(&verdicts) {
            self.settle(port, frame, *verdict);
        }
        self.verdicts = verdicts;
        self.send_made();
    }

    fn decide(&mut self, port: PortIndex, now: Instant, burst: &mut [OwnedFrame]) {
        let pool = &self.pool;
        let mut frames: SmallVec<[Frame<'_>; BURST]> = burst
            .iter_mut()
            .map(|frame| {
                let len = frame.len();
                Frame::new(pool.buffer(frame), len, port)
            })
            .collect();
        self.engine.process(now, &mut frames, &mut self.verdicts);
        let lengths: SmallVec<[usize; BURST]> = frames.iter().map(Frame::len).collect();
        drop(frames);
        for (frame, len) in burst.iter_mut().zip(lengths) {
            frame.set_len(len);
        }
        // No frame may be left without a verdict, or it would be lost.
        self.verdicts.resize(burst.len(), Verdict::Pass);
    }

    fn settle(&mut self, port: PortIndex, frame: OwnedFrame, verdict: Verdict) {
        match verdict {
            Verdict::Transmit(way_out) => self.transmit(way_out, frame),
            Verdict::Pass => self.pass(port, frame),
            Verdict::HandOver => self.hand_over(frame),
            Verdict::Drop(reason) => self.drop_frame(frame, reason),
            Verdict::Hold => {
                self.books.packets.add_held();
                self.pool.put(frame);
            }
        }
    }

    /// Does what the engine's outbox says.
    pub(super) fn send_made(&mut self) {
        if self.engine.outbox().is_empty() {
            return;
        }
        let mut outbox = mem::take(self.engine.outbox());
        outbox.settle(&self.books.packets);
        for made in outbox.frames() {
            self.books.packets.add_made();
            if let Err(reason) = self.send_one(made) {
                self.books.packets.add_dropped(reason);
            }
        }
        outbox.clear();
        *self.engine.outbox() = outbox;
    }

    fn send_one(&mut self, made: MadeFrame<'_>) -> Result<(), DropReason> {
        match made.exit {
            Exit::Port(port) => self.transmit_made(port, made.bytes),
            Exit::Stack(port) => self.pass_bytes(port, made.bytes),
            Exit::Kernel => self.hand_over_bytes(made.bytes),
        }
    }

    fn transmit(&mut self, way_out: PortIndex, frame: OwnedFrame) {
        match self.ports.get_mut(usize::from(way_out.0)) {
            Some(port) => port.queue(frame),
            None => self.drop_frame(frame, DropReason::Unreachable),
        }
    }

    /// Puts what is to leave on the transmit rings, a port at a time.
    fn submit(&mut self) {
        for port in &mut self.ports {
            let Submitted { taken, refused } = port.submit(&mut self.pool);
            if taken > 0 {
                self.books.packets.add_transmitted(taken);
            }
            (0..refused).for_each(|_| self.books.packets.add_dropped(DropReason::TxRingFull));
        }
    }

    fn pass(&mut self, port: PortIndex, mut frame: OwnedFrame) {
        let result = self.pass_bytes(port, self.packet(&mut frame));
        self.release(frame, result);
    }

    /// Counted as passed by the injector, once the kernel has taken it.
    pub(super) fn pass_bytes(&self, port: PortIndex, bytes: &[u8]) -> Result<(), DropReason> {
        // What will be refused need not be copied first.
        if self.outlets.passed.is_full() {
            return Err(DropReason::KernelQueueFull);
        }
        let passed = PassedFrame { port, bytes: bytes.into(), counters: Arc::clone(&self.books.packets) };
        self.outlets.passed.try_send(passed).map_err(|error| refusal(&error))
    }

    fn hand_over(&mut self, mut frame: OwnedFrame) {
        let result = self.hand_over_bytes(self.packet(&mut frame));
        self.release(frame, result);
    }

    pub(super) fn hand_over_bytes(&self, bytes: &[u8]) -> Result<(), DropReason> {
        let packet = network_layer(bytes).map(<[u8]>::to_vec).ok_or(DropReason::Malformed)?;
        self.outlets.handed_over.try_send(packet).map_err(|error| refusal(&error))?;
        self.books.packets.add_handed_over();
        Ok(())
    }

    /// The content of the frame has gone elsewhere, or nowhere.
    fn release(&mut self, frame: OwnedFrame, result: Result<(), DropReason>) {
        match result {
            Ok(()) => self.pool.put(frame),
            Err(reason) => self.drop_frame(frame, reason),
        }
    }

    fn drop_frame(&mut self, frame: OwnedFrame, reason: DropReason) {
        self.books.packets.add_dropped(reason);
        self.pool.put(frame);
    }

    fn packet<'a>(&'a self, frame: &'a mut OwnedFrame) -> &'a [u8] {
        let len = frame.len();
        let buffer = self.pool.buffer(frame);
        &buffer[..len.min(buffer.len())]
    }

    /// Waits for a frame, the stop order or the next tick.
    fn sleep(&mut self) {
        let backlog = self.ports.iter_mut().any(|port| port.unsent() > 0);
        let timeout = PollTimeout::from(if backlog { BACKLOG_MS } else { TICK_MS });
        let mut sources: SmallVec<[PollFd<'_>; 8]> =
            self.ports.iter().map(|port| PollFd::new(port.socket(), PollFlags::POLLIN)).collect();
        sources.push(PollFd::new(self.stop.pipe.as_fd(), PollFlags::POLLIN));
        // An interrupted or failed wait is a short one.
        let _ = poll(&mut sources, timeout);
    }

    /// Processes what is still in the receive rings, and waits for the transmit rings. Nothing new comes up any more.
    fn drain(mut self) -> (FrameBalance, E) {
        for _ in 0..DRAIN_TURNS {
            let received = self.turn((self.clock)());
            if received == 0 && self.ports.iter().all(|port| port.in_transmit() == 0) {
                break;
            }
            if received == 0 {
                let _ = poll(&mut [], PollTimeout::from(BACKLOG_MS));
            }
        }
        self.ports.iter_mut().for_each(|port| port.abandon_torn(&mut self.pool));
        let balance = FrameBalance {
            frames: self.pool.frames(),
            free: self.pool.free(),
            in_fill: self.ports.iter().map(Port::in_fill).sum(),
            in_transmit: self.ports.iter().map(Port::in_transmit).sum(),
        };
        (balance, self.engine)
    }
}

pub(super) fn refusal<T>(error: &TrySendError<T>) -> DropReason {
    match error {
        TrySendError::Full(_) => DropReason::KernelQueueFull,
        TrySendError::Disconnected(_) => DropReason::KernelRefused,
    }
}

/// The IP packet in an Ethernet frame with up to two VLAN tags.
pub(super) fn network_layer(frame: &[u8]) -> Option<&[u8]> {
    const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
    let mut at = 14;
    for _ in 0..2 {
        if VLAN.iter().any(|tag| frame.get(at - 2..at) == Some(tag)) {
            at += 4;
        }
    }
    frame.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ip_packet_is_found_behind_vlan_tags() {
        let plain = [&[0; 12][..], &[0x08, 0x00], b"ip"].concat();
        let tagged = [&[0; 12][..], &[0x81, 0x00, 0, 5, 0x08, 0x00], b"ip"].concat();
        let double = [&[0; 12][..], &[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x86, 0xdd], b"ip"].concat();
        for frame in [plain, tagged, double] {
            assert_eq!(network_layer(&frame), Some(&b"ip"[..]), "{frame:02x?}");
        }
        assert_eq!(network_layer(&[0; 13]), None);
    }
}
