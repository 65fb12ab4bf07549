//! What a director waits for, and what it does when something else comes meanwhile.

use std::time::Duration;

use super::{Director, at, settings};
use xlvs::pulse::{Action, Event, Path, Pulse, Role, Settings, State, Wish, Word};

fn waiting(role: Role) -> Settings {
    Settings { wait: Duration::from_secs(10), ..settings(role) }
}

#[test]
fn a_router_that_has_less_than_its_partner_waits_but_not_for_ever() {
    let beaten = |until: u32| {
        let mut primary = Director::start(waiting(Role::Primary), false);
        primary.tell(Event::Joining(true));
        for second in 1..=until {
            primary.until(second.into()).hear(Word::Stopped);
        }
        primary
    };
    let mut primary = beaten(9);
    assert!(!primary.is_active(), "the partner has what this one has not");
    primary.tell(Event::Wish(Wish::Takeover));
    let text = "the partner has connections of which this router has not been told yet; ask again";
    primary.said_all(&[&format!("Err({text:?})")]);
    primary.tell(Event::Joining(false));
    primary.said_all(&["backup inactive: activating lvs"]);
    assert!(beaten(10).is_active(), "after ten seconds it goes on with what it has");
    let mut primary = beaten(1);
    primary.until(6.9);
    assert!(!primary.is_active());
    assert!(primary.until(7.0).is_active(), "a partner that is silent tells nothing more");
}

#[test]
fn a_router_that_comes_back_waits_anew() {
    for forced in [true, false] {
        let mut primary = Director::start(waiting(Role::Primary), forced);
        // Silence makes it active; nobody has said that it joins.
        primary.until(30.0).hear(Word::Stopped);
        assert!(primary.is_active());
        primary.tell(Event::Wish(Wish::Standby));
        primary.tell(Event::Joining(true));
        primary.until(31.0).hear(Word::Running);
        primary.until(32.0).hear(Word::Stopped);
        assert!(!primary.is_active(), "its partner has what it has not; forced: {forced}");
        primary.tell(Event::Joining(false));
        assert!(primary.is_active());
    }
}

#[test]
fn a_single_director_listens_to_nobody() {
    let mut single = Director::start(Settings { pair: false, ..settings(Role::Backup) }, true);
    single.hear(Word::Running);
    assert!(single.is_active());
}

#[test]
fn words_of_hold_change_nothing() {
    let mut backup = Director::of(Role::Backup);
    backup.until(1.0).hear(Word::Running);
    for word in [Word::Hold, Word::Held] {
        backup.until(2.0).hear(word);
        assert!(!backup.is_active());
    }
    backup.hear(Word::Stopped);
    assert!(backup.is_active(), "the word before was that the partner is active");
}

#[test]
fn an_operator_need_not_wait_for_a_partner_that_is_silent() {
    let mut primary = Director::start(Settings { fence: true, ..waiting(Role::Primary) }, false);
    primary.tell(Event::Joining(true));
    primary.until(1.0).hear(Word::Running);
    primary.until(7.0).said_all(&["partner dead: fencing it"]);
    primary.tell(Event::Wish(Wish::Takeover));
    assert!(primary.is_active());
}

#[test]
fn who_fences_is_not_active_and_tries_again_after_deadtime() {
    let fencing = Settings { fence: true, fence_required: true, ..settings(Role::Backup) };
    let mut director = Director::start(fencing, false);
    director.until(6.0).said_all(&["fence"]);
    assert_eq!(director.pulse.word(), Word::Stopped, "it has no address yet");
    director.tell(Event::Fenced(Err("no power switch".into())));
    director.until(11.9);
    assert!(!director.said().contains(&"fence".to_owned()), "not at once");
    director.until(12.0).said_all(&["fence"]);
}

#[test]
fn as_long_as_addresses_go_it_is_active_for_its_partner() {
    for ends in [false, true] {
        let (mut pulse, _) = Pulse::start(at(0.0), settings(Role::Backup), true);
        pulse.handle(at(1.0), Event::Heartbeat(Path::Public, Word::Running));
        assert_eq!((pulse.report(at(1.0)).state, pulse.word()), (State::Deactivating, Word::Running));
        let beats = pulse.handle(at(3.0), Event::Tick);
        assert_eq!(beats, [Action::Send(Word::Running)]);
        if ends {
            pulse.handle(at(3.1), Event::Terminate(15));
        }
        let last = pulse.handle(at(3.2), Event::Deactivated);
        assert!(last.contains(&Action::Send(Word::Stopped)));
        assert_eq!(last.contains(&Action::Exit), ends, "the signal is not forgotten");
    }
}

#[test]
fn a_primary_that_has_failed_does_not_take_the_work_when_told() {
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.tell(Event::LocalFailure);
    primary.until(1.0).hear(Word::Stopped);
    assert!(!primary.is_active());
    primary.tell(Event::Wish(Wish::Takeover));
    primary.said_all(&["Err(\"packet processing has failed on this router; restart xlvs\")"]);
}
