//! When a server goes up and down: virtual time, no I/O.

use std::time::Duration;

use xlvs::nanny::{Action, Event, Nanny};
use xlvs::net::time::Instant;

/// Runs one probe a letter (`+` good, `-` failed), each taking `probe` seconds, and tells every change with the second
/// at which it happened.
fn story(timeout: u32, reentry: u32, probe: u64, results: &str) -> String {
    let mut now = Instant::START;
    let mut nanny = Nanny::new(now, timeout, reentry);
    let mut told = Vec::new();
    for result in results.chars() {
        now = nanny.next_deadline().expect("a pause has an end");
        assert_eq!(nanny.handle(now, Event::Due), [Action::Probe]);
        assert_eq!(nanny.next_deadline(), None, "a probe is under way");
        now = now + Duration::from_secs(probe);
        let result = if result == '+' { Ok(()) } else { Err("refused".to_owned()) };
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
        let told = story(timeout, reentry, probe, results);
        assert_eq!(told, expected, "timeout {timeout} reentry {reentry} probes {results}: {why}");
    }
}

#[test]
fn a_report_carries_the_reason() {
    let mut nanny = Nanny::new(Instant::START, 6, 15);
    nanny.handle(Instant::START, Event::Due);
    let failed = Event::ProbeDone(Err("CONNECT to 192.0.2.1:80 timed out".to_owned()));
    let told = nanny.handle(Instant::START, failed);
    let [Action::Report(change)] = told.as_slice() else { panic!("not one report: {told:?}") };
    assert_eq!(change.reason, "CONNECT to 192.0.2.1:80 timed out");
    assert_eq!(nanny.health(), Some(false));
}

#[test]
fn early_and_unexpected_events_have_no_effect() {
    let mut nanny = Nanny::new(Instant::START + Duration::from_secs(5), 6, 15);
    assert_eq!(nanny.handle(Instant::START, Event::Due), [], "not due yet");
    assert_eq!(nanny.handle(Instant::START, Event::ProbeDone(Ok(()))), [], "nobody asked");
    assert_eq!(nanny.health(), None);
    let due = nanny.next_deadline().expect("still waiting");
    assert_eq!(nanny.handle(due, Event::Due), [Action::Probe]);
    assert_eq!(nanny.handle(due, Event::Due), [], "one probe at a time");
}
