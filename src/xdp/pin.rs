//! Attachments that outlive their process. A router whose daemon is killed still has the virtual addresses until its partner has
//! taken them over; without a program its kernel would answer for connections that it does not know, and reset them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;

use crate::xdp::error::reason;

/// The kernel's file system for such things; systemd mounts it.
const FOLDER: &str = "/sys/fs/bpf";

/// What holds the program at an interface. Dropping it detaches.
#[derive(Debug)]
pub(super) struct Hold {
    // In this order: a link lasts for as long as it has a name.
    _name: Option<Name>,
    _link: Held,
}

#[derive(Debug)]
enum Held {
    Plain { _link: XdpLink },
    Named { _link: FdLink },
}

impl Hold {
    /// One that ends with the process in any case.
    pub(super) fn passing(link: XdpLink) -> Self {
        Hold { _name: None, _link: Held::Plain { _link: link } }
    }

    /// One that lasts when the process is killed; the error says why it cannot be had, and the interface is left without a
    /// program.
    pub(super) fn lasting(link: XdpLink, ifindex: u32) -> Result<Self, String> {
        let path = path(ifindex).map_err(|error| error.to_string())?;
        let link: FdLink = link.try_into().map_err(|error| reason(&error))?;
        let pinned = link.pin(&path).map_err(|error| reason(&error))?;
        Ok(Hold { _name: Some(Name(path)), _link: Held::Named { _link: pinned.into() } })
    }
}

/// The name of a link.
#[derive(Debug)]
struct Name(PathBuf);

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
