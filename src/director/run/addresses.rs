//! Addresses that the director has put on interfaces, after it has asked whether they are in use. They are remembered in a file, so that after a crash the next run
//! knows which ones to take back at its end.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::pair::Answers;
use crate::director::wanted::WantedAddress;
use crate::host::announce::announce;
use crate::host::clock::Clock;
use crate::host::netlink::{Added, Netlink, NetlinkError};
use crate::host::probe;
use crate::net::addr::MacAddr;
use crate::net::route::{HostNetwork, Link};
use crate::pulse::claim::{Claim, PROBE_WAIT, PROBES, RETRY, Verdict};

/// Announcements of an address and the time between them (piranha.md section 4.4).
const ANNOUNCEMENTS: u32 = 5;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
const HOST_PREFIX: u8 = 32;
/// Between two announcements of an address that somebody else has too (RFC 5227 section 2.4).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

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
    clock: Clock,
    /// How long an active partner is waited for.
    patience: Duration,
    /// Addresses that are to be put up once it is known whether they are in use.
    claims: BTreeMap<IpAddr, (WantedAddress, Claim)>,
    /// Those of them that nobody has been asked about yet.
    unasked: Vec<IpAddr>,
    answers: UnboundedSender<Answers>,
    /// Those that have been put up since somebody asked.
    put: Vec<Ipv4Addr>,
}

impl Addresses {
    /// `record` is the file that remembers; what an earlier run left in it, and what is still there, counts as ours.
    /// Who answers probes is sent to `answers`, and is to be given to [`Addresses::judge`].
    pub fn new(
        netlink: Netlink,
        record: PathBuf,
        network: &HostNetwork,
        clock: Clock,
        answers: UnboundedSender<Answers>,
    ) -> Self {
        let recorded: Option<Vec<Own>> =
            std::fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut own = recorded.unwrap_or_default();
        own.retain(|own| own.is_present(network));
        Addresses {
            netlink,
            record,
            own,
            announcing: HashMap::new(),
            clock,
            patience: Duration::ZERO,
            claims: BTreeMap::new(),
            unasked: Vec::new(),
            answers,
            put: Vec::new(),
        }
    }

    /// Those that have been put up since this was asked the last time.
    pub fn take_put(&mut self) -> Vec<Ipv4Addr> {
        std::mem::take(&mut self.put)
    }

    /// How many seconds an active partner is waited for.
    pub fn wait_for_partner(&mut self, seconds: i32) {
        self.patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    }

    /// Whether all addresses are up.
    pub fn are_settled(&self) -> bool {
        self.claims.is_empty()
    }

    /// Takes back what an earlier run left behind and nobody wants any more.
    pub async fn remove_leftovers(&mut self, network: &HostNetwork, wanted: &[WantedAddress]) {
        let is_wanted = |own: &Own| wanted.iter().any(|wanted| IpAddr::V4(wanted.address) == own.address);
        let leftovers: Vec<Own> = self.own.extract_if(.., |own| !is_wanted(own)).collect();
        for own in leftovers {
            self.delete(network, own).await;
        }
    }

    /// Announces an address that is there, or claims it: [`Addresses::ask`] asks, [`Addresses::judge`] puts it up.
    pub async fn add(&mut self, network: &HostNetwork, wanted: &WantedAddress) {
        let address = IpAddr::V4(wanted.address);
        if self.claims.contains_key(&address) {
            return;
        }
        if wanted.is_on(network) {
            self.put_up(network, wanted, false).await;
            return;
        }
        let claim = Claim::new(self.clock.now(), address, self.patience);
        self.claims.insert(address, (wanted.clone(), claim));
        self.unasked.push(address);
    }

    /// Asks about new claims, those of one link at once, in `pause` from now.
    pub fn ask(&mut self, network: &HostNetwork, pause: Duration) {
        let mut by_link: BTreeMap<u32, (MacAddr, Vec<IpAddr>)> = BTreeMap::new();
        for address in self.unasked.drain(..) {
            let Some((wanted, _)) = self.claims.get(&address) else { continue };
            // What is wrong with the interface is said when the address is put up.
            let (index, mac) = find_link(network, &wanted.interface)
                .map_or((0, MacAddr::default()), |link| (link.index, link.mac));
            by_link.entry(index).or_insert((mac, Vec::new())).1.push(address);
        }
        for (link, (mac, addresses)) in by_link {
            let answers = self.answers.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let owners = probe::ask(link, mac, addresses.clone(), PROBES, PROBE_WAIT).await;
                let owners = owners.unwrap_or_else(|error| {
                    tracing::debug!("interface {link} is not asked about addresses: {error}");
                    BTreeMap::new()
                });
                let answer = |address: IpAddr| (address, owners.get(&address).copied());
                // Without the daemon nobody wants to know.
                let _ = answers.send(addresses.into_iter().map(answer).collect());
            });
        }
    }

    /// Puts up what nobody else has; what somebody has by the rule of [`Claim::judge`].
    pub async fn judge(&mut self, network: &HostNetwork, answers: Answers, partner_active: bool) {
        for (address, contender) in answers {
            let Some((wanted, claim)) = self.claims.get_mut(&address) else { continue };
            let (wanted, verdict) =
                (wanted.clone(), claim.judge(self.clock.now(), contender, partner_active));
            let contested = match verdict {
                Verdict::Free => false,
                Verdict::Wait(text) => {
                    text.iter().for_each(|text| tracing::warn!("{text}"));
                    self.unasked.push(address);
                    continue;
                }
                Verdict::Defend(text) => {
                    tracing::warn!("{text}");
                    true
                }
            };
            self.claims.remove(&address);
            self.put_up(network, &wanted, contested).await;
        }
        self.ask(network, RETRY);
    }

    /// Puts an address up and announces it; a contested one until the other owner is gone. Returns whether it is there now.
    async fn put_up(&mut self, network: &HostNetwork, wanted: &WantedAddress, contested: bool) -> bool {
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
        if is_there {
            self.put.push(wanted.address);
        }
        self.announce(link, wanted, contested);
        is_there
    }

    fn announce(&mut self, link: &Link, wanted: &WantedAddress, contested: bool) {
        let (index, mac, address) = (link.index, link.mac, IpAddr::V4(wanted.address));
        let task = tokio::spawn(async move {
            match announce(index, mac, address, ANNOUNCEMENTS, ANNOUNCE_INTERVAL).await {
                Ok(()) => tracing::info!("gratuitous lvs arps finished: {address}"),
                Err(error) => tracing::warn!("{error}"),
            }
            if contested {
                defend(index, mac, address).await;
            }
        });
        if let Some(former) = self.announcing.insert(address, task) {
            former.abort();
        }
    }

    /// Takes an address back, if it is one that we had put up.
    pub async fn remove(&mut self, network: &HostNetwork, wanted: &WantedAddress) {
        let address = IpAddr::V4(wanted.address);
        self.claims.remove(&address);
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
        let is_there = self.put_up(network, to, false).await;
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

/// Announces an address until nobody else has it any more.
async fn defend(link: u32, mac: MacAddr, address: IpAddr) {
    while let Ok(owners) = probe::ask(link, mac, vec![address], PROBES, PROBE_WAIT).await
        && !owners.is_empty()
    {
        if let Err(error) = announce(link, mac, address, 1, ANNOUNCE_INTERVAL).await {
            tracing::warn!("{error}");
        }
        tokio::time::sleep(DEFEND_INTERVAL).await;
    }
    tracing::info!("address {address}: nobody else has it any more");
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
