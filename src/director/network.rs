//! What the director does when the kernel's network changes under it.

use std::sync::Arc;

use super::wanted::WantedAddress;
use super::{Director, Effect, Level};
use crate::net::route::{HostNetwork, Link, RouteTable};

impl Director {
    pub(super) fn take_network(&mut self, network: HostNetwork) {
        let ports: Vec<u32> = self.ports.iter().map(|port| port.index).collect();
        self.draft.routes = Arc::new(RouteTable::new(&network, &ports));
        let former = std::mem::replace(&mut self.network, network);
        self.publish();
        self.look_at_ports(&former);
        // Without one of its interfaces the daemon ends: nothing is put back then.
        if !self.effects.iter().any(|effect| matches!(effect, Effect::PortGone(_))) {
            self.restore_addresses(&former);
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
        let on_it = self.wanted.addresses.iter().filter(|address| address.interface == interface);
        self.effects.extend(on_it.cloned().map(Effect::AddAddress));
    }

    /// Addresses of ours that somebody has taken away come back: a network script that flushes an interface knows nothing
    /// of them.
    fn restore_addresses(&mut self, former: &HostNetwork) {
        let lost = |address: &&WantedAddress| address.is_on(former);
        let lost: Vec<WantedAddress> = self.missing_addresses().filter(lost).cloned().collect();
        self.put_back(lost);
    }

    /// The same, some time later, for those that vanished too quickly to be seen.
    pub(super) fn restore_all_addresses(&mut self) {
        let missing: Vec<WantedAddress> = self.missing_addresses().cloned().collect();
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
