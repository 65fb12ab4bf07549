//! What can go wrong with the NICs, in words for the administrator.

use std::error::Error;
use std::io;

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
    /// Packets that arrive on the other queues would pass by the balancer.
    #[error(
        "{interface} has {present} receive queues, but only {served} can be served, because every interface needs as \
         many: run `ethtool -L {interface} combined {served}` (or rx {served} tx {served}), or set the number of queues"
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
    #[error("{interface} has {present} queues, fewer than the {wanted} that are set")]
    TooFewQueues {
        /// The interface with too few.
        interface: String,
        /// Its queues.
        present: u32,
        /// The setting.
        wanted: u32,
    },
    /// A full-size packet would not fit a frame.
    #[error(
        "{interface} has MTU {mtu}, but frames of {frame_size} bytes hold packets of {room}: run `ip link set dev \
         {interface} mtu {room}`, or set a larger frame size (at most 4096)"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// Largest MTU that fits.
        room: u32,
        /// Frame size in bytes.
        frame_size: u32,
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
    /// Zero-copy is demanded, and the program runs in generic mode.
    #[error("{interface}: zero-copy is set to on, but needs native mode: {reason}")]
    NoZeroCopy {
        /// Interface name.
        interface: String,
        /// Why it is not native.
        reason: String,
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
    /// The kernel refused a change of a steering table.
    #[error("cannot update the XDP table `{table}`: {reason}")]
    Table {
        /// Map name.
        table: &'static str,
        /// What failed.
        reason: String,
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
            "; run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK"
        }
        Some(libc::ENOBUFS) => {
            "; raise the limit of locked memory (LimitMEMLOCK=infinity), or give CAP_IPC_LOCK"
        }
        Some(libc::ENOMEM) => "; free memory, or set fewer frames",
        Some(libc::ERANGE) => "; the MTU is too large for native mode, lower it or set the mode to skb",
        Some(libc::EOPNOTSUPP) => "; the driver has no native XDP, set the mode to skb or auto",
        _ => "",
    }
}

fn bind_remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EBUSY) => "; another program has an AF_XDP socket on this queue, stop it",
        Some(libc::EOPNOTSUPP | libc::EINVAL) => "; set zero-copy to auto or off",
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
            "cannot load the XDP program: no; run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and \
             CAP_IPC_LOCK"
        );
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
