//! What a network interface says about itself: link type, queues and MTU; and the calls to ask it.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::xdp::error::XdpError;
use crate::xdp::ethtool::{self, Queues};

/// The queues of `interface`. What a bond receives has the queue's number of the member that it came by.
pub(super) fn queues(interface: &str) -> Result<Queues, XdpError> {
    let mut queues = own_queues(interface)?;
    let members = bond_members(interface);
    let receive: Result<Vec<_>, _> = members.iter().map(|member| Ok(own_queues(member)?.receive)).collect();
    queues.receive = receive?.into_iter().max().unwrap_or(queues.receive);
    Ok(queues)
}

/// From the driver, or from sysfs where the driver does not tell.
fn own_queues(interface: &str) -> Result<Queues, XdpError> {
    match ethtool::channels(interface) {
        Ok(queues) => Ok(queues),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => queues_in_sysfs(interface),
        Err(source) => Err(XdpError::Interface { interface: interface.into(), what: "queues", source }),
    }
}

fn queues_in_sysfs(interface: &str) -> Result<Queues, XdpError> {
    let mut queues = Queues::default();
    let entries = fs::read_dir(format!("/sys/class/net/{interface}/queues"))
        .map_err(|source| XdpError::Interface { interface: interface.into(), what: "queues", source })?;
    for name in entries.flatten().map(|entry| entry.file_name()) {
        queues.receive += u32::from(name.to_string_lossy().starts_with("rx-"));
        queues.transmit += u32::from(name.to_string_lossy().starts_with("tx-"));
    }
    Ok(queues)
}

/// Whether `interface` is a bond of others.
pub(super) fn is_bond(interface: &str) -> bool {
    Path::new(&format!("/sys/class/net/{interface}/bonding")).exists()
}

/// The interfaces that receive for a bond; none if `interface` is something else.
fn bond_members(interface: &str) -> Vec<String> {
    let members = fs::read_to_string(format!("/sys/class/net/{interface}/bonding/slaves"));
    members.unwrap_or_default().split_whitespace().map(String::from).collect()
}

/// Largest IP packet of `interface` in bytes.
pub(super) fn mtu(interface: &str) -> Result<u32, XdpError> {
    let mut request = request_for(interface);
    submit(libc::SIOCGIFMTU, &mut request).map_err(|source| XdpError::Interface {
        interface: interface.into(),
        what: "MTU",
        source,
    })?;
    // SAFETY: SIOCGIFMTU succeeded, so the kernel has written the `ifru_mtu` member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u32::try_from(mtu).unwrap_or(u32::MAX))
}

/// Largest IP packet in bytes that fits a page in native mode: the kernel keeps room in front of the frame
/// (XDP_PACKET_HEADROOM) and behind it (its skb_shared_info); the frame has an Ethernet header with up to two VLAN tags.
pub(super) fn page_room() -> u32 {
    const HEADROOM: u32 = 256;
    const TAILROOM: u32 = 320;
    const ETHERNET: u32 = 14 + 2 * 4;
    // SAFETY: sysconf takes no pointer and changes nothing.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(page).unwrap_or(u32::MAX).saturating_sub(HEADROOM + TAILROOM + ETHERNET)
}

/// The hardware address of an Ethernet interface, if the interface is there.
pub(super) fn hardware_address(interface: &str) -> Option<[u8; 6]> {
    let mut request = request_for(interface);
    submit(libc::SIOCGIFHWADDR, &mut request).ok()?;
    // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has written the `ifru_hwaddr` member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Some(std::array::from_fn(|at| address[at] as u8))
}

/// Whether frames of `interface` have Ethernet headers with real MAC addresses; those of the loopback do not.
pub(super) fn is_ethernet(interface: &str) -> Result<bool, XdpError> {
    let mut request = request_for(interface);
    submit(libc::SIOCGIFHWADDR, &mut request).map_err(|source| XdpError::Interface {
        interface: interface.into(),
        what: "link type",
        source,
    })?;
    // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has written the `ifru_hwaddr` member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok(address.sa_family == libc::ARPHRD_ETHER)
}

/// Puts a question of <linux/ethtool.h> to the driver of `interface`. The first word is the command; the words are large
/// enough for its structure, tables included whose sizes stand in it. The answer takes their place.
pub(super) fn ask_driver(interface: &str, words: &mut [u32]) -> io::Result<()> {
    let mut request = request_for(interface);
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    submit(libc::SIOCETHTOOL, &mut request)
}

/// Makes an open `/dev/net/tun` the TAP device `name`, whose frames are bare.
pub(super) fn make_tap(file: &File, name: &str) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets `interface` up, and nothing else but that it asks for no neighbours.
pub(super) fn raise_without_arp(interface: &str) -> io::Result<()> {
    let mut request = request_for(interface);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
    submit(libc::SIOCSIFFLAGS, &mut request)
}

/// A request that names the interface; a name that is too long is cut, and then unknown to the kernel.
fn request_for(interface: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

fn submit(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the callers pass an ifreq whose data pointer, where the command uses it, is to a live structure of the
    // command's type; the kernel keeps neither.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command, &raw mut *request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_not_ethernet() {
        assert!(!is_ethernet("lo").unwrap());
        let error = is_ethernet("no-such").unwrap_err().to_string();
        assert!(error.starts_with("no-such: cannot read its link type: No such device"), "{error}");
    }

    #[test]
    fn what_is_no_bond_has_its_own_queues() {
        assert!(!is_bond("lo"));
        let queues = queues("lo").unwrap();
        assert_eq!((queues.receive, queues.transmit), (1, 1));
    }
}
