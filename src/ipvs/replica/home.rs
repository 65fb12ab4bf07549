//! Which server of which service, and how it is reached, as values and as bytes.

use std::net::SocketAddr;

use super::bytes::{Reader, put_own_end};
use super::record::Refused;
use crate::ipvs::edit::{Forward, ServerId, ServiceId};
use crate::net::addr::{Family, Protocol};

/// Where a connection belongs: a server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// The service.
    pub service: ServiceId,
    /// Its server.
    pub server: ServerId,
}

pub(super) fn put_home(out: &mut Vec<u8>, home: &Home) {
    match home.service {
        ServiceId::Address { protocol, address, port } => {
            out.extend([0, protocol.0]);
            put_own_end(out, SocketAddr::new(address, port));
        }
        ServiceId::FwMark { mark, family } => {
            out.extend([1, (family == Family::V6).into()]);
            out.extend(mark.to_be_bytes());
        }
    }
    put_own_end(out, SocketAddr::new(home.server.address, home.server.port));
}

pub(super) fn read_home(body: &mut Reader<'_>) -> Result<Home, Refused> {
    let service = if body.flag()? {
        let family = if body.flag()? { Family::V6 } else { Family::V4 };
        ServiceId::FwMark { mark: body.u32()?, family }
    } else {
        let protocol = Protocol(body.u8()?);
        let place = body.own_end()?;
        ServiceId::Address { protocol, address: place.ip(), port: place.port() }
    };
    let server = body.own_end()?;
    Ok(Home { service, server: ServerId { address: server.ip(), port: server.port() } })
}

pub(super) fn number_of(forward: Forward) -> u8 {
    match forward {
        Forward::Masquerade => 0,
        Forward::Local => 1,
        Forward::Tunnel => 2,
        Forward::Route => 3,
    }
}

pub(super) fn forward_of(number: u8) -> Result<Forward, Refused> {
    Ok(match number {
        0 => Forward::Masquerade,
        1 => Forward::Local,
        2 => Forward::Tunnel,
        3 => Forward::Route,
        _ => return Err(Refused::Layout),
    })
}
