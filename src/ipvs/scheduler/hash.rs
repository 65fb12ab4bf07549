//! What the hashing schedulers share: the kernel's 32-bit hash and a table of 256 buckets (ipvs.md section 5.2).

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::ipvs::server::RealServer;

/// Buckets of `sh` and `dh`.
pub(super) const BUCKETS: usize = 256;
const BUCKET_BITS: u32 = 8;
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// An address as one word: itself, or the four words of an IPv6 address folded.
pub(super) fn address_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let address = u128::from(address);
            (0..4).fold(0, |folded, word| folded ^ (address >> (32 * word)) as u32)
        }
    }
}

/// The bucket of a word.
pub(super) fn bucket(word: u32) -> usize {
    (word.wrapping_mul(GOLDEN_RATIO) >> (32 - BUCKET_BITS)) as usize
}

/// Servers by bucket; replaced as a whole when the list of servers changes.
#[derive(Default)]
pub(super) struct BucketTable {
    buckets: ArcSwap<Vec<Arc<RealServer>>>,
}

impl BucketTable {
    /// Deals the buckets out in list order, round after round; each server gets `share` of them at a time.
    pub(super) fn fill(&self, servers: &[Arc<RealServer>], share: impl Fn(&RealServer) -> usize) {
        let dealt =
            servers.iter().cycle().flat_map(|server| std::iter::repeat_n(server, share(server).max(1)));
        self.buckets.store(Arc::new(dealt.take(BUCKETS).cloned().collect()));
    }

    /// The server of a bucket; `None` only when there are no servers.
    pub(super) fn get(&self, bucket: usize) -> Option<Arc<RealServer>> {
        self.buckets.load().get(bucket % BUCKETS).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_reference() {
        assert_eq!(bucket(0x0a00_0001), 39);
        assert_eq!(bucket(0xc0a8_0101), 136);
        assert_eq!(bucket(0xc0a8_0101 + 50_000), 213);
    }
}
