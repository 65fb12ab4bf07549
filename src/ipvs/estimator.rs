//! Rates, and the counters as they are shown: both come from a sample taken every two seconds (ipvs.md section 8).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ipvs::view::{RateView, StatsView};

/// Time between two samples.
pub const PERIOD: Duration = Duration::from_secs(2);

const PACKET_SCALE: u32 = 9;
const BYTE_SCALE: u32 = 4;
const WEIGHT: u32 = 2;

/// A moving average in the kernel's fixed-point form.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Average(i64);

impl Average {
    fn add(&mut self, delta: u64, scale: u32) {
        let rate = (delta << scale) as i64;
        self.0 += (rate - self.0) >> WEIGHT;
    }

    /// The average per second, rounded up as the kernel does: scaled by 2 × 2^`scale` since a sample spans two seconds.
    fn per_second(self, scale: u32) -> u64 {
        ((self.0 + ((1 << scale) - 1)) >> (scale + 1)) as u64
    }
}

/// Sampled counters and rates of one object.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Estimator {
    sampled: StatsView,
    zero: StatsView,
    conns: Average,
    inpkts: Average,
    outpkts: Average,
    inbytes: Average,
    outbytes: Average,
}

impl Estimator {
    /// Takes over the counters `now`, two seconds after the last time.
    pub fn sample(&mut self, now: StatsView) {
        let last = std::mem::replace(&mut self.sampled, now);
        self.conns.add(now.conns - last.conns, PACKET_SCALE);
        self.inpkts.add(now.inpkts - last.inpkts, PACKET_SCALE);
        self.outpkts.add(now.outpkts - last.outpkts, PACKET_SCALE);
        self.inbytes.add(now.inbytes - last.inbytes, BYTE_SCALE);
        self.outbytes.add(now.outbytes - last.outbytes, BYTE_SCALE);
    }

    /// `-Z`: what was last shown becomes the new zero; the rates start anew.
    pub fn zero(&mut self) {
        *self = Estimator { sampled: self.sampled, zero: self.sampled, ..Estimator::default() };
    }

    /// Starts anew with counters that stand at `now`: a service that got a former one's counters.
    pub fn restart(&mut self, now: StatsView) {
        *self = Estimator { sampled: now, zero: now, ..Estimator::default() };
    }

    /// Counters as shown.
    pub fn stats(&self) -> StatsView {
        StatsView {
            conns: self.sampled.conns - self.zero.conns,
            inpkts: self.sampled.inpkts - self.zero.inpkts,
            outpkts: self.sampled.outpkts - self.zero.outpkts,
            inbytes: self.sampled.inbytes - self.zero.inbytes,
            outbytes: self.sampled.outbytes - self.zero.outbytes,
        }
    }

    /// Rates as shown.
    pub fn rates(&self) -> RateView {
        RateView {
            cps: self.conns.per_second(PACKET_SCALE),
            inpps: self.inpkts.per_second(PACKET_SCALE),
            outpps: self.outpkts.per_second(PACKET_SCALE),
            inbps: self.inbytes.per_second(BYTE_SCALE),
            outbps: self.outbytes.per_second(BYTE_SCALE),
        }
    }
}
