//! Which interfaces have carrier.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Netlink, NetlinkError};

/// Whether a cable leads anywhere, by interface index.
pub type Carriers = BTreeMap<u32, bool>;

/// How long to wait before asking a kernel again that refused.
const RETRY: Duration = Duration::from_secs(1);

/// Reads the carriers and keeps the reading fresh from a task of the current tokio runtime, which ends when all receivers are
/// gone.
pub async fn watch_carriers() -> Result<watch::Receiver<Carriers>, NetlinkError> {
    let netlink = Netlink::open()?;
    let (publisher, receiver) = watch::channel(netlink.carriers().await?);
    tokio::spawn(async move {
        tokio::select! {
            () = publisher.closed() => {}
            () = keep_fresh(&publisher) => {}
        }
    });
    Ok(receiver)
}

async fn keep_fresh(publisher: &watch::Sender<Carriers>) {
    loop {
        if let Err(error) = follow(publisher).await {
            tracing::warn!("links are not watched for the moment: {error}");
        }
        sleep(RETRY).await;
    }
}

/// Reads anew at each notification, and once more after the subscription, so that no change falls between the two.
async fn follow(publisher: &watch::Sender<Carriers>) -> Result<(), NetlinkError> {
    let netlink = Netlink::open()?;
    let (connection, _, mut notifications) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|error| NetlinkError::new("subscribe to changes of links", error))?;
    tokio::spawn(connection);
    loop {
        let carriers = netlink.carriers().await?;
        publisher.send_if_modified(|known| {
            let changed = *known != carriers;
            *known = carriers;
            changed
        });
        if notifications.next().await.is_none() {
            return Ok(());
        }
    }
}

impl Netlink {
    async fn carriers(&self) -> Result<Carriers, NetlinkError> {
        let links: Result<Vec<LinkMessage>, _> = self.handle.link().get().execute().try_collect().await;
        let links = links.map_err(|error| NetlinkError::request("read links", error))?;
        let carrier =
            |link: &LinkMessage| (link.header.index, link.header.flags.contains(LinkFlags::LowerUp));
        Ok(links.iter().map(carrier).collect())
    }
}
