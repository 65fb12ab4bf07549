//! AF_XDP: the steering program, rings and packet memory, and the threads that move frames. Knows the engine, frames
//! and verdicts, no IPVS word. The only unsafe code of the project is here.
//!
//! A packet that the steering program ([`Steerer`]) wants comes up by a receive ring, is decided about by the worker's
//! [`Engine`], and leaves by a transmit ring, through the injector into this machine's stack, through the hand-over
//! channel into the kernel's routing, or not at all. A packet in several frames is copied together for the engine, and spread
//! over frames again. Every frame of the packet memory has exactly one holder, and every received packet is counted once.

#![allow(unsafe_code, reason = "rings, packet memory and a few system calls without a safe interface")]

mod crew;
mod detour;
mod error;
mod ethtool;
mod exits;
mod front;
mod idle;
mod inject;
mod inspect;
mod interface;
mod link;
mod long;
mod occupant;
mod open;
mod options;
mod parts;
mod pin;
mod port;
mod pressure;
mod ranges;
mod reentry;
mod shortcut;
mod start;
mod steer;
mod survey;
mod tap;
mod umem;
mod worker;

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::channel::Sender;

pub use error::XdpError;
pub use ethtool::{Offloads, Queues, Spreading};
pub use inspect::{DriverFeatures, Inspection, Occupant, inspect, room_for_packet};
pub use open::packet_memory;
pub use port::RingLosses;
pub use start::{Inheritance, Prepared, prepare, start};
pub use steer::{AttachSetting, AttachedMode, Attachment, Steered, Steerer};
pub use survey::queues;
pub use worker::{Clock, FrameBalance};

use crate::ipvs::datapath::Engine;
use crate::ipvs::steering::Steering;
use crate::ipvs::verdict::PacketCounters;
use crate::net::addr::PortIndex;
use crew::Crew;
use shortcut::{Exit, XdpFastPath};
use survey::LongestPacket;
use worker::Books;

/// What the kernel keeps free in front of a received packet (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// An Ethernet header with two VLAN tags.
const ETHERNET: u32 = 14 + 8;

/// Largest MTU of an interface in bytes, which is that of most NICs: 9,000 and room for what is wrapped around it.
pub const LARGEST_MTU: u32 = 9216;

/// Largest IP packet in bytes that the kernel's stack surely takes back without a TAP device: what fits a page with the kernel's own bookkeeping,
/// some 3400 bytes on x86-64, less where cache lines are longer.
pub const INJECTABLE_MTU: u32 = 3300;

/// The setting: whether the NIC may use the packet memory directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopySetting {
    /// If all drivers can.
    #[default]
    Auto,
    /// Or not at all.
    On,
    /// Never.
    Off,
}

/// The setting: whether packet memory is on huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePageSetting {
    /// If enough are free.
    #[default]
    Auto,
    /// Or not at all.
    On,
    /// Never.
    Off,
}

/// The setting: whether the steering program forwards plain packets of known flows by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShortcutSetting {
    /// Where packets are copied otherwise.
    #[default]
    Auto,
    /// Wherever it can.
    On,
    /// Never.
    Off,
}

/// How many buffers a packet may lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers {
    /// One.
    #[default]
    One,
    /// As many as it takes.
    Several,
}

/// An interface to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpPort {
    /// Interface name.
    pub name: String,
    /// The kernel's interface index.
    pub ifindex: u32,
}

/// What to serve and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpConfig {
    /// The interfaces; [`PortIndex`] `i` is the i-th.
    pub ports: Vec<XdpPort>,
    /// Queues to serve on each, 0 for all (then each must have as many).
    pub queues: u32,
    /// Bytes per frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames per queue index, shared by all ports; 0 for as many as the default rings can hold.
    pub frames: u32,
    /// How the steering program may be attached.
    pub mode: AttachSetting,
    /// Whether zero-copy may be used.
    pub zero_copy: ZeroCopySetting,
    /// Whether packet memory is on huge pages.
    pub huge_pages: HugePageSetting,
    /// Whether workers poll their NICs instead of waiting for interrupts.
    pub busy_poll: bool,
    /// Whether flows may take the shortcut.
    pub shortcut: ShortcutSetting,
    /// How many connections may.
    pub shortcut_flows: u32,
    /// Whether the program lasts when the process is killed: for a router that is one of two, so that it drops what its kernel
    /// would answer wrongly.
    pub lasting: bool,
}

/// What one interface got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// Interface name.
    pub name: String,
    /// How the steering program is attached.
    pub mode: AttachedMode,
    /// Whether the NIC uses the packet memory directly.
    pub zero_copy: bool,
    /// Queues served.
    pub queues: u32,
    /// Why it is not better, and what does not come up; empty if all is well.
    pub notes: Vec<String>,
}

/// The running packet threads. Dropping it stops them.
pub struct Xdp {
    config: XdpConfig,
    longest: LongestPacket,
    queues: u32,
    clock: Clock,
    hand_over: Sender<Vec<u8>>,
    steerer: Steerer,
    status: Vec<PortStatus>,
    books: Vec<Books>,
    crew: Option<Crew>,
    /// Those of the workers, by queue, while there are no workers.
    rested: Vec<Box<dyn Engine>>,
    /// That for what this machine sends as a real server, while no thread has it.
    local: Option<Box<dyn Engine>>,
    /// Whether such a thread is wanted.
    is_local: bool,
    exits: Vec<Exit>,
    fast_path: Option<XdpFastPath>,
    shortcut_note: Option<String>,
}

impl Xdp {
    /// Changes what comes up, without a gap for what stays the same.
    pub fn apply_steering(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.steerer.apply(steering)?;
        self.is_local |= has_local_server(steering);
        self.start_detour()
    }

    /// Asks the steering program what it would do with a frame received by `port`.
    pub fn ask(&mut self, port: PortIndex, frame: &[u8]) -> Result<Steered, XdpError> {
        self.steerer.ask(port, frame)
    }

    /// The same, for a frame of which only the first `first` bytes lie in the first buffer. The kernel refuses that before
    /// Linux 6.18, and where packets lie in one.
    pub fn ask_in_parts(&mut self, port: PortIndex, frame: &[u8], first: usize) -> Result<Steered, XdpError> {
        self.steerer.ask_in_parts(port, frame, first)
    }

    /// Asks it what frame it would send elsewhere by the shortcut, in place of one received by `port`.
    pub fn shorten(&mut self, port: PortIndex, frame: &[u8]) -> Result<Option<Vec<u8>>, XdpError> {
        self.shorten_in_parts(port, frame, frame.len())
    }

    /// The same, for a frame of which only the first `first` bytes lie in the first buffer, as in [`Xdp::ask_in_parts`].
    pub fn shorten_in_parts(
        &mut self,
        port: PortIndex,
        frame: &[u8],
        first: usize,
    ) -> Result<Option<Vec<u8>>, XdpError> {
        self.steerer.shorten_in_parts(port, frame, first)
    }

    /// What each interface got, in the order of the ports.
    pub fn port_status(&self) -> &[PortStatus] {
        &self.status
    }

    /// How many workers.
    pub fn workers(&self) -> usize {
        self.queues as usize
    }

    /// The packet counters of each worker, and of the thread for local real servers if there is one.
    pub fn counters(&self) -> Vec<Arc<PacketCounters>> {
        self.books.iter().map(|books| Arc::clone(&books.packets)).collect()
    }

    /// What the kernel has lost on the way to the receive rings, of all workers and ports.
    pub fn ring_losses(&self) -> RingLosses {
        self.books.iter().map(|books| books.losses.load()).sum()
    }

    /// Leaves new packets to the kernel, finishes what has been received, ends the threads, detaches, and tells where
    /// each worker's frames were.
    pub fn stop(mut self) -> Vec<FrameBalance> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Vec<FrameBalance> {
        self.steerer.leave_to_kernel();
        let balances = self.rest();
        self.steerer.detach();
        balances
    }
}

impl Drop for Xdp {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Whether a real server is this machine itself. The loopback has no way out.
fn has_local_server(steering: &Steering) -> bool {
    let local = |address: &IpAddr| !address.is_loopback() && steering.own.contains(address);
    steering.servers.iter().any(|(address, _)| local(address))
}
