//! What an established connection's packets cost that no benchmark would show.

use allocation_counter::measure;
use xlvs::net::addr::Family;
use xlvs::net::time::Instant;

use crate::rig;

const CONNECTIONS: u32 = 300;

#[test]
fn no_packet_of_an_established_connection_allocates() {
    for family in [Family::V4, Family::V6] {
        let mut datapath = rig::datapath_of(family);
        let mut buffers = rig::Buffers::default();
        let frames: Vec<_> = (0..CONNECTIONS).map(|flow| rig::tcp_of(family, flow, rig::ACK)).collect();
        for flow in 0..CONNECTIONS {
            buffers.send(&mut datapath, Instant::START, &[rig::tcp_of(family, flow, rig::SYN)]);
        }
        let mut send = || {
            for burst in frames.chunks(rig::BURST) {
                buffers.send(&mut datapath, Instant::START, burst);
            }
        };
        // The first segment of each makes it established, which may take memory once.
        let first = measure(&mut send);
        let second = measure(&mut send);
        assert_eq!(
            second.count_total, 0,
            "{family:?}: allocations for {CONNECTIONS} packets; before: {first:?}"
        );
    }
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}
