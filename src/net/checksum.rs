//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::{IpAddr, Ipv4Addr};

/// A ones' complement sum that is being gathered; in the byte order of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last byte counts as if followed by a zero.
    #[inline]
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
    #[inline]
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// Adds an address.
    #[inline]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Sum(self.0 + u64::from(u32::from(address))),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// The sum folded to 16 bits, not complemented.
    #[inline]
    pub fn fold(self) -> u16 {
        // Adding a carry makes no further one: the sum that it comes from is below the greatest number.
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + u32::from(carry);
        let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
        sum + u16::from(carry)
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// Whether the checksum in an IPv4 header without options is right. In which order the bytes of each word are added makes no
/// difference to that.
#[inline]
pub fn is_right_in(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    Sum(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()).finish() == 0
}

/// The sum of the pseudo header of TCP and UDP (RFC 9293 section 3.1, RFC 8200 section 8.1); `len` in bytes.
#[inline]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    let sum = Sum::default().address(source).address(destination);
    Sum(sum.0 + u64::from(protocol) + len as u64)
}

/// What a field's change means for a checksum that covers it (RFC 1624 equation 3). Changes add up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(Sum);

impl Change {
    /// A 16-bit field went from `old` to `new`.
    #[inline]
    pub fn word(self, old: u16, new: u16) -> Self {
        Change(self.0.word(!old).word(new))
    }

    /// An address went from `old` to `new`, both of one family.
    #[inline]
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

    /// The same of IPv4.
    #[inline]
    pub fn ipv4(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        Change(Sum(self.0.0 + u64::from(!u32::from(old)) + u64::from(u32::from(new))))
    }

    /// The checksum after the changes.
    #[inline]
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
    fn folding_leaves_the_remainder() {
        let sums = [
            0,
            1,
            0xffff,
            0x1_0000,
            0x1_fffe,
            0xffff_ffff,
            0x1_ffff_fffe,
            u64::MAX,
            u64::MAX - 1,
            0xffff_0000_0000_ffff,
        ];
        for sum in sums {
            let folded = u64::from(Sum(sum).fold());
            assert_eq!(folded % 0xffff, sum % 0xffff, "{sum:#x}");
            assert_eq!(folded == 0, sum == 0, "{sum:#x}");
        }
    }

    #[test]
    fn a_header_is_right_with_its_checksum_only() {
        let mut header = *b"\x45\x00\x00\x28\x12\x34\x40\x00\x40\x06\x00\x00\xc0\x00\x02\x0a\x0a\x0a\x01\x1e";
        let checksum = Sum::default().bytes(&header).finish();
        assert!(!is_right_in(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert!(is_right_in(&header));
        header[8] -= 1;
        assert!(!is_right_in(&header));
    }

    #[test]
    fn odd_length_is_padded_with_zero() {
        assert_eq!(Sum::default().bytes(&[1, 2, 3]).fold(), Sum::default().bytes(&[1, 2, 3, 0]).fold());
        assert_eq!(Sum::default().bytes(&[0xff, 0xff, 0, 1, 2]).fold(), 0x0201);
    }
}
