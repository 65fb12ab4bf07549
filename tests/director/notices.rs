//! Runs of the notify command: what they are told, in which order, how many at once, and how many may wait.

use xlvs::director::event::{Event, Happened};
use xlvs::director::notices::{AT_ONCE, Notice, Notices, ROOM};

fn notice(server: &str, happened: Happened) -> Notice {
    let of_virtual = Event::of_virtual("web", happened);
    let event = Event { server: server.into(), endpoint: "10.8.8.33:80".into(), ..of_virtual };
    Notice::of(&event.because("because")).expect("a notice")
}

#[test]
fn the_command_is_told_event_names_endpoint_and_reason() {
    let notice = notice("one", Happened::Down);
    assert_eq!(notice.arguments, ["down", "web", "one", "10.8.8.33:80", "because"]);
    for (happened, word) in [
        (Happened::Up, Some("up")),
        (Happened::Unavailable, Some("down")),
        (Happened::TakenOut, Some("down")),
        (Happened::Flapping { more: 9 }, Some("flapping")),
        (Happened::ForcedUp, Some("forced_up")),
        (Happened::ForcedDown, Some("forced_down")),
        (Happened::Unforced, Some("unforced")),
        (Happened::NoServers, Some("no_servers")),
        (Happened::ServersBack { up: 1 }, Some("servers_back")),
        (Happened::VirtualStopped, None),
        (Happened::FullWeight { weight: 1 }, None),
        (Happened::LoadUnread, None),
    ] {
        assert_eq!(Event::of_virtual("web", happened).notice(), word);
    }
}

#[test]
fn those_of_one_server_run_one_after_the_other_and_others_pass_by() {
    let mut notices = Notices::default();
    let first = notice("one", Happened::Down);
    for (server, happened) in [("one", Happened::Down), ("one", Happened::Up), ("two", Happened::Down)] {
        assert!(notices.push(notice(server, happened)));
    }
    let started: Vec<_> = std::iter::from_fn(|| notices.start()).collect();
    assert_eq!(started, [first.clone(), notice("two", Happened::Down)]);
    notices.end(&first.subject);
    assert_eq!(notices.start(), Some(notice("one", Happened::Up)));
    assert!(notices.is_drained());
}

#[test]
fn so_many_run_at_once_and_so_many_wait() {
    let mut notices = Notices::default();
    let all = AT_ONCE + ROOM;
    let mut started = 0;
    for index in 0..all {
        assert!(notices.push(notice(&format!("server{index}"), Happened::Down)), "{index}");
        started += usize::from(notices.start().is_some());
    }
    assert_eq!(started, AT_ONCE);
    for _ in 0..3 {
        assert!(!notices.push(notice("late", Happened::Down)));
    }
    assert_eq!((notices.take_lost(), notices.take_lost()), (3, 0));
    notices.end(&notice("server0", Happened::Down).subject);
    let next = notices.start().expect("there is a place");
    assert_eq!(next.subject.1, format!("server{AT_ONCE}"));
    assert!(notices.push(notice("late", Happened::Down)), "and room for one more");
}
