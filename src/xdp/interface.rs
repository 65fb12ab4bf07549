//! What a network interface says about itself: link type, queues and MTU.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::xdp::error::XdpError;

/// Receive and transmit queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) receive: u32,
    pub(super) transmit: u32,
}

/// `struct ethtool_channels` of <linux/ethtool.h>.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_receive: u32,
    max_transmit: u32,
    max_other: u32,
    max_combined: u32,
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// ETHTOOL_GCHANNELS of <linux/ethtool.h>.
const GET_CHANNELS: u32 = 0x3c;

/// The queues of `interface`, from the driver, or from sysfs where the driver does not tell.
pub(super) fn queues(interface: &str) -> Result<Queues, XdpError> {
    let mut channels = EthtoolChannels { command: GET_CHANNELS, ..EthtoolChannels::default() };
    let mut request = request_for(interface);
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    match submit(libc::SIOCETHTOOL, &mut request) {
        Ok(()) => Ok(Queues {
            receive: channels.receive + channels.combined,
            transmit: channels.transmit + channels.combined,
        }),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => queues_in_sysfs(interface),
        Err(source) => Err(XdpError::Interface { interface: interface.into(), what: "queues", source }),
    }
}

fn queues_in_sysfs(interface: &str) -> Result<Queues, XdpError> {
    let mut queues = Queues { receive: 0, transmit: 0 };
    let entries = fs::read_dir(format!("/sys/class/net/{interface}/queues"))
        .map_err(|source| XdpError::Interface { interface: interface.into(), what: "queues", source })?;
    for name in entries.flatten().map(|entry| entry.file_name()) {
        queues.receive += u32::from(name.to_string_lossy().starts_with("rx-"));
        queues.transmit += u32::from(name.to_string_lossy().starts_with("tx-"));
    }
    Ok(queues)
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
}
