//! The failover pair: the bytes of heartbeats, the table of reference/piranha.md 4.3, what docs/pulse.md adds, and both
//! directors together in a simulated network.

mod cables;
mod calm;
mod schedules;
mod seen;
mod third;
mod twin;
mod upgrade;
mod waiting;
mod world;

use std::net::IpAddr;
use std::time::Duration;

use xlvs::net::addr::MacAddr;
use xlvs::net::announce::{claimed, probe};
use xlvs::net::checksum::pseudo_header;
use xlvs::net::time::Instant;
use xlvs::pulse::account::ACCOUNT_LEN_MAX;
use xlvs::pulse::claim::{Claim, Verdict};
use xlvs::pulse::wire::{AUTHENTICATED_LEN, Key, Refusal, Wire};
use xlvs::pulse::{Account, Action, Event, Hook, Path, Pulse, Role, Settings, State, SyncReport, Wish, Word};

fn at(seconds: f64) -> Instant {
    Instant::from_nanos((seconds * 1e9) as u64)
}

fn settings(role: Role) -> Settings {
    Settings {
        role,
        pair: true,
        keepalive: Duration::from_secs(2),
        deadtime: Duration::from_secs(6),
        monitor_links: true,
        fence: false,
        fence_required: false,
        wait: Duration::ZERO,
    }
}

/// A director that does at once what it wants done, and says what that was.
struct Director {
    pulse: Pulse,
    now: Instant,
    said: Vec<String>,
}

impl Director {
    fn start(settings: Settings, forced: bool) -> Self {
        let now = at(0.0);
        let (pulse, first) = Pulse::start(now, settings, forced);
        let mut director = Director { pulse, now, said: Vec::new() };
        director.take(first);
        director
    }

    fn of(role: Role) -> Self {
        Director::start(settings(role), false)
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            let line = match &action {
                Action::Send(word) => format!("sends {word:?}"),
                Action::Log(_, text) => text.clone(),
                Action::Run(Hook::Active) => "active_cmd".into(),
                Action::Run(Hook::Inactive) => "inactive_cmd".into(),
                Action::Answer(answer) => format!("{answer:?}"),
                other => format!("{other:?}").to_lowercase(),
            };
            self.said.push(line);
            match action {
                Action::Activate => self.tell(Event::Activated),
                Action::Deactivate => self.tell(Event::Deactivated),
                _ => {}
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.pulse.handle(self.now, event);
        self.take(actions);
    }

    fn hear(&mut self, word: Word) {
        self.tell(Event::Heartbeat(Path::Public, word));
    }

    /// Lets time pass, with all its ticks.
    fn until(&mut self, seconds: f64) -> &mut Self {
        while let Some(deadline) = self.pulse.next_deadline().filter(|deadline| *deadline <= at(seconds)) {
            self.now = deadline;
            self.tell(Event::Tick);
        }
        self.now = at(seconds);
        self
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn said_all(&mut self, lines: &[&str]) {
        let said = self.said();
        assert!(lines.iter().all(|line| said.iter().any(|other| other == line)), "{lines:?} in {said:#?}");
    }

    fn is_active(&self) -> bool {
        self.pulse.is_active()
    }
}

#[test]
#[cfg(target_endian = "little")]
fn piranhas_heartbeats_have_its_bytes() {
    // Section 4.2, as captured from x86.
    for (word, bytes) in [
        (Word::Running, [0xda, 0xdb, 0xad, 0xbd]),
        (Word::Stopped, [0xbd, 0xda, 0xbd, 0xad]),
        (Word::Hold, [0xbe, 0xba, 0xaf, 0xde]),
        (Word::Held, [0xda, 0xda, 0xaf, 0xde]),
    ] {
        let mut wire = Wire::new(Role::Primary, None, 1);
        assert_eq!(wire.heartbeats(word, &[Path::Public]), [(Path::Public, bytes.to_vec())]);
        assert_eq!(wire.receive(Path::Public, &bytes), Ok(word));
    }
    let mut wire = Wire::new(Role::Primary, None, 1);
    for fos in [[0xbe, 0xba, 0xef, 0xbe], [0xef, 0xbe, 0xad, 0xde], [0xda, 0xda, 0xad, 0xde], [0; 4]] {
        let refusal = wire.receive(Path::Public, &fos).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "Incompatible heartbeat received -- other system not using identical services"
        );
    }
    for wrong in [&[][..], &[0xda, 0xdb, 0xad], &[0xda, 0xdb, 0xad, 0xbd, 0]] {
        assert_eq!(wire.receive(Path::Public, wrong).unwrap_err().to_string(), "bad heartbeat packet");
    }
    assert_eq!((wire.refused().incompatible, wire.refused().malformed), (4, 3));
}

/// Two that have a key, and have met.
fn acquainted() -> (Wire, Wire) {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let (mut a, mut b) = (Wire::new(Role::Primary, Some(&key), 11), Wire::new(Role::Backup, Some(&key), 22));
    let first = &a.heartbeats(Word::Stopped, &[Path::Public])[0].1;
    assert_eq!(b.receive(Path::Public, first), Err(Refusal::Unfresh), "made before it knew of this run");
    let answer = b.answer(Word::Stopped, Path::Public);
    assert_eq!(a.receive(Path::Public, &answer), Ok(Word::Stopped), "the answer is taken at once");
    let next = &a.heartbeats(Word::Running, &[Path::Public])[0].1;
    assert_eq!(b.receive(Path::Public, next), Ok(Word::Running));
    (a, b)
}

#[test]
fn an_authenticated_heartbeat_is_taken_once_and_only_as_it_was_made() {
    let (mut a, mut b) = acquainted();
    let both = a.heartbeats(Word::Running, &Path::ALL);
    let (public, private) = (&both[0].1, &both[1].1);
    assert_eq!(public.len(), AUTHENTICATED_LEN);
    for bit in 0..AUTHENTICATED_LEN * 8 {
        let mut forged = public.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(b.receive(Path::Public, &forged).is_err(), "bit {bit}");
    }
    assert_eq!(b.receive(Path::Private, public), Err(Refusal::Forged), "it says by which path it goes");
    assert_eq!(a.receive(Path::Public, public), Err(Refusal::Forged), "its own, reflected");
    let mut twin = Wire::new(Role::Primary, Some(&Key::new(b"0123456789abcdef").unwrap()), 55);
    assert_eq!(
        twin.receive(Path::Public, public),
        Err(Refusal::SameRole),
        "two take themselves for the primary"
    );
    assert_eq!(twin.refused().same_role, 1);
    assert_eq!(b.receive(Path::Public, public), Ok(Word::Running));
    assert_eq!(b.receive(Path::Private, private), Ok(Word::Running));
    assert_eq!(b.receive(Path::Public, public), Err(Refusal::Repeated));
    let older = a.heartbeats(Word::Running, &Path::ALL);
    let newer = a.heartbeats(Word::Stopped, &Path::ALL);
    assert_eq!(b.receive(Path::Private, &newer[1].1), Ok(Word::Stopped));
    assert_eq!(b.receive(Path::Public, &older[0].1), Err(Refusal::Repeated), "overtaken on the other path");
    assert_eq!(b.receive(Path::Public, &Word::Running.to_bytes()), Err(Refusal::Plain));
    assert_eq!(b.refused().forged + b.refused().malformed + 3, AUTHENTICATED_LEN as u64 * 8 + 4);
    let mut without = Wire::new(Role::Backup, None, 3);
    assert_eq!(without.receive(Path::Public, public), Err(Refusal::NoKey));
}

#[test]
fn an_account_is_taken_once_and_only_as_it_was_made() {
    let (mut a, mut b) = acquainted();
    let sync = SyncReport {
        by: "ipvs".into(),
        sends: true,
        connections: 7,
        messages: 3,
        failed: 0,
        in_sync: None,
        lag_ms: None,
    };
    let account = Account {
        version: "1".into(),
        state: State::Active,
        since_ms: 1500,
        why: "x".repeat(5000),
        sync: Some(sync),
    };
    let both = a.accounts(&account, &Path::ALL);
    let (public, private) = (&both[0].1, &both[1].1);
    assert!(Wire::is_account(public) && public.len() < ACCOUNT_LEN_MAX, "a long reason is cut");
    for byte in 0..public.len() {
        let mut forged = public.clone();
        forged[byte] ^= 1;
        assert!(b.receive_account(Path::Public, &forged).is_err(), "byte {byte}");
        assert!(b.receive_account(Path::Public, &public[..byte]).is_err(), "{byte} bytes");
    }
    assert_eq!(
        b.receive_account(Path::Private, public),
        Err(Refusal::Forged),
        "it says by which path it goes"
    );
    assert_eq!(a.receive_account(Path::Public, public), Err(Refusal::Forged), "its own, reflected");
    let taken = b.receive_account(Path::Public, public).unwrap();
    assert_eq!((taken.state, taken.sync), (account.state, account.sync.clone()));
    assert_eq!(b.receive_account(Path::Public, public), Err(Refusal::Repeated));
    assert!(b.receive_account(Path::Private, private).is_ok());
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut fresh = Wire::new(Role::Backup, Some(&key), 33);
    assert_eq!(fresh.receive_account(Path::Public, public), Err(Refusal::Repeated), "of another run");
    assert!(fresh.accounts(&account, &Path::ALL).is_empty(), "nobody has been heard");
    let mut without = Wire::new(Role::Primary, None, 4);
    assert_eq!(without.receive_account(Path::Public, public), Err(Refusal::NoKey));
}

#[test]
fn what_was_recorded_before_a_restart_is_not_taken_after_it() {
    let (mut a, mut b) = acquainted();
    let old = a.heartbeats(Word::Running, &[Path::Public])[0].1.clone();
    let key = Key::new(b"0123456789abcdef").unwrap();
    // The receiver starts anew.
    let mut fresh = Wire::new(Role::Backup, Some(&key), 33);
    assert_eq!(fresh.receive(Path::Public, &old), Err(Refusal::Unfresh));
    // The sender starts anew, is met, and its former self is sent again.
    let mut again = Wire::new(Role::Primary, Some(&key), 44);
    let heartbeat = b.heartbeats(Word::Stopped, &[Path::Public])[0].1.clone();
    assert_eq!(again.receive(Path::Public, &heartbeat), Err(Refusal::Unfresh));
    let answer = again.answer(Word::Stopped, Path::Public);
    assert_eq!(b.receive(Path::Public, &answer), Ok(Word::Stopped));
    assert_eq!(b.receive(Path::Public, &old), Err(Refusal::Repeated));
}

#[test]
fn silence_for_deadtime_is_a_takeover() {
    let mut backup = Director::of(Role::Backup);
    assert_eq!(backup.said(), ["STARTING PULSE AS BACKUP", "inactive_cmd", "sends Stopped"]);
    backup.until(1.0).hear(Word::Running);
    backup.until(6.9);
    assert!(!backup.is_active());
    assert_eq!(backup.said(), ["sends Stopped", "sends Stopped", "sends Stopped"]);
    backup.until(7.0);
    let order = ["partner dead: activating lvs", "sends Running", "activate"];
    assert_eq!(backup.said()[..3], order);
}

#[test]
fn a_single_director_waits_for_deadtime_or_is_forced() {
    let single = Settings { pair: false, ..settings(Role::Primary) };
    let mut waiting = Director::start(single.clone(), false);
    waiting.until(5.9);
    assert!(!waiting.is_active());
    waiting.until(6.0).said_all(&["STARTING PULSE AS MASTER", "partner dead: activating lvs"]);
    let mut forced = Director::start(single, true);
    assert!(forced.is_active());
    forced.until(60.0);
    let said = forced.said();
    assert!(said.contains(&"Forced active on startup: activating lvs".to_owned()));
    assert!(!said.iter().any(|line| line.starts_with("sends")), "there is nobody to tell: {said:?}");
}

#[test]
fn a_partner_that_stops_is_replaced_at_once() {
    let mut backup = Director::of(Role::Backup);
    backup.until(1.0).hear(Word::Running);
    backup.until(2.5).hear(Word::Stopped);
    backup.said_all(&["primary inactive: activating lvs"]);
    let mut primary = Director::of(Role::Primary);
    primary.until(1.0).hear(Word::Running);
    primary.until(2.5).hear(Word::Stopped);
    primary.said_all(&["backup inactive: activating lvs"]);
}

#[test]
fn when_both_start_the_primary_goes_first() {
    let mut backup = Director::of(Role::Backup);
    backup.until(0.1).hear(Word::Stopped);
    assert!(!backup.is_active(), "the primary has not heard this one yet");
    backup.until(0.2).hear(Word::Running);
    backup.until(4.0).hear(Word::Running);
    assert!(!backup.is_active());
    let mut primary = Director::of(Role::Primary);
    primary.until(0.1).hear(Word::Stopped);
    assert!(primary.is_active());
    // A primary that may not, or is deaf, does not keep its backup from it.
    let mut backup = Director::of(Role::Backup);
    backup.until(0.1).hear(Word::Stopped);
    backup.until(2.1).hear(Word::Stopped);
    assert!(!backup.is_active());
    backup.until(4.1).hear(Word::Stopped);
    assert!(backup.is_active());
}

#[test]
fn of_two_actives_the_backup_gives_way_and_the_primary_announces_again() {
    let mut backup = Director::start(settings(Role::Backup), true);
    backup.said();
    backup.hear(Word::Running);
    assert_eq!(
        backup.said(),
        ["sends Running", "partner active: deactivating LVS", "inactive_cmd", "deactivate", "sends Stopped"]
    );
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.said();
    primary.hear(Word::Running);
    primary.tell(Event::Heartbeat(Path::Private, Word::Running));
    assert_eq!(
        primary.said(),
        ["partner active: resending arps", "active_cmd", "announceagain"],
        "not twice"
    );
    primary.until(2.0).hear(Word::Stopped);
    primary.said_all(&["partner inactive again: resending arps", "announceagain"]);
    assert!(primary.is_active());
}

#[test]
fn a_primary_whose_backup_does_not_hear_it_gives_way_in_the_end() {
    let mut primary = Director::start(settings(Role::Primary), true);
    for second in 1..=6 {
        primary.until(second.into()).hear(Word::Running);
        assert!(primary.is_active(), "it waits for deadtime: {second}");
    }
    primary.until(7.0).hear(Word::Running);
    assert!(!primary.is_active());
    primary.said_all(&["partner active and does not hear this router: deactivating LVS"]);
    // After a silence it is another matter.
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.until(1.0).hear(Word::Running);
    primary.until(60.0).hear(Word::Running);
    assert!(primary.is_active());
}

#[test]
fn there_is_no_failback() {
    let mut primary = Director::of(Role::Primary);
    for second in 0..30 {
        primary.until(f64::from(second) + 0.5).hear(Word::Running);
    }
    assert!(!primary.is_active());
    primary.tell(Event::Wish(Wish::Takeover));
    assert!(primary.is_active());
    primary.said_all(&[
        "Forced active by the operator: activating lvs",
        "sends Running",
        "Ok(\"becoming active\")",
    ]);
}

#[test]
fn an_end_is_told_after_the_addresses_are_gone() {
    let mut active = Director::start(settings(Role::Primary), true);
    active.said();
    active.tell(Event::Terminate(15));
    let expected = [
        "Terminating due to signal 15",
        "shutting down: deactivating lvs",
        "inactive_cmd",
        "deactivate",
        "sends Stopped",
        "sends Stopped",
        "sends Stopped",
        "exit",
    ];
    assert_eq!(active.said(), expected);
    assert_eq!(active.pulse.next_deadline(), None);
}

#[test]
fn a_lost_link_leaves_the_work_to_the_partner() {
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.said();
    primary.until(1.0).tell(Event::Link(Path::Public, false));
    primary.said_all(&[
        "Primary NIC: link down",
        "Local NIC link failure: Pulse disabled",
        "local link failure: deactivating LVS",
        "deactivate",
        "sends Stopped",
    ]);
    primary.until(27.0).hear(Word::Stopped);
    primary.until(30.0);
    assert!(!primary.is_active(), "not while it is down");
    primary.tell(Event::Link(Path::Public, true));
    primary.said_all(&["Local NIC link(s) restored: Pulse enabled"]);
    primary.until(35.9);
    assert!(!primary.is_active(), "it listens for deadtime first");
    primary.until(36.0);
    assert!(primary.is_active());
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.tell(Event::Link(Path::Private, false));
    primary.until(1.0).hear(Word::Stopped);
    assert!(!primary.is_active(), "either link is a reason");
    let mut careless = Director::start(Settings { monitor_links: false, ..settings(Role::Primary) }, true);
    careless.tell(Event::Link(Path::Public, false));
    assert!(careless.is_active());
}

#[test]
fn after_a_local_failure_it_returns_when_the_partner_has_been_active() {
    let mut director = Director::start(settings(Role::Backup), true);
    director.until(0.5).tell(Event::LocalFailure);
    director.said_all(&["local failure: deactivating lvs", "sends Stopped"]);
    director.until(0.9).hear(Word::Stopped);
    assert!(!director.is_active(), "it has failed");
    director.until(1.0).hear(Word::Running);
    director.until(6.9);
    assert!(!director.is_active());
    director.until(7.0);
    assert!(director.is_active(), "silence counts again");
}

#[test]
fn a_silent_partner_is_fenced_first() {
    let fencing = |required| Settings { fence: true, fence_required: required, ..settings(Role::Backup) };
    let mut director = Director::start(fencing(false), false);
    director.until(6.0).said_all(&["partner dead: fencing it", "fence"]);
    assert!(!director.is_active());
    director.tell(Event::Fenced(Err("no power switch".into())));
    assert!(director.is_active(), "availability goes first unless it is told otherwise");
    director.said_all(&["no power switch; lvs is activated all the same"]);
    let mut director = Director::start(fencing(true), false);
    director.until(6.0).tell(Event::Fenced(Err("no power switch".into())));
    assert!(!director.is_active());
    director.until(12.0).tell(Event::Fenced(Ok(())));
    assert!(director.is_active());
    let mut director = Director::start(fencing(true), false);
    director.until(6.0).hear(Word::Running);
    director.tell(Event::Fenced(Ok(())));
    assert!(!director.is_active(), "it was alive after all");
    let mut director = Director::start(fencing(false), false);
    director.until(6.0).tell(Event::Link(Path::Public, false));
    director.tell(Event::Fenced(Ok(())));
    assert!(!director.is_active(), "its link is lost meanwhile");
    // Nobody who says that he stops is fenced.
    let mut director = Director::start(fencing(true), false);
    director.until(1.0).hear(Word::Running);
    director.hear(Word::Stopped);
    assert!(director.is_active());
}

#[test]
fn the_next_process_fences_again() {
    let mut director = Director::start(Settings { fence: true, ..settings(Role::Backup) }, false);
    director.until(6.0);
    assert_eq!(director.pulse.report(director.now).state, State::Fencing);
    let (pulse, first) = director.pulse.clone().go_on(settings(Role::Backup));
    assert_eq!(first, [Action::Fence]);
    assert_eq!(pulse.report(director.now).state, State::Fencing);
    let (_, first) = Pulse::start(at(0.0), settings(Role::Backup), false).0.go_on(settings(Role::Backup));
    assert_eq!(first, []);
}

#[test]
fn standby_moves_the_work_to_a_partner_that_takes_it() {
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.tell(Event::Wish(Wish::Standby));
    assert!(primary.is_active(), "nobody is heard who would take over");
    primary.until(1.0).hear(Word::Stopped);
    primary.tell(Event::Wish(Wish::Standby));
    primary.said_all(&["Ok(\"becoming inactive; the partner takes over\")", "deactivate", "sends Stopped"]);
    primary.until(1.1).hear(Word::Stopped);
    assert!(!primary.is_active(), "that was on its way");
    primary.until(1.2).hear(Word::Running);
    let report = primary.pulse.report(at(3.2));
    assert_eq!((report.state, report.since_ms), (State::Inactive, 2200));
    let partner = report.partner.unwrap();
    assert_eq!((partner.word, partner.public_ms), (Some(Word::Running), Some(2000)));
    // If it does not, the work comes back.
    let mut primary = Director::start(settings(Role::Primary), true);
    primary.until(1.0).hear(Word::Stopped);
    primary.tell(Event::Wish(Wish::Standby));
    primary.until(6.9);
    assert!(!primary.is_active());
    primary.until(7.0).said_all(&["the partner has not taken over: standby ends"]);
    assert!(primary.is_active());
    // A backup may not take what the primary would keep.
    let mut backup = Director::of(Role::Backup);
    backup.until(1.0).hear(Word::Running);
    backup.tell(Event::Wish(Wish::Takeover));
    assert!(!backup.is_active());
}

#[test]
fn an_address_in_use_is_waited_for_only_if_the_partner_gives_it_up() {
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let claim = || Claim::new(at(0.0), address, Duration::from_secs(6));
    assert_eq!(claim().judge(at(0.1), None, true), Verdict::Free);
    let Verdict::Defend(text) = claim().judge(at(0.1), Some(mac), false) else { panic!("it is needed") };
    assert!(text.contains("192.0.2.1 is in use by 02:00:00:00:00:09"), "{text}");
    let mut waiting = claim();
    assert!(matches!(waiting.judge(at(0.1), Some(mac), true), Verdict::Wait(Some(_))));
    assert!(matches!(waiting.judge(at(0.2), Some(mac), true), Verdict::Wait(None)), "said once");
    assert_eq!(waiting.judge(at(0.3), None, true), Verdict::Free);
    assert!(matches!(waiting.judge(at(6.0), Some(mac), true), Verdict::Defend(_)), "not for ever");
}

#[test]
fn probes_ask_without_claiming() {
    let (mac, other) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 9]));
    let v4: IpAddr = "192.0.2.1".parse().unwrap();
    // RFC 5227 section 2.1.1: a broadcast request, the sender's address zero, the target's hardware address zero.
    let frame = probe(mac, v4);
    let mut expected = vec![0xff; 6];
    expected.extend(mac.0);
    expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    expected.extend(mac.0);
    expected.extend([0; 10]);
    expected.extend([192, 0, 2, 1]);
    expected.resize(60, 0);
    assert_eq!(frame, expected);
    assert_eq!(claimed(&frame), Some((v4, mac)), "somebody who would like to have it too");
    // An answer: a reply from the owner.
    let mut reply = frame.clone();
    reply[21] = 2;
    reply[22..28].copy_from_slice(&other.0);
    reply[28..32].copy_from_slice(&[192, 0, 2, 1]);
    assert_eq!(claimed(&reply), Some((v4, other)));
    // RFC 4862 section 5.4.2: from nowhere to the solicited-node group, hop limit 255, a good checksum.
    let v6: IpAddr = "2001:db8::12:3456".parse().unwrap();
    let frame = probe(mac, v6);
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    assert_eq!((frame.len(), frame[20], frame[21], frame[54]), (78, 58, 255, 135));
    let group: IpAddr = "ff02::1:ff12:3456".parse().unwrap();
    let sum = pseudo_header("::".parse().unwrap(), group, xlvs::net::addr::Protocol::ICMPV6.0, 24);
    assert_eq!(sum.bytes(&frame[54..]).finish(), 0);
    assert_eq!(claimed(&frame), Some((v6, mac)));
    for short in 0..frame.len() {
        assert_eq!(claimed(&frame[..short]).filter(|_| short < 78), None, "{short}");
    }
}
