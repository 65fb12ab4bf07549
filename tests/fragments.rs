//! Cutting and putting together, beside the scenarios: the bounds, and that one undoes the other.

use std::time::Duration;

use serde_json::json;
use xlvs::net::addr::PortIndex;
use xlvs::net::checksum::Sum;
use xlvs::net::fragment::{Cut, Limits, Outcome, Reassembler, Refusal, split};
use xlvs::net::frame::Frame;
use xlvs::net::parse::parse_frame;
use xlvs::net::time::Instant;

use crate::support::device::Side;
use crate::support::ethernet;
use crate::support::packet::{PacketSpec, build};

const FAMILIES: [(&str, &str); 2] = [("192.0.2.10", "10.10.1.30"), ("2001:db8::10", "fd00:10::30")];

/// A UDP datagram with `len` bytes of payload.
fn datagram(source: &str, destination: &str, id: u32, len: usize) -> Vec<u8> {
    let spec = json!({"src": source, "dst": destination, "proto": "udp", "id": id, "sport": 1, "dport": 2, "len": len});
    let spec: PacketSpec = serde_json::from_value(spec).expect("a packet");
    build(&spec, None).remove(0)
}

fn fragments(packet: &[u8], cut: Cut<'_>, id: u32) -> Vec<Vec<u8>> {
    let mut fragments = Vec::new();
    assert!(split(packet, cut, id, &mut |fragment| fragments.push(fragment.to_vec())), "not cut: {cut:?}");
    fragments
}

struct Case {
    reassembler: Reassembler,
    now: Instant,
}

impl Case {
    fn new(memory: usize) -> Self {
        let limits = Limits { memory, ..Limits::default() };
        Case { reassembler: Reassembler::new(limits), now: Instant::START }
    }

    /// What becomes of a fragment, and how many others are spoilt and evicted.
    fn add(&mut self, packet: &[u8]) -> (Outcome, u32, u32) {
        let mut bytes = ethernet::frame(Side::Client, packet);
        let len = bytes.len();
        let frame = Frame::new(&mut bytes, len, PortIndex(0));
        let packet = parse_frame(frame.bytes()).expect("a packet");
        let admission = self.reassembler.add(self.now, &frame, &packet);
        (admission.outcome, admission.spoilt, admission.evicted)
    }

    fn assert_empty(&self) {
        assert_eq!((self.reassembler.datagrams(), self.reassembler.memory()), (0, 0));
    }
}

fn is_kept(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Kept)
}

#[test]
fn what_was_cut_is_put_together_again_in_any_order() {
    let mut random = 1_u64;
    for (source, destination) in FAMILIES {
        for (len, size) in [(1000, 576), (3000, 1280), (65_000, 1500), (64_000, 5000), (2000, 100)] {
            let packet = datagram(source, destination, 7, len);
            let mut rest = fragments(&packet, Cut::Size(size), 7);
            assert!(rest.iter().all(|fragment| fragment.len() <= size), "a fragment is too large");
            let mut case = Case::new(Limits::default().memory);
            loop {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let next = rest.swap_remove((random >> 33) as usize % rest.len());
                match case.add(&next).0 {
                    Outcome::Kept => assert!(!rest.is_empty(), "all {len} bytes are there"),
                    Outcome::Whole(whole) => {
                        assert!(rest.is_empty(), "{} fragments of {len} bytes are missing", rest.len());
                        assert!(whole.frame[14..] == packet, "{len} bytes in {size}: others");
                        let again = fragments(&packet, Cut::Lengths(&whole.lengths), 7);
                        let came = whole.fragments.iter().map(|frame| frame.bytes[14..].to_vec());
                        assert!(again == came.collect::<Vec<_>>(), "not cut as it came");
                        break;
                    }
                    Outcome::Refused(refusal) => panic!("{refusal:?}"),
                }
            }
            case.assert_empty();
        }
    }
}

#[test]
fn a_fragment_can_be_cut_further() {
    let (source, destination) = FAMILIES[0];
    let packet = datagram(source, destination, 7, 3000);
    let coarse = fragments(&packet, Cut::Size(1500), 0);
    let fine: Vec<_> = coarse.iter().flat_map(|fragment| fragments(fragment, Cut::Size(576), 0)).collect();
    let mut case = Case::new(Limits::default().memory);
    let outcomes: Vec<_> = fine.iter().map(|fragment| case.add(fragment).0).collect();
    assert!(matches!(outcomes.last(), Some(Outcome::Whole(whole)) if whole.frame[14..] == packet));
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let (source, destination) = FAMILIES[1];
    let packet = datagram(source, destination, 7, 3000);
    let refused =
        |packet: &[u8], cut| !split(packet, cut, 1, &mut |_| panic!("a fragment of what cannot be cut"));
    assert!(refused(&packet, Cut::Size(55)), "no room behind the headers");
    assert!(refused(&packet, Cut::Lengths(&[1001, 2007])), "not in units of eight");
    assert!(refused(&packet, Cut::Lengths(&[1000, 1000])), "not the whole payload");
    (0..=40).for_each(|len| assert!(refused(&packet[..len], Cut::Size(1280)), "cut off after {len} bytes"));
}

#[test]
fn an_overlap_spoils_the_datagram_and_a_repetition_does_not() {
    for (source, destination) in FAMILIES {
        let packet = datagram(source, destination, 7, 992);
        let thirds = fragments(&packet, Cut::Lengths(&[400, 400, 200]), 7);
        let halves = fragments(&packet, Cut::Lengths(&[600, 400]), 7);
        let mut case = Case::new(Limits::default().memory);
        assert!(is_kept(&case.add(&thirds[0]).0));
        assert!(matches!(case.add(&thirds[0]), (Outcome::Refused(Refusal::Duplicate), 0, 0)));
        assert!(is_kept(&case.add(&thirds[2]).0));
        assert!(matches!(case.add(&halves[0]), (Outcome::Refused(Refusal::Overlap), 2, 0)));
        case.assert_empty();
    }
}

#[test]
fn old_datagrams_make_room() {
    let (source, destination) = FAMILIES[1];
    let limit = 100_000;
    let mut case = Case::new(limit);
    let mut evicted = 0;
    for id in 0..1000 {
        let first = &fragments(&datagram(source, destination, id, 2000), Cut::Size(1280), id)[0];
        evicted += case.add(first).2;
        assert!(case.reassembler.memory() <= limit, "{} bytes kept", case.reassembler.memory());
    }
    assert_eq!(case.reassembler.datagrams() as u32 + evicted, 1000, "every one is kept or counted");
    let last = &fragments(&datagram(source, destination, 999, 2000), Cut::Size(1280), 999)[1];
    assert!(matches!(case.add(last).0, Outcome::Whole(_)), "the latest is still there");
}

#[test]
fn many_fragments_of_a_sender_part_those_of_a_datagram() {
    let (source, destination) = FAMILIES[0];
    for (between, whole) in [(63, true), (64, false)] {
        let mut case = Case::new(Limits::default().memory);
        let [first, last] = &fragments(&datagram(source, destination, 1, 1200), Cut::Size(1000), 0)[..]
        else {
            panic!("two fragments")
        };
        case.add(first);
        for id in 2..2 + between {
            case.add(&fragments(&datagram(source, destination, id, 1200), Cut::Size(1000), 0)[0]);
        }
        let (outcome, _, evicted) = case.add(last);
        assert_eq!(matches!(outcome, Outcome::Whole(_)), whole, "{between} between them");
        assert_eq!(evicted, u32::from(!whole), "{between} between them");
    }
}

#[test]
fn time_runs_out() {
    for ((source, destination), seconds) in FAMILIES.into_iter().zip([30, 60]) {
        let mut case = Case::new(Limits::default().memory);
        for id in 1..=3 {
            let parts = fragments(&datagram(source, destination, id, 3000), Cut::Size(1280), id);
            parts[if id == 2 { 1 } else { 0 }..2].iter().for_each(|part| drop(case.add(part)));
        }
        let almost = case.now + Duration::from_millis(seconds * 1000 - 1);
        assert!(case.reassembler.lapse(almost).is_none());
        let over = case.now + Duration::from_secs(seconds);
        let lapses: Vec<_> = std::iter::from_fn(|| case.reassembler.lapse(over)).collect();
        let told: Vec<_> = lapses.iter().map(|lapse| (lapse.fragments, lapse.first.is_some())).collect();
        assert_eq!(told, [(2, true), (1, false), (2, true)]);
        case.assert_empty();
    }
}

/// An IPv4 fragment of zeros.
fn zeros(offset: usize, len: usize, more: bool) -> Vec<u8> {
    let mut fragment = datagram(FAMILIES[0].0, FAMILIES[0].1, 7, 0);
    fragment.resize(20 + len, 0);
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    fragment[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
    fragment[6..8].copy_from_slice(&field.to_be_bytes());
    fragment[10..12].copy_from_slice(&[0, 0]);
    let sum = Sum::default().bytes(&fragment[..20]).finish();
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment
}

#[test]
fn a_datagram_that_is_too_long_is_none() {
    let mut case = Case::new(Limits::default().memory);
    let offsets = (0..64_200).step_by(1480);
    let kept = offsets.filter(|offset| is_kept(&case.add(&zeros(*offset, 1480, true)).0)).count();
    let (outcome, spoilt, _) = case.add(&zeros(kept * 1480, 456, false));
    assert!(matches!(outcome, Outcome::Refused(Refusal::TooLong)), "{kept} fragments before");
    assert_eq!(spoilt as usize, kept);
    case.assert_empty();
}
