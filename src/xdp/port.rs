//! One receive/transmit queue of one NIC: an AF_XDP socket and its four rings.

use std::ffi::CString;
use std::io;
use std::iter::Sum;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::socket::SocketCreateError;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use crate::net::time::Instant;
use crate::xdp::Buffers;
use crate::xdp::error::{XdpError, errno, reason};
use crate::xdp::options::{self, send_at_once};
use crate::xdp::parts;
use crate::xdp::pressure::Pressure;
use crate::xdp::umem::{FramePool, OwnedFrame};

/// Frames per burst.
pub(super) const BURST: usize = 64;

/// The kernel takes a queue away from an ended process only some time after its last descriptor is closed.
const BUSY_RETRIES: u32 = 500;
const BUSY_WAIT_MS: u8 = 2;

/// How the NIC and the packet memory meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// The NIC reads and writes the UMEM.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl CopyMode {
    fn bind_flag(self) -> BindFlags {
        match self {
            CopyMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
            CopyMode::Copy => BindFlags::XDP_COPY,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            CopyMode::ZeroCopy => "zero-copy",
            CopyMode::Copy => "copy",
        }
    }
}

/// What is the same of all sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// Size of every ring.
    pub(super) ring: QueueSize,
    pub(super) mode: CopyMode,
    pub(super) buffers: Buffers,
    /// Longer frames are to be copied before they are decided about, in bytes.
    pub(super) longest_in_place: usize,
}

/// What came with a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Frames.
    pub(super) frames: usize,
    /// Whether some of their packets are long: in several frames, or without room to grow.
    pub(super) long: bool,
}

/// Queue `queue` of an interface. The fields drop together: the kernel frees the queue when the last ring is gone.
pub(super) struct Port {
    receive: RxQueue,
    transmit: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    mode: CopyMode,
    ring: u32,
    scratch: [FrameDesc; BURST],
    longest_in_place: usize,
    torn: Vec<OwnedFrame>,
    outgoing: Vec<OwnedFrame>,
    in_parts: bool,
    in_fill: usize,
    in_transmit: usize,
    pressure: Pressure,
}

/// What became of the packets that were to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Submitted {
    /// Packets on the transmit ring.
    pub(super) taken: u64,
    /// Packets that it had no room for.
    pub(super) refused: u64,
}

impl Port {
    /// Binds a socket on the pool's UMEM to the queue. The fill ring is still empty.
    pub(super) fn open(
        pool: &FramePool,
        interface: &str,
        queue: u32,
        setting: Setting,
    ) -> Result<Self, XdpError> {
        let Setting { ring, mode, .. } = setting;
        let failed = |reason: String, errno: Option<i32>| XdpError::Bind {
            interface: interface.into(),
            queue,
            mode: mode.as_str(),
            reason,
            errno,
        };
        let name = CString::new(interface).map_err(|error| failed(error.to_string(), None))?;
        let (transmit, receive, rings) = bind(pool, &Interface::new(name), queue, config(setting))
            .map_err(|error| failed(reason(&error), errno(&error)))?;
        let (fill, completion) =
            rings.ok_or_else(|| failed("this process is bound to the queue already".into(), None))?;
        let port = Port {
            receive,
            transmit,
            fill,
            completion,
            mode,
            ring: ring.get(),
            scratch: [FrameDesc::default(); BURST],
            longest_in_place: setting.longest_in_place,
            torn: Vec::new(),
            outgoing: Vec::with_capacity(BURST),
            in_parts: false,
            in_fill: 0,
            in_transmit: 0,
            pressure: Pressure::default(),
        };
        // A kernel that does not know this takes some more calls to send a burst.
        let _ = send_at_once(port.socket(), ring.get());
        // The library leaves it open for programs that the process starts; one that hangs would hold the queue.
        fcntl(port.socket(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|error| failed(error.to_string(), Some(error as i32)))?;
        Ok(port)
    }

    /// From now on the NIC is to be polled, by [`Port::poll_device`].
    pub(super) fn poll_busily(&self) -> io::Result<()> {
        options::poll_busily(self.socket(), BURST as u32)
    }

    /// The socket, for the steering program's table and for poll(2).
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the receive queue keeps the socket open, and the borrow lasts no longer than `self`.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }

    /// Appends up to [`BURST`] received frames to `burst`; their first bytes are on their way from memory. Only whole packets
    /// come: the beginning of one whose end is not there yet comes with a later burst.
    pub(super) fn receive(&mut self, burst: &mut Vec<OwnedFrame>, pool: &FramePool) -> Received {
        burst.append(&mut self.torn);
        let mut long = !burst.is_empty();
        // SAFETY: the descriptors come from a ring of a socket on the worker's only UMEM.
        let received = unsafe { self.receive.consume(&mut self.scratch) };
        self.in_fill -= received.min(self.in_fill);
        for descriptor in &self.scratch[..received] {
            let frame = OwnedFrame::from_ring(*descriptor);
            long |= frame.continues() | (frame.len() > self.longest_in_place);
            pool.prefetch(&frame);
            burst.push(frame);
        }
        if long {
            parts::tear(burst, &mut self.torn);
        }
        Received { frames: received, long }
    }

    /// Frees the beginning of a packet whose end will not come any more.
    pub(super) fn abandon_torn(&mut self, pool: &mut FramePool) {
        self.torn.drain(..).for_each(|frame| pool.put(frame));
    }

    /// Whether more frames wait on the receive ring than can be worked off soon, after a burst of `received` frames.
    pub(super) fn is_pressed(&mut self, now: Instant, received: usize) -> bool {
        let waiting = if received < BURST { 0 } else { self.receive.nb_avail_exact() };
        self.pressure.note(now, waiting, self.ring)
    }

    /// Has the kernel look at the NIC now, in place of an interrupt.
    pub(super) fn poll_device(&self) {
        // Nothing is received by this call, and what it fails for the next one does.
        let _ = recv(self.receive.fd().as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
    }

    /// Gives the kernel as many free frames to receive into as the fill ring takes.
    pub(super) fn refill(&mut self, pool: &mut FramePool) {
        let room = self.fill_room();
        let mut left = room;
        while left > 0 {
            let wanted = left.min(BURST);
            let taken = self.take(pool, wanted);
            // SAFETY: the frames belong to the UMEM of this socket and were free; they are the kernel's now.
            let produced = unsafe { self.fill.produce(&self.scratch[..taken]) };
            debug_assert_eq!(produced, taken, "there was room");
            self.in_fill += produced;
            left = if taken < wanted { 0 } else { left - taken };
        }
        if room > 0 && self.fill.needs_wakeup() {
            // A failed wake-up is repeated by the next poll of the socket.
            let _ = self.fill.wakeup(self.receive.fd_mut(), 0);
        }
    }

    /// How many frames the fill ring takes. The kernel may have taken frames out of it, and given them to us, without having
    /// said so yet on the ring itself.
    fn fill_room(&mut self) -> usize {
        let missing = self.ring.saturating_sub(self.in_fill as u32);
        self.fill.nb_free(missing).min(missing) as usize
    }

    /// Moves up to `wanted` free frames into `scratch`; returns how many.
    fn take(&mut self, pool: &mut FramePool, wanted: usize) -> usize {
        let mut taken = 0;
        while let Some(slot) = self.scratch[..wanted].get_mut(taken)
            && let Some(frame) = pool.take()
        {
            *slot = frame.into_descriptor();
            taken += 1;
        }
        taken
    }

    /// Notes a frame that is to leave with the next [`Port::submit`].
    pub(super) fn queue(&mut self, frame: OwnedFrame) {
        self.in_parts |= frame.continues();
        self.outgoing.push(frame);
    }

    /// Puts the noted frames on the transmit ring; those of packets that it has no room for go back to the pool.
    pub(super) fn submit(&mut self, pool: &mut FramePool) -> Submitted {
        let noted = self.outgoing.len();
        if noted == 0 {
            return Submitted::default();
        }
        let room = (self.ring as usize).saturating_sub(self.in_transmit);
        let room = room.min(self.transmit.nb_free(noted as u32) as usize);
        let mut outgoing = mem::take(&mut self.outgoing);
        let in_parts = mem::take(&mut self.in_parts);
        let going = if in_parts { parts::fitting(&outgoing, room) } else { room.min(noted) };
        let submitted = if in_parts {
            let (taken, refused) = outgoing.split_at(going);
            Submitted { taken: parts::packets(taken) as u64, refused: parts::packets(refused) as u64 }
        } else {
            Submitted { taken: going as u64, refused: (noted - going) as u64 }
        };
        outgoing.drain(going..).for_each(|frame| pool.put(frame));
        let mut frames = outgoing.drain(..).map(|frame| pool.seal(frame));
        loop {
            let mut count = 0;
            for (slot, descriptor) in self.scratch.iter_mut().zip(&mut frames) {
                *slot = descriptor;
                count += 1;
            }
            // SAFETY: the frames belong to the UMEM of this socket and were ours; they are the kernel's now. There is room.
            self.in_transmit += unsafe { self.transmit.produce(&self.scratch[..count]) };
            if count < BURST {
                break;
            }
        }
        drop(frames);
        self.outgoing = outgoing;
        submitted
    }

    /// Has the kernel send what is on the transmit ring, and takes back what it has sent.
    pub(super) fn kick(&mut self, pool: &mut FramePool) {
        if self.in_transmit == 0 {
            return;
        }
        match self.mode {
            CopyMode::ZeroCopy => self.wake_transmitter(),
            CopyMode::Copy => self.send_all(pool),
        }
        self.reap(pool);
    }

    fn wake_transmitter(&self) {
        if self.transmit.needs_wakeup() {
            // What is not sent now is sent by a later kick.
            let _ = self.transmit.wakeup();
        }
    }

    /// In copy mode one wake-up sends 32 frames at most. Stops when a wake-up gets nothing done (link down, device
    /// queue full); a later kick goes on.
    fn send_all(&mut self, pool: &mut FramePool) {
        let mut unsent = self.unsent();
        while unsent > 0 && self.transmit.wakeup().is_ok() {
            self.reap(pool);
            let left = self.unsent();
            if left == unsent {
                return;
            }
            unsent = left;
        }
    }

    fn reap(&mut self, pool: &mut FramePool) {
        loop {
            // SAFETY: the descriptors come from a ring of a socket on the worker's only UMEM.
            let sent = unsafe { self.completion.consume(&mut self.scratch) };
            self.in_transmit -= sent.min(self.in_transmit);
            for descriptor in &self.scratch[..sent] {
                pool.put(OwnedFrame::from_ring(*descriptor));
            }
            if sent < BURST {
                return;
            }
        }
    }

    /// Frames on the transmit ring that the kernel has not looked at.
    pub(super) fn unsent(&mut self) -> u32 {
        self.ring - self.transmit.nb_free_exact()
    }

    /// Frames that the kernel holds to receive into.
    pub(super) fn in_fill(&self) -> usize {
        self.in_fill
    }

    /// Frames that the kernel is sending.
    pub(super) fn in_transmit(&self) -> usize {
        self.in_transmit
    }

    /// What the kernel has lost on the way to the receive ring so far.
    pub(super) fn losses(&self) -> RingLosses {
        let statistics = self.receive.fd().xdp_statistics().unwrap_or_default();
        RingLosses { ring_full: statistics.rx_ring_full(), no_frame: statistics.rx_dropped() }
    }
}

/// Packets that the steering program sent up and the kernel then lost; they count as never received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingLosses {
    /// The receive ring was full: the worker is too slow.
    pub ring_full: u64,
    /// There was no free frame to receive into, or the packet was longer than a frame.
    pub no_frame: u64,
}

impl Sum for RingLosses {
    fn sum<I: Iterator<Item = RingLosses>>(losses: I) -> RingLosses {
        losses.fold(RingLosses::default(), |sum, losses| RingLosses {
            ring_full: sum.ring_full + losses.ring_full,
            no_frame: sum.no_frame + losses.no_frame,
        })
    }
}

fn config(setting: Setting) -> SocketConfig {
    let Setting { ring, mode, buffers, .. } = setting;
    let several = if buffers == Buffers::Several { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
    SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode.bind_flag() | BindFlags::XDP_USE_NEED_WAKEUP | several)
        .build()
}

type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(
    pool: &FramePool,
    interface: &Interface,
    queue: u32,
    config: SocketConfig,
) -> Result<Rings, SocketCreateError> {
    let mut retries = 0;
    loop {
        // SAFETY: INHIBIT_PROG_LOAD is set, as sharing a UMEM requires.
        match unsafe { Socket::new(config, pool.umem(), interface, queue) } {
            Err(error) if errno(&error) == Some(libc::EBUSY) && retries < BUSY_RETRIES => {
                retries += 1;
                let _ = poll(&mut [], PollTimeout::from(BUSY_WAIT_MS));
            }
            result => return result,
        }
    }
}
