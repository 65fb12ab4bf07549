//! The XDP program that is attached to an interface already.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::loaded_programs;
use libbpf_sys::{
    XDP_FLAGS_DRV_MODE, XDP_FLAGS_REPLACE, XDP_FLAGS_SKB_MODE, bpf_xdp_attach_opts, bpf_xdp_detach,
    bpf_xdp_query, bpf_xdp_query_opts, libbpf_set_print,
};
use nix::poll::poll;

use crate::xdp::error::XdpError;
use crate::xdp::steer::AttachedMode;

/// How often it is looked whether a program has gone, and the pause between two looks in milliseconds: a second in all.
const TRIES: u32 = 100;
const PAUSE: u8 = 10;

/// What a program is called whose name cannot be seen: that takes CAP_SYS_ADMIN.
const UNNAMED: &str = "unnamed";

/// An attached program.
#[derive(Debug)]
struct Occupant {
    id: u32,
    mode_flag: u32,
}

/// Makes sure that nothing is attached to the interface: removes what an ended process of ours left behind, and fails
/// for anything else. `programs` are the names of our programs; `released` says that one of them is just being detached.
pub(super) fn make_room(
    interface: &str,
    ifindex: u32,
    programs: &[&str],
    released: bool,
) -> Result<(), XdpError> {
    let mut refusal = Ok(());
    for _ in 0..TRIES {
        refusal = try_to_make_room(interface, ifindex, programs, released);
        // A foreign program stays; what a link has held goes a moment after it, and its name is not for everybody to see.
        match &refusal {
            Err(XdpError::AlreadyServed { .. }) => {}
            Err(XdpError::Occupied { name, .. }) if name == UNNAMED => {}
            _ => return refusal,
        }
        let _ = poll(&mut [], PAUSE);
    }
    refusal
}

fn try_to_make_room(
    interface: &str,
    ifindex: u32,
    programs: &[&str],
    released: bool,
) -> Result<(), XdpError> {
    let occupant = find(ifindex).map_err(|source| XdpError::Interface {
        interface: interface.into(),
        what: "XDP program",
        source,
    })?;
    let Some(occupant) = occupant else { return Ok(()) };
    let name = name_of(occupant.id);
    if !released && !programs.contains(&name.as_str()) {
        return Err(XdpError::Occupied { interface: interface.into(), name, id: occupant.id });
    }
    // A link holds for as long as its process lives, and the kernel lets nobody else detach it.
    evict(ifindex, &occupant)
        .map_err(|_| XdpError::AlreadyServed { interface: interface.into(), id: occupant.id })
}

fn find(ifindex: u32) -> io::Result<Option<Occupant>> {
    let query = query(ifindex)?;
    let modes = [
        (query.skb_prog_id, XDP_FLAGS_SKB_MODE),
        (query.drv_prog_id, XDP_FLAGS_DRV_MODE),
        (query.prog_id, 0),
    ];
    Ok(modes.into_iter().find(|(id, _)| *id != 0).map(|(id, mode_flag)| Occupant { id, mode_flag }))
}

fn query(ifindex: u32) -> io::Result<bpf_xdp_query_opts> {
    let mut query = bpf_xdp_query_opts { sz: size_of::<bpf_xdp_query_opts>() as u64, ..Default::default() };
    // SAFETY: `query` lives through the call and says its own size in `sz`.
    let result = unsafe { bpf_xdp_query(ifindex.cast_signed(), 0, &raw mut query) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(query) }
}

/// The program that is attached to the interface, if any; `programs` are the names of our programs.
pub(super) fn attached(ifindex: u32, programs: &[&str]) -> io::Result<Option<super::Occupant>> {
    let attached = find(ifindex)?.map(|occupant| {
        let name = name_of(occupant.id);
        let off = if occupant.mode_flag == XDP_FLAGS_SKB_MODE { "xdpgeneric off" } else { "xdp off" };
        super::Occupant { ours: programs.contains(&name.as_str()), name, id: occupant.id, off }
    });
    Ok(attached)
}

/// How the program that is attached to the interface runs.
pub(super) fn mode(ifindex: u32) -> io::Result<AttachedMode> {
    match find(ifindex)? {
        Some(Occupant { mode_flag: XDP_FLAGS_SKB_MODE, .. }) => Ok(AttachedMode::Skb),
        Some(_) => Ok(AttachedMode::Native),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// What the driver says that it can do (NETDEV_XDP_ACT_*); 0 also from kernels that do not tell (before 6.3).
pub(super) fn features(ifindex: u32) -> u64 {
    query(ifindex).map_or(0, |query| query.feature_flags)
}

/// How many buffers of a packet the driver sends in zero-copy mode at the most; 0 if it does not tell.
pub(super) fn zero_copy_segments(ifindex: u32) -> u32 {
    query(ifindex).map_or(0, |query| query.xdp_zc_max_segs)
}

fn name_of(id: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| UNNAMED.into())
}

fn evict(ifindex: u32, occupant: &Occupant) -> io::Result<()> {
    let program = loaded_programs().flatten().find(|program| program.id() == occupant.id);
    // Gone meanwhile, or not to be seen without CAP_SYS_ADMIN.
    let program = program.ok_or(io::ErrorKind::NotFound)?;
    let fd = program.fd().map_err(io::Error::other)?;
    let options = bpf_xdp_attach_opts {
        sz: size_of::<bpf_xdp_attach_opts>() as u64,
        old_prog_fd: fd.as_fd().as_raw_fd(),
        ..Default::default()
    };
    let flags = occupant.mode_flag | XDP_FLAGS_REPLACE;
    // SAFETY: `None` is a valid printer: it silences the library, whose words on stderr the administrator cannot use.
    unsafe { libbpf_set_print(None) };
    // SAFETY: `options` lives through the call, says its own size, and its descriptor is open until `fd` drops.
    let result = unsafe { bpf_xdp_detach(ifindex.cast_signed(), flags, &raw const options) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
