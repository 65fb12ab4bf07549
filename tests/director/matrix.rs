//! Every key of `lvs.cf`, changed under a thousand live connections: what is touched, and what is not. The rows are held to the
//! parser's own tables, so that a new key needs a row.

use std::collections::BTreeSet;

use xlvs::config::keys::{GLOBAL, Key, SERVER, VIRTUAL};
use xlvs::director::Effect;

use super::live::{Flow, Live};

/// Lines that begin with # stand where rows put keys of their own.
const SITE: &str = "primary = 10.10.1.1
# top
nat_router = 10.8.8.1 eth1:9
virtual web {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 port = 80
 scheduler = rr
 timeout = 6
# web
 server one {
  address = 10.8.8.33
  active = 1
# one
 }
 server two {
  address = 10.8.8.34
  active = 1
 }
}
virtual bundle {
 active = 1
 address = 10.10.1.40 eth0:2
 vip_nmask = 255.255.255.255
 fwmark = 7
 port = 8000
 persistent = 300
 pmask = 255.255.255.0
 send = \"?\"
 expect = \"!\"
# bundle
 server three {
  address = 10.8.8.35
  active = 1
 }
}
virtual dns {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 port = 53
 protocol = udp
 send = \"?\"
 expect = \"!\"
 server four {
  address = 10.8.8.36
  active = 1
 }
}
";

/// Seconds for which removed connections go on.
const DRAIN: u64 = 60;

/// Whose connections end at the deadline.
#[derive(Clone, Copy, Debug)]
enum Ends {
    None,
    /// All of a virtual server.
    Of(&'static str),
    /// Those of web at server one.
    AtOne,
}

/// A change of a key.
struct Row {
    key: &'static str,
    from: &'static str,
    to: &'static str,
    /// What is there afterwards and was not before, and the other way round; checks by their number.
    touched: &'static [&'static str],
    ends: Ends,
}

const fn row(
    key: &'static str,
    from: &'static str,
    to: &'static str,
    touched: &'static [&'static str],
    ends: Ends,
) -> Row {
    Row { key, from, to, touched, ends }
}

/// One that changes nothing that is running.
const fn idle(key: &'static str, to: &'static str) -> Row {
    row(key, "# top", to, &[], Ends::None)
}

const WEB_SERVICE: &str = "- service TCP 10.10.1.30:80: rr";
const ONE: &str = "- server 10.8.8.33:80 of TCP 10.10.1.30:80: Masq weight 1";
const TWO_CHECKS: &[&str] = &["2 checks anew"];

const TOP: &[Row] = &[
    idle("serial_no", "serial_no = 7"),
    row("primary", "primary = 10.10.1.1", "primary = 10.10.1.2", &[], Ends::None),
    idle("primary_private", "primary_private = 10.8.8.2"),
    idle("primary_shared", "primary_shared = /dev/sda"),
    idle("backup", "backup = 10.10.1.3"),
    idle("backup_private", "backup_private = 10.8.8.3"),
    idle("backup_shared", "backup_shared = /dev/sda"),
    idle("backup_active", "backup_active = 1"),
    idle("heartbeat", "heartbeat = 1"),
    idle("heartbeat_port", "heartbeat_port = 540"),
    idle("keepalive", "keepalive = 3"),
    idle("deadtime", "deadtime = 9"),
    row(
        "network",
        "# top",
        "network = direct",
        &[
            "+ server 10.8.8.33:80 of TCP 10.10.1.30:80: Route weight 1",
            "+ server 10.8.8.34:80 of TCP 10.10.1.30:80: Route weight 1",
            "+ server 10.8.8.35:8000 of FWM 7: Route weight 1",
            "+ server 10.8.8.36:53 of UDP 10.10.1.30:53: Route weight 1",
            ONE,
            "- server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1",
            "- server 10.8.8.35:8000 of FWM 7: Masq weight 1",
            "- server 10.8.8.36:53 of UDP 10.10.1.30:53: Masq weight 1",
            "address removed 10.8.8.1",
        ],
        Ends::None,
    ),
    row(
        "nat_router",
        "nat_router = 10.8.8.1 eth1:9",
        "nat_router = 10.8.8.2 eth1:9",
        &["address added 10.8.8.2", "address removed 10.8.8.1"],
        Ends::None,
    ),
    row("nat_nmask", "# top", "nat_nmask = 255.255.255.0", &["address moved 10.8.8.1"], Ends::None),
    // It is refused, since nothing of it can be run.
    idle("service", "service = fos"),
    idle("rsh_command", "rsh_command = ssh"),
    idle("debug_level", "debug_level = 3"),
    idle("reservation_conflict_action", "reservation_conflict_action = preempt"),
    idle("monitor_links", "monitor_links = 1"),
    idle("syncdaemon", "syncdaemon = 1"),
    idle("syncd_iface", "syncd_iface = eth1"),
    idle("syncd_id", "syncd_id = 4"),
    row("tcp_timeout", "# top", "tcp_timeout = 700", &["timeouts 700 120 300"], Ends::None),
    row("tcpfin_timeout", "# top", "tcpfin_timeout = 77", &["timeouts 900 77 300"], Ends::None),
    row("udp_timeout", "# top", "udp_timeout = 200", &["timeouts 900 120 200"], Ends::None),
    idle("active_cmd", "active_cmd = /bin/true"),
    idle("inactive_cmd", "inactive_cmd = /bin/true"),
    idle("hard_shutdown", "hard_shutdown = 0"),
    idle("ipvsadm", "ipvsadm = /sbin/other"),
    idle("sync", "sync = 1"),
];

const BLOCK: &[Row] = &[
    row(
        "active",
        "virtual web {\n active = 1",
        "virtual web {\n active = 0",
        &[WEB_SERVICE, ONE, "- server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1", "2 checks fewer"],
        Ends::Of("web"),
    ),
    row(
        "address",
        "address = 10.10.1.30 eth0:1\n vip_nmask = 255.255.255.255\n port = 80",
        "address = 10.10.1.50 eth0:1\n vip_nmask = 255.255.255.255\n port = 80",
        &[
            "+ server 10.8.8.33:80 of TCP 10.10.1.50:80: Masq weight 1",
            "+ server 10.8.8.34:80 of TCP 10.10.1.50:80: Masq weight 1",
            "+ service TCP 10.10.1.50:80: rr",
            ONE,
            "- server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1",
            WEB_SERVICE,
            "address added 10.10.1.50",
        ],
        Ends::Of("web"),
    ),
    row(
        "vip_nmask",
        "address = 10.10.1.40 eth0:2\n vip_nmask = 255.255.255.255",
        "address = 10.10.1.40 eth0:2\n vip_nmask = 255.255.255.0",
        &["address moved 10.10.1.40"],
        Ends::None,
    ),
    row("sorry_server", "# web", "sorry_server = 10.8.8.44", &[], Ends::None),
    row(
        "fwmark",
        "fwmark = 7",
        "fwmark = 8",
        &[
            "+ server 10.8.8.35:8000 of FWM 8: Masq weight 1",
            "+ service FWM 8: wlc persistent 300 mask 255.255.255.0",
            "- server 10.8.8.35:8000 of FWM 7: Masq weight 1",
            "- service FWM 7: wlc persistent 300 mask 255.255.255.0",
        ],
        Ends::Of("bundle"),
    ),
    row(
        "protocol",
        "# web",
        "protocol = udp\n send = \"?\"\n expect = \"!\"",
        &[
            "+ server 10.8.8.33:80 of UDP 10.10.1.30:80: Masq weight 1",
            "+ server 10.8.8.34:80 of UDP 10.10.1.30:80: Masq weight 1",
            "+ service UDP 10.10.1.30:80: rr",
            ONE,
            "- server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1",
            WEB_SERVICE,
            "2 checks anew",
        ],
        Ends::Of("web"),
    ),
    row(
        "port",
        "port = 80\n",
        "port = 81\n",
        &[
            "+ server 10.8.8.33:81 of TCP 10.10.1.30:81: Masq weight 1",
            "+ server 10.8.8.34:81 of TCP 10.10.1.30:81: Masq weight 1",
            "+ service TCP 10.10.1.30:81: rr",
            ONE,
            "- server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1",
            WEB_SERVICE,
            "2 checks anew",
        ],
        Ends::Of("web"),
    ),
    row(
        "scheduler",
        "scheduler = rr",
        "scheduler = wlc",
        &["+ service TCP 10.10.1.30:80: wlc", WEB_SERVICE],
        Ends::None,
    ),
    row(
        "persistent",
        "persistent = 300",
        "persistent = 90",
        &[
            "+ service FWM 7: wlc persistent 90 mask 255.255.255.0",
            "- service FWM 7: wlc persistent 300 mask 255.255.255.0",
        ],
        Ends::None,
    ),
    row(
        "pmask",
        "pmask = 255.255.255.0",
        "pmask = 255.255.0.0",
        &[
            "+ service FWM 7: wlc persistent 300 mask 255.255.0.0",
            "- service FWM 7: wlc persistent 300 mask 255.255.255.0",
        ],
        Ends::None,
    ),
    row("send", "# web", "send = \"x\"", TWO_CHECKS, Ends::None),
    row("expect", "# web", "expect = \"x\"", TWO_CHECKS, Ends::None),
    row("use_regex", "# web", "use_regex = 1\n expect = \"x\"", TWO_CHECKS, Ends::None),
    row("send_program", "# web", "send_program = \"/bin/true\"", TWO_CHECKS, Ends::None),
    row("timeout", "timeout = 6", "timeout = 7", TWO_CHECKS, Ends::None),
    row("reentry", "# web", "reentry = 20", TWO_CHECKS, Ends::None),
    row("quiesce_server", "# web", "quiesce_server = 1", &[], Ends::None),
    row("load_monitor", "# web", "load_monitor = rup", &[], Ends::None),
    row("client_monitor", "# web", "client_monitor = /bin/true", &[], Ends::None),
    row("start_cmd", "# web", "start_cmd = \"/bin/true\"", &[], Ends::None),
    row("stop_cmd", "# web", "stop_cmd = \"/bin/true\"", &[], Ends::None),
    row("master", "# web", "master = 10.10.1.9", &[], Ends::None),
    row("dirs", "# web", "dirs = [ a b ]", &[], Ends::None),
];

const IN_SERVER: &[Row] = &[
    row(
        "address",
        "address = 10.8.8.33",
        "address = 10.8.8.40",
        &["+ server 10.8.8.40:80 of TCP 10.10.1.30:80: Masq weight 1", ONE, "1 checks anew"],
        Ends::AtOne,
    ),
    row(
        "active",
        "address = 10.8.8.33\n  active = 1",
        "address = 10.8.8.33\n  active = 0",
        &[ONE, "1 checks fewer"],
        Ends::AtOne,
    ),
    row(
        "weight",
        "# one",
        "weight = 5",
        &["+ server 10.8.8.33:80 of TCP 10.10.1.30:80: Masq weight 5", ONE],
        Ends::None,
    ),
    row(
        "port",
        "# one",
        "port = 8080",
        &["+ server 10.8.8.33:8080 of TCP 10.10.1.30:80: Masq weight 1", ONE, "1 checks anew"],
        Ends::AtOne,
    ),
];

struct Flows {
    web: Vec<Flow>,
    bundle: Vec<Flow>,
    dns: Vec<Flow>,
}

impl Flows {
    /// A thousand.
    fn open(live: &mut Live) -> Self {
        Flows {
            web: live.open(400, "tcp", "10.10.1.30:80"),
            bundle: [live.open(150, "tcp", "10.10.1.40:8000"), live.open(150, "tcp", "10.10.1.40:8443")]
                .concat(),
            dns: live.open(300, "udp", "10.10.1.30:53"),
        }
    }

    fn all(&self) -> Vec<Flow> {
        [&self.web[..], &self.bundle, &self.dns].concat()
    }

    fn that(&self, ends: Ends) -> BTreeSet<Flow> {
        match ends {
            Ends::None => BTreeSet::new(),
            Ends::Of("web") => self.web.iter().copied().collect(),
            Ends::Of("bundle") => self.bundle.iter().copied().collect(),
            Ends::Of(other) => panic!("no virtual server {other}"),
            Ends::AtOne => {
                self.web.iter().copied().filter(|flow| flow.server.ip().octets()[3] == 33).collect()
            }
        }
    }
}

/// What a reload touched, in the words of the rows.
fn touched(live: &mut Live, before: &BTreeSet<String>, checks: usize) -> BTreeSet<String> {
    let after: BTreeSet<String> = live.world();
    let plain = |line: &&String| line.starts_with("service") || line.starts_with("server");
    let mut touched: BTreeSet<String> =
        after.difference(before).filter(plain).map(|line| format!("+ {line}")).collect();
    touched.extend(before.difference(&after).filter(plain).map(|line| format!("- {line}")));
    for line in after.difference(before).filter(|line| line.starts_with("Timeouts")) {
        let numbers: Vec<&str> =
            line.split(|letter: char| !letter.is_ascii_digit()).filter(|word| !word.is_empty()).collect();
        touched.insert(format!("timeouts {}", numbers.join(" ")));
    }
    let new = live.effects.iter().filter(|effect| matches!(effect, Effect::StartCheck(_))).count();
    let fewer = checks.saturating_sub(live.running().len());
    for (count, word) in [(new, "anew"), (fewer, "fewer")] {
        if count != 0 {
            touched.insert(format!("{count} checks {word}"));
        }
    }
    for effect in &live.effects {
        match effect {
            Effect::AddAddress(address) => touched.insert(format!("address added {}", address.address)),
            Effect::RemoveAddress(address) => touched.insert(format!("address removed {}", address.address)),
            Effect::MoveAddress(_, address) => touched.insert(format!("address moved {}", address.address)),
            _ => false,
        };
    }
    touched
}

fn try_row(Row { key, from, to, touched: expected, ends }: &Row) {
    assert!(SITE.contains(from), "{key}: {from} is not in the file");
    let mut live = Live::with(&format!("drain_removed = {DRAIN}"), SITE);
    let flows = Flows::open(&mut live);
    let (before, checks) = (live.world(), live.running().len());
    // What cannot be run is refused, and then nothing may be touched either.
    let _ = live.reload(&SITE.replacen(from, to, 1));
    assert_eq!(live.broken(&flows.all()), BTreeSet::new(), "{key}: nothing is broken by a reload");
    for check in live.running().to_vec() {
        live.health(&check, true);
    }
    for _ in 0..DRAIN / 20 {
        live.pass(20);
        assert!(live.broken(&flows.dns).is_empty(), "{key}: as long as it is used");
    }
    live.pass(2);
    assert_eq!(live.broken(&flows.all()), flows.that(*ends), "{key}: whose connections end at the deadline");
    let expected: BTreeSet<String> = expected.iter().map(|&line| line.to_owned()).collect();
    assert_eq!(touched(&mut live, &before, checks), expected, "{key}");
}

fn try_all(keys: &[Key], rows: &[Row]) {
    for key in keys {
        let row = rows.iter().find(|row| row.key == key.name);
        try_row(row.unwrap_or_else(|| panic!("what does a change of {} touch? It needs a row", key.name)));
    }
    assert_eq!(rows.len(), keys.len(), "a row for each key, and no others");
}

#[test]
fn keys_of_the_top_level() {
    try_all(&GLOBAL, TOP);
}

#[test]
fn keys_of_a_virtual_server() {
    try_all(&VIRTUAL, BLOCK);
}

#[test]
fn keys_of_a_real_server() {
    try_all(&SERVER, IN_SERVER);
}
