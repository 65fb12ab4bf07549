//! Numbers and addresses as bytes, most significant first, and back. What is read may end anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::record::Refused;

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refused::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Refused::CutOff)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refused> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refused> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refused> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refused> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn address(&mut self, ipv6: bool) -> Result<IpAddr, Refused> {
        match ipv6 {
            false => self.array::<4>().map(|octets| Ipv4Addr::from(octets).into()),
            true => self.array::<16>().map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    /// An address of the family that is known, and a port.
    pub(super) fn end(&mut self, ipv6: bool) -> Result<SocketAddr, Refused> {
        let address = self.address(ipv6)?;
        Ok(SocketAddr::new(address, self.u16()?))
    }

    /// The same with the family in front.
    pub(super) fn own_end(&mut self) -> Result<SocketAddr, Refused> {
        let ipv6 = self.flag()?;
        self.end(ipv6)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, Refused> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused::Layout),
        }
    }

    /// Bytes with their number, at most 255, in front.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Refused> {
        let length = self.u8()?;
        self.take(length.into())
    }
}

pub(super) fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

/// What [`Reader::end`] reads.
pub(super) fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    put_address(out, end.ip());
    out.extend(end.port().to_be_bytes());
}

/// What [`Reader::own_end`] reads.
pub(super) fn put_own_end(out: &mut Vec<u8>, end: SocketAddr) {
    out.push(end.is_ipv6().into());
    put_end(out, end);
}

/// What [`Reader::text`] reads; what is longer than 255 bytes is cut.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = text.len().min(usize::from(u8::MAX));
    out.push(length as u8);
    out.extend(&text[..length]);
}
