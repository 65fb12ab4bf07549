//! The scenario runner itself: that it builds, reads, compares and tells as the goldens were recorded.

use std::time::Duration;

use crate::support::conversation::{Conversation, Turn};
use crate::support::decode::decode;
use crate::support::device::{CommandOutput, Departure, Device, Side};
use crate::support::host::HostModel;
use crate::support::packet::{self, PacketSpec};
use crate::support::replay::{Replay, heard};
use crate::support::scenario::{self, Action, Play, StepRecord, Wish};
use crate::support::text::line;
use crate::support::{ethernet, suite};

/// What the replay device cannot answer: quoted packets, fragments, SCTP, tunnels, payload that
/// the router changes, what its own stack answers in the name of another, and what synchronisation daemons send.
fn beyond_replay(play: &Play) -> bool {
    let name = &play.scenario.name;
    let marks = ["inner(", "inner=", "frag=", "sctp ", "ipip", "ip6ip", "gre ", "gue ", "via="];
    let lines = || play.golden.steps.iter().flat_map(|step| &step.out);
    name == "local-server"
        || play.scenario.looks_at_messages()
        || name.contains("ftp")
        || lines().any(|line| marks.iter().any(|mark| line.contains(mark)))
}

fn replay(play: &Play) -> Box<dyn Device> {
    Box::new(Replay::new(&play.golden))
}

/// The lines of the packets that a step sends, as far as they can be known without bytes of earlier answers.
fn rebuilt(conversation: &mut Conversation, wishes: &[Wish], record: &StepRecord) -> Vec<String> {
    let mut lines = Vec::new();
    for wish in wishes {
        match conversation.next(record.label.as_deref(), wish) {
            Turn::Skip(reason) => lines.push(reason.to_owned()),
            Turn::Send(outgoing) => lines.extend(outgoing.build().iter().map(|packet| {
                let in_frame = ethernet::frame(outgoing.side, packet);
                assert_eq!(
                    ethernet::packet(&in_frame),
                    Some(&packet[..]),
                    "framing must not change a packet"
                );
                format!("{} {}", outgoing.side, line(&decode(packet), &outgoing.identities()))
            })),
        }
    }
    if let Some(label) = &record.label {
        conversation.note_heard(label, record.out.iter().filter_map(|line| heard(line)).collect());
    }
    lines
}

#[test]
fn packets_are_built_and_read_as_in_the_goldens() {
    let (mut compared, mut without_quotation) = (0, 0);
    for play in &scenario::all() {
        let mut conversation = Conversation::default();
        for (step, record) in play.scenario.steps.iter().zip(&play.golden.steps) {
            let Action::Send(wishes) = &step.action else { continue };
            let lines = rebuilt(&mut conversation, wishes.as_slice(), record);
            if lines.iter().any(|line| line.ends_with("nothing to embed")) {
                without_quotation += 1;
                continue;
            }
            assert_eq!(
                lines, record.input,
                "{} step {}: the packets that go in",
                play.scenario.name, record.i
            );
            compared += lines.len();
        }
    }
    println!(
        "{compared} packets as in the goldens, {without_quotation} steps quote bytes that goldens do not hold"
    );
    assert!(compared > 300, "only {compared} packets: were the scenarios found?");
}

#[test]
fn a_replayed_golden_is_the_same() {
    let plays = scenario::own();
    let report = suite::run(plays.iter().filter(|play| !beyond_replay(play)), replay);
    println!("{}", report.summary());
    assert!(report.different.is_empty(), "{}\n{}", report.stories(), report.summary());
    assert!(report.same.len() > 40, "only {}: were the scenarios found?", report.summary());
}

/// Plays `tcp-handshake` against its golden after `change`, on a device that relives the unchanged one.
fn story_after(change: impl FnOnce(&mut Vec<StepRecord>)) -> Option<String> {
    let mut play = scenario::named("tcp-handshake");
    let mut device = replay(&play);
    change(&mut play.golden.steps);
    suite::story_of(&[], &play, &mut *device)
}

fn assert_told(story: Option<String>, expected: &[&str]) {
    let story = story.expect("a difference");
    for text in expected {
        assert!(story.contains(text), "{text:?} is not in the story:\n{story}");
    }
}

fn labelled<'a>(steps: &'a mut [StepRecord], label: &str) -> &'a mut StepRecord {
    steps.iter_mut().find(|step| step.label.as_deref() == Some(label)).expect("a step of that label")
}

#[test]
fn a_packet_that_differs_is_told_with_its_step() {
    let story = story_after(|steps| {
        let out = &mut labelled(steps, "a.sa").out[0];
        *out = out.replace("ttl=63", "ttl=62");
    });
    let wanted = "tcp 10.10.1.30:80 > 192.0.2.10:1000 SA seq=5000 ack=1001 win=65535 opts=020405b4 ttl=";
    let rest = "id=in iplen=44 ipsum=ok l4sum=ok";
    assert_told(
        story,
        &[
            "tcp-handshake: ",
            "  0        $ ipvsadm -A -t 10.10.1.30:80 -s wlc",
            "step 3 (a.sa), came out:",
            &format!("golden c {wanted}62 {rest}"),
            &format!("here   c {wanted}63 {rest}"),
        ],
    );
}

#[test]
fn a_missing_packet_is_told() {
    let story = story_after(|steps| labelled(steps, "a").out.clear());
    assert_told(story, &["step 1 (a), came out:", "golden nothing", "here   s tcp 192.0.2.10:1000 > "]);
}

#[test]
fn a_command_that_fails_is_told() {
    let story = story_after(|steps| steps[0].run[1].rc = 255);
    assert_told(story, &["step 0, command:", "golden $ ipvsadm -a ", "[exit 255]", "[exit 0]"]);
}

/// The last dump of connections in the golden of `tcp-handshake`.
fn last_dump(steps: &mut [StepRecord]) -> &mut StepRecord {
    steps
        .iter_mut()
        .rfind(|step| step.dump.as_ref().is_some_and(|dump| dump.conns.is_some()))
        .expect("a dump")
}

fn delay_expiry(record: &mut StepRecord, seconds: i64) {
    for connection in record.dump.as_mut().and_then(|dump| dump.conns.as_mut()).expect("connections") {
        connection.exp += seconds;
        connection.timeout = None;
    }
}

#[test]
fn an_expiry_may_differ_by_rounding_and_no_more() {
    assert_eq!(story_after(|steps| delay_expiry(last_dump(steps), 1)), None);
    assert_told(story_after(|steps| delay_expiry(last_dump(steps), 5)), &["connections:", "expires in "]);
}

#[test]
fn an_expiry_is_reckoned_from_when_the_golden_was_slower() {
    let story = story_after(|steps| {
        steps.iter_mut().for_each(|step| step.t = Some(0.0));
        let record = last_dump(steps);
        record.t = Some(20.0);
        delay_expiry(record, -20);
    });
    assert_eq!(story, None);
}

/// A device that is broken.
struct Broken;

impl Device for Broken {
    fn run(&mut self, command: &str) -> CommandOutput {
        panic!("{command}: on purpose, in the test of the runner")
    }

    fn deliver(&mut self, _side: Side, _packet: &[u8]) -> Vec<Departure> {
        Vec::new()
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn advance(&mut self, _by: Duration) -> Vec<Departure> {
        Vec::new()
    }

    fn dump(&mut self, _sections: &[String]) -> String {
        String::new()
    }
}

#[test]
fn a_panic_does_not_stop_the_other_scenarios() {
    let plays = ["tcp-handshake", "udp-wlc"].map(scenario::named);
    let report = suite::run(&plays, |play| {
        if play.scenario.name == "tcp-handshake" { Box::new(Broken) } else { replay(play) }
    });
    assert_eq!(report.summary(), "scenarios: 1 same, 1 differ (tcp-handshake), 0 not played");
}

#[test]
fn the_host_routes_by_destination_and_keeps_the_ttl() {
    let mut spec = PacketSpec::new([192, 0, 2, 10].into(), [10, 8, 8, 33].into(), "udp");
    spec.ttl = 1;
    let packet = packet::build(&spec, None).remove(0);
    assert_eq!(HostModel::default().route(&packet), Some((Side::Server, packet)));
}

#[test]
fn the_host_forwards_a_hop_further() {
    let mut spec = PacketSpec::new([10, 8, 8, 33].into(), [192, 0, 2, 10].into(), "udp");
    let forwarded = HostModel::default().receive(Side::Server, &packet::build(&spec, None)[0]);
    spec.ttl = 63;
    assert_eq!(forwarded, [(Side::Client, packet::build(&spec, None).remove(0))]);
}
