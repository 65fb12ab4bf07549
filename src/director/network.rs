//! What the director does when the kernel's network changes under it.

use std::net::IpAddr;
use std::sync::Arc;

use super::wanted::WantedAddress;
use super::{Director, Effect, Level};
use crate::ipvs::edit::Forward;
use crate::net::route::{HostNetwork, InterfaceAddress, Link, RouteTable};

impl Director {
    pub(super) fn take_network(&mut self, network: HostNetwork) {
        let former = std::mem::replace(&mut self.network, network);
        self.take_routes();
        self.publish();
        let lost = self.neighbours().filter(|neighbour| !self.draft.routes.is_resolved(neighbour)).collect();
        self.resolve(lost);
        self.look_at_ports(&former);
        // Without one of its interfaces the daemon ends: nothing is put back then.
        if !self.effects.iter().any(|effect| matches!(effect, Effect::PortGone(_))) {
            self.restore_addresses(&former);
        }
    }

    /// What the network's routes and the addresses to come make of a packet.
    pub(super) fn take_routes(&mut self) {
        let ports: Vec<u32> = self.ports.iter().map(|port| port.index).collect();
        let mut network = self.network.clone();
        let present = |address: &IpAddr| self.network.addresses.iter().any(|own| own.address == *address);
        let coming = self.wanted_addresses().filter(|address| !present(address));
        network.addresses.extend(coming.map(|address| InterfaceAddress { link: 0, address, prefix_len: 32 }));
        self.draft.routes = Arc::new(RouteTable::new(&network, &ports));
    }

    /// The addresses that the director puts on interfaces.
    pub(super) fn wanted_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.wanted.addresses.iter().map(|wanted| IpAddr::V4(wanted.address))
    }

    /// Keeps the neighbours resolved that packets leave by: servers or the routers before them, and gateways.
    pub(super) fn keep_neighbours(&mut self) {
        self.resolve(self.neighbours().collect());
    }

    /// Has the kernel ask again for directly routed servers that it does not know: their packets cannot make it ask.
    pub(super) fn ask_for_direct_servers(&mut self) {
        let routes = &self.draft.routes;
        let servers = self.draft.services.iter().flat_map(|service| &service.servers);
        let direct = servers.filter(|server| server.forward() == Forward::Route);
        let neighbours = direct.filter_map(|server| routes.neighbour(server.id().address));
        let unknown = neighbours.filter(|neighbour| !routes.is_resolved(neighbour)).collect();
        self.resolve(unknown);
    }

    fn neighbours(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        let servers = self.draft.services.iter().flat_map(|service| &service.servers);
        // A link-local gateway says nothing of its link; only its route does.
        let gateways = self.network.routes.iter().filter_map(|route| Some((route.link, route.gateway?)));
        servers.filter_map(|server| self.draft.routes.neighbour(server.id().address)).chain(gateways)
    }

    fn resolve(&mut self, mut neighbours: Vec<(u32, IpAddr)>) {
        neighbours.retain(|(link, _)| self.ports.iter().any(|port| port.index == *link));
        neighbours.sort();
        neighbours.dedup();
        if !neighbours.is_empty() {
            self.effects.push(Effect::Resolve(neighbours));
        }
    }

    /// Interfaces that went down, came back, or are gone for good.
    fn look_at_ports(&mut self, former: &HostNetwork) {
        for port in self.ports.clone() {
            let link = |network: &HostNetwork| -> Option<Link> {
                network.links.iter().find(|link| link.index == port.index).cloned()
            };
            match (link(former), link(&self.network)) {
                (Some(_), None) => self.effects.push(Effect::PortGone(port.name)),
                (Some(before), Some(now)) if before.up && !now.up => {
                    self.log(Level::Warn, format!("interface {} is down", port.name));
                }
                (Some(before), Some(now)) if !before.up && now.up => {
                    self.log(Level::Info, format!("interface {} is up again", port.name));
                    self.announce_again(&port.name);
                }
                _ => {}
            }
        }
    }

    fn announce_again(&mut self, interface: &str) {
        if !self.active {
            return;
        }
        let on_it = self.wanted.addresses.iter().filter(|address| address.interface == interface);
        self.effects.extend(on_it.cloned().map(Effect::AddAddress));
    }

    /// Addresses of ours that somebody has taken away come back: a network script that flushes an interface knows nothing
    /// of them.
    fn restore_addresses(&mut self, former: &HostNetwork) {
        let lost = |address: &&WantedAddress| self.active && address.is_on(former);
        let lost: Vec<WantedAddress> = self.missing_addresses().filter(lost).cloned().collect();
        self.put_back(lost);
    }

    /// The same, some time later, for those that vanished too quickly to be seen.
    pub(super) fn restore_all_addresses(&mut self) {
        let was_up = |address: &&WantedAddress| self.up.contains(&address.address);
        let missing: Vec<WantedAddress> = self.missing_addresses().filter(was_up).cloned().collect();
        self.put_back(missing);
    }

    fn missing_addresses(&self) -> impl Iterator<Item = &WantedAddress> {
        self.wanted.addresses.iter().filter(|address| !address.is_on(&self.network))
    }

    fn put_back(&mut self, missing: Vec<WantedAddress>) {
        for address in missing {
            let WantedAddress { address: ip, interface, .. } = &address;
            self.log(Level::Warn, format!("address {ip} has vanished from {interface}, it is put back"));
            self.effects.push(Effect::AddAddress(address));
        }
    }
}
