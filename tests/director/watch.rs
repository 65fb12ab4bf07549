//! When changes of files are followed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use xlvs::director::watch::{FileEvent, QUIET, Watch};
use xlvs::net::time::Instant;

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

fn file() -> PathBuf {
    "/etc/sysconfig/ha/lvs.cf".into()
}

fn contents(hash: u64) -> HashMap<PathBuf, Option<u64>> {
    HashMap::from([(file(), Some(hash))])
}

#[test]
fn an_editors_many_steps_are_one_change() {
    let mut watch = Watch::default();
    watch.has_read(contents(1));
    for (time, event) in [
        (0, FileEvent::Gone),
        (5, FileEvent::Written),
        (10, FileEvent::Written),
        (15, FileEvent::Complete),
        (700, FileEvent::Complete),
    ] {
        watch.happened(at(time), file(), event);
        assert!(!watch.is_time(at(time)));
    }
    assert_eq!(watch.next_deadline(), Some(at(700) + QUIET));
    assert!(!watch.is_time(at(1699)));
    assert!(watch.is_time(at(1700)));
    assert!(!watch.is_time(at(1700)), "once");
    assert!(watch.is_news(contents(2)));
}

#[test]
fn a_file_that_somebody_is_writing_is_waited_for() {
    let mut watch = Watch::default();
    watch.happened(at(0), file(), FileEvent::Written);
    assert_eq!(watch.next_deadline(), None);
    assert!(!watch.is_time(at(60_000)), "half a file is no file");
    watch.happened(at(60_000), file(), FileEvent::Complete);
    assert!(watch.is_time(at(61_000)));
}

#[test]
fn another_file_in_its_place_ends_the_waiting() {
    let mut watch = Watch::default();
    watch.happened(at(0), file(), FileEvent::Written);
    watch.happened(at(100), file(), FileEvent::Complete);
    watch.happened(at(200), "/etc/sysconfig/iptables".into(), FileEvent::Written);
    assert_eq!(watch.next_deadline(), None, "the other file is half written");
    watch.happened(at(300), "/etc/sysconfig/iptables".into(), FileEvent::Gone);
    assert!(watch.is_time(at(1300)));
}

#[test]
fn the_same_content_is_no_news_be_it_good_or_bad() {
    let mut watch = Watch::default();
    watch.has_read(contents(1));
    assert!(!watch.is_news(contents(1)), "touched");
    assert!(watch.is_news(contents(2)), "broken, and said so");
    assert!(!watch.is_news(contents(2)), "still broken: that is known");
    assert!(watch.is_news(HashMap::from([(file(), None)])), "gone");
    assert!(watch.is_news(contents(1)), "as it was");
}
