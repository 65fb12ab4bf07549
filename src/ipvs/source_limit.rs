//! How many connections a source may open: `source_rate` a second, and `source_burst` at once. The memory that this takes
//! does not depend on how many sources there are.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

use crate::net::time::Instant;

const SECOND: u64 = 1_000_000_000;
/// Slots of one row.
const SLOTS: usize = 1 << 15;
/// Each source has a slot in each row, and is refused only if all of them refuse it: one that shares a slot with a flooding
/// source has another one.
const ROWS: usize = 2;

/// The limit of all sources. A slot is the generic cell rate algorithm's theoretical arrival time (ITU-T I.371) in
/// nanoseconds: that of the next connection, if connections came evenly at the full rate.
#[derive(Debug, Default)]
pub struct SourceLimit {
    slots: OnceLock<Box<[AtomicU64]>>,
    hasher: RandomState,
}

/// The address of an IPv4 source; the /64 of an IPv6 one, since a host may choose the rest as it likes.
fn source_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

impl SourceLimit {
    /// Whether one more connection of this source is within `rate` a second and `burst` at once (0: as many as `rate`); counts
    /// it if so. Without a rate nothing is within it.
    pub fn allows(&self, source: IpAddr, rate: u32, burst: u32, now: Instant) -> bool {
        let interval = SECOND / u64::from(rate.max(1));
        let burst = if burst == 0 { rate } else { burst };
        let ahead = interval * u64::from(burst.saturating_sub(1));
        let slots = self.slots.get_or_init(|| (0..ROWS * SLOTS).map(|_| AtomicU64::new(0)).collect());
        let hash = self.hasher.hash_one((source.is_ipv6(), source_of(source)));
        let takes = |row: usize| {
            let column = (hash >> (32 * row)) as usize % SLOTS;
            take(&slots[row * SLOTS + column], now.as_nanos(), interval, ahead)
        };
        // Both count it.
        let taken: [bool; ROWS] = std::array::from_fn(takes);
        taken.contains(&true)
    }
}

/// Takes one connection from a slot, unless it is more than `ahead` of the time.
fn take(slot: &AtomicU64, now: u64, interval: u64, ahead: u64) -> bool {
    // No slot gets further ahead, however much the clocks of workers differ; it did by another rate or burst, which no longer
    // counts.
    let most = now + ahead + interval + SECOND;
    let next = |arrival: u64| {
        let arrival = if arrival > most { now + ahead } else { arrival };
        (arrival <= now + ahead).then(|| arrival.max(now) + interval)
    };
    slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowed(limit: &SourceLimit, source: &str, (rate, burst): (u32, u32), now: Instant) -> usize {
        let source = source.parse().expect("an address");
        (0..1000).filter(|_| limit.allows(source, rate, burst, now)).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::START;
        for (rate, burst, at_once) in [(10, 25, 25), (10, 1, 1), (10, 0, 10), (1, 0, 1)] {
            let limit = SourceLimit::default();
            assert_eq!(allowed(&limit, "192.0.2.1", (rate, burst), start), at_once, "{rate} {burst}");
            let later = start + Duration::from_secs(1);
            assert_eq!(allowed(&limit, "192.0.2.1", (rate, burst), later), at_once.min(rate as usize));
            let much_later = start + Duration::from_secs(1000);
            assert_eq!(allowed(&limit, "192.0.2.1", (rate, burst), much_later), at_once);
        }
    }

    #[test]
    fn the_rate_holds_over_a_long_time() {
        let limit = SourceLimit::default();
        let times = (0..100_000).map(|step| Instant::START + Duration::from_micros(100) * step);
        let allowed = times.filter(|now| limit.allows("192.0.2.1".parse().unwrap(), 7, 5, *now)).count();
        assert_eq!(allowed, 5 + 69, "7 a second in 10 seconds less a moment, and 5 at once");
    }

    #[test]
    fn another_rate_counts_at_once() {
        let limit = SourceLimit::default();
        let start = Instant::START;
        assert_eq!(allowed(&limit, "192.0.2.1", (1, 100), start), 100);
        assert_eq!(allowed(&limit, "192.0.2.1", (1000, 100), start), 1, "not 100 seconds later");
        let later = start + Duration::from_secs(1);
        assert_eq!(allowed(&limit, "192.0.2.1", (1000, 100), later), 100);
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_networks() {
        let limit = SourceLimit::default();
        let now = Instant::START;
        assert_eq!(allowed(&limit, "192.0.2.1", (5, 0), now), 5);
        assert_eq!(allowed(&limit, "192.0.2.2", (5, 0), now), 5);
        assert_eq!(allowed(&limit, "2001:db8:0:1::1", (5, 0), now), 5);
        assert_eq!(allowed(&limit, "2001:db8:0:1:ffff::2", (5, 0), now), 0, "of the same /64");
        assert_eq!(allowed(&limit, "2001:db8:0:2::1", (5, 0), now), 5);
    }

    #[test]
    fn hardly_any_source_suffers_for_others() {
        let limit = SourceLimit::default();
        let now = Instant::START;
        for flooding in 0..300u32 {
            (0..100).for_each(|_| _ = limit.allows(IpAddr::V4((0x0a00_0000 + flooding).into()), 10, 0, now));
        }
        let others = (0..1000u32).map(|other| IpAddr::V4((0x1400_0000 + other).into()));
        let refused = others.filter(|other| !limit.allows(*other, 10, 0, now)).count();
        // (300 / 32768)^2 of them share both slots with flooding ones: a twelfth of one.
        assert!(refused <= 3, "{refused} of 1000");
    }
}
