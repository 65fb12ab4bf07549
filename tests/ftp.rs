//! FTP where the kernel is wrong, so that no recording can show it: answers that are cut off, sent again, or stand behind
//! another line; IPv6; marks; what does not fit.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::decode::decode;
use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};
use crate::support::text::{Identities, line};

const ANSWER: &str = "227 Entering Passive Mode (10,8,8,34,156,64).\r\n";
const REWRITTEN: &str = "227 Entering Passive Mode (10,10,1,30,156,64).\r\n";

/// A client's control connection through a router with one FTP service and one server.
struct Control {
    router: Router,
    client: &'static str,
    virtual_address: &'static str,
    server: &'static str,
}

/// A segment as it left.
#[derive(Debug, PartialEq)]
struct Segment {
    line: String,
    seq: u32,
    ack: u32,
    /// What the payload says.
    text: String,
}

impl Control {
    /// Established over IPv4, the server's next byte being 5001 and the client's 1001.
    fn new() -> Self {
        Control::with(&[
            "ipvsadm -A -t 10.10.1.30:21 -s rr",
            "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.34:21 -m",
        ])
    }

    fn with(commands: &[&str]) -> Self {
        Control::between(["192.0.2.10", "10.10.1.30", "10.8.8.34"], commands)
    }

    fn between([client, virtual_address, server]: [&'static str; 3], commands: &[&str]) -> Self {
        let mut router = Router::new();
        for command in commands {
            let output = router.run(command);
            assert_eq!(output.code, 0, "{command}: {}", output.stderr);
        }
        let mut control = Control { router, client, virtual_address, server };
        control.client(json!({"flags": "S", "seq": 1000}));
        control.server(json!({"flags": "SA", "seq": 5000, "ack": 1001}));
        control.client(json!({"flags": "A", "seq": 1001, "ack": 5001}));
        control
    }

    fn client(&mut self, more: Value) -> Vec<Segment> {
        let spec = json!({"src": self.client, "dst": self.virtual_address, "sport": 1000, "dport": 21});
        self.send(Side::Client, spec, more)
    }

    fn server(&mut self, more: Value) -> Vec<Segment> {
        let spec = json!({"src": self.server, "dst": self.client, "sport": 21, "dport": 1000});
        self.send(Side::Server, spec, more)
    }

    fn send(&mut self, side: Side, mut spec: Value, more: Value) -> Vec<Segment> {
        let fields = spec.as_object_mut().unwrap();
        fields.extend(json!({"proto": "tcp", "flags": "PA", "id": 7}).as_object().unwrap().clone());
        fields.extend(more.as_object().unwrap().clone());
        let spec: PacketSpec = serde_json::from_value(spec).unwrap();
        let departures = self.router.deliver(side, &build(&spec, None).remove(0));
        departures.iter().map(|departure| segment(&departure.packet)).collect()
    }

    /// The client asks for passive mode.
    fn ask(&mut self) {
        self.client(json!({"seq": 1001, "ack": 5001, "data": "PASV\r\n"}));
    }

    /// The server says this from `seq` on; one segment leaves.
    fn say(&mut self, seq: u32, text: &str) -> Segment {
        let mut out = self.server(json!({"seq": seq, "ack": 1007, "data": text}));
        assert_eq!(out.len(), 1, "{text}: {out:?}");
        out.remove(0)
    }

    /// The client acknowledges; as what the server gets it.
    fn acknowledge(&mut self, ack: u32) -> u32 {
        self.client(json!({"flags": "A", "seq": 1007, "ack": ack}))[0].ack
    }

    /// Where a data connection of the client to this port goes.
    fn call(&mut self, port: u16) -> String {
        let out = self.client(json!({"sport": 1005, "dport": port, "flags": "S", "seq": 1}));
        out.iter().map(|segment| segment.line.clone()).collect()
    }
}

fn segment(packet: &[u8]) -> Segment {
    let line = line(&decode(packet), &Identities::of(7, 0));
    assert!(!line.contains("BAD"), "{line}");
    let header = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let number = |offset: usize| u32::from_be_bytes(packet[header + offset..][..4].try_into().unwrap());
    let payload = &packet[header + usize::from(packet[header + 12] >> 4) * 4..];
    let text = String::from_utf8_lossy(payload).into_owned();
    Segment { line, seq: number(4), ack: number(8), text }
}

#[test]
fn an_answer_cut_off_within_the_address_does_not_show_it() {
    let mut control = Control::new();
    control.ask();
    let (first, second) = ANSWER.split_at(33);
    assert_eq!(first, "227 Entering Passive Mode (10,8,8");
    let out = control.say(5001, first);
    assert_eq!((out.seq, &*out.text), (5001, "227 Entering Passive Mode (10,10,1,30"));
    assert_eq!(control.acknowledge(5038), 5034, "all that the server has sent");
    let out = control.say(5034, second);
    assert_eq!((out.seq, &*out.text), (5038, ",156,64).\r\n"));
    assert_eq!(control.acknowledge(5049), 5048);
    let line = control.call(40000);
    assert!(line.contains("> 10.8.8.34:40000 S"), "{line}");
    assert_eq!(control.say(5048, "150 ok\r\n").seq, 5049);
}

#[test]
fn what_follows_a_cut_off_answer_waits_for_the_rest() {
    let mut control = Control::new();
    control.ask();
    control.say(5001, &ANSWER[..30]);
    let ahead = json!({"seq": 5048, "ack": 1007, "data": "150 ok\r\n"});
    assert_eq!(control.server(ahead), []);
    // All of it in one piece, as a server may send it again.
    let out = control.say(5001, &[ANSWER, "150 ok\r\n"].concat());
    assert_eq!((out.seq, out.text), (5001, [REWRITTEN, "150 ok\r\n"].concat()));
}

#[test]
fn an_answer_sent_again_is_rewritten_again() {
    let mut control = Control::new();
    control.ask();
    for _ in 0..3 {
        let out = control.say(5001, ANSWER);
        assert_eq!((out.seq, &*out.text), (5001, REWRITTEN));
    }
    let out = control.say(5001, &[ANSWER, "150 ok\r\n"].concat());
    assert_eq!((out.seq, out.text), (5001, [REWRITTEN, "150 ok\r\n"].concat()));
    let out = control.say(5005, &ANSWER[4..]);
    assert_eq!((out.seq, &*out.text), (5005, &REWRITTEN[4..]));
    assert_eq!(control.say(5048, "150 ok\r\n").seq, 5049);
}

#[test]
fn an_answer_behind_another_line_is_rewritten() {
    let mut control = Control::new();
    control.ask();
    let out = control.say(5001, &["200 ok\r\n", ANSWER].concat());
    assert_eq!((out.seq, out.text), (5001, ["200 ok\r\n", REWRITTEN].concat()));
    let line = control.call(40000);
    assert!(line.contains("> 10.8.8.34:40000 S"), "{line}");
}

#[test]
fn a_server_that_names_the_virtual_address_means_itself() {
    let mut control = Control::new();
    control.ask();
    assert_eq!(control.say(5001, REWRITTEN).text, REWRITTEN);
    let line = control.call(40000);
    assert!(line.contains("> 10.8.8.34:40000 S"), "{line}");
}

#[test]
fn an_answer_under_a_mark_is_rewritten() {
    let mut control = Control::with(&[
        "iptables -t mangle -A PREROUTING -d 10.10.1.30/32 -p tcp -m tcp --dport 21 -j MARK --set-mark 21",
        "ipvsadm -A -f 21 -s rr",
        "ipvsadm -a -f 21 -r 10.8.8.34:0 -m",
    ]);
    control.ask();
    assert_eq!(control.say(5001, ANSWER).text, REWRITTEN);
    let line = control.call(40000);
    assert!(line.contains("> 10.8.8.34:40000 S"), "{line}");
}

#[test]
fn what_does_not_fit_after_rewriting_is_left_for_the_next_segment() {
    let mut control = Control::new();
    control.ask();
    let long = format!("{ANSWER}{}", "x".repeat(1460 - ANSWER.len()));
    let out = control.server(json!({"seq": 5001, "ack": 1007, "data": long, "flags": "FPA", "df": true}));
    assert_eq!(out[0].text, format!("{REWRITTEN}{}", "x".repeat(1460 - REWRITTEN.len())));
    assert!(out[0].line.contains(" PA "), "its end comes later: {}", out[0].line);
    assert_eq!(control.acknowledge(5001 + 1460), 5001 + 1459, "the last byte has not arrived");
    let out = control.server(json!({"seq": 5001 + 1459, "ack": 1007, "data": "x", "flags": "FPA"}));
    assert_eq!((out[0].seq, &*out[0].text), (5001 + 1460, "x"));
    assert!(out[0].line.contains(" FPA "), "{}", out[0].line);
}

fn over_ipv6() -> Control {
    Control::between(
        ["2001:db8::10", "fd00:10::30", "fd00:8::34"],
        &["ipvsadm -A -t [fd00:10::30]:21 -s rr", "ipvsadm -a -t [fd00:10::30]:21 -r [fd00:8::34]:21 -m"],
    )
}

#[test]
fn extended_passive_mode_over_ipv6() {
    let mut control = over_ipv6();
    control.client(json!({"seq": 1001, "ack": 5001, "data": "EPSV 2\r\n"}));
    let long = "229 ok (|2|fd00:8::34|40000|)\r\n";
    assert_eq!(control.say(5001, long).text, "229 ok (|||40000|)\r\n");
    assert_eq!(control.say(5001 + long.len() as u32, "150 ok\r\n").seq, 5021);
    let line = control.call(40000);
    assert!(line.contains("> [fd00:8::34]:40000 S"), "{line}");
}

#[test]
fn extended_active_mode_over_ipv6() {
    let mut control = over_ipv6();
    control.client(json!({"seq": 1001, "ack": 5001, "data": "EPRT |2|2001:db8::10|20000|\r\n"}));
    let out = control.server(json!({"sport": 20, "dport": 20000, "flags": "S", "seq": 1}));
    assert!(out[0].line.contains("[fd00:10::30]:20 > [2001:db8::10]:20000 S"), "{}", out[0].line);
    let out = control.client(json!({"sport": 20000, "dport": 20, "flags": "SA", "seq": 1, "ack": 2}));
    assert!(out[0].line.contains("> [fd00:8::34]:20 SA"), "{}", out[0].line);
}

/// However late its time is found to be up (a machine that slept), a control connection with a data connection is there.
#[test]
fn a_control_connection_lives_as_long_as_its_data_connection() {
    let mut control = Control::with(&[
        "ipvsadm --set 6000 100 0",
        "ipvsadm -A -t 10.10.1.30:21 -s rr",
        "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.34:21 -m",
    ]);
    control.ask();
    control.say(5001, ANSWER);
    control.call(40000);
    control.server(json!({"sport": 40000, "dport": 1005, "flags": "SA", "seq": 1, "ack": 2}));
    control.client(json!({"sport": 1005, "dport": 40000, "flags": "A", "seq": 2, "ack": 2}));
    control.client(json!({"flags": "R", "seq": 1007}));
    control.router.leap(Duration::from_secs(5000));
    let listing = control.router.dump(&["conns".to_owned()]);
    let states: Vec<_> = listing.lines().skip(3).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(states.len(), 2, "{listing}");
    assert!(states.contains(&"CLOSE") && states.contains(&"ESTABLISHED"), "{listing}");
}
