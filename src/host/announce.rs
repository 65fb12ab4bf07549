//! Sends announcements of addresses out of an interface.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType};
use thiserror::Error;

use crate::net::addr::MacAddr;
use crate::net::announce::announcement;

/// Why an address could not be announced.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// The link is gone or is not Ethernet-like.
    #[error("cannot announce {address}: there is no interface with index {link}")]
    NoLink {
        /// Interface index.
        link: u32,
        /// The address to announce.
        address: IpAddr,
    },
    /// The socket refused.
    #[error("cannot announce {address} on interface {link}: {source}{}", remedy(source))]
    Socket {
        /// Interface index.
        link: u32,
        /// The address to announce.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (CAP_NET_RAW is needed)",
        _ => "",
    }
}

/// Announces `address` at `mac` on the interface `link` `times` times, `interval` apart, the first at once. Piranha
/// sends five, one second apart (reference/piranha.md 4.4).
pub async fn announce(
    link: u32,
    mac: MacAddr,
    address: IpAddr,
    times: u32,
    interval: Duration,
) -> Result<(), AnnounceError> {
    let refused = |error: nix::Error| AnnounceError::Socket { link, address, source: error.into() };
    let out = packet_address(link).map_err(refused)?.ok_or(AnnounceError::NoLink { link, address })?;
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .map_err(refused)?;
    let frame = announcement(mac, address);
    for round in 0..times {
        if round > 0 {
            tokio::time::sleep(interval).await;
        }
        socket::sendto(socket.as_raw_fd(), &frame, &out, MsgFlags::empty()).map_err(refused)?;
    }
    Ok(())
}

/// The packet-socket address of an interface. It is taken from the kernel's list because a `sockaddr_ll` of one's own
/// cannot be built without unsafe code.
pub(super) fn packet_address(link: u32) -> nix::Result<Option<LinkAddr>> {
    let mut addresses = getifaddrs()?.filter_map(|interface| interface.address?.as_link_addr().copied());
    Ok(addresses.find(|address| address.ifindex() == link as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_is_asked_for_only_where_it_is_missing() {
        let told = |error: nix::Error| {
            let address = [10, 0, 0, 1].into();
            AnnounceError::Socket { link: 2, address, source: error.into() }.to_string()
        };
        assert!(told(nix::Error::EPERM).ends_with("(os error 1) (CAP_NET_RAW is needed)"));
        assert!(told(nix::Error::EACCES).ends_with("(os error 13) (CAP_NET_RAW is needed)"));
        assert_eq!(
            told(nix::Error::ENETDOWN),
            "cannot announce 10.0.0.1 on interface 2: Network is down (os error 100)"
        );
    }
}
