//! How two routers keep the same connections, in virtual time.

use std::time::Duration;

use xlvs::ipvs::replica::{Datagram, Path, Record, Refusal, State};

use super::ends::{COMPARE, Chance, End, KEY, Pair, SILENCE, Weather, connection};
use xlvs::ipvs::replica::{Side, bucket_of, digest, fingerprint};

const SECOND: Duration = Duration::from_secs(1);

/// The first one is active and has so many connections; the second one has been told.
pub fn told(seed: u64, connections: u32) -> Pair {
    let mut pair = Pair::new(seed);
    (0..connections).for_each(|number| pair.ends[0].known.put(connection(number, 33)));
    pair.set_active(0, true);
    pair.settle(0, 10 * SECOND);
    pair
}

pub fn is_told(pair: &Pair, record: &Record) -> bool {
    pair.ends[1].known.records.get(&record.key()) == Some(record)
}

#[test]
fn a_standby_is_told_of_all_and_then_of_every_change() {
    let mut pair = told(1, 5000);
    assert!(pair.are_equal());
    pair.pass(SECOND);
    let [active, standby] = [pair.report(0), pair.report(1)];
    assert_eq!((active.state, standby.state), (State::Telling, State::Told));
    assert!(active.in_sync && standby.in_sync && active.partner_in_sync, "{active:?} {standby:?}");
    assert_eq!((active.told, active.lag_ms, standby.records), (5000, 0, 5000));
    let before = pair.report(0).sent;
    pair.ends[0].known.put(connection(7000, 34));
    pair.ends[0].known.put(connection(1, 35));
    pair.ends[0].known.end(&connection(2, 33).key());
    pair.pass(Duration::from_millis(10));
    assert!(pair.are_equal());
    assert!(is_told(&pair, &connection(1, 35)) && is_told(&pair, &connection(7000, 34)));
    assert!(pair.report(0).sent <= before + 3, "one batch for all, and perhaps a hello by each path");
    // What is no news is not told.
    let before = pair.report(1).records;
    pair.ends[0].known.put(connection(1, 35));
    pair.ends[0].known.end(&connection(9999, 33).key());
    pair.pass(SECOND);
    assert_eq!(pair.report(1).records, before);
    assert!(pair.longest <= 1400);
}

#[test]
fn whatever_the_network_does_both_have_the_same_in_the_end() {
    let mut weathers = Chance(5);
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.weather = Weather {
            loss: weathers.below(40),
            doubles: weathers.below(30),
            delay: weathers.below(60),
            ..Weather::default()
        };
        (0..300).for_each(|number| pair.ends[0].known.put(connection(number, 33)));
        pair.set_active(0, true);
        for _ in 0..200 {
            let number = pair.chance.below(600) as u32;
            let server = 33 + pair.chance.below(3) as u8;
            match pair.chance.below(3) {
                0 => pair.ends[0].known.end(&connection(number, 33).key()),
                _ => pair.ends[0].known.put(connection(number, server)),
            }
            if pair.chance.below(20) == 0 {
                let [path, from] = [0, 1].map(|_| pair.chance.below(2) as usize);
                pair.weather.broken[path][from] ^= true;
            }
            pair.pass(Duration::from_millis(20));
        }
        pair.weather.broken = [[false; 2]; 2];
        pair.settle(0, 60 * SECOND);
        assert!(pair.are_equal(), "seed {seed}");
        pair.weather = Weather::default();
        pair.pass(COMPARE + 5 * SECOND);
        assert_eq!(pair.report(0).differing, Some(0), "seed {seed}");
        assert_eq!(pair.report(0).anew, 0, "seed {seed}");
    }
}

#[test]
fn nobody_waits_for_a_standby_that_does_not_answer_and_nothing_is_lost() {
    let mut pair = told(2, 100);
    pair.weather.cut = [true; 2];
    for number in 0..20_000 {
        pair.ends[0].known.put(connection(number, 34));
        if number % 100 == 0 {
            pair.pass(Duration::from_millis(1));
        }
    }
    assert!(pair.ends[0].known.waiting.borrow().len() <= 1000);
    assert!(!pair.ends[0].replica.has_room());
    (0..50).for_each(|number| pair.ends[0].known.end(&connection(number, 34).key()));
    pair.pass(20 * SECOND);
    assert_eq!(pair.report(0).state, State::Alone);
    let known: Vec<Record> = pair.ends[1].known.records.values().cloned().collect();
    pair.weather.cut = [false; 2];
    let mut seen = usize::MAX;
    // Meanwhile the standby keeps what it has.
    while !pair.is_settled(0) {
        pair.pass(Duration::from_millis(5));
        let left =
            known.iter().filter(|record| pair.ends[1].known.records.contains_key(&record.key())).count();
        assert!(left <= seen && left >= 50, "{left} of 100 are left");
        seen = left;
    }
    assert!(pair.are_equal());
    assert!(pair.report(0).anew > 0);
}

#[test]
fn a_difference_is_found_and_healed() {
    let mut pair = told(3, 2000);
    let [missing, wrong, more] = [connection(5, 33), connection(6, 99), connection(900_000, 33)];
    let known = &mut pair.ends[1].known;
    known.records.remove(&missing.key());
    known.told.insert(more.key());
    known.records.extend([wrong, more].map(|record| (record.key(), record)));
    pair.pass(COMPARE + 2 * SECOND);
    assert_eq!(pair.report(0).differing, Some(3));
    pair.settle(0, 5 * SECOND);
    assert!(pair.are_equal());
    assert_eq!((pair.report(0).anew, pair.report(1).swept), (3, 1));
    pair.pass(COMPARE + SECOND);
    assert_eq!(pair.report(0).differing, Some(0));
    assert!(pair.report(1).records < 2100, "only those buckets are told of anew");
}

/// A large table is looked through while it changes.
#[test]
fn what_changes_during_a_comparison_is_no_difference() {
    let mut pair = told(3, 2000);
    pair.parts_at_once = 1;
    let mut changing = 0;
    for turn in 0..6 * COMPARE.as_millis() as u32 / 5 {
        let number = turn % 2000;
        match turn % 3 {
            0 => pair.ends[0].known.put(connection(number, 40 + (turn % 100) as u8)),
            1 => pair.ends[0].known.end(&connection(number, 0).key()),
            _ => pair.ends[0].known.put(connection(100_000 + turn, 33)),
        }
        pair.pass(Duration::from_millis(5));
        let report = pair.report(0);
        assert!(matches!(report.differing, None | Some(0)), "{report:?}");
        changing += u32::from(pair.ends[1].replica.has_work());
        assert!(report.lag_ms < 50, "nothing waits for the end of a look: {report:?}");
    }
    assert!(changing > 500, "it was looked at {changing} times in the midst of one");
    assert_eq!((pair.report(0).differing, pair.report(0).anew), (Some(0), 0));
    let wrong = connection(1_000_000, 33);
    pair.ends[1].known.told.insert(wrong.key());
    pair.ends[1].known.records.insert(wrong.key(), wrong);
    pair.pass(2 * COMPARE);
    assert!(pair.report(0).anew >= 1, "and a difference is found all the same");
    pair.parts_at_once = xlvs::ipvs::replica::PARTS;
    pair.pass(2 * SECOND);
    assert!(pair.are_equal());
}

#[test]
fn what_finds_no_room_at_the_standby_is_seen() {
    let mut pair = told(4, 10);
    let record = connection(77, 33);
    pair.ends[1].known.refused = Some(record.key());
    pair.ends[0].known.put(record);
    pair.pass(COMPARE + SECOND);
    assert_eq!((pair.report(0).differing, pair.report(1).records_refused > 0), (Some(1), true));
    pair.ends[1].known.refused = None;
    pair.pass(COMPARE + SECOND);
    pair.pass(COMPARE + SECOND);
    assert!(pair.are_equal());
}

#[test]
fn either_end_may_start_anew() {
    let mut pair = told(5, 500);
    pair.restart(1, 33);
    assert!(!pair.ends[1].replica.is_complete());
    pair.pass(SECOND);
    pair.settle(0, 10 * SECOND);
    assert!(pair.are_equal() && pair.ends[1].replica.is_complete());
    // The active one ends; the standby goes on in its place, and tells the other one when that is back.
    pair.restart(0, 44);
    assert!(pair.ends[0].replica.is_joining(pair.now), "nobody has said anything yet");
    pair.pass(SECOND);
    assert!(pair.ends[0].replica.is_joining(pair.now), "the standby knows what there was");
    assert!(!pair.ends[1].replica.is_joining(pair.now));
    pair.set_active(1, true);
    pair.ends[1].known.put(connection(600, 35));
    pair.pass(Duration::from_millis(1));
    pair.settle(1, 10 * SECOND);
    assert!(pair.are_equal() && pair.ends[0].replica.is_complete());
    assert_eq!(pair.ends[0].known.records.len(), 501);
}

#[test]
fn a_node_that_joins_knows_that_it_does_and_when_it_has_all() {
    let mut pair = Pair::new(6);
    (0..20_000).for_each(|number| {
        drop(pair.ends[0].known.records.insert(connection(number, 33).key(), connection(number, 33)))
    });
    pair.set_active(0, true);
    pair.weather.delay = 20;
    let mut joining = 0;
    while !pair.ends[1].replica.is_complete() {
        pair.pass(Duration::from_millis(5));
        joining += u32::from(pair.ends[1].replica.is_joining(pair.now));
    }
    assert!(joining > 1, "{joining}");
    assert!(!pair.ends[1].replica.is_joining(pair.now) && pair.ends[1].replica.is_holding(pair.now));
    pair.settle(0, 10 * SECOND);
    assert!(pair.are_equal());
    pair.weather.cut = [true; 2];
    pair.pass(SILENCE + SECOND);
    assert!(!pair.ends[1].replica.is_holding(pair.now), "nobody says any more what ends");
    assert!(pair.ends[1].replica.is_complete(), "it has what there was");
}

#[test]
fn two_active_ones_tell_each_other_nothing_and_the_one_that_gives_way_is_told_anew() {
    let mut pair = told(7, 200);
    pair.weather.cut = [true; 2];
    pair.pass(SILENCE + SECOND);
    pair.set_active(1, true);
    pair.ends[1].known.put(connection(1000, 40));
    pair.ends[0].known.put(connection(1001, 41));
    pair.weather.cut = [false; 2];
    pair.pass(5 * SECOND);
    assert_eq!((pair.report(0).state, pair.report(1).state), (State::Idle, State::Idle));
    assert!(pair.report(0).partner_active && pair.report(1).partner_active);
    assert!(!is_told(&pair, &connection(1001, 41)));
    pair.set_active(1, false);
    assert!(!pair.ends[1].replica.is_complete());
    pair.pass(Duration::from_millis(10));
    pair.settle(0, 10 * SECOND);
    assert!(is_told(&pair, &connection(1001, 41)));
    assert!(is_told(&pair, &connection(1000, 40)), "what was its own it keeps");
    assert_eq!(pair.ends[1].known.records.len(), 202);
}

#[test]
fn forged_repeated_and_garbled_datagrams_change_nothing_and_are_counted() {
    let mut pair = told(8, 100);
    pair.recorded = Some([Vec::new(), Vec::new()]);
    // Some overtake others.
    pair.weather.delay = 20;
    for number in 200..250 {
        pair.ends[0].known.put(connection(number, 33));
        pair.pass(Duration::from_millis(5));
    }
    pair.pass(3 * SECOND);
    (200..250).for_each(|number| pair.ends[0].known.end(&connection(number, 33).key()));
    pair.pass(SECOND);
    let recorded = pair.recorded.take().unwrap();
    assert!(recorded[0].len() > 50);
    let mut attack = |to: usize, path: Path, bytes: &[u8], expected: Refusal| {
        let before = pair.report(to);
        let records = pair.ends[to].known.records.clone();
        assert_eq!(pair.hand(to, &Datagram { path, bytes: bytes.to_vec() }), Err(expected));
        assert_eq!(pair.ends[to].known.records, records);
        let after = pair.report(to);
        let count = |refused: &[(String, u64)]| refused.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(count(&after.refused), count(&before.refused) + 1, "{expected:?}");
        assert_eq!(
            (after.state, after.in_sync, after.records, after.path, after.paths_down),
            (before.state, before.in_sync, before.records, before.path, before.paths_down)
        );
    };
    for Datagram { path, bytes } in &recorded[0] {
        let other = Path::ALL[1 - *path as usize];
        attack(1, *path, bytes, Refusal::Repeated);
        attack(1, other, bytes, Refusal::Forged);
        attack(0, *path, bytes, Refusal::Forged);
    }
    let Datagram { path, bytes } = recorded[0].iter().max_by_key(|datagram| datagram.bytes.len()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut garbled = bytes.clone();
        garbled[bit / 8] ^= 1 << (bit % 8);
        let refusal = match bit {
            0..32 => Refusal::Malformed,
            32..40 => Refusal::Version,
            _ => Refusal::Forged,
        };
        attack(1, *path, &garbled, refusal);
    }
    for length in [0, 1, 4, 5, 83, 84, bytes.len() - 1] {
        let refusal = if length < 84 { Refusal::Malformed } else { Refusal::Forged };
        attack(1, *path, &bytes[..length], refusal);
    }
    // Somebody with another key, and the partner before it was started anew.
    let mut stranger = End::new(Side::Primary, 11, b"another key, no less", pair.now);
    let hello = stranger.replica.take_outgoing(pair.now).remove(0);
    let mut fresh = End::new(Side::Backup, 77, KEY, pair.now);
    let mut hand =
        |Datagram { path, bytes }: &Datagram| fresh.replica.receive(pair.now, *path, bytes, &mut fresh.known);
    assert_eq!(hand(&hello), Err(Refusal::Forged));
    for datagram in &recorded[0] {
        assert_eq!(hand(datagram), Err(Refusal::Unfresh));
    }
    assert!(fresh.known.records.is_empty());
}

/// A former run of the partner, recorded and sent again after the partner has started anew.
#[test]
fn a_session_that_another_has_replaced_stays_replaced() {
    let mut pair = told(9, 10);
    pair.recorded = Some([Vec::new(), Vec::new()]);
    pair.ends[0].known.put(connection(200, 33));
    pair.weather.cut = [true, false];
    pair.pass(SECOND);
    let unseen = pair.recorded.take().unwrap()[0].clone();
    pair.weather.cut = [false; 2];
    pair.restart(0, 55);
    pair.set_active(0, true);
    pair.settle(0, 10 * SECOND);
    assert!(pair.ends[1].known.records.is_empty());
    for datagram in unseen {
        assert_eq!(pair.hand(1, &datagram), Err(Refusal::Repeated));
    }
    assert!(pair.ends[1].known.records.is_empty());
}

/// Two versions have to understand each other: what is between them is written down here, worked out by other means.
#[test]
fn datagrams_have_these_bytes_and_their_key_is_not_the_heartbeats_own() {
    let now = xlvs::net::time::Instant::START + SECOND;
    let hello = End::new(Side::Primary, 11, KEY, now).replica.take_outgoing(now).remove(0);
    let hex: String = hello.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "786c765202000000000000000000000b0000000000000000000000000000000100000001\
         0000000000000000000000000000000000\
         488d34e4ae6f5aaf5a01d6b71b0ab8e9a2af164d58e7da391b4235bed229ccaf"
    );
}

/// The sums that two ends compare are made of these.
#[test]
fn a_connection_falls_into_this_bucket_and_has_this_digest() {
    let record = connection(1, 33);
    let print = fingerprint(&record.key());
    assert_eq!((print, bucket_of(print)), (0x2f42_5a51_d1a3_17ca, 189));
    assert_eq!(digest(&record), Some(0xa6c1_1c13_565d_4a51));
}

/// What a comparison has to see: whatever decides where packets go.
#[test]
fn whatever_a_takeover_needs_makes_a_difference() {
    let Record::Connection(usual) = connection(1, 33) else { unreachable!() };
    let changes: [fn(&mut xlvs::ipvs::replica::ConnectionRecord); 5] = [
        |record| record.server.set_port(81),
        |record| record.state = 4,
        |record| record.forward = xlvs::ipvs::edit::Forward::Route,
        |record| record.marks.active = false,
        |record| record.marks.awaits_port = true,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut other = usual.clone();
        change(&mut other);
        let [usual, other] = [&usual, &other].map(|record| digest(&Record::Connection(record.clone())));
        assert_ne!(usual, other, "change {number}");
    }
}

#[test]
fn no_more_than_64_batches_are_on_their_way() {
    let mut pair = told(12, 10);
    pair.ends[0].known.room = 10_000;
    // What is acknowledged does not arrive.
    pair.weather.cut = [false, true];
    pair.recorded = Some([Vec::new(), Vec::new()]);
    (100..8000).for_each(|number| pair.ends[0].known.put(connection(number, 33)));
    // Nothing is sent again as early as that.
    pair.pass(Duration::from_millis(50));
    let recorded = pair.recorded.take().unwrap();
    assert_eq!(recorded[0].iter().filter(|datagram| datagram.bytes[6] == 1).count(), 64);
}

#[test]
fn a_template_that_leads_elsewhere_or_is_assured_makes_a_difference() {
    let template = |server: u8, assured| {
        let key = xlvs::ipvs::persistence::TemplateKey {
            protocol: xlvs::net::addr::Protocol::TCP,
            client: [10, 0, 0, 1].into(),
            virtual_address: ([10, 10, 1, 30], 80).into(),
            call_id: None,
        };
        digest(&Record::Template(Box::new(xlvs::ipvs::replica::TemplateRecord {
            key,
            home: None,
            forward: xlvs::ipvs::edit::Forward::Masquerade,
            place: ([10, 8, 8, server], 80).into(),
            timeout: 60,
            remaining: SECOND,
            packets: 0,
            assured,
            one_packet: false,
            synced: false,
            borrowed: false,
        })))
    };
    assert_ne!(template(33, false), template(34, false));
    assert_ne!(template(33, false), template(33, true));
}
