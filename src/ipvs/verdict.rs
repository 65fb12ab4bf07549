//! What becomes of a packet, and the books that must balance.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::net::addr::PortIndex;

/// The datapath's decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten, or replaced by an answer; send it out of this port.
    Transmit(PortIndex),
    /// For this machine: deliver it to its IP stack as if just received on its own port. The bytes are as they came,
    /// except that a half-made checksum has been completed, unless they have been rewritten for a real server that is
    /// this machine itself. An outgoing frame: let it leave by its port.
    Pass,
    /// Rewritten, but only the kernel can send it now (unresolved neighbour, foreign interface): give the IP packet to
    /// the kernel's routing.
    HandOver,
    /// Gone, and why.
    Drop(DropReason),
    /// The engine has what it needs of it: the frame is free, and what becomes of its content comes through the
    /// [`Outbox`](crate::ipvs::outbox::Outbox).
    Hold,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in display order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];

            /// What the administrator reads.
            pub const fn as_str(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// Not an IP packet that can be parsed.
    Malformed = "malformed",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad IP checksum",
    /// The ICMP checksum of an error about a balanced flow is wrong.
    BadIcmpChecksum = "bad ICMP checksum",
    /// The TCP checksum of a segment that the FTP helper reads is wrong.
    BadTcpChecksum = "bad TCP checksum",
    /// Behind a cut off FTP answer that decides about its sequence number; it will be sent again.
    OutOfOrder = "ahead of an FTP answer",
    /// The connection's server was deleted (`expire_nodest_conn` = 0).
    ServerDeleted = "server deleted",
    /// `drop_packet` of the defence against floods.
    Defence = "drop_packet defence",
    /// There are `conn_max` connections, and none of those looked at was half open.
    TableFull = "connection table full",
    /// The source opens more connections than `source_rate` allows.
    SourceRate = "too many new connections of its source",
    /// No server to choose, and nothing may be answered (an ICMP error about an ICMP packet).
    NoDestination = "no destination",
    /// A packet of a service whose persistence engine goes by Call-IDs, without one.
    NoCall = "no Call-ID",
    /// A real server's packet of no connection, which may not be answered.
    NoConnection = "no connection",
    /// A real server's packet of no connection, which would have left with the server's own address.
    Untranslated = "untranslated",
    /// TTL ran out, and nothing may be answered.
    TtlExceeded = "TTL exceeded",
    /// No route to the chosen server.
    Unreachable = "no route to server",
    /// The hardware address of a directly routed server is not known (yet), and without it the kernel could not send there
    /// either: the packet's own destination is this machine.
    Unresolved = "neighbour not resolved",
    /// An ICMP error about a tunnel packet, whose client may not be told.
    TunnelError = "error about a tunnel packet",
    /// The server address is a loopback one and the client is not on this machine.
    LoopbackServer = "loopback server",
    /// On a local server's way out, but not sent by the interface that the way belongs to.
    Stray = "stray frame",
    /// A fragment that had come before.
    FragmentDuplicate = "duplicate fragment",
    /// Fragments of a datagram of which some overlap.
    FragmentOverlap = "overlapping fragments",
    /// Fragments that contradict each other, or make no packet together.
    FragmentMismatch = "fragments that do not fit together",
    /// Fragments whose datagram did not get whole in time.
    FragmentTimeout = "fragments without the others",
    /// Fragments that had to make room for others.
    FragmentMemory = "too many fragments",
    /// Larger than the way out allows, and may not be fragmented.
    TooBig = "too big",
    /// More ICMP errors than may be sent.
    IcmpLimit = "ICMP error limit",
    /// A packet or an answer did not fit the frame.
    NoRoom = "no room for a packet",
    /// No frame was free for a packet that the engine made.
    NoFrame = "no free frame",
    /// A packet of no connection, while more packets wait than can be worked off.
    Overload = "overload",
    /// The transmit ring of the other port was full.
    TxRingFull = "transmit ring full",
    /// The queue to the kernel's stack was full.
    KernelQueueFull = "queue to the kernel full",
    /// The kernel refused the packet.
    KernelRefused = "refused by the kernel",
}

/// One worker's packet counters; written by that worker, and by whoever delivers the frames that it passed; read by
/// anyone.
#[derive(Debug)]
pub struct PacketCounters {
    received: AtomicU64,
    transmitted: AtomicU64,
    passed: AtomicU64,
    handed_over: AtomicU64,
    made: AtomicU64,
    absorbed: AtomicU64,
    held: AtomicI64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Default for PacketCounters {
    fn default() -> Self {
        PacketCounters {
            received: AtomicU64::new(0),
            transmitted: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            made: AtomicU64::new(0),
            absorbed: AtomicU64::new(0),
            held: AtomicI64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
        }
    }
}

impl PacketCounters {
    /// Counts `packets` received frames.
    pub fn add_received(&self, packets: u64) {
        self.received.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts `packets` frames that left by a transmit ring.
    pub fn add_transmitted(&self, packets: u64) {
        self.transmitted.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts `packets` frames that came and left by the shortcut.
    pub fn add_shortcut(&self, packets: u64) {
        self.add_received(packets);
        self.transmitted.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts one frame delivered to this machine's stack.
    pub fn add_passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one packet given to the kernel's routing.
    pub fn add_handed_over(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one frame of the engine's own making, besides what becomes of it.
    pub fn add_made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one received frame that the engine holds.
    pub fn add_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `packets` held frames as no longer held, because their content went into frames that the engine made.
    pub fn absorb_held(&self, packets: u32) {
        self.held.fetch_sub(packets.into(), Ordering::Relaxed);
        self.absorbed.fetch_add(packets.into(), Ordering::Relaxed);
    }

    /// Counts `packets` held frames as dropped.
    pub fn drop_held(&self, packets: u32, reason: DropReason) {
        self.held.fetch_sub(packets.into(), Ordering::Relaxed);
        self.dropped[reason as usize].fetch_add(packets.into(), Ordering::Relaxed);
    }

    /// Counts one dropped frame.
    pub fn add_dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The values now. Taken while the worker runs, they may be apart by the packets in flight.
    pub fn totals(&self) -> PacketTotals {
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.dropped[*reason as usize].load(Ordering::Relaxed)))
            .filter(|(_, packets)| *packets != 0)
            .collect();
        PacketTotals {
            received: self.received.load(Ordering::Relaxed),
            transmitted: self.transmitted.load(Ordering::Relaxed),
            passed: self.passed.load(Ordering::Relaxed),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            made: self.made.load(Ordering::Relaxed),
            absorbed: self.absorbed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            dropped,
        }
    }
}

/// Packet counts of one worker, or summed over several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketTotals {
    /// Frames that came up from a receive ring.
    pub received: u64,
    /// Frames that went out by a transmit ring.
    pub transmitted: u64,
    /// Frames delivered to this machine's stack.
    pub passed: u64,
    /// Packets given to the kernel's routing.
    pub handed_over: u64,
    /// Frames that the engine made itself, such as the fragments of a datagram that it had put together.
    pub made: u64,
    /// Received frames whose content went into frames that the engine made.
    pub absorbed: u64,
    /// Received frames that the engine holds now, such as fragments of a datagram that is not whole yet. Of one worker
    /// it may be negative, as another one may have received what this one has let go.
    pub held: i64,
    /// Dropped frames by reason; reasons that never occurred are absent.
    pub dropped: Vec<(DropReason, u64)>,
}

impl PacketTotals {
    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &PacketTotals) {
        self.received += other.received;
        self.transmitted += other.transmitted;
        self.passed += other.passed;
        self.handed_over += other.handed_over;
        self.made += other.made;
        self.absorbed += other.absorbed;
        self.held += other.held;
        for (reason, packets) in &other.dropped {
            match self.dropped.iter_mut().find(|(present, _)| present == reason) {
                Some((_, count)) => *count += packets,
                None => self.dropped.push((*reason, *packets)),
            }
        }
    }

    /// Frames received and made minus everything that happened to them: 0 when nothing is in flight and nothing was lost.
    pub fn imbalance(&self) -> i128 {
        let dropped: u64 = self.dropped.iter().map(|(_, packets)| packets).sum();
        let out = [self.transmitted, self.passed, self.handed_over, self.absorbed, dropped];
        let [come, gone] = [&[self.received, self.made][..], &out[..]]
            .map(|counts| counts.iter().copied().map(i128::from).sum::<i128>());
        come - gone - i128::from(self.held)
    }
}
