//! The kernel's network configuration over rtnetlink: read it, watch it, resolve neighbours, hold addresses.

mod carrier;
mod kind;
mod read;
mod watch;

use std::io;
use std::net::IpAddr;

use futures::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, route::RouteType};
use thiserror::Error;

pub use carrier::{Carriers, watch_carriers};
pub use kind::{CableEnd, LinkKind};
pub use watch::watch;

/// The kernel refused a request, or could not be asked.
#[derive(Debug, Error)]
#[error("cannot {what}: {source}")]
pub struct NetlinkError {
    /// What was asked for, such as `add address 192.0.2.1/24 to interface 2`.
    what: String,
    /// What the kernel said.
    source: io::Error,
}

impl NetlinkError {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        NetlinkError { what: what.into(), source }
    }

    fn request(what: &str, error: rtnetlink::Error) -> Self {
        Self::new(what, io_error(error))
    }
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Whether an address had to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was not there before.
    New,
    /// The interface had it already, with the same prefix length.
    Present,
}

/// A connection to the kernel's rtnetlink. Clones share the socket, which stays open as long as one of them lives.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket in the network namespace of the calling thread and serves it from a task of the current tokio
    /// runtime. Reading needs no privilege, changes need `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| NetlinkError::new("open rtnetlink", error))?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// Makes the kernel resolve `address` on `link`, or confirm what it knows if that is no longer fresh, as
    /// `ip neighbour replace … use` does. The result arrives through [`watch`]. A permanent entry is left alone.
    pub async fn resolve(&self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let what = format!("resolve neighbour {address} on interface {link}");
        let known = self.neighbour_state(link, address).await;
        match known.map_err(|error| NetlinkError::new(&what, error))? {
            // NTF_USE takes the permanent state away from such an entry (Linux 5.16 and later).
            NeighbourState::Permanent | NeighbourState::Noarp => Ok(()),
            _ => {
                let request = self.handle.neighbours().add(link, address).replace();
                let used = request.state(NeighbourState::None).flags(NeighbourFlags::Use).execute().await;
                used.map_err(|error| NetlinkError::request(&what, error))
            }
        }
    }

    async fn neighbour_state(&self, link: u32, address: IpAddr) -> io::Result<NeighbourState> {
        let mut question = NeighbourMessage::default();
        question.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        question.header.ifindex = link;
        question.header.kind = RouteType::Unspec;
        question.attributes.push(NeighbourAttribute::Destination(address.into()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
        message.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.clone().request(message).map_err(io_error)?;
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour))) => {
                Ok(neighbour.header.state)
            }
            Some(NetlinkPayload::Error(error)) if error.to_io().kind() != io::ErrorKind::NotFound => {
                Err(error.to_io())
            }
            _ => Ok(NeighbourState::None),
        }
    }

    /// Gives `link` an address with a broadcast address to match; with `label` (such as `eth0:1`, at most 15 bytes,
    /// IPv4 only) old tools show it as an alias. An IPv6 address serves at once, without duplicate address detection: its
    /// former owner may be there still when it moves.
    pub async fn add_address(
        &self,
        link: u32,
        address: IpAddr,
        prefix_len: u8,
        label: Option<&str>,
    ) -> Result<Added, NetlinkError> {
        let mut request = self.handle.address().add(link, address, prefix_len);
        let label = label.filter(|_| address.is_ipv4());
        let message = request.message_mut();
        if address.is_ipv6() {
            message.header.flags.insert(AddressHeaderFlags::Nodad);
        }
        message.attributes.extend(label.map(|label| AddressAttribute::Label(label.to_owned())));
        match request.execute().await.map_err(io_error) {
            Ok(()) => Ok(Added::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Added::Present),
            Err(error) => {
                let what = format!("add address {address}/{prefix_len} to interface {link}");
                Err(NetlinkError::new(what, error))
            }
        }
    }

    /// Takes an address from `link`; one that is not there is fine.
    pub async fn delete_address(
        &self,
        link: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut message: AddressMessage =
            self.handle.address().add(link, address, prefix_len).message_mut().clone();
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        match self.handle.address().del(message).execute().await.map_err(io_error) {
            Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => {
                let what = format!("delete address {address}/{prefix_len} from interface {link}");
                Err(NetlinkError::new(what, error))
            }
            _ => Ok(()),
        }
    }
}
