//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

/// A ones' complement sum that is being gathered; in the byte order of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last byte counts as if followed by a zero.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_be_bytes(last));
        self
    }

    /// Adds one 16-bit word.
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// Adds an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Sum(self.0 + u64::from(u32::from(address))),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// The sum folded to 16 bits, not complemented.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The sum of the pseudo header of TCP and UDP (RFC 9293 section 3.1, RFC 8200 section 8.1); `len` in bytes.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    let sum = Sum::default().address(source).address(destination);
    Sum(sum.0 + u64::from(protocol) + len as u64)
}

/// What a field's change means for a checksum that covers it (RFC 1624 equation 3). Changes add up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(Sum);

impl Change {
    /// A 16-bit field went from `old` to `new`.
    pub fn word(self, old: u16, new: u16) -> Self {
        Change(self.0.word(!old).word(new))
    }

    /// An address went from `old` to `new`, both of one family.
    pub fn address(self, old: IpAddr, new: IpAddr) -> Self {
        let sum = match old {
            IpAddr::V4(old) => Sum(self.0.0 + u64::from(!u32::from(old))),
            IpAddr::V6(old) => self.0.bytes(&(!u128::from(old)).to_be_bytes()),
        };
        Change(sum.address(new))
    }

    /// The changes as a sum.
    pub fn sum(self) -> Sum {
        self.0
    }

    /// The checksum after the changes.
    pub fn apply(self, checksum: u16) -> u16 {
        self.0.word(!checksum).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1624_section_4_example() {
        assert_eq!(Change::default().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn odd_length_is_padded_with_zero() {
        assert_eq!(Sum::default().bytes(&[1, 2, 3]).fold(), Sum::default().bytes(&[1, 2, 3, 0]).fold());
        assert_eq!(Sum::default().bytes(&[0xff, 0xff, 0, 1, 2]).fold(), 0x0201);
    }
}
