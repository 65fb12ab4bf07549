//! The list that the steering program looks through before it asks the tables: `struct front` of `bpf/front.h`.

use aya::Pod;
use libbpf_sys::{XDP_DROP, XDP_PASS};

use crate::xdp::ranges::{Address, Ranges, Tables};

/// FRONT_PLACES of `bpf/front.h`.
const PLACES: usize = 8;
/// FRONT_PORTS of `bpf/front.h`.
const PORTS: usize = 4;
/// How an IPv4 address begins that is held as one of IPv6.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// Length of the prefix that one address is.
const WHOLE: u32 = 128;

/// `struct place` of `bpf/front.h`. Unused, it contains no port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    address: [u8; 4],
    low: u16,
    high: u16,
    protocol: u32,
}

impl Place {
    const UNUSED: Place = Place { address: [0; 4], low: 1, high: 0, protocol: 0 };
}

/// `struct front_port` of `bpf/front.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FrontPort {
    interface: u32,
    first: u32,
    queues: u32,
}

/// What the program looks at first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// What becomes of a packet for a socket that is not there.
    without_socket: u32,
    ports: [FrontPort; PORTS],
    destinations: [Place; PLACES],
    servers: [Place; PLACES],
}

// SAFETY: `#[repr(C)]`, integers only, and every byte belongs to a field.
unsafe impl Pod for Front {}

impl Default for Front {
    fn default() -> Self {
        let (destinations, servers) = ([Place::UNUSED; PLACES], [Place::UNUSED; PLACES]);
        let without_socket = XDP_PASS;
        Front { without_socket, ports: [FrontPort::default(); PORTS], destinations, servers }
    }
}

impl Front {
    /// Adds an interface whose sockets are the `queues` ones from `first` on, if there is room.
    pub(super) fn add_port(&mut self, interface: u32, first: u32, queues: u32) {
        if let Some(free) = self.ports.iter_mut().find(|port| port.interface == 0) {
            *free = FrontPort { interface, first, queues };
        }
    }

    /// The same, but packets for sockets that are not there are dropped, or the kernel's.
    pub(super) fn dropping(&self, dropping: bool) -> Front {
        Front { without_socket: if dropping { XDP_DROP } else { XDP_PASS }, ..*self }
    }

    /// The same interfaces with what these tables have, as far as there is room for it.
    pub(super) fn with_places(&self, tables: &Tables) -> Front {
        let whole = tables.destinations.iter().filter(|(prefix, _)| prefix.length == WHOLE);
        let destinations = whole.map(|(prefix, ranges)| (&prefix.address, ranges));
        Front { destinations: places(destinations), servers: places(tables.servers.iter()), ..*self }
    }
}

fn places<'a>(entries: impl Iterator<Item = (&'a Address, &'a Ranges)>) -> [Place; PLACES] {
    let mut places = [Place::UNUSED; PLACES];
    let found = entries.filter_map(|(address, ranges)| Some((ipv4(address)?, ranges))).flat_map(
        |(address, ranges)| {
            let list = &ranges.list[..ranges.count as usize];
            list.iter().map(move |range| Place {
                address,
                low: range.low,
                high: range.high,
                protocol: range.protocol.into(),
            })
        },
    );
    places.iter_mut().zip(found).for_each(|(place, found)| *place = found);
    places
}

fn ipv4(address: &Address) -> Option<[u8; 4]> {
    let (prefix, rest) = address.split_first_chunk::<12>()?;
    if *prefix == MAPPED { rest.first_chunk().copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::steering::Steering;
    use crate::net::addr::{PortRange, Protocol};

    fn known(places: &[Place]) -> Vec<([u8; 4], u16, u16, u32)> {
        let used = places.iter().filter(|place| **place != Place::UNUSED);
        used.map(|place| (place.address, place.low, place.high, place.protocol)).collect()
    }

    #[test]
    fn single_ipv4_addresses_are_known_as_far_as_there_is_room() {
        let port = |port: u16| vec![PortRange::one(Protocol::TCP, port)];
        let destinations = [("10.0.0.0/24", 80), ("10.0.0.1/32", 443), ("fd00::1/128", 80)];
        let servers = (1..=20).map(|host| ([10, 8, 8, host].into(), port(80)));
        let steering = Steering {
            destinations: destinations.iter().map(|(net, p)| (net.parse().unwrap(), port(*p))).collect(),
            servers: servers.collect(),
            own: Vec::new(),
        };
        let mut front = Front::default();
        front.add_port(3, 0, 2);
        let front = front.with_places(&Tables::from(&steering));
        let tcp = u32::from(Protocol::TCP.0);
        let address = [10, 0, 0, 1];
        assert_eq!(known(&front.destinations), [(address, 80, 80, tcp), (address, 443, 443, tcp)]);
        assert_eq!(known(&front.servers).len(), PLACES);
        assert_eq!(front.ports[0], FrontPort { interface: 3, first: 0, queues: 2 });
        assert_eq!(front.with_places(&Tables::default()).destinations, [Place::UNUSED; PLACES]);
    }
}
