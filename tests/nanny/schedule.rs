//! When a server goes up and down: virtual time, no I/O.

use std::time::Duration;

use xlvs::nanny::{Action, Event, Nanny, Passed, Timing};
use xlvs::net::time::Instant;

/// Runs one probe a letter (`+` good, `-` failed), each taking `probe` seconds, and tells every change with the second
/// at which it happened.
fn story(timing: Timing, probe: u64, results: &str) -> String {
    let mut now = Instant::START;
    let mut nanny = Nanny::new(now, timing);
    let mut told = Vec::new();
    for result in results.chars() {
        now = nanny.next_deadline().expect("a pause has an end");
        assert_eq!(nanny.handle(now, Event::Due), [Action::Probe]);
        assert_eq!(nanny.next_deadline(), None, "a probe is under way");
        now = now + Duration::from_secs(probe);
        let result = if result == '+' { Ok(Passed::default()) } else { Err("refused".to_owned()) };
        for action in nanny.handle(now, Event::ProbeDone(result)) {
            let Action::Report(change) = action else { panic!("not a report: {action:?}") };
            let seconds = now.saturating_since(Instant::START).as_secs();
            told.push(format!("{seconds} {}", if change.up { "up" } else { "down" }));
        }
    }
    told.join(", ")
}

#[test]
fn the_story_of_a_server() {
    // (timeout, reentry, seconds a probe takes, results, what is told)
    let table = [
        (6, 15, 0, "+", "0 up", "the first good probe activates at once"),
        (6, 15, 0, "+++-", "0 up, 18 down", "one failure is enough"),
        (6, 15, 0, "+-+", "0 up, 6 down", "one good probe is not enough: 15 / 6 = 2"),
        (6, 15, 0, "+-++", "0 up, 6 down, 18 up", "two good probes are"),
        (6, 15, 0, "+-+-++", "0 up, 6 down, 30 up", "they must come in a row"),
        (6, 15, 0, "-", "0 down", "the first failure is told, for it was not known"),
        (6, 15, 0, "---", "0 down", "but only once"),
        (6, 15, 0, "-++", "0 down, 12 up", "a server that starts badly serves its reentry time"),
        (10, 180, 0, "+-++++++++++++++++++", "0 up, 10 down, 190 up", "the defaults: 18 in a row"),
        (10, 5, 0, "+-+", "0 up, 10 down, 20 up", "reentry below timeout: immediately"),
        (6, 15, 2, "+-++", "2 up, 10 down, 26 up", "the pause begins when the probe has ended"),
        (0, 3, 0, "+-+++", "0 up, 1 down, 4 up", "timeout 0 counts as 1"),
        (60, 0, 0, "+-+++", "0 up, 60 down, 240 up", "reentry 0 counts as 180"),
    ];
    for (timeout, reentry, probe, results, expected, why) in table {
        let told = story(Timing::piranha(timeout, reentry), probe, results);
        assert_eq!(told, expected, "timeout {timeout} reentry {reentry} probes {results}: {why}");
    }
}

#[test]
fn the_story_of_a_server_with_counts() {
    let table = [
        (2, 3, "+", "0 up", "the first good probe activates at once whatever the count"),
        (2, 3, "+--+--", "0 up", "two failures are not three"),
        (2, 3, "+---", "0 up, 3 down", "three are"),
        (2, 3, "+--+---", "0 up, 6 down", "they must come in a row"),
        (3, 2, "+--++-+++", "0 up, 2 down, 8 up", "so must the good ones"),
        (3, 2, "+-+-+-", "0 up", "a server that is up needs no count to stay"),
        (2, 2, "-+", "", "one failure is not two, and one good probe after it is not the first"),
        (2, 2, "-++", "2 up", "two good ones are enough"),
        (0, 0, "+-+", "0 up, 1 down, 2 up", "0 counts as 1"),
    ];
    for (rise, fall, results, expected, why) in table {
        let timing = Timing { rise, fall, ..Timing::piranha(1, 1) };
        assert_eq!(story(timing, 0, results), expected, "rise {rise} fall {fall} probes {results}: {why}");
    }
}

#[test]
fn a_report_carries_the_reason() {
    let mut nanny = Nanny::new(Instant::START, Timing::piranha(6, 15));
    nanny.handle(Instant::START, Event::Due);
    let failed = Event::ProbeDone(Err("CONNECT to 192.0.2.1:80 timed out".to_owned()));
    let told = nanny.handle(Instant::START, failed);
    let [Action::Report(change)] = told.as_slice() else { panic!("not one report: {told:?}") };
    assert_eq!(change.reason, "CONNECT to 192.0.2.1:80 timed out");
    assert_eq!(nanny.health(), Some(false));
}

/// Who looks at a server that is down wants to know what is wrong with it now.
#[test]
fn another_reason_is_told_once() {
    let mut now = Instant::START;
    let mut nanny = Nanny::new(now, Timing::piranha(6, 15));
    let mut told = Vec::new();
    for result in [Err("refused"), Err("refused"), Err("timed out"), Err("timed out"), Ok(()), Err("refused")]
    {
        now = nanny.next_deadline().expect("a pause has an end");
        nanny.handle(now, Event::Due);
        let done = Event::ProbeDone(result.map(|()| Passed::default()).map_err(str::to_owned));
        told.extend(nanny.handle(now, done).into_iter().map(|action| match action {
            Action::Report(change) => (change.up, change.reason),
            other => panic!("not a report: {other:?}"),
        }));
    }
    let down = |reason: &str| (false, reason.to_owned());
    assert_eq!(told, [down("refused"), down("timed out"), down("refused")]);
}

#[test]
fn early_and_unexpected_events_have_no_effect() {
    let mut nanny = Nanny::new(Instant::START + Duration::from_secs(5), Timing::piranha(6, 15));
    assert_eq!(nanny.handle(Instant::START, Event::Due), [], "not due yet");
    let done = Event::ProbeDone(Ok(Passed::default()));
    assert_eq!(nanny.handle(Instant::START, done), [], "nobody asked");
    assert_eq!(nanny.health(), None);
    let due = nanny.next_deadline().expect("still waiting");
    assert_eq!(nanny.handle(due, Event::Due), [Action::Probe]);
    assert_eq!(nanny.handle(due, Event::Due), [], "one probe at a time");
}

/// The pauses after `count` good probes that take no time.
fn pauses(nanny: &mut Nanny, count: usize) -> Vec<Duration> {
    let mut now = nanny.next_deadline().expect("due");
    let mut pause = || {
        nanny.handle(now, Event::Due);
        nanny.handle(now, Event::ProbeDone(Ok(Passed::default())));
        let due = nanny.next_deadline().expect("due again");
        let pause = due.saturating_since(now);
        now = due;
        pause
    };
    (0..count).map(|_| pause()).collect()
}

#[test]
fn checks_that_begin_together_go_apart() {
    let timing = Timing::piranha(1, 1);
    let mut tenths = [0; 10];
    for seed in 0..2000 {
        let pauses = pauses(&mut Nanny::new(Instant::START, timing).spread(seed), 3);
        assert!(pauses[0] < Duration::from_secs(1), "the first pause is a part of the interval: {pauses:?}");
        assert_eq!(pauses[1..], [Duration::from_secs(1); 2], "and the others are all of it");
        tenths[pauses[0].as_millis() as usize / 100] += 1;
    }
    assert!(tenths.iter().all(|count| (150..250).contains(count)), "200 begin in each tenth: {tenths:?}");
    let again = |seed| pauses(&mut Nanny::new(Instant::START, timing).spread(seed), 1);
    assert_eq!(again(7), again(7), "a seed says all");
}

#[test]
fn jitter_keeps_within_its_bounds_and_uses_them() {
    let timing = Timing { jitter: 20, ..Timing::piranha(10, 1) };
    let pauses = pauses(&mut Nanny::new(Instant::START, timing).spread(3), 1001);
    let seconds: Vec<f64> = pauses[1..].iter().map(Duration::as_secs_f64).collect();
    let (least, most) =
        seconds.iter().fold((f64::MAX, 0.0_f64), |(low, high), it| (low.min(*it), high.max(*it)));
    assert!((8.0..8.1).contains(&least) && (11.9..12.0).contains(&most), "from {least} to {most}");
    let mean = seconds.iter().sum::<f64>() / 1000.0;
    assert!((9.8..10.2).contains(&mean), "mean {mean}");
}

#[test]
fn a_warning_is_told_when_it_says_something_new() {
    let mut nanny = Nanny::new(Instant::START, Timing::piranha(1, 1));
    let mut told = Vec::new();
    for warning in [None, Some("3 days"), Some("3 days"), None, Some("3 days"), Some("2 days")] {
        let now = nanny.next_deadline().expect("due");
        nanny.handle(now, Event::Due);
        let passed = Passed { warning: warning.map(str::to_owned) };
        for action in nanny.handle(now, Event::ProbeDone(Ok(passed))) {
            if let Action::Warn(text) = action {
                told.push(text);
            }
        }
    }
    assert_eq!(told, ["3 days", "2 days"]);
}
