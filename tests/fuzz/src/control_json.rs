//! Any lines on the control socket: requests are answered, and the tables stay what they should be.

use xlvs::director::protocol::{Reply, Request};

use crate::router::Fuzzed;
use crate::support::device::Side;

/// Plays an input.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::new();
    let packets: Vec<_> = crate::icmp_quotes::openings().collect();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { continue };
        let reply = router.ask(request);
        let text = serde_json::to_string(&reply).unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        let back: Reply = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(back, reply, "an answer is read as it was written");
        packets.iter().for_each(|packet| drop(router.packet(Side::Client, packet)));
    }
    router.finish();
}
