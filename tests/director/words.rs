//! The lines that people search logs for are Piranha's, to the letter (piranha.md 2.6, 3.1, 3.5, 8); what else there is to say
//! follows as fields.

use std::time::Duration;

use xlvs::director::event::journal::{Entry, Journal, KEPT};
use xlvs::director::event::{Event, Happened};

fn event(happened: Happened) -> Event {
    Event { server: "one".into(), endpoint: "10.8.8.33:80".into(), ..Event::of_virtual("web", happened) }
}

#[test]
fn lines_begin_with_the_words_of_piranha() {
    let of_virtual = |happened| Event::of_virtual("web", happened);
    let sorry = |happened| Event { endpoint: "10.8.8.99".into(), ..Event::of_virtual("web", happened) };
    let failed = "CONNECT to 10.8.8.33:80 timed out";
    let table = [
        (
            of_virtual(Happened::VirtualStarted { port: 80 }),
            "starting virtual service web active: 80 virtual=web",
        ),
        (of_virtual(Happened::VirtualStopped), "shutting down virtual service web virtual=web"),
        (
            event(Happened::Up).because("the check succeeded").after(Some(Duration::from_secs(12))),
            "[ active ] making 10.8.8.33:80 available virtual=web server=one reason=\"the check succeeded\" \
             down_for=12s",
        ),
        (
            event(Happened::Down).because(failed).after(Some(Duration::from_millis(3_605_900))),
            "[inactive] shutting down 10.8.8.33:80 due to connection failure virtual=web server=one \
             reason=\"CONNECT to 10.8.8.33:80 timed out\" up_for=3605s",
        ),
        (
            sorry(Happened::NoServers).after(Some(Duration::from_secs(60))),
            "Virtual Server web: No real servers; activate sorry_server 10.8.8.99 virtual=web up_for=60s",
        ),
        (
            sorry(Happened::ServersBack { up: 2 }).after(Some(Duration::from_secs(3))),
            "Virtual Server web: 2 real servers; deactivate sorry_server 10.8.8.99 virtual=web down_for=3s",
        ),
        (
            event(Happened::LoadUnread).because("no such program"),
            "failed to read remote load virtual=web server=one endpoint=10.8.8.33:80 reason=\"no such program\"",
        ),
        (
            event(Happened::BadLoad { returned: "up 3 days".into() }),
            "bad load average returned: up 3 days virtual=web server=one endpoint=10.8.8.33:80",
        ),
        (
            event(Happened::ForcedDown),
            "opaque glasses on: 10.8.8.33:80 is down by hand virtual=web server=one",
        ),
        (
            event(Happened::ForcedUp),
            "rose-colored glasses on: 10.8.8.33:80 is up by hand virtual=web server=one",
        ),
        (
            event(Happened::Unforced),
            "removing glasses: the checks of 10.8.8.33:80 decide again virtual=web server=one",
        ),
        (of_virtual(Happened::NoServers), "Virtual Server web: No real servers virtual=web"),
        (
            event(Happened::Flapping { more: 37 }).because("now up"),
            "10.8.8.33:80: ... and 37 changes more in the last 60 s virtual=web server=one reason=\"now up\"",
        ),
    ];
    for (event, line) in table {
        assert_eq!(event.to_string(), line);
    }
}

#[test]
fn a_field_that_is_not_one_plain_word_is_quoted() {
    let line = |name: &str| Event::of_virtual(name, Happened::VirtualStopped).to_string();
    for (name, field) in [
        ("web", "virtual=web"),
        ("web server", "virtual=\"web server\""),
        ("a=b", "virtual=\"a=b\""),
        ("say \"x\"", "virtual=\"say \\\"x\\\"\""),
        ("two\nlines", "virtual=\"two\\nlines\""),
        ("", "virtual=\"\""),
    ] {
        assert!(line(name).ends_with(field), "{}", line(name));
    }
}

#[test]
fn the_journal_keeps_the_last_thousand() {
    let mut journal = Journal::default();
    assert_eq!((journal.last(), journal.after(0).len()), (0, 0));
    for index in 0..1500u64 {
        journal.push(Duration::from_millis(index), event(Happened::FullWeight { weight: index as i32 }));
    }
    let numbers = |entries: Vec<Entry>| {
        (entries.len(), entries.first().map(|first| first.number), entries.last().map(|last| last.number))
    };
    assert_eq!(numbers(journal.after(0)), (KEPT, Some(501), Some(1500)));
    assert_eq!(numbers(journal.after(1498)), (2, Some(1499), Some(1500)));
    assert_eq!(numbers(journal.after(1500)), (0, None, None));
    assert_eq!(numbers(journal.after(9999)), (0, None, None));
    assert_eq!(journal.after(1499)[0].time_ms, 1499);
}

/// What programs read is a promise.
#[test]
fn an_entry_as_json_is_flat_and_is_read_as_it_was_written() {
    let happened = [
        Happened::Down,
        Happened::VirtualStarted { port: 80 },
        Happened::Flapping { more: 3 },
        Happened::ServersBack { up: 2 },
        Happened::BadLoad { returned: "x".into() },
    ];
    for happened in happened {
        let event = event(happened).because("r").after(Some(Duration::from_secs(5)));
        let entry = Entry { number: 7, time_ms: 8, event };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry, "{text}");
    }
    let entry = Entry { number: 7, time_ms: 8, event: event(Happened::Down).because("r") };
    let text = "{\"number\":7,\"time_ms\":8,\"event\":\"down\",\"virtual\":\"web\",\"server\":\"one\",\
                \"endpoint\":\"10.8.8.33:80\",\"reason\":\"r\",\"lasted\":null}";
    assert_eq!(serde_json::to_string(&entry).unwrap(), text);
}
