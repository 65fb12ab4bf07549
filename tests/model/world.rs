//! Who there is in the sequences, and how the engine is told about it.

use std::net::{IpAddr, SocketAddr};

use xlvs::ipvs::edit::{
    self, ClientMask, Forward, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::tunnel::Encapsulation;

use crate::model::edits::Edit;
use crate::model::sequence::CLIENTS;
use crate::model::tables::{Key, Options, SCTP, TCP, Terms, UDP};

/// The mark of packets to [`MARKED_PORT`].
pub const MARK: u32 = 7;
pub const MARKED_PORT: u16 = 443;

/// Protocol and port of what clients ask for.
pub const TARGETS: [(u8, u16); 7] =
    [(TCP, 80), (UDP, 53), (TCP, MARKED_PORT), (UDP, MARKED_PORT), (TCP, 8080), (UDP, 54), (SCTP, 9899)];

/// Which addresses everybody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    V4,
    V6,
}

impl World {
    pub fn virtual_address(self) -> IpAddr {
        match self {
            World::V4 => [10, 10, 1, 30].into(),
            World::V6 => [0xfd00, 0x10, 0, 0, 0, 0, 0, 0x30].into(),
        }
    }

    /// Every other one is alone in its network.
    pub fn client(self, number: usize) -> IpAddr {
        let host = (number % CLIENTS) as u8;
        let word = u16::from(host);
        match (self, host % 2) {
            (World::V4, 0) => [192, 0, 2, host].into(),
            (World::V4, _) => [198, 51, host, 1].into(),
            (World::V6, 0) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, word].into(),
            (World::V6, _) => [0x2001, 0xdb8 + word, 0, word, 0, 0, 0, 1].into(),
        }
    }

    pub fn server(self, service: usize, number: usize, port: usize) -> SocketAddr {
        let port = [[80, 53, MARKED_PORT, 80, 54, 9899][service], 8080, 0][port];
        match self {
            World::V4 => SocketAddr::new([10, 8, 8, 33 + number as u8].into(), port),
            World::V6 => SocketAddr::new([0xfd00, 8, 0, 0, 0, 0, 0, 0x33 + number as u16].into(), port),
        }
    }

    /// All services that sequences use.
    pub fn key(self, service: usize) -> Key {
        let address = |port| SocketAddr::new(self.virtual_address(), port);
        match service {
            0 => Key::Address(TCP, address(80)),
            1 => Key::Address(UDP, address(53)),
            2 => Key::Mark(MARK),
            3 => Key::Address(TCP, address(0)),
            4 => Key::Address(UDP, address(54)),
            _ => Key::Address(SCTP, address(9899)),
        }
    }

    /// Protocol, type and code of the error.
    pub fn port_unreachable(self) -> (u8, u8, u8) {
        match self {
            World::V4 => (1, 3, 3),
            World::V6 => (58, 1, 4),
        }
    }

    /// How long a prefix is when 32 bits would be everything.
    pub fn prefix(self, bits: u8) -> u8 {
        match self {
            World::V4 => bits,
            World::V6 => bits * 4,
        }
    }

    pub fn mask(self, bits: u8) -> ClientMask {
        match self {
            World::V4 => ClientMask::V4(u32::MAX << (32 - bits)),
            World::V6 => ClientMask::V6(bits),
        }
    }

    /// Only persistence makes sense of a service for any port.
    pub fn options(self, service: usize, options: &Options) -> Options {
        let persistence = options.persistence.or((service == 3).then_some((77, 32)));
        let persistence = persistence.map(|(timeout, bits)| (timeout, self.prefix(bits)));
        Options { persistence, ..options.clone() }
    }

    pub fn service_id(self, key: Key) -> ServiceId {
        match key {
            Key::Address(protocol, target) => {
                ServiceId::Address { protocol: Protocol(protocol), address: target.ip(), port: target.port() }
            }
            Key::Mark(mark) => ServiceId::FwMark { mark, family: Family::from(self.virtual_address()) },
        }
    }

    pub fn service_spec(self, key: Key, options: &Options) -> ServiceSpec {
        let persistence = options
            .persistence
            .map(|(timeout, bits)| edit::Persistence { timeout: timeout as u32, mask: self.mask(bits) });
        ServiceSpec {
            id: self.service_id(key),
            scheduler: options.scheduler.to_owned(),
            flags: SchedulerFlags { flag1: options.fallback, flag2: options.with_port, flag3: false },
            one_packet: options.one_packet,
            persistence,
            engine: None,
        }
    }

    pub fn request(self, edit: &Edit) -> edit::Edit {
        let id = |key: &Key| self.service_id(*key);
        match edit {
            Edit::AddService(key, options) => edit::Edit::AddService(self.service_spec(*key, options)),
            Edit::ChangeService(key, options) => edit::Edit::EditService(self.service_spec(*key, options)),
            Edit::DeleteService(key) => edit::Edit::DeleteService(id(key)),
            Edit::Flush => edit::Edit::Flush,
            Edit::AddServer(key, address, terms) => {
                edit::Edit::AddServer(id(key), server_spec(*address, *terms))
            }
            Edit::ChangeServer(key, address, terms) => {
                edit::Edit::EditServer(id(key), server_spec(*address, *terms))
            }
            Edit::DeleteServer(key, address) => edit::Edit::DeleteServer(id(key), server_id(*address)),
            Edit::Zero(key) => edit::Edit::Zero(key.as_ref().map(id)),
            Edit::SetTimeouts(tcp, tcp_fin, udp) => {
                edit::Edit::SetTimeouts { tcp: *tcp, tcp_fin: *tcp_fin, udp: *udp }
            }
        }
    }
}

fn server_id(address: SocketAddr) -> ServerId {
    ServerId { address: address.ip(), port: address.port() }
}

fn server_spec(address: SocketAddr, terms: Terms) -> ServerSpec {
    ServerSpec {
        id: server_id(address),
        forward: Forward::Masquerade,
        weight: terms.weight as i32,
        upper_threshold: terms.upper as u32,
        lower_threshold: terms.lower as u32,
        tunnel: Encapsulation::default(),
    }
}
