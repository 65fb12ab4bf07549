//! AF_XDP: the steering program, rings and packet memory, and the threads that move frames. Knows the engine, frames
//! and verdicts, no IPVS word. The only unsafe code of the project is here.
//!
//! A packet that the steering program ([`Steerer`]) wants comes up by a receive ring, is decided about by the worker's
//! [`Engine`], and leaves by a transmit ring, through the injector into this machine's stack, through the hand-over
//! channel into the kernel's routing, or not at all. A packet in several frames is copied together for the engine, and spread
//! over frames again. Every frame of the packet memory has exactly one holder, and every received packet is counted once.

#![allow(unsafe_code, reason = "rings, packet memory and a few system calls without a safe interface")]

mod detour;
mod error;
mod ethtool;
mod exits;
mod front;
mod idle;
mod inject;
mod inspect;
mod interface;
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
mod steer;
mod survey;
mod tap;
mod umem;
mod worker;

use std::io::{PipeReader, PipeWriter};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub use error::XdpError;
pub use ethtool::{Offloads, Queues, Spreading};
pub use inspect::{DriverFeatures, Inspection, Occupant, inspect, room_for_packet};
pub use open::packet_memory;
pub use port::RingLosses;
pub use steer::{AttachSetting, AttachedMode, Attachment, Steered, Steerer};
pub use survey::queues;
pub use worker::{Clock, FrameBalance};

use crate::ipvs::datapath::Engine;
use crate::ipvs::steering::Steering;
use crate::ipvs::verdict::PacketCounters;
use crate::net::addr::PortIndex;
use detour::{Detour, Way};
use inject::{Entrance, Injector, PassedFrame};
use open::open_queues;
use shortcut::{Exit, XdpFastPath};
use survey::{Survey, survey};
use worker::{Books, Outlets, StopOrder, Worker};

/// Frames that may wait for the injector.
const INJECTOR_QUEUE: usize = 1024;
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
    steerer: Steerer,
    status: Vec<PortStatus>,
    books: Vec<Books>,
    stopping: Arc<AtomicBool>,
    wake: Option<PipeWriter>,
    workers: Vec<JoinHandle<FrameBalance>>,
    injector: Option<JoinHandle<()>>,
    spare: Option<Spare>,
    detour: Option<JoinHandle<()>>,
    exits: Vec<Exit>,
    fast_path: Option<XdpFastPath>,
    shortcut_note: Option<String>,
}

/// What a detour is made of, as long as no real server is this machine itself.
struct Spare {
    ports: Vec<XdpPort>,
    engine: Box<dyn Engine>,
    clock: Clock,
    handed_over: Sender<Vec<u8>>,
    pipe: PipeReader,
}

/// Attaches to the interfaces and starts one worker per queue index; `engine` makes the engine of each, and with the
/// number behind the last one that for what this machine itself sends as a real server. Nothing comes up before
/// [`Xdp::apply_steering`]. `hand_over` takes IP packets that only the kernel can send.
pub fn start<E: Engine + 'static>(
    config: &XdpConfig,
    mut engine: impl FnMut(u32) -> E,
    clock: &Clock,
    hand_over: Sender<Vec<u8>>,
) -> Result<Xdp, XdpError> {
    let Survey { queues, longest, mut status } = survey(config)?;
    let (mut steerer, refusal) = load(config, queues, longest.buffers())?;
    if config.lasting {
        steerer.make_lasting()?;
    }
    for (port, status) in config.ports.iter().zip(&mut status) {
        let attachment = steerer.attach(&port.name, port.ifindex, config.mode)?;
        status.mode = attachment.mode;
        status.notes.extend(attachment.why);
    }
    let mut injector = Injector::load(entrances(config, &status), steerer.secret())?;
    if longest.mtu > INJECTABLE_MTU {
        note_lost(&mut status, injector.take_long_frames());
    }
    let queue_sets = open_queues(config, queues, &longest, &mut status)?;
    for (queue, set) in (0..).zip(&queue_sets) {
        for (index, port) in (0..).map(PortIndex).zip(&set.ports) {
            steerer.register(index, queue, &port.socket())?;
        }
    }
    let mut xdp = Xdp::new(steerer, status);
    xdp.prepare_shortcut(config.shortcut, refusal, clock());
    let (passed, to_inject) = channel::bounded::<PassedFrame>(INJECTOR_QUEUE);
    xdp.injector = Some(spawn("xlvs-inject".into(), move || injector.run(&to_inject))?);
    let (pipe, wake) = std::io::pipe().map_err(XdpError::Thread)?;
    xdp.wake = Some(wake);
    xdp.spare = Some(Spare {
        ports: config.ports.clone(),
        engine: Box::new(engine(queues)),
        clock: Arc::clone(clock),
        handed_over: hand_over.clone(),
        pipe: pipe.try_clone().map_err(XdpError::Thread)?,
    });
    for (queue, set) in (0..).zip(queue_sets) {
        let books = Books::default();
        let outlets = Outlets { passed: passed.clone(), handed_over: hand_over.clone() };
        let pipe = pipe.try_clone().map_err(XdpError::Thread)?;
        let stop = StopOrder { flag: Arc::clone(&xdp.stopping), pipe };
        xdp.books.push(books.clone());
        let worker = Worker::new(set, engine(queue), Arc::clone(clock), books, outlets, stop);
        xdp.workers.push(spawn(format!("xlvs-q{queue}"), move || {
            pin_to_cpu(queue);
            worker.run()
        })?);
    }
    Ok(xdp)
}

impl Xdp {
    /// Whether a worker has ended by itself.
    pub fn has_lost_worker(&self) -> bool {
        self.workers.iter().any(JoinHandle::is_finished)
    }

    fn new(steerer: Steerer, status: Vec<PortStatus>) -> Self {
        Xdp {
            steerer,
            status,
            books: Vec::new(),
            stopping: Arc::default(),
            wake: None,
            workers: Vec::new(),
            injector: None,
            spare: None,
            detour: None,
            exits: Vec::new(),
            fast_path: None,
            shortcut_note: None,
        }
    }

    /// Changes what comes up, without a gap for what stays the same.
    pub fn apply_steering(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.steerer.apply(steering)?;
        match self.spare.take_if(|_| has_local_server(steering)) {
            Some(spare) => self.start_detour(spare),
            None => Ok(()),
        }
    }

    /// From now on until the end: without the tables' help nothing is redirected.
    fn start_detour(&mut self, spare: Spare) -> Result<(), XdpError> {
        let Spare { ports, engine, clock, handed_over, pipe } = spare;
        let ways = ports.iter().map(Way::open).collect::<Result<Vec<_>, _>>()?;
        for (port, way) in ports.iter().zip(&ways) {
            self.steerer.detour(&port.name, port.ifindex, way.entrance())?;
        }
        let books = Books::default();
        let counters = Arc::clone(&books.packets);
        self.books.push(books);
        let stop = StopOrder { flag: Arc::clone(&self.stopping), pipe };
        let detour = Detour { ways, engine, clock, counters, handed_over, stop };
        self.detour = Some(spawn("xlvs-detour".into(), move || detour.run())?);
        Ok(())
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
        self.workers.len()
    }

    /// The packet counters of each worker, and of the thread for local real servers if there is one.
    pub fn counters(&self) -> Vec<Arc<PacketCounters>> {
        self.books.iter().map(|books| Arc::clone(&books.packets)).collect()
    }

    /// How often each worker has looked at the clock: one that does not hang does so many times a second.
    pub fn ticks(&self) -> Vec<u64> {
        let workers = self.books.iter().take(self.workers.len());
        workers.map(|books| books.ticks.load(Ordering::Relaxed)).collect()
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
        self.steerer.unregister_all();
        self.steerer.end_detours();
        self.stopping.store(true, Ordering::Relaxed);
        self.wake = None;
        self.spare = None;
        let balances = self.workers.drain(..).filter_map(|worker| worker.join().ok()).collect();
        // The workers' ends of the channel are gone now, so the injector ends when it has delivered the rest.
        if let Some(injector) = self.injector.take() {
            let _ = injector.join();
        }
        if let Some(detour) = self.detour.take() {
            let _ = detour.join();
        }
        self.steerer.detach();
        balances
    }
}

impl Drop for Xdp {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// A kernel that does not take the shortcut gets the program without it; the second value is why.
fn load(config: &XdpConfig, queues: u32, buffers: Buffers) -> Result<(Steerer, Option<String>), XdpError> {
    let ports = config.ports.len() as u32;
    if config.shortcut == ShortcutSetting::Off {
        return Ok((Steerer::load(ports, queues, 0, buffers)?, None));
    }
    match Steerer::load(ports, queues, config.shortcut_flows.max(1), buffers) {
        Ok(steerer) => Ok((steerer, None)),
        Err(error) => Ok((Steerer::load(ports, queues, 0, buffers)?, Some(error.to_string()))),
    }
}

/// Whether a real server is this machine itself. The loopback has no way out.
fn has_local_server(steering: &Steering) -> bool {
    let local = |address: &IpAddr| !address.is_loopback() && steering.own.contains(address);
    steering.servers.iter().any(|(address, _)| local(address))
}

/// Notes why long packets that are not balanced are lost, if they are.
fn note_lost(status: &mut [PortStatus], why: Option<String>) {
    let Some(why) = why else { return };
    let note = format!("packets over {INJECTABLE_MTU} bytes may be lost unless they are balanced: {why}");
    status.iter_mut().for_each(|status| status.notes.push(note.clone()));
}

fn entrances(config: &XdpConfig, status: &[PortStatus]) -> Vec<Entrance> {
    let needs_envelope = |status: &PortStatus| status.mode == AttachedMode::Skb;
    config
        .ports
        .iter()
        .zip(status)
        .map(|(port, status)| Entrance { ifindex: port.ifindex, needs_envelope: needs_envelope(status) })
        .collect()
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, XdpError> {
    thread::Builder::new().name(name).spawn(body).map_err(XdpError::Thread)
}

/// Keeps the calling thread on one of the CPUs that the process may use. Without the permission it stays where the
/// scheduler puts it.
fn pin_to_cpu(queue: u32) {
    let this_thread = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this_thread) else { return };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
    let mut one = CpuSet::new();
    if let Some(cpu) = cpus.get(queue as usize % cpus.len().max(1))
        && one.set(*cpu).is_ok()
    {
        let _ = sched_setaffinity(this_thread, &one);
    }
}
