//! Two paths between two routers, in virtual time: which one is taken, and what becomes of connections when one is cut.

use std::collections::VecDeque;
use std::time::Duration;

use xlvs::ipvs::replica::{Datagram, Path, PathDown, Refusal, State};

use super::ends::{Pair, SILENCE, Weather, connection};
use super::protocol::{is_told, told};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a connection waits at most when the path has just been cut: for the second try.
const SECOND_TRY: Duration = Duration::from_millis(120);
/// How long it waits otherwise.
const PROMPT: Duration = Duration::from_millis(10);
const CUT: [bool; 2] = [true; 2];
const WHOLE: [bool; 2] = [false; 2];

/// Something new every 5 ms for so long; returns the longest time that it took until the other end had it.
fn tell(pair: &mut Pair, time: Duration) -> Duration {
    let (end, mut waiting, mut longest) = (pair.now + time, VecDeque::new(), Duration::ZERO);
    let mut number = pair.ends[0].known.records.len() as u32;
    while pair.now < end || !waiting.is_empty() {
        assert!(pair.now < end + SECOND, "{} are never told: {:#?}", waiting.len(), pair.report(0));
        if pair.now < end {
            number += 1;
            let record = connection(number, 33);
            waiting.push_back((pair.now, record.clone()));
            pair.ends[0].known.put(record);
        }
        pair.pass(5 * MILLISECOND);
        while let Some((since, _)) = waiting.pop_front_if(|(_, record)| is_told(pair, record)) {
            longest = longest.max(pair.now.saturating_since(since));
        }
    }
    longest
}

fn down(pair: &Pair, end: usize) -> Vec<Path> {
    pair.report(end).paths_down.iter().map(|down| down.path).collect()
}

#[test]
fn the_public_path_carries_only_greetings_while_the_private_one_delivers() {
    let mut pair = told(1, 100);
    pair.recorded = Some(Default::default());
    assert!(tell(&mut pair, 5 * SECOND) <= PROMPT);
    assert_eq!([0, 1].map(|end| pair.path(end)), [Path::Private; 2]);
    for sent in pair.recorded.take().unwrap() {
        let public = sent.iter().filter(|datagram| datagram.path == Path::Public).count();
        assert!((9..=11).contains(&public) && sent.len() > 1000, "{public} of {}", sent.len());
    }
}

#[test]
fn a_cut_path_is_left_within_a_fraction_of_a_second_and_taken_again_when_it_is_whole() {
    for (seed, broken) in [CUT, [true, false], [false, true]].into_iter().enumerate() {
        let mut pair = told(seed as u64, 100);
        pair.weather.broken[Path::Private as usize] = broken;
        let longest = tell(&mut pair, 300 * MILLISECOND);
        assert!(longest <= SECOND_TRY, "{broken:?}: {longest:?}");
        assert_eq!(pair.path(0), Path::Public, "{broken:?}");
        assert!(tell(&mut pair, 5 * SECOND) <= PROMPT, "{broken:?}");
        assert_eq!([0, 1].map(|end| pair.path(end)), [Path::Public; 2]);
        assert_eq!([0, 1].map(|end| down(&pair, end)), [[Path::Private], [Path::Private]]);
        let settled = pair.report(0);
        assert!(settled.in_sync && settled.lag_ms <= 10, "{settled:#?}");
        pair.weather = Weather::default();
        assert!(tell(&mut pair, SECOND) <= PROMPT, "{broken:?}");
        assert_eq!(pair.path(0), Path::Public, "it has to last");
        assert!(tell(&mut pair, 3 * SECOND) <= PROMPT, "{broken:?}");
        assert_eq!([0, 1].map(|end| pair.path(end)), [Path::Private; 2]);
        assert_eq!([0, 1].map(|end| down(&pair, end)), [[], []]);
    }
}

#[test]
fn a_path_that_is_left_for_the_third_time_is_left_as_soon() {
    let mut pair = told(4, 100);
    for broken in [CUT, WHOLE, CUT, WHOLE, [true, false], WHOLE] {
        pair.weather.broken[Path::Private as usize] = broken;
        // Before it is known that it is whole again it is cut again.
        assert!(tell(&mut pair, 700 * MILLISECOND) <= SECOND_TRY);
        assert_eq!(pair.path(0), Path::Public);
    }
}

/// Each path delivers in one direction alone, and not in the same one.
#[test]
fn two_paths_that_are_cut_crosswise_are_enough() {
    for (seed, broken) in [[[false, true], [true, false]], [[true, false], [false, true]]].iter().enumerate()
    {
        let mut pair = told(10 + seed as u64, 100);
        pair.weather.broken = *broken;
        assert!(tell(&mut pair, 3 * SECOND) <= SECOND_TRY, "{broken:?}");
        assert!(tell(&mut pair, 3 * SECOND) <= PROMPT, "{broken:?}");
        pair.settle(0, SECOND);
        let report = pair.report(0);
        assert!(report.state == State::Telling && report.in_sync, "{report:#?}");
    }
}

#[test]
fn a_path_that_is_cut_is_seen_although_there_is_nothing_to_tell() {
    for (cut, taken) in [(Path::Private, Path::Public), (Path::Public, Path::Private)] {
        let mut pair = told(20, 100);
        pair.pass(SECOND);
        pair.weather.broken[cut as usize] = CUT;
        pair.pass(10 * SECOND);
        for (end, state) in [State::Telling, State::Told].into_iter().enumerate() {
            let report = pair.report(end);
            assert_eq!((report.state, report.in_sync, report.path), (state, true, Some(taken)));
            let [PathDown { path, since_ms }] = report.paths_down[..] else { panic!("{report:#?}") };
            assert!(path == cut && (9_000..11_000).contains(&since_ms), "{since_ms} ms");
        }
        assert!(tell(&mut pair, SECOND) <= PROMPT);
    }
}

/// The number of the times that either end takes another path while time passes.
fn changes(pair: &mut Pair, time: Duration) -> usize {
    let (end, mut changes) = (pair.now + time, 0);
    while pair.now < end {
        let before = [0, 1].map(|end| pair.path(end));
        pair.pass(5 * MILLISECOND);
        changes += usize::from(before != [0, 1].map(|end| pair.path(end)));
    }
    changes
}

#[test]
fn what_says_nothing_about_a_path_does_not_change_it() {
    let mut pair = told(30, 100);
    pair.weather.delay = 30;
    // One greeting of each end is lost.
    pair.weather.broken[Path::Private as usize] = CUT;
    assert_eq!(changes(&mut pair, 490 * MILLISECOND), 0);
    pair.weather.broken[Path::Private as usize] = WHOLE;
    assert_eq!(changes(&mut pair, 5 * SECOND), 0);
    // Both paths are cut, and whole again.
    pair.weather.cut = CUT;
    assert_eq!(changes(&mut pair, 2 * SILENCE), 0);
    pair.weather.cut = WHOLE;
    assert_eq!(changes(&mut pair, 5 * SECOND), 0);
    // So for one direction.
    pair.weather.cut = [true, false];
    assert_eq!(changes(&mut pair, SECOND), 0);
    pair.weather.cut = WHOLE;
    assert_eq!(changes(&mut pair, 5 * SECOND), 0);
    // The other end is away for a while, and starts anew.
    pair.weather.cut = CUT;
    pair.pass(3 * SECOND);
    pair.restart(1, 33);
    pair.weather.cut = WHOLE;
    assert_eq!(changes(&mut pair, 5 * SECOND), 0);
    assert!(pair.ends[1].replica.is_complete());
}

/// Nothing is lost, but some has to be sent again: that is no reason to leave the path.
#[test]
fn a_single_loss_does_not_change_the_path() {
    let mut pair = told(40, 100);
    for number in 0..20 {
        pair.weather.broken[Path::Private as usize] = [true, false];
        pair.ends[0].known.put(connection(1000 + number, 33));
        pair.pass(10 * MILLISECOND);
        pair.weather.broken[Path::Private as usize] = WHOLE;
        assert_eq!(changes(&mut pair, 390 * MILLISECOND), 0);
        assert!(is_told(&pair, &connection(1000 + number, 33)));
    }
    assert!(pair.report(0).repeated >= 20);
}

/// The slower path's datagram comes when thousands of later ones have come by the other path: it is new all the same, once.
#[test]
fn what_the_other_path_has_overtaken_is_no_repetition() {
    let mut pair = told(50, 100);
    pair.weather.broken[Path::Public as usize] = CUT;
    pair.recorded = Some(Default::default());
    tell(&mut pair, 20 * SECOND);
    let [sent, _] = pair.recorded.take().unwrap();
    let slow: Vec<Datagram> = sent.iter().filter(|datagram| datagram.path == Path::Public).cloned().collect();
    assert!(sent.len() > 3000 && slow.len() > 30, "{} of {}", slow.len(), sent.len());
    // Out of order among themselves, too.
    for datagram in slow.chunks(2).flat_map(|pair| pair.iter().rev()) {
        let crossed = Datagram { path: Path::Private, ..datagram.clone() };
        assert_eq!(pair.hand(1, &crossed), Err(Refusal::Forged), "it says by which path it goes");
        assert_eq!(pair.hand(1, datagram), Ok(()));
        assert_eq!(pair.hand(1, datagram), Err(Refusal::Repeated));
    }
    assert_eq!(pair.path(1), Path::Private);
}

#[test]
fn another_version_of_the_protocol_is_refused_as_what_it_is() {
    let mut pair = told(60, 10);
    pair.recorded = Some(Default::default());
    pair.pass(SECOND);
    let mut datagram = pair.recorded.take().unwrap()[0][0].clone();
    datagram.bytes[4] += 1;
    assert_eq!(pair.hand(1, &datagram), Err(Refusal::Version));
    let refused = pair.report(1).refused;
    assert!(refused.contains(&("of another version of the protocol".to_owned(), 1)), "{refused:?}");
}
