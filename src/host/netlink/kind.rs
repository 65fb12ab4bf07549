//! What kind of link an interface is, and what it is joined to.

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::{Netlink, NetlinkError};

/// The other end of a virtual cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CableEnd {
    /// An interface of the same network namespace, by name.
    Here(String),
    /// In another network namespace.
    Elsewhere,
}

/// An interface with what it is joined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkKind {
    /// The kernel's interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// The other end, if it is a virtual cable (veth).
    pub cable: Option<CableEnd>,
}

impl Netlink {
    /// All interfaces of the network namespace.
    pub async fn link_kinds(&self) -> Result<Vec<LinkKind>, NetlinkError> {
        let messages: Result<Vec<LinkMessage>, _> = self.handle.link().get().execute().try_collect().await;
        let messages = messages.map_err(|error| NetlinkError::request("read links", error))?;
        Ok(messages.iter().map(|message| kind(message, &messages)).collect())
    }
}

fn kind(message: &LinkMessage, all: &[LinkMessage]) -> LinkKind {
    LinkKind {
        index: message.header.index,
        name: name(message).unwrap_or_default(),
        cable: is_veth(message).then(|| cable_end(message, all)),
    }
}

fn cable_end(message: &LinkMessage, all: &[LinkMessage]) -> CableEnd {
    let attributes = || message.attributes.iter();
    // The index counts in the namespace of that number, so it means nothing here.
    if attributes().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_))) {
        return CableEnd::Elsewhere;
    }
    let peer = attributes().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    let peer = all.iter().find(|candidate| Some(candidate.header.index) == peer);
    peer.and_then(name).map_or(CableEnd::Elsewhere, CableEnd::Here)
}

fn name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn is_veth(message: &LinkMessage) -> bool {
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)))
}
