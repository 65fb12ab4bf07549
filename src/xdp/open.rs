//! Opening the queues: packet memory and a socket for each interface, in the best way that all interfaces can.

use std::fs;

use xsk_rs::config::QueueSize;

use super::error::XdpError;
use super::port::{CopyMode, Port, Setting};
use super::survey::LongestPacket;
use super::umem::FramePool;
use super::{
    AttachSetting, AttachedMode, Buffers, HugePageSetting, PortStatus, XdpConfig, ZeroCopySetting, occupant,
    parts, room_for_packet,
};

/// Size of each ring where the number of frames leaves it open.
const DEFAULT_RING: u32 = 2048;

/// Bytes of packet memory of each worker.
pub fn packet_memory(config: &XdpConfig) -> Result<u64, XdpError> {
    let (frames, _) = frames_and_ring(config, LongestPacket::of(config)?.frames())?;
    Ok(u64::from(frames) * u64::from(config.frame_size))
}

/// The packet memory of one queue index, and that queue of every port.
pub(super) struct QueueSet {
    pub(super) ports: Vec<Port>,
    pub(super) pool: FramePool,
    /// Whether the NICs are polled.
    pub(super) polling: bool,
    pub(super) buffers: Buffers,
    /// Longer frames are copied before they are decided about, in bytes.
    pub(super) longest_in_place: usize,
    notes: Vec<String>,
}

/// The packet memory of one queue index, and why it is not on huge pages.
pub(super) type Memory = (FramePool, Option<String>);

/// All packet memory, before the queues are opened.
pub(super) fn allocate_all(
    config: &XdpConfig,
    queues: u32,
    longest: &LongestPacket,
) -> Result<Vec<Memory>, XdpError> {
    let (frames, ring) = frames_and_ring(config, longest.frames())?;
    (0..queues).map(|_| allocate(config, frames, ring)).collect()
}

/// Opens every queue in the best mode that all ports can: sockets that share packet memory share the mode. `memory` is what there
/// is already.
pub(super) fn open_queues(
    config: &XdpConfig,
    queues: u32,
    longest: &LongestPacket,
    status: &mut [PortStatus],
    mut memory: Vec<Memory>,
) -> Result<Vec<QueueSet>, XdpError> {
    let sets = open_best(config, queues, longest, status, &mut memory)?;
    // What is so of one queue is so of all.
    let notes = sets.first().map_or(&[][..], |set| &set.notes);
    status.iter_mut().for_each(|status| status.notes.extend_from_slice(notes));
    Ok(sets)
}

fn open_best(
    config: &XdpConfig,
    queues: u32,
    longest: &LongestPacket,
    status: &mut [PortStatus],
    memory: &mut Vec<Memory>,
) -> Result<Vec<QueueSet>, XdpError> {
    if config.zero_copy != ZeroCopySetting::Off {
        match try_zero_copy(config, queues, longest, status, memory) {
            Ok(sets) => {
                status.iter_mut().for_each(|status| status.zero_copy = true);
                return Ok(sets);
            }
            Err(error) if config.zero_copy == ZeroCopySetting::On => return Err(error),
            Err(error) => note_copy(status, &error),
        }
    }
    open_all(config, queues, longest, CopyMode::Copy, memory)
        .map_err(|error| about_long_packets(error, longest))
}

/// In copy mode a kernel that knows sockets for packets in several buffers refuses none.
fn about_long_packets(error: XdpError, longest: &LongestPacket) -> XdpError {
    match error {
        XdpError::Bind { reason, errno: Some(libc::EINVAL), .. } if longest.buffers() == Buffers::Several => {
            let LongestPacket { interface, mtu, frame_size } = longest;
            XdpError::NoLongPackets {
                interface: interface.clone(),
                mtu: *mtu,
                room: room_for_packet(*frame_size),
                frame_size: *frame_size,
                reason,
            }
        }
        other => other,
    }
}

/// Sockets that share packet memory share the mode, so one port's reason is all ports'.
fn note_copy(status: &mut [PortStatus], error: &XdpError) {
    let why = match error {
        XdpError::Bind { interface, reason, .. } => {
            format!("{interface} refuses it ({reason}), and all interfaces share the mode")
        }
        XdpError::NoZeroCopy { interface, .. } => {
            format!("{interface} is not in native mode, and all interfaces share the mode")
        }
        other => other.to_string(),
    };
    status.iter_mut().for_each(|status| status.notes.push(format!("copy, not zero-copy: {why}")));
}

fn try_zero_copy(
    config: &XdpConfig,
    queues: u32,
    longest: &LongestPacket,
    status: &[PortStatus],
    memory: &mut Vec<Memory>,
) -> Result<Vec<QueueSet>, XdpError> {
    for port in &config.ports {
        let (wanted, most) = (longest.frames(), occupant::zero_copy_segments(port.ifindex));
        if most != 0 && most < wanted {
            return Err(XdpError::ShortZeroCopy { interface: port.name.clone(), most, wanted });
        }
    }
    match status.iter().find(|status| status.mode == AttachedMode::Skb) {
        Some(status) => Err(XdpError::NoZeroCopy {
            interface: status.name.clone(),
            reason: if config.mode == AttachSetting::Skb { "is set not to use" } else { "does not have" },
        }),
        None => open_all(config, queues, longest, CopyMode::ZeroCopy, memory),
    }
}

fn open_all(
    config: &XdpConfig,
    queues: u32,
    longest: &LongestPacket,
    mode: CopyMode,
    memory: &mut Vec<Memory>,
) -> Result<Vec<QueueSet>, XdpError> {
    (0..queues).map(|queue| open_set(config, queue, longest, mode, memory.pop())).collect()
}

fn open_set(
    config: &XdpConfig,
    queue: u32,
    longest: &LongestPacket,
    mode: CopyMode,
    memory: Option<Memory>,
) -> Result<QueueSet, XdpError> {
    let (frames, ring) = frames_and_ring(config, longest.frames())?;
    let buffers = longest.buffers();
    let longest_in_place = match buffers {
        Buffers::One => usize::MAX,
        Buffers::Several => parts::longest_in_place(config.frame_size),
    };
    let setting = Setting { ring, mode, buffers, longest_in_place };
    let (pool, on_ordinary_pages) = match memory {
        Some(memory) => memory,
        None => allocate(config, frames, ring)?,
    };
    let ports: Vec<Port> = config
        .ports
        .iter()
        .map(|port| Port::open(&pool, &port.name, queue, setting))
        .collect::<Result<_, _>>()?;
    let mut notes = Vec::from_iter(on_ordinary_pages);
    let polling = config.busy_poll && poll_busily(&ports, &mut notes);
    Ok(QueueSet { ports, pool, polling, buffers, longest_in_place, notes })
}

fn allocate(config: &XdpConfig, frames: u32, ring: QueueSize) -> Result<Memory, XdpError> {
    let new = |huge_pages| FramePool::new(config.frame_size, frames, ring, huge_pages);
    let why = match config.huge_pages {
        HugePageSetting::Off => return Ok((new(false)?, None)),
        HugePageSetting::On => return Ok((on_huge_pages(new(true), config, frames)?, None)),
        HugePageSetting::Auto if !fills_huge_pages(config.frame_size, frames) => {
            "its size is no multiple of theirs".to_owned()
        }
        HugePageSetting::Auto => match new(true) {
            Ok(pool) => return Ok((pool, None)),
            Err(XdpError::Umem { reason, .. }) => reason,
            Err(error) => return Err(error),
        },
    };
    Ok((new(false)?, Some(format!("packet memory is on ordinary pages, not on huge ones: {why}"))))
}

/// That there are too few huge pages is no lack of memory.
fn on_huge_pages(
    pool: Result<FramePool, XdpError>,
    config: &XdpConfig,
    frames: u32,
) -> Result<FramePool, XdpError> {
    pool.map_err(|error| match error {
        XdpError::Umem { reason, .. } => {
            XdpError::HugePages { frames, frame_size: config.frame_size, reason }
        }
        error => error,
    })
}

/// Whether the memory is a whole number of huge pages, without which it could not be given back.
fn fills_huge_pages(frame_size: u32, frames: u32) -> bool {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Hugepagesize:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.is_some_and(|size| {
        size > 0 && (u64::from(frame_size) * u64::from(frames)).is_multiple_of(size << 10)
    })
}

/// Whether all interfaces let themselves be polled; if not, notes why.
fn poll_busily(ports: &[Port], notes: &mut Vec<String>) -> bool {
    let refusal = ports.iter().find_map(|port| port.poll_busily().err());
    notes.extend(
        refusal
            .as_ref()
            .map(|error| format!("interrupts, not busy polling: the kernel refuses it ({error})")),
    );
    refusal.is_none()
}

/// With as many frames as all fill and transmit rings hold, no ring can starve another. The longest packet takes `longest`
/// frames, which a ring has to hold.
fn frames_and_ring(config: &XdpConfig, longest: u32) -> Result<(u32, QueueSize), XdpError> {
    let rings = 2 * config.ports.len() as u32;
    let ring = match config.frames {
        0 => DEFAULT_RING,
        frames => (frames / rings).checked_ilog2().map_or(0, |bits| 1 << bits).min(DEFAULT_RING),
    };
    let ring = if longest > 1 { ring.max(longest.next_power_of_two()) } else { ring };
    let frames = config.frames.max(ring * rings);
    let ring = QueueSize::new(ring).map_err(|_| XdpError::Umem {
        frames,
        frame_size: config.frame_size,
        reason: format!("{rings} rings need at least one frame each"),
        errno: None,
    })?;
    Ok((frames, ring))
}
