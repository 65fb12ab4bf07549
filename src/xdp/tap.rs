//! TAP devices, by which frames come out of the kernel and go back into it, and packet sockets, which send frames by one
//! interface.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::bind;
use socket2::{Domain, Socket, Type};

use crate::xdp::interface;

/// A TAP device of ours; it ends with its descriptor.
pub(super) struct Tap {
    file: File,
    ifindex: u32,
}

impl Tap {
    /// Creates the device, up, without any address: only what is redirected to it goes there.
    pub(super) fn create(name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        interface::make_tap(&file, name)?;
        // A kernel without IPv6 has no such file, and gives the device no address either.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        interface::raise_without_arp(name)?;
        let ifindex = if_nametoindex(name)?;
        Ok(Tap { file, ifindex })
    }

    /// The kernel's interface index.
    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The next frame's length, if there is a frame.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.file.read(buffer).ok()
    }

    /// Has the kernel receive a frame by the device.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(drop)
    }

    /// Readable when a frame is there.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Sends frames by one interface as they are: past its queueing discipline, and so past the detour's own program.
pub(super) struct WayOut(Socket);

impl WayOut {
    /// A way out by an interface.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let mut addresses = getifaddrs()?.filter_map(|it| it.address?.as_link_addr().copied());
        let address = addresses
            .find(|address| address.ifindex() == ifindex as usize)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        bind(socket.as_raw_fd(), &address)?;
        socket.set_nonblocking(true)?;
        bypass_queueing(&socket)?;
        Ok(WayOut(socket))
    }

    /// Sends one frame, and never waits.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }
}

fn bypass_queueing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
    // SAFETY: the option is an int, which lives through the call, and the length is its own.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
