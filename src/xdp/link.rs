//! What holds the steering program at an interface: the kernel's link. It lasts for as long as anybody has it open, so that one
//! process can give it to another, and its program can be replaced without a moment in which there is none.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_sys::{
    BPF_XDP, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_link_create, bpf_link_create_opts,
    bpf_link_get_info_by_fd, bpf_link_info, bpf_link_update,
};

use crate::xdp::pin::Name;
use crate::xdp::steer::AttachedMode;

/// An attachment. Dropping the last copy of its descriptor detaches, unless it has a name.
#[derive(Debug)]
pub(super) struct Link {
    // In this order: it lasts for as long as it has a name.
    name: Option<Name>,
    descriptor: OwnedFd,
    ifindex: u32,
}

impl Link {
    /// Attaches the program.
    pub(super) fn create(program: BorrowedFd<'_>, ifindex: u32, mode: AttachedMode) -> io::Result<Self> {
        let flags = match mode {
            AttachedMode::Native => XDP_FLAGS_DRV_MODE,
            AttachedMode::Skb => XDP_FLAGS_SKB_MODE,
        };
        let size = size_of::<bpf_link_create_opts>() as u64;
        let options = bpf_link_create_opts { sz: size, flags, ..Default::default() };
        // SAFETY: `options` lives through the call and says its own size; the program's descriptor is borrowed.
        let result = unsafe {
            bpf_link_create(program.as_raw_fd(), ifindex.cast_signed(), BPF_XDP, &raw const options)
        };
        let descriptor = checked(result)?;
        // SAFETY: the kernel has made the descriptor just now, and nobody else has it.
        Ok(Link { name: None, descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) }, ifindex })
    }

    /// One that another process has made.
    pub(super) fn taken_over(descriptor: OwnedFd) -> io::Result<Self> {
        let mut info = bpf_link_info::default();
        let mut size = size_of::<bpf_link_info>() as u32;
        // SAFETY: `info` has the size that is told, and both live through the call.
        let result = unsafe { bpf_link_get_info_by_fd(descriptor.as_raw_fd(), &raw mut info, &raw mut size) };
        checked(result)?;
        // SAFETY: the kernel has written what belongs to a link; whichever kind it is, this member is an integer.
        let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
        Ok(Link { name: None, descriptor, ifindex })
    }

    /// Puts another program in the place of the present one, which is as good as it at any moment.
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: both descriptors are open for as long as the call lasts, and it takes no other pointer than none.
        let result =
            unsafe { bpf_link_update(self.descriptor.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
        checked(result).map(drop)
    }

    /// Has it last when this process is killed.
    pub(super) fn make_lasting(&mut self) -> io::Result<()> {
        self.leave();
        self.name = Some(Name::give(self.descriptor.as_fd(), self.ifindex)?);
        Ok(())
    }

    /// Leaves it to another process, which has it open, too.
    pub(super) fn leave(&mut self) {
        self.name.take().into_iter().for_each(Name::leave);
    }

    /// Where the program is attached.
    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
