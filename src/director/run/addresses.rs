//! Addresses that the director has put on interfaces. They are remembered in a file, so that after a crash the next run
//! knows which ones to take back at its end.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::director::wanted::WantedAddress;
use crate::host::announce::announce;
use crate::host::netlink::{Added, Netlink, NetlinkError};
use crate::net::route::{HostNetwork, Link};

/// Announcements of an address and the time between them (piranha.md section 4.4).
const ANNOUNCEMENTS: u32 = 5;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
const HOST_PREFIX: u8 = 32;

/// An address of ours on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    interface: String,
    address: IpAddr,
    prefix_len: u8,
}

impl Own {
    fn is_present(&self, network: &HostNetwork) -> bool {
        let link = find_link(network, &self.interface).map(|link| link.index);
        network.addresses.iter().any(|present| Some(present.link) == link && present.address == self.address)
    }
}

/// Puts addresses on interfaces and takes them back.
#[derive(Debug)]
pub struct Addresses {
    netlink: Netlink,
    record: PathBuf,
    own: Vec<Own>,
    announcing: HashMap<IpAddr, tokio::task::JoinHandle<()>>,
}

impl Addresses {
    /// `record` is the file that remembers; what an earlier run left in it, and what is still there, counts as ours.
    pub fn new(netlink: Netlink, record: PathBuf, network: &HostNetwork) -> Self {
        let recorded: Option<Vec<Own>> =
            std::fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut own = recorded.unwrap_or_default();
        own.retain(|own| own.is_present(network));
        Addresses { netlink, record, own, announcing: HashMap::new() }
    }

    /// Takes back what an earlier run left behind and nobody wants any more.
    pub async fn remove_leftovers(&mut self, network: &HostNetwork, wanted: &[WantedAddress]) {
        let is_wanted = |own: &Own| wanted.iter().any(|wanted| IpAddr::V4(wanted.address) == own.address);
        let leftovers: Vec<Own> = self.own.extract_if(.., |own| !is_wanted(own)).collect();
        for own in leftovers {
            self.delete(network, own).await;
        }
    }

    /// Puts an address up and announces it. Returns whether it is there now.
    pub async fn add(&mut self, network: &HostNetwork, wanted: &WantedAddress) -> bool {
        let Some(link) = find_link(network, &wanted.interface) else {
            tracing::error!("{}: no such interface for {}", wanted.interface, wanted.address);
            return false;
        };
        let address = IpAddr::V4(wanted.address);
        let prefix_len = wanted.prefix_len.unwrap_or_else(|| subnet_of(network, link.index, address));
        let added = self.netlink.add_address(link.index, address, prefix_len, wanted.label.as_deref()).await;
        let is_there = added.is_ok();
        match added {
            Ok(Added::New) => {
                tracing::info!("address {address}/{prefix_len} added to {}", link.name);
                self.remember(Own { interface: link.name.clone(), address, prefix_len });
            }
            Ok(Added::Present) => {
                tracing::info!("address {address}/{prefix_len} is on {} already", link.name);
            }
            Err(error) => tracing::error!("{}: {error}", link.name),
        }
        self.announce(link, wanted);
        is_there
    }

    fn announce(&mut self, link: &Link, wanted: &WantedAddress) {
        let (index, mac, address) = (link.index, link.mac, IpAddr::V4(wanted.address));
        let task = tokio::spawn(async move {
            match announce(index, mac, address, ANNOUNCEMENTS, ANNOUNCE_INTERVAL).await {
                Ok(()) => tracing::info!("gratuitous lvs arps finished: {address}"),
                Err(error) => tracing::warn!("{error}"),
            }
        });
        if let Some(former) = self.announcing.insert(address, task) {
            former.abort();
        }
    }

    /// Takes an address back, if it is one that we had put up.
    pub async fn remove(&mut self, network: &HostNetwork, wanted: &WantedAddress) {
        let address = IpAddr::V4(wanted.address);
        if let Some(task) = self.announcing.remove(&address) {
            task.abort();
        }
        let Some(position) = self.own.iter().position(|own| own.address == address) else { return };
        let own = self.own.remove(position);
        self.delete(network, own).await;
    }

    /// Has an address be where the second wish says, there before it goes from where the first one says. Of one that only
    /// has another label the kernel takes no second one: it goes for a moment.
    pub async fn relocate(&mut self, network: &HostNetwork, from: &WantedAddress, to: &WantedAddress) {
        let address = IpAddr::V4(from.address);
        let former = self.own.iter().find(|own| own.address == address).cloned();
        let same = former.as_ref().is_some_and(|own| {
            own.interface == to.interface && self.prefix(network, to) == Some(own.prefix_len)
        });
        if same && from.label != to.label {
            self.remove(network, from).await;
        }
        let is_there = self.add(network, to).await;
        if let Some(former) = former.filter(|_| !same && is_there) {
            self.own.retain(|own| *own != former);
            self.delete(network, former).await;
        }
    }

    fn prefix(&self, network: &HostNetwork, wanted: &WantedAddress) -> Option<u8> {
        let link = find_link(network, &wanted.interface)?;
        let own = |prefix| wanted.prefix_len.unwrap_or(prefix);
        Some(own(subnet_of(network, link.index, IpAddr::V4(wanted.address))))
    }

    async fn delete(&mut self, network: &HostNetwork, own: Own) {
        let address = own.address;
        if let Some(link) = find_link(network, &own.interface) {
            match self.netlink.delete_address(link.index, address, own.prefix_len).await {
                Ok(()) => tracing::info!("address {address}/{} removed from {}", own.prefix_len, link.name),
                Err(error) => warn_kept(&own, &error),
            }
        }
        self.write_record();
    }

    fn remember(&mut self, own: Own) {
        self.own.retain(|known| known.address != own.address);
        self.own.push(own);
        self.write_record();
    }

    fn write_record(&self) {
        let write = || -> io::Result<()> {
            if self.own.is_empty() {
                return match std::fs::remove_file(&self.record) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            std::fs::write(&self.record, serde_json::to_vec(&self.own)?)
        };
        if let Err(error) = write() {
            tracing::warn!("{}: {error}; after a crash the addresses would stay", self.record.display());
        }
    }
}

fn warn_kept(own: &Own, error: &NetlinkError) {
    tracing::error!("address {}/{} stays on {}: {error}", own.address, own.prefix_len, own.interface);
}

fn find_link<'a>(network: &'a HostNetwork, name: &str) -> Option<&'a Link> {
    network.links.iter().find(|link| link.name == name)
}

/// Without a netmask in the file: that of a subnet which the interface is in already, else the address alone. The class-based
/// mask that ifconfig would choose reroutes whole networks.
fn subnet_of(network: &HostNetwork, link: u32, address: IpAddr) -> u8 {
    let mut present = network.addresses.iter().filter(|present| present.link == link);
    let holds = |present: &&crate::net::route::InterfaceAddress| {
        ipnet::IpNet::new(present.address, present.prefix_len)
            .is_ok_and(|subnet| present.address != address && subnet.contains(&address))
    };
    present.find(holds).map_or(HOST_PREFIX, |present| present.prefix_len)
}
