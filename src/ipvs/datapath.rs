//! The packet's path, readable as a short list of questions.

use crate::ipvs::verdict::Verdict;
use crate::net::frame::Frame;
use crate::net::time::Instant;

/// One worker's view of the engine: shared tables behind it, its own timer wheel inside.
pub struct Datapath {}

impl Datapath {
    /// Decides about a burst of frames: `verdicts[i]` is about `frames[i]`, which has been rewritten accordingly.
    /// `verdicts` is cleared first. The snapshot is looked at once.
    pub fn process(&mut self, _now: Instant, _frames: &mut [Frame<'_>], _verdicts: &mut Vec<Verdict>) {}

    /// Fires the timers that are due. Call it at least every 100 ms, also when there is no traffic.
    pub fn advance(&mut self, _now: Instant) {}
}
