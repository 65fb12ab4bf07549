//! Defence against floods: which modes are active, and the draws by which packets and connections go (ipvs.md sections 6.4 to
//! 6.7).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::ipvs::lottery::Lottery;
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::timer::Life;
use crate::net::time::Instant;

/// Time between two looks at the memory, and between two rounds of dropping connections.
pub const PERIOD: Duration = Duration::from_secs(1);

/// A connection that had a packet within this time is not dropped by the draw.
const PROTECTED: Duration = Duration::from_secs(60);
/// Connections of more packets are not dropped by the draw.
const FEW_PACKETS: usize = 8;

/// What the modes of the defence come to at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defence {
    /// Of so many packets that would open a connection one is dropped; 0: none.
    pub drop_rate: i64,
    /// Whether connections are dropped, every [`PERIOD`].
    pub drops_entries: bool,
}

/// The counters behind the draws, shared by all workers as in the kernel.
#[derive(Debug, Default)]
pub struct DropCounters {
    packets: AtomicI64,
    entries: [AtomicI64; FEW_PACKETS + 1],
    lottery: Lottery,
}

/// True once in `rate` calls, the first one included.
fn falls_due(counter: &AtomicI64, rate: i64) -> bool {
    let next = |left: i64| Some(if left > 1 { left - 1 } else { rate });
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok_and(|left| left <= 1)
}

impl DropCounters {
    /// A number of the draw.
    pub fn draw(&self) -> u64 {
        self.lottery.draw()
    }

    /// Whether a packet that would open a connection is dropped.
    pub fn drops_packet(&self, defence: Defence) -> bool {
        defence.drop_rate != 0 && falls_due(&self.packets, defence.drop_rate)
    }

    /// Whether a connection or template of few packets is, whose `timeout` is in seconds.
    pub fn drops_entry(&self, packets: u32, life: &Life, timeout: u32, now: Instant) -> bool {
        let refreshed = now + Duration::from_secs(u64::from(timeout)) < life.deadline() + PROTECTED;
        let few = (1..=FEW_PACKETS).contains(&(packets as usize));
        !refreshed && few && falls_due(&self.entries[packets as usize], i64::from(packets))
    }
}

/// Judges the modes by the memory that is free (and in buffers), in pages; the automatic ones become active or inactive.
pub fn judge(sysctls: &mut Sysctls, free_pages: u64, counters: &DropCounters) -> Defence {
    let free = i64::try_from(free_pages).unwrap_or(i64::MAX);
    let threshold = sysctls.amemthresh;
    let scarce = free < threshold;
    for mode in [&mut sysctls.drop_entry, &mut sysctls.drop_packet, &mut sysctls.secure_tcp] {
        if matches!(*mode, 1 | 2) {
            *mode = if scarce { 2 } else { 1 };
        }
    }
    let drop_rate = match sysctls.drop_packet {
        2 => {
            let rate = threshold / (threshold - free);
            counters.packets.store(rate, Ordering::Relaxed);
            rate
        }
        3 => sysctls.am_droprate,
        _ => 0,
    };
    Defence { drop_rate, drops_entries: sysctls.drop_entry > 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(mode: i64) -> Sysctls {
        Sysctls { drop_entry: mode, drop_packet: mode, secure_tcp: mode, ..Sysctls::default() }
    }

    #[test]
    fn automatic_modes_follow_the_memory() {
        let counters = DropCounters::default();
        for (mode, free, after, drop_rate, drops_entries) in [
            (0, 0, 0, 0, false),
            (1, 1024, 1, 0, false),
            (1, 1023, 2, 1024, true),
            (2, 512, 2, 2, true),
            (2, 0, 2, 1, true),
            (2, 1024, 1, 0, false),
            (3, 0, 3, 10, true),
            (3, u64::MAX, 3, 10, true),
        ] {
            let mut sysctls = modes(mode);
            let defence = judge(&mut sysctls, free, &counters);
            let story = format!("mode {mode} with {free} pages");
            assert_eq!(defence, Defence { drop_rate, drops_entries }, "{story}");
            assert_eq!(sysctls, modes(after), "{story}");
            assert_eq!(sysctls.is_tcp_secure(), after > 1, "{story}");
        }
    }

    #[test]
    fn one_packet_in_so_many_falls_due() {
        let counters = DropCounters::default();
        let of_three = Defence { drop_rate: 3, ..Defence::default() };
        let dropped: Vec<bool> = (0..7).map(|_| counters.drops_packet(of_three)).collect();
        assert_eq!(dropped, [true, false, false, true, false, false, true]);
        assert!(!counters.drops_packet(Defence::default()));
    }
}
