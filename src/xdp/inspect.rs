//! What an interface is like before anything is attached to it, for whoever advises the administrator.

use crate::xdp::error::XdpError;
use crate::xdp::ethtool::{self, Offloads, Queues, Spreading};
use crate::xdp::steer::PROGRAMS;
use crate::xdp::{ETHERNET, HEADROOM, interface, occupant};

/// Bits of <linux/netdev.h> (NETDEV_XDP_ACT_*).
const FEATURE_BASIC: u64 = 1;
const FEATURE_ZERO_COPY: u64 = 1 << 3;
const FEATURE_MANY_BUFFERS: u64 = 1 << 5;
const FEATURE_MANY_REDIRECTED: u64 = 1 << 6;

/// What a driver says that it can do with XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverFeatures {
    /// Run programs itself.
    pub native: bool,
    /// Share packet memory with AF_XDP sockets.
    pub zero_copy: bool,
    /// Receive packets that need several buffers.
    pub many_buffers: bool,
    /// Send such packets that come in by another interface.
    pub many_redirected: bool,
}

/// An XDP program that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// Whether it is the steering program of an xlvs process.
    pub ours: bool,
    /// What `ip link set dev INTERFACE` takes to remove it.
    pub off: &'static str,
}

/// What an interface is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is an Ethernet interface.
    pub ethernet: bool,
    /// Queues in use.
    pub queues: Queues,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// The driver's name, if it has one.
    pub driver: Option<String>,
    /// What the driver says that it can do; `None` if the kernel does not tell.
    pub features: Option<DriverFeatures>,
    /// The attached XDP program.
    pub occupant: Option<Occupant>,
    /// What the driver does to packets on its own.
    pub offloads: Offloads,
    /// How it spreads packets over queues; `None` if it does not say.
    pub spreading: Option<Spreading>,
}

/// Looks at an interface in the network namespace of the calling thread. Changes nothing.
pub fn inspect(name: &str, ifindex: u32) -> Result<Inspection, XdpError> {
    let occupant = occupant::attached(ifindex, &PROGRAMS).map_err(|source| XdpError::Interface {
        interface: name.into(),
        what: "XDP program",
        source,
    })?;
    Ok(Inspection {
        ethernet: interface::is_ethernet(name)?,
        queues: interface::queues(name)?,
        mtu: interface::mtu(name)?,
        driver: ethtool::driver(name),
        features: features(ifindex),
        occupant,
        offloads: ethtool::offloads(name),
        spreading: ethtool::spreading(name),
    })
}

/// What the driver says that it can do; `None` if the kernel does not tell (before Linux 6.3).
pub(super) fn features(ifindex: u32) -> Option<DriverFeatures> {
    let bits = occupant::features(ifindex);
    (bits != 0).then_some(DriverFeatures {
        native: bits & FEATURE_BASIC != 0,
        zero_copy: bits & FEATURE_ZERO_COPY != 0,
        many_buffers: bits & FEATURE_MANY_BUFFERS != 0,
        many_redirected: bits & FEATURE_MANY_REDIRECTED != 0,
    })
}

/// Largest IP packet in bytes that a frame of `frame_size` bytes holds.
pub fn room_for_packet(frame_size: u32) -> u32 {
    frame_size.saturating_sub(HEADROOM + ETHERNET)
}
