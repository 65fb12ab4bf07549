//! What can go wrong with the NICs, in words for the administrator.

use std::error::Error;
use std::io;

use crate::xdp::LARGEST_MTU;

/// Why packet processing could not start, or could not follow a change.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// No interface was named.
    #[error("no interface to attach to: name at least one")]
    NoPorts,
    /// More interfaces than a port index can tell apart.
    #[error("too many interfaces: {0}, at most 255")]
    TooManyPorts(usize),
    /// The interface cannot be asked for its properties.
    #[error(
        "{interface}: cannot read its {what}: {source}; does the interface exist in this network namespace?"
    )]
    Interface {
        /// Interface name.
        interface: String,
        /// The property.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A tunnel, the loopback or the like, whose frames have no MAC addresses to rewrite.
    #[error(
        "{interface} is not an Ethernet interface: leave it out of `ports` in xlvs.toml, or route the servers and \
         clients through an Ethernet interface"
    )]
    NotEthernet {
        /// Interface name.
        interface: String,
    },
    /// Packets that arrive on the other queues would pass by the balancer.
    #[error(
        "{interface} has {present} receive queues, but only {served} can be served, because every interface needs as \
         many: run `ethtool -L {interface} combined {served}` (or rx {served} tx {served}), or set `queues` in xlvs.toml"
    )]
    UnequalQueues {
        /// The interface with too many.
        interface: String,
        /// Its receive queues.
        present: u32,
        /// The least of all interfaces.
        served: u32,
    },
    /// The setting asks for more queues than there are.
    #[error("{interface} has {present} queues, fewer than the {wanted} that `queues` in xlvs.toml asks for")]
    TooFewQueues {
        /// The interface with too few.
        interface: String,
        /// Its queues.
        present: u32,
        /// The setting.
        wanted: u32,
    },
    /// Packets may be longer than xlvs can handle.
    #[error(
        "{interface} has MTU {mtu}, but packets over {LARGEST_MTU} bytes are not supported: run `ip link set dev \
         {interface} mtu {LARGEST_MTU}`"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// A full-size packet would not fit a frame, and the kernel does not put packets in several.
    #[error(
        "{interface} has MTU {mtu}, frames of {frame_size} bytes hold packets of {room}, and this kernel does not put a packet \
         in several frames ({reason}): use Linux 6.6 or newer, or {}",
        mtu_remedy(.interface, *.mtu, *.room, *.frame_size)
    )]
    NoLongPackets {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// Largest MTU that fits.
        room: u32,
        /// Frame size in bytes.
        frame_size: u32,
        /// The kernel's answer.
        reason: String,
    },
    /// The driver sends no packet in so many buffers from packet memory.
    #[error(
        "{interface}: in zero-copy mode the driver sends packets of at most {most} buffers, and the MTUs of the interfaces \
         need {wanted}; set zero_copy = \"auto\" or \"off\" in xlvs.toml, or lower the MTUs"
    )]
    ShortZeroCopy {
        /// Interface name.
        interface: String,
        /// Buffers of a packet that it sends.
        most: u32,
        /// Buffers of the longest packet.
        wanted: u32,
    },
    /// The frame memory cannot be had on huge pages.
    #[error(
        "cannot allocate {frames} frames of {frame_size} bytes on huge pages: {reason}; reserve some (`xlvs doctor` says how), or \
         set huge_pages = \"auto\" in xlvs.toml"
    )]
    HugePages {
        /// Number of frames.
        frames: u32,
        /// Frame size in bytes.
        frame_size: u32,
        /// What failed.
        reason: String,
    },
    /// The frame memory cannot be had as it is set.
    #[error("cannot allocate {frames} frames of {frame_size} bytes: {reason}{}", remedy(*.errno))]
    Umem {
        /// Number of frames.
        frames: u32,
        /// Frame size in bytes.
        frame_size: u32,
        /// What failed.
        reason: String,
        /// The kernel's error number, if it was the kernel.
        errno: Option<i32>,
    },
    /// The XDP program or its maps were refused.
    #[error("cannot load the XDP program: {reason}{}", remedy(*.errno))]
    Load {
        /// What failed.
        reason: String,
        /// The kernel's error number, if it was the kernel.
        errno: Option<i32>,
    },
    /// Someone else's XDP program is in the way.
    #[error(
        "{interface}: another XDP program is attached ({name}, id {id}): stop what attached it, or run `ip link set dev \
         {interface} xdp off`"
    )]
    Occupied {
        /// Interface name.
        interface: String,
        /// The program's name.
        name: String,
        /// The program's id.
        id: u32,
    },
    /// An xlvs process that still runs holds the interface.
    #[error("{interface}: another xlvs process is serving it (XDP program id {id}): stop that one first")]
    AlreadyServed {
        /// Interface name.
        interface: String,
        /// The program's id.
        id: u32,
    },
    /// The program could not be attached.
    #[error("{interface}: cannot attach the XDP program in {mode} mode: {reason}{}", remedy(*.errno))]
    Attach {
        /// Interface name.
        interface: String,
        /// Native or generic.
        mode: &'static str,
        /// What failed.
        reason: String,
        /// The kernel's error number, if any.
        errno: Option<i32>,
    },
    /// Native mode is demanded of a bond.
    #[error(
        "{interface} is a bond, whose packets come by its members in native mode: set xdp_mode = \"auto\" or \"skb\" in \
         xlvs.toml"
    )]
    Bond {
        /// Interface name.
        interface: String,
    },
    /// Native mode would lose full-size packets.
    #[error(
        "{interface}: the MTU is too large for native mode: {mtu}, where packets of {room} fit a page, and {why}; run `ip \
         link set dev {interface} mtu {room}`, or set xdp_mode = \"auto\" or \"skb\" in xlvs.toml"
    )]
    MtuNotNative {
        /// Interface name.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// Largest packet in bytes.
        room: u32,
        /// Why there are no others, as part of the sentence.
        why: &'static str,
    },
    /// Zero-copy is demanded, and the program runs in generic mode.
    #[error(
        "{interface}: zero_copy = \"on\" in xlvs.toml needs native mode, which this interface {reason}; set zero_copy = \
         \"auto\""
    )]
    NoZeroCopy {
        /// Interface name.
        interface: String,
        /// Whether it cannot or is not to be native, as part of the sentence.
        reason: &'static str,
    },
    /// The AF_XDP socket of a queue could not be had.
    #[error("{interface} queue {queue}: cannot open an AF_XDP socket ({mode}): {reason}{}", bind_remedy(*.errno))]
    Bind {
        /// Interface name.
        interface: String,
        /// Queue index.
        queue: u32,
        /// Zero-copy or copy.
        mode: &'static str,
        /// What failed.
        reason: String,
        /// The kernel's error number, if any.
        errno: Option<i32>,
    },
    /// The kernel cannot take frames back.
    #[error(
        "this kernel cannot take back packets that are not for a virtual service (BPF_PROG_TEST_RUN on live frames): \
         {reason}; Linux 5.18 or newer is needed"
    )]
    NoInjection {
        /// What failed.
        reason: String,
    },
    /// The way of local real servers' replies could not be built.
    #[error(
        "{interface}: replies of real servers that are this machine itself stay untranslated: {source}; such servers \
         need /dev/net/tun, and a kernel with clsact and cls_bpf"
    )]
    Detour {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a change of a steering table.
    #[error("cannot update the XDP table `{table}`: {reason}")]
    Table {
        /// Map name.
        table: &'static str,
        /// What failed.
        reason: String,
    },
    /// The program of the process that is to be followed is attached in a way that the settings do not want.
    #[error(
        "{interface}: the program is attached in {mode} mode, and xdp_mode asks for {wanted}: that takes a restart"
    )]
    OtherMode {
        /// Interface name.
        interface: String,
        /// As it is.
        mode: &'static str,
        /// As it is to be.
        wanted: &'static str,
    },
    /// What another process has left is not what it is to be.
    #[error("what holds the XDP programs cannot be taken over from the former process: {source}")]
    Inherited {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread or its stop signal could not be created.
    #[error("cannot start a packet thread: {0}")]
    Thread(#[source] io::Error),
}

/// An error with all that lies behind it on one line.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let deeper = error.to_string();
        if !text.ends_with(&deeper) {
            text = format!("{text}: {deeper}");
        }
        source = error.source();
    }
    text
}

/// The error number of the first I/O error in the chain.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        next = error.source();
    }
    None
}

fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "; run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK"
        }
        Some(libc::ENOBUFS) => {
            "; raise the limit of locked memory (LimitMEMLOCK=infinity), or give CAP_IPC_LOCK"
        }
        Some(libc::ENOMEM) => "; free memory, or set fewer `frames` in xlvs.toml",
        Some(libc::ERANGE) => {
            "; the MTU is too large for native mode, lower it or set xdp_mode = \"skb\" in xlvs.toml"
        }
        Some(libc::EOPNOTSUPP) => {
            "; the driver has no native XDP, set xdp_mode = \"auto\" or \"skb\" in xlvs.toml"
        }
        _ => "",
    }
}

/// Largest `frame_size`, in bytes.
const LARGEST_FRAME: u32 = 4096;

fn mtu_remedy(interface: &str, mtu: u32, room: u32, frame_size: u32) -> String {
    let lower = format!("run `ip link set dev {interface} mtu {room}`");
    let most = room + LARGEST_FRAME.saturating_sub(frame_size);
    match (mtu <= most, frame_size < LARGEST_FRAME) {
        (true, _) => format!("{lower}, or set frame_size = {LARGEST_FRAME} in xlvs.toml"),
        (false, true) => {
            format!("{lower}, or at most mtu {most} with frame_size = {LARGEST_FRAME} in xlvs.toml")
        }
        (false, false) => lower,
    }
}

fn bind_remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EBUSY) => "; another program has an AF_XDP socket on this queue, stop it",
        Some(libc::EOPNOTSUPP | libc::EINVAL) => "; set zero_copy = \"auto\" or \"off\" in xlvs.toml",
        _ => remedy(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_names_the_capabilities() {
        let error = XdpError::Load { reason: "no".into(), errno: Some(libc::EPERM) };
        assert_eq!(
            error.to_string(),
            "cannot load the XDP program: no; run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, \
             CAP_PERFMON and CAP_IPC_LOCK"
        );
    }

    #[test]
    fn a_large_mtu_has_a_remedy_that_helps() {
        let told = |mtu, frame_size: u32| {
            let (interface, reason) = ("eth1".into(), "Invalid argument (os error 22)".into());
            let room = frame_size - 278;
            XdpError::NoLongPackets { interface, mtu, room, frame_size, reason }.to_string()
        };
        assert_eq!(
            told(1800, 2048),
            "eth1 has MTU 1800, frames of 2048 bytes hold packets of 1770, and this kernel does not put a packet in several \
             frames (Invalid argument (os error 22)): use Linux 6.6 or newer, or run `ip link set dev eth1 mtu 1770`, or \
             set frame_size = 4096 in xlvs.toml"
        );
        let large = told(9000, 2048);
        let remedy =
            "or run `ip link set dev eth1 mtu 1770`, or at most mtu 3818 with frame_size = 4096 in xlvs.toml";
        assert!(large.ends_with(remedy), "{large}");
        let larger = told(9000, 4096);
        assert!(larger.ends_with("or newer, or run `ip link set dev eth1 mtu 3818`"), "{larger}");
    }

    #[test]
    fn a_chain_is_told_once() {
        let error = XdpError::Thread(io::Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(
            reason(&error),
            "cannot start a packet thread: Resource temporarily unavailable (os error 11)"
        );
        assert_eq!(errno(&error), Some(libc::EAGAIN));
    }
}
