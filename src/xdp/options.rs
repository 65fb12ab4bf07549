//! Options of AF_XDP sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Of <linux/if_xdp.h>, since Linux 6.17: how many frames one call sends in copy mode. Older ones send 32.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Of <asm-generic/socket.h>.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// Microseconds that the kernel may poll where it would wait; more than none is what matters here.
const POLL_MICROS: u32 = 20;

/// Lets one call send up to `frames` frames in copy mode.
pub(super) fn send_at_once(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames)
}

/// Leaves it to the calls on the socket to look at the NIC, `frames` at a time, in place of its interrupts.
pub(super) fn poll_busily(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, POLL_MICROS)?;
    set(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, frames)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: the value lives through the call, which reads as many bytes as are said to be there.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
