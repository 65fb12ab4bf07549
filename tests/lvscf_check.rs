//! `xlvs check`: the warnings and the exact text.

use std::fs;
use std::path::Path;
use std::time::Duration;

use xlvs::config::check::check;
use xlvs::config::names::Names;
use xlvs::config::parse::parse;
use xlvs::config::report::{CheckOutcome, check_file, check_lvs, check_marks, render_errors};

const HEAD: &str = "primary = 192.0.2.1\n";

fn checked(text: &str) -> Vec<String> {
    let parsed = parse(text, Names::NONE);
    assert!(parsed.errors.is_empty(), "{text}{:?}", parsed.errors);
    let place = |line: Option<usize>| line.map_or("-".to_owned(), |line| line.to_string());
    check(&parsed).into_iter().map(|warning| format!("{} {}", place(warning.line), warning.text)).collect()
}

/// A clean virtual block with lines put into it and into its server; the lines of the block begin at 7.
fn file(top: &str, block: &str, server: &str) -> String {
    format!(
        "{HEAD}{top}virtual v {{\nactive = 1\naddress = 192.0.2.9 eth0:1\nvip_nmask = 255.255.255.255\n\
         {block}server s {{\naddress = 10.0.0.1\nactive = 1\n{server}}}\n}}\n"
    )
}

#[test]
fn the_shipped_and_a_clean_file_have_no_warnings() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/lvs.cf");
    assert_eq!(checked(&fs::read_to_string(shipped).unwrap()), Vec::<String>::new());
    assert_eq!(checked(&file("", "", "")), Vec::<String>::new());
    let said = "send = a\nexpect = \"200|\\\\(OK\\\\)\"\nuse_regex = 1\nload_monitor = none\n";
    assert_eq!(checked(&file("", said, "")), Vec::<String>::new());
}

#[test]
fn what_the_original_ignored_is_told() {
    let udp = "protocol = udp\n";
    let table: [(String, &str); 52] = [
        (
            file("backup = 192.0.2.2\nbackup_active = 1\nheartbeat = 0\n", "", ""),
            "4 heartbeat = 0 has no effect",
        ),
        (file("backup_active = 1\n", "", ""), "2 backup_active = 1 without a backup"),
        (file("backup = 192.0.2.2\n", "", ""), "2 backup is named but backup_active is missing"),
        (file("monitor_links = 1\n", "", ""), "2 monitor_links has no effect"),
        (file("keepalive = 0\n", "", ""), "2 keepalive must be"),
        (file("deadtime = 2\n", "", ""), "2 deadtime is not longer"),
        (file("backup_private = 10.0.0.2\n", "", ""), "2 backup_private is ignored"),
        (file("heartbeat_port = 99999\n", "", ""), "2 heartbeat_port must be"),
        (file("nat_router = 10.0.0.9 eth1\n", "", ""), "2 nat_router on eth1 without an alias"),
        (file("nat_nmask = 255.0.255.0\n", "", ""), "2 255.0.255.0 is not a netmask"),
        (file("service = fos\n", "", ""), "2 service = fos is not run"),
        (file("failover f {\n}\n", "", ""), "2 failover blocks are not run"),
        (file("sync = 1\n", "", ""), "2 sync has no effect"),
        (file("primary_shared = /dev/sda\n", "", ""), "2 primary_shared is about service = fos"),
        (file("ipvsadm = /sbin/x\n", "", ""), "2 ipvsadm has no effect"),
        (file("hard_shutdown = 0\n", "", ""), "2 hard_shutdown = 0 had no effect"),
        (file("syncd_id = 300\n", "", ""), "2 only the low 8 bits of syncd_id count: 44"),
        (file("tcp_timeout = -1\n", "", ""), "2 tcp_timeout is negative"),
        (file("active_cmd = notify\n", "", ""), "2 active_cmd is not run"),
        (file("keepalive = 2\nkeepalive = 3\n", "", ""), "2 keepalive is given again at line 3"),
        (file("", "} x\nvirtual w {\n", ""), "6 words after a closing brace"),
        (file("", "", "").trim_end().trim_end_matches('}').to_owned(), "- 1 closing brace(s) missing"),
        (file("", "active = 0\n", ""), "- no virtual server is active"),
        (format!("{HEAD}virtual v {{\n}}\n"), "2 virtual v has no active line"),
        (format!("{HEAD}virtual v {{\n}}\n"), "2 virtual v has no address"),
        (file("", "", "active = 0\n"), "3 virtual v has no active server"),
        (file("", "address = 192.0.2.9 eth0\n", ""), "6 address on eth0 without an alias"),
        (file("", "vip_nmask = 0.0.0.0\n", ""), "4 vip_nmask is missing"),
        (file("", "port = 70000\n", ""), "6 port 70000 is not from 0 to 65535"),
        (file("", "port = 0\n", ""), "6 port 0 means any port"),
        (file("", "fwmark = 5\n", ""), "6 fwmark without persistence"),
        (file("", "pmask = 255.255.255.0\n", ""), "6 pmask has no effect without persistent"),
        (file("", "persistent = 5\npmask = /24\n", ""), "7 pmask '/24' is not a netmask and is ignored"),
        (file("", "persistent = -5\n", ""), "6 persistent is negative"),
        (file("", "expect = 'HTTP'\n", ""), "6 the single quotes are part of expect"),
        (file("", "expect = \"1\\.1\"\n", ""), "6 \\. is not an escape of expect"),
        (file("", udp, ""), "6 a UDP check needs send and expect"),
        (file("", "send_program = /x\nexpect = a\nsend = b\n", ""), "8 send is ignored"),
        (file("", "send_program = \"/x http://%h/\"\nexpect = a\n", ""), "6 'http://%h/' is passed as it is"),
        (file("", "sorry_server = 10.0.0.1\n", ""), "6 sorry_server is one of the servers, and is not used"),
        (
            file("", "load_monitor = rup\n", ""),
            "6 load_monitor = rup changes nothing for a server with weight 1 or 0",
        ),
        (
            file("", "send = a\nexpect = \"(200|OK\"\nuse_regex = 1\n", ""),
            "7 expect is not a regular expression that can be used (a ( is not closed; write \\( for the character), and the",
        ),
        (file("", "use_regex = 1\n", ""), "6 use_regex has no effect without expect"),
        (file("", "timeout = 0\n", ""), "6 timeout must be at least 1"),
        (file("", "reentry = 0\n", ""), "6 reentry = 0 is taken as 180"),
        (file("", "master = 10.0.0.1\n", ""), "6 master has no effect"),
        (file("", "dirs = [ /a ]\n", ""), "6 dirs has no effect"),
        (file("", "start_cmd = \"/x\"\n", ""), "6 start_cmd has no effect"),
        (file("", "client_monitor = /x\n", ""), "6 client_monitor has no effect"),
        (file("", "", "weight = 0\n"), "9 weight = 0: the server gets no new connections"),
        (file("", "", "port = 70000\n"), "9 port 70000 is not from 0 to 65535"),
        (file("", "", "}\nport = 81\nserver t {\n"), "6 server s stands before the port line"),
    ];
    for (text, expected) in &table {
        let warnings = checked(text);
        let found = warnings.iter().any(|warning| warning.starts_with(expected));
        assert!(found, "{text}\nwanted {expected}\ngave   {}", warnings.join("\n       "));
    }
}

#[test]
fn duplicates_are_told() {
    let block = |name: &str, device: &str, key: &str| {
        format!(
            "virtual {name} {{\nactive = 1\naddress = 192.0.2.9 {device}\nvip_nmask = 255.255.255.255\n{key}\n\
             server s {{\naddress = 10.0.0.1\nactive = 1\n}}\nserver t {{\naddress = 10.0.0.2\nactive = 1\n}}\n}}\n"
        )
    };
    let same = format!("{HEAD}{}{}", block("a", "eth0:1", ""), block("b", "eth0:1", ""));
    assert_eq!(
        checked(&same),
        ["16 virtual b is tcp 192.0.2.9:80, as virtual a is; only the first one is run"]
    );
    let mark = "fwmark = 7\npersistent = 1\nport = 1";
    let marks = format!("{HEAD}{}{}", block("a", "eth0:1", mark), block("b", "eth0:1", mark));
    assert_eq!(checked(&marks), ["18 virtual b is fwmark 7, as virtual a is; only the first one is run"]);
    let devices = format!("{HEAD}{}{}", block("a", "eth0:1", ""), block("b", "eth0:2", "port = 81"));
    let expected = "18 192.0.2.9 is already on eth0:1 for an earlier virtual server; this device and netmask are not used";
    assert_eq!(checked(&devices), [expected]);
    let servers = format!("{HEAD}{}", block("a", "eth0:1", "").replace("10.0.0.2", "10.0.0.1"));
    assert_eq!(
        checked(&servers),
        ["11 server t has the address and port of server s; only one of them is used"]
    );
}

#[test]
fn the_text_of_a_file_with_two_errors() {
    let text = "primary = 192.0.2.1 # master\n\nvirtual web {\n\tscheduler = sed\n\tactive = 1\n}\n";
    let expected = "lvs.cf:1: error: unexpected arguments: '#'\n    \
                        primary = 192.0.2.1 # master\n    \
                        expected the end of the line; a comment needs a line of its own\n\
                    lvs.cf:4: error: invalid argument: 'sed'\n    \
                        scheduler = sed\n    \
                        expected one of lc, rr, wlc, wrr, lblc, lblcr, dh, sh\n\
                    lvs.cf: 2 errors\n";
    let outcome = check_lvs("lvs.cf", text, Names::NONE);
    assert_eq!(outcome.text, expected);
    assert_eq!((outcome.errors, outcome.warnings), (2, 0));
}

/// How many notes there are, and all else that is said.
fn without_notes(outcome: &CheckOutcome) -> (usize, String) {
    let (notes, others): (Vec<&str>, Vec<&str>) =
        outcome.text.split_inclusive('\n').partition(|line| line.contains(": note: "));
    (notes.len(), others.concat())
}

#[test]
fn the_text_of_a_good_file_and_of_one_with_warnings() {
    let good = check_lvs("lvs.cf", &file("", "", ""), Names::NONE);
    let (notes, good_text) = without_notes(&good);
    assert_eq!(good_text, "lvs.cf: good: 1 virtual server (1 active) and 1 real server (1 active)\n");
    assert_eq!((notes, good.notes), (5, 5), "{}", good.text);
    let warned = check_lvs("lvs.cf", &file("sync = 1\n", "", ""), Names::NONE);
    assert_eq!(
        without_notes(&warned).1,
        "lvs.cf:2: warning: sync has no effect; delete the line\n\
         lvs.cf: 1 warning: 1 virtual server (1 active) and 1 real server (1 active)\n"
    );
    assert_eq!((warned.errors, warned.warnings), (0, 1));
}

#[test]
fn control_characters_and_long_lines_do_not_reach_the_terminal() {
    let text = format!("\u{1b}[2J = {}\n", "x".repeat(5000));
    let outcome = check_lvs("lvs.cf", &text, Names::NONE);
    assert!(!outcome.text.contains('\u{1b}'), "{:?}", outcome.text);
    assert!(outcome.text.len() < 600, "{}", outcome.text);
}

fn check_bytes(name: &str, bytes: &[u8]) -> CheckOutcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut outcome = check_file(&path, Names::NONE);
    outcome.text = outcome.text.replace(&path.display().to_string(), "FILE");
    outcome
}

#[test]
fn files_that_cannot_be_read_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let of = |path: &Path| check_file(path, Names::NONE).text.replace(&path.display().to_string(), "FILE");
    assert_eq!(
        of(&folder.path().join("no.cf")),
        "FILE: error: no such file; create it or name another one\n"
    );
    assert_eq!(of(folder.path()), "FILE: error: is a directory, not a file; name the file in it\n");
    assert_eq!(of(Path::new("/dev/zero")), "FILE: error: is not a regular file; name a file\n");
    for (bytes, expected) in [
        (
            &b""[..],
            "FILE: error: Empty configuration\n    expected at least primary and one virtual block\nFILE: 1 error\n",
        ),
        (b"a\n\0\n", "FILE:2: error: has NUL bytes; this is not a text file\n"),
        (
            b"# \xe1\nprimary = \xff\n",
            "FILE:2: error: is not UTF-8 text; only comments may be in another encoding\n",
        ),
    ] {
        let outcome = check_bytes("lvs.cf", bytes);
        assert_eq!((outcome.text.as_str(), outcome.errors), (expected, 1));
    }
    let latin = check_bytes(
        "lvs.cf",
        format!("{}# ", file("", "", ""))
            .as_bytes()
            .iter()
            .chain(b"\xe1\n")
            .copied()
            .collect::<Vec<_>>()
            .as_slice(),
    );
    assert_eq!(latin.errors + latin.warnings, 0, "{}", latin.text);
}

#[test]
fn the_other_files_are_told_apart() {
    let marks = check_bytes("iptables", b"*mangle\n-A PREROUTING -j MARK --set-mark 1\nCOMMIT\n");
    assert_eq!(marks.text, "FILE: good: 1 rule that PREROUTING of mangle reaches\n");
    let marks = check_bytes("iptables", b"*mangle\n-A PREROUTING -j DROP\nCOMMIT\n");
    assert!(marks.text.starts_with("FILE:2: error: target DROP is not understood"), "{}", marks.text);
    assert!(marks.text.ends_with("\n    -A PREROUTING -j DROP\nFILE: 1 error\n"), "{}", marks.text);
    let marks =
        check_bytes("ip6tables", b"*mangle\n-A PREROUTING -d 10.0.0.1 -j MARK --set-mark 1\nCOMMIT\n");
    assert!(marks.text.starts_with("FILE:2: error: an IPv4 address"), "{}", marks.text);
    assert_eq!(check_bytes("xlvs.toml", b"queues = 2\n").text, "FILE: good: settings\n");
    for (text, quoted) in [
        ("-A PREROUTING -j MARK --set-mark 1\n", "-A PREROUTING -j MARK --set-mark 1"),
        ("#!/bin/sh\n\n/sbin/iptables -t mangle -F\n", "/sbin/iptables -t mangle -F"),
        (":PREROUTING ACCEPT [0:0]\n-A PREROUTING\n", ":PREROUTING ACCEPT [0:0]"),
    ] {
        let outcome = check_bytes("rules", text.as_bytes());
        let expected = format!(
            "error: the line *mangle is missing above the rules, and COMMIT below them; xlvs reads what \
             `iptables-save -t mangle` prints, not commands\n    {quoted}\nFILE: 1 error\n"
        );
        assert!(outcome.text.ends_with(&expected), "{}", outcome.text);
    }
    let pasted = check_bytes("lvs.cf", b"primary = 192.0.2.1\niptables -t mangle -F\n");
    assert!(pasted.text.starts_with("FILE:2: error: unknown command: 'iptables'"), "{}", pasted.text);
    assert!(
        check_bytes("xlvs.toml", b"queue = 2\n")
            .text
            .starts_with("FILE:1: error: there is no key `queue`; the keys are")
    );
}

#[test]
fn misplaced_keys_are_told_their_place() {
    let expectation = |text: &str| {
        let outcome = check_lvs("lvs.cf", text, Names::NONE);
        outcome.text.lines().nth(2).unwrap_or_default().trim().to_owned()
    };
    for (text, expected) in [
        ("virtual v {\nheartbeat = 1\n}\n", "expected heartbeat to stand outside of all blocks"),
        ("weight = 1\n", "expected weight to stand in a server block"),
        ("port = 1\n", "expected port to stand in a virtual block or in a server block"),
        (
            "virtual v {\nexpect_program = /x\n}\n",
            "expected this line to be deleted: only the web tool writes it, and nothing reads it",
        ),
        ("virtual v {\nnonsense = 1\n}\n", "expected a key of a virtual block"),
    ] {
        assert_eq!(expectation(text), expected, "{text}");
    }
}

#[test]
fn a_file_of_nonsense_is_cut_short_and_counted() {
    let bad = check_lvs("lvs.cf", &"nonsense = 1\n".repeat(3000), Names::NONE);
    assert_eq!(bad.errors, 3000);
    let tail: Vec<&str> = bad.text.lines().skip(50 * 3).collect();
    assert_eq!(tail, ["lvs.cf: … and 2950 more", "lvs.cf: 3000 errors"]);
    let parsed = parse(&"nonsense = 1\n".repeat(3000), Names::NONE);
    assert_eq!((parsed.errors.len(), parsed.errors.total()), (1000, 3000), "what is kept in memory");
    let reload = render_errors("lvs.cf", &parsed.errors);
    assert!(reload.ends_with("\nlvs.cf: … and 2950 more\n"), "{reload}");
    let rules = format!("*mangle\n{}COMMIT\n", "-A PREROUTING -j DROP\n".repeat(51));
    let bad = check_marks("iptables", &rules, Names::NONE);
    assert!(bad.text.ends_with("\niptables: … and 1 more\niptables: 51 errors\n"), "{}", bad.text);
    let exact = check_lvs("lvs.cf", &"nonsense = 1\n".repeat(50), Names::NONE);
    assert!(!exact.text.contains("more"), "{}", exact.text);
}

#[test]
fn a_fifo_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(check_file(&path, Names::NONE).text));
    let text = receiver.recv_timeout(Duration::from_secs(5)).expect("an answer without a writer");
    assert!(text.ends_with("/fifo: error: is not a regular file; name a file\n"), "{text}");
}

#[test]
fn ten_thousand_lines_are_quick() {
    let blocks: String = (0..1000)
        .map(|index| file("", &format!("port = {index}\npersistent = 3\n"), "").replace(HEAD, ""))
        .collect();
    let broken = "nonsense\nvirtual x{\n}\n".repeat(4000);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let good = check_lvs("lvs.cf", &format!("{HEAD}{blocks}"), Names::NONE);
        let bad = check_lvs("lvs.cf", &broken, Names::NONE);
        sender.send((blocks.lines().count(), good.errors, bad.errors)).unwrap();
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(5)).expect("checking within five seconds");
    assert_eq!(outcome, (11000, 0, 8000));
}
