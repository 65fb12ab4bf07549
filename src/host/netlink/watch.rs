//! A fresh [`HostNetwork`] whenever the kernel's changed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::sys::SocketAddr;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::read::{neighbour, neighbour_address};
use super::{Netlink, NetlinkError};
use crate::net::route::{HostNetwork, Neighbour};

/// A burst of notifications is over when none came for this long.
const QUIET: Duration = Duration::from_millis(5);
/// A burst that does not end is acted upon after this long.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long to wait before asking a kernel again that refused.
const RETRY: Duration = Duration::from_secs(1);

type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;
type Publisher = watch::Sender<Arc<HostNetwork>>;

/// Reads the kernel's network and keeps the reading fresh from a task of the current tokio runtime, which ends when all
/// receivers are gone. Only real changes are published, bursts as one: a neighbour that goes stale and comes back with
/// the same hardware address is none; an address that came and went is one. Errors of the first reading are returned, later ones are logged and retried.
pub async fn watch() -> Result<watch::Receiver<Arc<HostNetwork>>, NetlinkError> {
    let netlink = Netlink::open()?;
    // Subscribed before the reading, so that no change falls between the two.
    let notifications = subscribe()?;
    let first = netlink.read().await?;
    let (publisher, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        tokio::select! {
            () = publisher.closed() => {}
            () = keep_fresh(netlink, notifications, &publisher) => {}
        }
    });
    Ok(receiver)
}

/// Notifications have a socket of their own: its overruns must not disturb the replies to requests.
fn subscribe() -> Result<Notifications, NetlinkError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, _, notifications) = rtnetlink::new_multicast_connection(&groups)
        .map_err(|error| NetlinkError::new("subscribe to network changes", error))?;
    tokio::spawn(connection);
    Ok(notifications)
}

async fn keep_fresh(mut netlink: Netlink, mut notifications: Notifications, publisher: &Publisher) {
    loop {
        let error = follow(&netlink, &mut notifications, publisher).await;
        warn!("network changes are not followed for the moment: {error}");
        (netlink, notifications) = reopen().await;
        // What happened in between was not notified.
        if let Ok(network) = netlink.read().await {
            publish(publisher, network);
        }
    }
}

async fn reopen() -> (Netlink, Notifications) {
    loop {
        sleep(RETRY).await;
        match (Netlink::open(), subscribe()) {
            (Ok(netlink), Ok(notifications)) => return (netlink, notifications),
            (Err(error), _) | (_, Err(error)) => warn!("{error}"),
        }
    }
}

/// Publishes changes until something fails.
async fn follow(netlink: &Netlink, notifications: &mut Notifications, publisher: &Publisher) -> NetlinkError {
    let mut overrun = false;
    loop {
        let known = publisher.borrow().clone();
        let Some(burst) = burst(notifications, &known).await else {
            let closed = std::io::ErrorKind::ConnectionAborted.into();
            return NetlinkError::new("receive network changes", closed);
        };
        overrun |= burst.overrun;
        if burst.matters || overrun {
            match netlink.read().await {
                Ok(network) if burst.lost_address => drop(publisher.send_replace(Arc::new(network))),
                Ok(network) => publish(publisher, network),
                Err(error) => return error,
            }
        }
        // After an overrun the kernel drops without a further word until its queue has run empty.
        overrun &= !burst.ended;
    }
}

fn publish(publisher: &Publisher, network: HostNetwork) {
    publisher.send_if_modified(|current| {
        let changed = **current != network;
        if changed {
            *current = Arc::new(network);
        }
        changed
    });
}

/// What a burst of notifications came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Burst {
    /// Something that is not known yet.
    matters: bool,
    /// An address was taken away: also news if it came within the same burst, and nothing has changed.
    lost_address: bool,
    /// Notifications were lost.
    overrun: bool,
    /// The burst ended by itself.
    ended: bool,
}

impl Burst {
    fn add(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>, known: &HostNetwork) {
        match &message.payload {
            NetlinkPayload::InnerMessage(message) => {
                self.matters |= matters(message, known);
                self.lost_address |= matches!(message, RouteNetlinkMessage::DelAddress(_));
            }
            NetlinkPayload::Overrun(_) => self.overrun = true,
            _ => {}
        }
    }
}

/// Waits for a notification and gathers those that follow closely. `None` when the socket is gone.
async fn burst(notifications: &mut Notifications, known: &HostNetwork) -> Option<Burst> {
    let mut burst = Burst::default();
    let (first, _) = notifications.next().await?;
    burst.add(&first, known);
    let mut patience = pin!(sleep(PATIENCE));
    loop {
        tokio::select! {
            biased;
            () = &mut patience => return Some(burst),
            next = timeout(QUIET, notifications.next()) => match next {
                Ok(next) => burst.add(&next?.0, known),
                Err(_) => return Some(Burst { ended: true, ..burst }),
            },
        }
    }
}

/// Whether a notification can mean that the network is no longer the `known` one.
fn matters(message: &RouteNetlinkMessage, known: &HostNetwork) -> bool {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbour(message).as_ref() != known_neighbour(message, known)
        }
        RouteNetlinkMessage::DelNeighbour(message) => known_neighbour(message, known).is_some(),
        _ => true,
    }
}

fn known_neighbour<'a>(message: &NeighbourMessage, known: &'a HostNetwork) -> Option<&'a Neighbour> {
    let address = neighbour_address(message)?;
    let key = (message.header.ifindex, address);
    let found = known.neighbours.binary_search_by_key(&key, |it| (it.link, it.address)).ok()?;
    Some(&known.neighbours[found])
}
