//! What a message says of one connection or template, as bytes and as values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::message::Refused;
use crate::ipvs::protocol::{sctp, tcp};
use crate::net::addr::Protocol;

/// The flags of a connection, with the kernel's numbers.
pub mod flags {
    /// Forwarding method.
    pub const FORWARD: u32 = 0x0007;
    /// Made by a message.
    pub const SYNC: u32 = 0x0020;
    /// Only the client's packets are seen.
    pub const NO_OUTPUT: u32 = 0x0080;
    /// Does not count as active.
    pub const INACTIVE: u32 = 0x0100;
    /// Sequence numbers are shifted, in one direction or the other.
    pub const SEQUENCE: u32 = 0x0600;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// Of one packet only.
    pub const ONE_PACKET: u32 = 0x2000;
    /// The kernel keeps its netfilter connection.
    pub const CONNTRACK: u32 = 0x1_0000;
    /// What a backup takes over.
    pub const TAKEN: u32 = FORWARD | NO_OUTPUT | INACTIVE | SEQUENCE | NO_CLIENT_PORT | TEMPLATE;
}

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4 only; no timeouts, no marks, no options.
    V0,
    /// The present one.
    V1,
}

/// The only persistence engine.
const ENGINE: &[u8] = b"sip";

const V0_LEN: usize = 24;
const V1_LEN: usize = 36;
const V1_LEN_IPV6: usize = 72;
const SEQUENCE_LEN: usize = 24;
const SIZE_MASK: u16 = 0x0fff;
const SIZE_BITS: u32 = 12;

const TYPE_IPV4: u8 = 0;
const TYPE_IPV6: u8 = 1;

const SEQUENCE_OPTION: u8 = 1;
const DATA_OPTION: u8 = 2;
const NAME_OPTION: u8 = 3;
/// An option that may be left out of account if it is not known.
const IGNORABLE: u8 = 0x40;
const NAME_MAX: usize = 16;

/// A connection or template as a message tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Transport protocol; [`Protocol::IP`] of a mark's template.
    pub protocol: Protocol,
    /// See [`flags`].
    pub flags: u32,
    /// The kernel's number; of a template whether it is assured.
    pub state: u16,
    /// Client; port 0 in a template.
    pub client: SocketAddr,
    /// Virtual address; the mark as an address in a mark's template.
    pub virtual_address: SocketAddr,
    /// Real server.
    pub server: SocketAddr,
    /// Firewall mark of its first packet.
    pub mark: u32,
    /// Seconds that it has after a packet; 0 if that is not said.
    pub timeout: u32,
    /// What the `sip` engine knows a template by.
    pub call_id: Option<Arc<[u8]>>,
}

/// `N` bytes at a place that is there.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut copy = [0; N];
    copy.copy_from_slice(&bytes[at..at + N]);
    copy
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(bytes, at))
}

/// Client, virtual address and server, one behind the other.
fn addresses_at(bytes: &[u8], at: usize, ipv6: bool) -> [IpAddr; 3] {
    [0, 1, 2].map(|index| match ipv6 {
        true => Ipv6Addr::from(bytes_at::<16>(bytes, at + index * 16)).into(),
        false => Ipv4Addr::from(bytes_at::<4>(bytes, at + index * 4)).into(),
    })
}

impl Entry {
    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.flags & flags::TEMPLATE != 0
    }

    fn addresses(&self) -> [IpAddr; 3] {
        [self.client, self.virtual_address, self.server].map(|end| end.ip())
    }

    fn put_addresses(&self, out: &mut Vec<u8>) {
        for address in self.addresses() {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
    }

    fn put_ports(&self, out: &mut Vec<u8>) {
        [self.client, self.virtual_address, self.server]
            .iter()
            .for_each(|end| out.extend(end.port().to_be_bytes()));
    }

    /// Its bytes. `None` if the version cannot tell of it: version 0 knows no IPv6, and no version a server of the other family.
    pub fn bytes(&self, version: Version) -> Option<Vec<u8>> {
        let ipv6 = self.client.is_ipv6();
        let mixed = self.addresses().iter().any(|address| address.is_ipv6() != ipv6);
        match version {
            _ if mixed => None,
            Version::V0 => (!ipv6).then(|| self.bytes_v0()),
            Version::V1 => Some(self.bytes_v1()),
        }
    }

    fn bytes_v0(&self) -> Vec<u8> {
        let mut out = vec![0, self.protocol.0];
        self.put_ports(&mut out);
        self.put_addresses(&mut out);
        out.extend((self.flags as u16).to_be_bytes());
        out.extend(self.state.to_be_bytes());
        out
    }

    fn bytes_v1(&self) -> Vec<u8> {
        let kind = if self.client.is_ipv6() { TYPE_IPV6 } else { TYPE_IPV4 };
        let mut out = vec![kind, self.protocol.0, 0, 0];
        out.extend(self.flags.to_be_bytes());
        out.extend(self.state.to_be_bytes());
        self.put_ports(&mut out);
        out.extend(self.mark.to_be_bytes());
        out.extend(self.timeout.to_be_bytes());
        self.put_addresses(&mut out);
        if let Some(call_id) = &self.call_id {
            for (option, data) in [(DATA_OPTION, &**call_id), (NAME_OPTION, ENGINE)] {
                let length = data.len().min(usize::from(u8::MAX));
                out.extend([option, length as u8]);
                out.extend(&data[..length]);
            }
        }
        let size = out.len() as u16 & SIZE_MASK;
        out[2..4].copy_from_slice(&size.to_be_bytes());
        out
    }

    /// The entry of version 0 that `bytes` begin with, and its length; its flags are not masked.
    pub(super) fn read_v0(bytes: &[u8]) -> Result<(Entry, usize), Refused> {
        if bytes.len() < V0_LEN {
            return Err(Refused::CutOff);
        }
        let flags = u32::from(u16_at(bytes, 20));
        let length = if flags & flags::SEQUENCE != 0 { V0_LEN + SEQUENCE_LEN } else { V0_LEN };
        if bytes.len() < length {
            return Err(Refused::CutOff);
        }
        let [client, virtual_address, server] = addresses_at(bytes, 8, false);
        let entry = Entry {
            protocol: Protocol(bytes[1]),
            flags,
            state: u16_at(bytes, 22),
            client: SocketAddr::new(client, u16_at(bytes, 2)),
            virtual_address: SocketAddr::new(virtual_address, u16_at(bytes, 4)),
            server: SocketAddr::new(server, u16_at(bytes, 6)),
            mark: 0,
            timeout: 0,
            call_id: None,
        };
        Ok((entry, length))
    }

    /// How long the entry of version 1 is that `bytes` begin with.
    pub(super) fn length_v1(bytes: &[u8]) -> Result<usize, Refused> {
        if bytes.len() < V1_LEN {
            return Err(Refused::CutOff);
        }
        let length = usize::from(u16_at(bytes, 2) & SIZE_MASK);
        if length > bytes.len() {
            return Err(Refused::CutOff);
        }
        if u16_at(bytes, 2) >> SIZE_BITS != 0 {
            return Err(Refused::Layout);
        }
        Ok(length)
    }

    /// The entry of version 1 that `bytes` are.
    pub(super) fn read_v1(bytes: &[u8]) -> Result<Entry, Refused> {
        let ipv6 = bytes.first().is_some_and(|kind| kind & TYPE_IPV6 != 0);
        let length = if ipv6 { V1_LEN_IPV6 } else { V1_LEN };
        if bytes.len() < length || (!ipv6 && bytes[0] != TYPE_IPV4) {
            return Err(Refused::Layout);
        }
        let call_id = read_options(&bytes[length..])?;
        let [client, virtual_address, server] = addresses_at(bytes, 24, ipv6);
        Ok(Entry {
            protocol: Protocol(bytes[1]),
            flags: u32_at(bytes, 4) & flags::TAKEN,
            state: u16_at(bytes, 8),
            client: SocketAddr::new(client, u16_at(bytes, 10)),
            virtual_address: SocketAddr::new(virtual_address, u16_at(bytes, 12)),
            server: SocketAddr::new(server, u16_at(bytes, 14)),
            mark: u32_at(bytes, 16),
            timeout: u32_at(bytes, 20),
            call_id,
        })
    }

    /// Whether there is such a connection. The state of a template is no matter.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let states = match self.protocol {
            _ if self.is_template() => return Ok(()),
            Protocol::TCP => tcp::STATES,
            Protocol::SCTP => sctp::STATES,
            Protocol::UDP => 1,
            _ => return Err(Refused::Protocol),
        };
        if usize::from(self.state) < states { Ok(()) } else { Err(Refused::State) }
    }
}

/// What the options say. The shift of sequence numbers is not taken over: a helper's own numbers are right from the next
/// connection on.
fn read_options(mut bytes: &[u8]) -> Result<Option<Arc<[u8]>>, Refused> {
    let (mut sequence, mut data, mut name) = (None, None, None);
    while !bytes.is_empty() {
        let [kind, length, rest @ ..] = bytes else { return Err(Refused::Options) };
        let length = usize::from(*length);
        if length == 0 || length > rest.len() {
            return Err(Refused::Options);
        }
        let (value, rest) = rest.split_at(length);
        let (place, fits) = match kind & !IGNORABLE {
            SEQUENCE_OPTION => (&mut sequence, length == SEQUENCE_LEN),
            DATA_OPTION => (&mut data, true),
            NAME_OPTION => (&mut name, length <= NAME_MAX),
            _ if kind & IGNORABLE != 0 => {
                bytes = rest;
                continue;
            }
            _ => return Err(Refused::UnknownOption),
        };
        if !fits || place.replace(value).is_some() {
            return Err(Refused::Options);
        }
        bytes = rest;
    }
    match (data, name) {
        (None, _) => Ok(None),
        (Some(data), Some(ENGINE)) => Ok(Some(data.into())),
        (Some(_), _) => Err(Refused::Engine),
    }
}
