//! Names of attachments, by which they outlive their process. A router whose daemon is killed still has the virtual addresses
//! until its partner has taken them over; without a program its kernel would answer for connections that it does not know, and
//! reset them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use libbpf_sys::bpf_obj_pin;

/// The kernel's file system for such things; systemd mounts it.
const FOLDER: &str = "/sys/fs/bpf";

/// The name of a link, which lasts for as long as it has one. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct Name(PathBuf);

impl Name {
    /// Names the link of an interface. One that has its name already, from the process before, keeps it.
    pub(super) fn give(link: BorrowedFd<'_>, ifindex: u32) -> io::Result<Self> {
        let path = path(ifindex)?;
        if !path.exists() {
            let name = CString::new(path.as_os_str().as_bytes())?;
            // SAFETY: the descriptor is borrowed, and the name ends with its zero and lives through the call.
            let result = unsafe { bpf_obj_pin(link.as_raw_fd(), name.as_ptr()) };
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
        }
        Ok(Name(path))
    }

    /// Leaves the name to another process.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Whoever has removed it by hand wanted the same.
        let _ = fs::remove_file(&self.0);
    }
}

/// Interfaces have their numbers in each network namespace anew.
fn path(ifindex: u32) -> io::Result<PathBuf> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(PathBuf::from(format!("{FOLDER}/xlvs-{namespace}-{ifindex}")))
}

/// Takes the name from what a killed process left at an interface, which detaches it a moment later; returns whether there was
/// anything. A living process's program stays.
pub(super) fn release(ifindex: u32) -> bool {
    path(ifindex).and_then(fs::remove_file).is_ok()
}
