//! Every file of tests/lvscf gives what the original parser made of it, or differs for a reason given here.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xlvs::config::lvs::{LvsConfig, RealServer, VirtualServer};
use xlvs::config::names::{Names, Services};
use xlvs::config::parse::{load, parse};
use xlvs::net::addr::Protocol;

const SERVICES: &str = "http 80/tcp www # web\nhttp 81/udp\ndomain 53/tcp\ndomain 53/udp\nhttps 443/tcp\n";

/// Files that are meant to give something else than the original did, what is changed in `expected`, and why.
const REPAIRED: [(&str, &str); 1] =
    [("e10-crlf-silently-truncated", "the original drops everything after the first line of a CRLF file")];

fn with_services<T>(body: impl FnOnce(Names<'_>) -> T) -> T {
    let services = Services::parse(SERVICES);
    let host = |name: &str| (name == "lb.example.com").then_some(Ipv4Addr::new(192, 0, 2, 9));
    body(Names { host: &host, service: &|name, protocol| services.port(name, protocol) })
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lvscf")
}

/// The numbers that the original's table gives its errors.
fn error_code(message: &str) -> u8 {
    match message {
        "quotation mismatch" => 3,
        "unexpected arguments" => 5,
        "missing arguments" => 7,
        "invalid argument" => 9,
        "unknown command" => 12,
        other => panic!("no number is known for {other:?}"),
    }
}

fn outcome(text: &str) -> Value {
    match with_services(|names| load(text, names)) {
        Ok(config) => original_shape(&config),
        Err(errors) => {
            let message = errors[0].fault.reason.to_string();
            json!({"error_code": error_code(&message), "line": errors[0].line, "message": message})
        }
    }
}

fn address(address: Option<Ipv4Addr>) -> String {
    address.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string()
}

/// The original keeps the quotes; all quoted texts of the files that are not in single quotes are in double ones.
fn quoted(text: &Option<String>) -> Value {
    match text {
        Some(text) if text.starts_with('\'') => json!(text),
        Some(text) => json!(format!("\"{text}\"")),
        None => Value::Null,
    }
}

fn original_shape(config: &LvsConfig) -> Value {
    json!({
        "serial_no": config.serial_no,
        "primary": address(config.primary),
        "primary_private": address(config.primary_private.or(config.primary)),
        "backup": address(config.backup),
        "backup_private": address(config.backup_private.or(config.backup)),
        "primary_shared": config.primary_shared,
        "backup_shared": config.backup_shared,
        "backup_active": u8::from(config.backup_active),
        "heartbeat": u8::from(config.heartbeat),
        "heartbeat_port": config.heartbeat_port,
        "keepalive": config.keepalive,
        "deadtime": config.deadtime,
        "service": config.service,
        "network": config.network,
        "nat_router": address(config.nat_router.as_ref().map(|router| router.address)),
        "nat_router_device": config.nat_router.as_ref().map(|router| &router.device),
        "nat_nmask": address(config.nat_nmask),
        "rsh_command": config.rsh_command,
        "debug_level": config.debug_level,
        "ipvsadm": config.ipvsadm,
        "sync": u8::from(config.sync),
        "monitor_links": config.monitor_links,
        "hard_shutdown": u8::from(config.hard_shutdown),
        "syncdaemon": u8::from(config.syncdaemon),
        "syncd_iface": config.syncd_iface,
        "syncd_id": config.syncd_id,
        "tcp_timeout": config.tcp_timeout,
        "tcpfin_timeout": config.tcpfin_timeout,
        "udp_timeout": config.udp_timeout,
        "reservation_conflict_action": config.reservation_conflict_action,
        "active_cmd": config.active_cmd,
        "inactive_cmd": config.inactive_cmd,
        "virtual": config.virtuals.iter().map(block_shape).collect::<Vec<_>>(),
        "failover": config.failovers.iter().map(block_shape).collect::<Vec<_>>(),
    })
}

fn block_shape(block: &VirtualServer) -> Value {
    json!({
        "name": block.name,
        "active": u8::from(block.active),
        "address": address(block.address.as_ref().map(|address| address.address)),
        "device": block.address.as_ref().map(|address| &address.device),
        "vip_nmask": address(block.vip_nmask),
        "sorry_server": address(block.sorry_server),
        "fwmark": block.fwmark,
        "protocol": block.protocol,
        "port": block.port,
        "scheduler": block.scheduler,
        "persistent": block.persistent,
        "pmask": address(block.pmask),
        "client_monitor": block.client_monitor,
        "send_program": quoted(&block.send_program),
        "send": quoted(&block.send),
        "expect": quoted(&block.expect),
        "use_regex": u8::from(block.use_regex),
        "timeout": block.timeout,
        "reentry": block.reentry,
        "quiesce_server": u8::from(block.quiesce_server),
        "load_monitor": block.load_monitor,
        "start_cmd": quoted(&block.start_cmd),
        "stop_cmd": quoted(&block.stop_cmd),
        "server": block.servers.iter().map(server_shape).collect::<Vec<_>>(),
    })
}

fn server_shape(server: &RealServer) -> Value {
    json!({
        "name": server.name,
        "address": address(server.address),
        "port": server.port,
        "weight": server.weight,
        "active": u8::from(server.active),
    })
}

fn different_fields(path: &str, expected: &Value, got: &Value, found: &mut Vec<String>) {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                different_fields(&format!("{path}.{key}"), &expected[key], &got[key], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                different_fields(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if expected != got => found.push(format!("{path}: original {expected}, xlvs {got}")),
        _ => {}
    }
}

#[test]
fn every_file_gives_what_the_original_made_of_it() {
    let mut stories = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|ending| ending != "cf") {
            continue;
        }
        files += 1;
        let expected = fs::read_to_string(data().join("expected").join(format!("{name}.json"))).unwrap();
        let mut found = Vec::new();
        let got = outcome(&fs::read_to_string(&path).unwrap());
        different_fields("", &serde_json::from_str(&expected).unwrap(), &got, &mut found);
        match REPAIRED.iter().find(|(repaired, _)| *repaired == name) {
            Some((_, reason)) if found.is_empty() => {
                stories.push(format!("{name}: is no longer repaired: {reason}"))
            }
            Some(_) => {}
            None => stories.extend(found.into_iter().map(|story| format!("{name}{story}"))),
        }
    }
    assert_eq!(files, 27, "files in {}", data().display());
    assert!(stories.is_empty(), "{}", stories.join("\n"));
}

#[test]
fn crlf_files_are_read_to_the_end() {
    let lf = fs::read_to_string(data().join("01-nat-fwmark-http-https.cf")).unwrap();
    let crlf = lf.replace('\n', "\r\n");
    let (lf, crlf) = with_services(|names| (load(&lf, names).unwrap(), load(&crlf, names).unwrap()));
    assert_eq!(lf, crlf);
    let e10 = fs::read_to_string(data().join("e10-crlf-silently-truncated.cf")).unwrap();
    let config = load(&e10, Names::NONE).unwrap();
    assert_eq!((config.keepalive, config.virtuals.len(), config.virtuals[0].active), (3, 1, true));
}

#[test]
fn host_and_service_names_are_looked_up() {
    let text =
        "primary = lb.example.com\nvirtual a {\n port = www\n protocol = udp\n}\nheartbeat_port = domain\n";
    let config = with_services(|names| load(text, names)).unwrap();
    assert_eq!(config.primary, Some(Ipv4Addr::new(192, 0, 2, 9)));
    assert_eq!((config.virtuals[0].port, config.heartbeat_port), (80, 53));
    assert_eq!(Services::parse(SERVICES).port("http", Protocol::UDP), Some(81));
    assert_eq!(Services::parse(SERVICES).port("web", Protocol::TCP), None);
}

#[test]
fn the_typed_model_survives_serde() {
    for name in ["01-nat-fwmark-http-https.cf", "15-regex-load-monitor-active-cmd-custom-paths.cf"] {
        let config = load(&fs::read_to_string(data().join(name)).unwrap(), Names::NONE).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LvsConfig>(&text).unwrap(), config);
    }
}

/// (text, errors as "line message word") for single faults and for recovery after them.
const ERRORS: [(&str, &[&str]); 34] = [
    ("", &["0 Empty configuration -"]),
    ("\n# only\n", &[]),
    ("primary\n", &["1 equal (=) expected after command -"]),
    ("primary 192.0.2.1\n", &["1 equal (=) expected after command 192.0.2.1"]),
    ("a =1\n", &["1 unknown command a"]),
    ("keepalive =1\n", &["1 equal (=) expected after command =1"]),
    ("keepalive =\n", &["1 missing arguments -"]),
    ("primary = 0.0.0.0\n", &["1 invalid host name or ip address 0.0.0.0"]),
    ("primary = no.such.host\n", &["1 invalid argument no.such.host"]),
    ("primary = fd00::1\n", &["1 invalid argument fd00::1"]),
    ("heartbeat = 2\n", &["1 boolean expected 2"]),
    ("heartbeat = true\n", &["1 integer expected true"]),
    ("deadtime = 5s\n", &["1 integer expected 5s"]),
    ("nat_nmask = 255.255.255\n nat_nmask = 255.255.256.0\n", &["2 Bad subnet mask specified 255.255.256.0"]),
    ("network = NAT\n", &["1 invalid argument NAT"]),
    ("primary = 1.2.3.4 # master\n", &["1 unexpected arguments #"]),
    ("}\n", &["1 unknown command }"]),
    ("virtual a {\n dirs = a b\n}\n", &["2 list expected a"]),
    ("virtual a {\n fwmark = -1\n}\n", &["2 integer expected -1"]),
    ("virtual a {\n server s {\n port = http\n }\n}\n", &["3 integer expected http"]),
    ("keepalive = 99999999999\n", &["1 integer expected 99999999999"]),
    // Two errors, both told.
    ("prim = 1\nkeepalive = x\n", &["1 unknown command prim", "2 integer expected x"]),
    // A header at fault still opens its block.
    ("virtual a{\n active = 1\n}\n", &["1 missing arguments -"]),
    ("virtual a\n{\n active = 1\n}\nkeepalive = 1\n", &["1 missing arguments -"]),
    ("virtual {\n active = 1\n}\n", &["1 missing arguments -"]),
    ("virtual \"a {\n active = 1\n}\n", &["1 quotation mismatch \"a {"]),
    ("virtual a { port = 80 }\nkeepalive = 1\n", &["1 unexpected arguments port"]),
    // A block that is not known is passed over whole.
    (
        "vrrp_instance V {\n state MASTER\n track {\n x\n }\n}\nkeepalive = 1\n",
        &["1 unknown command vrrp_instance"],
    ),
    ("server s {\n weight = 1\n}\nkeepalive = 1\n", &["1 unknown command server"]),
    // A closing brace forgotten: of a server, of a virtual, of both.
    ("virtual a {\n server s {\n active = 1\n server t {\n }\n}\n", &["4 unknown command server"]),
    ("virtual a {\n active = 1\nvirtual b {\n active = 1\n}\n", &["3 unknown command virtual"]),
    // A closing brace too many.
    (
        "virtual a {\n}\n server s {\n weight = 1\n }\n timeout = 6\n}\nkeepalive = 1\n",
        &["3 unknown command server"],
    ),
    ("virtual a {\n}\n timeout = 6\n reentry = 2\n}\n", &["3 unknown command timeout"]),
    ("virtual a {\n}\n timeout = 6\nkeepalive = 1\n", &["3 unknown command timeout"]),
];

#[test]
fn errors_name_line_message_and_word_and_do_not_cascade() {
    for (text, expected) in ERRORS {
        let errors = parse(text, Names::NONE).errors;
        let got: Vec<String> = errors
            .iter()
            .map(|error| {
                let word = error.fault.word.as_deref().unwrap_or("-");
                format!("{} {} {word}", error.line, error.fault.reason)
            })
            .collect();
        assert_eq!(got, expected, "of the file\n{text}");
    }
}

#[test]
fn every_key_is_known_at_its_level() {
    use xlvs::config::keys::{GLOBAL, SERVER, VIRTUAL};
    let levels = [
        ("", &GLOBAL[..], ""),
        ("virtual v {\n", &VIRTUAL[..], "}\n"),
        ("failover f {\n", &VIRTUAL[..], "}\n"),
        ("virtual v {\nserver s {\n", &SERVER[..], "}\n}\n"),
    ];
    for (before, keys, after) in levels {
        for key in keys.iter().map(|key| key.name) {
            let text = format!("{before}{key} = \n{after}");
            let errors = parse(&text, Names::NONE).errors;
            let wanted = if key == "dirs" { "list expected" } else { "missing arguments" };
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert_eq!(errors[0].fault.reason.to_string(), wanted, "{text}");
        }
    }
}

/// A small generator (xorshift), seeded, so that a failure repeats.
pub fn random_text(seed: u64, pieces: &[&str]) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = next() % 200;
    let mut text = String::new();
    for _ in 0..length {
        match next() % 4 {
            0 => text.extend(char::from_u32((next() % 0x11_0000) as u32)),
            1 => text.push(char::from((next() % 128) as u8)),
            _ => text.push_str(pieces[(next() % pieces.len() as u64) as usize]),
        }
    }
    text
}

#[test]
fn no_text_panics_and_every_error_names_a_line_of_it() {
    let pieces = [
        "virtual", "failover", "server", " ", " ", " ", "\n", "\n", "\n", "{", "}", " = ", " = ", "\"", "'",
        "active", "1", "address", "port", "0x", "10.1", "eth0:1", "send", "dirs", "[", "]", "\\", "\r", "#",
        "primary", "network", "nat",
    ];
    for seed in 0..20_000 {
        let text = random_text(seed, &pieces);
        let parsed = parse(&text, Names::NONE);
        let lines = text.lines().count();
        assert!(parsed.errors.iter().all(|error| error.line <= lines), "seed {seed}: {text:?}");
        xlvs::config::check::check(&parsed);
        xlvs::config::report::check_lvs("lvs.cf", &text, Names::NONE);
    }
}

#[test]
fn the_articles_file_is_the_seed_file() {
    let article = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/lvs.cf");
    let article = load(&fs::read_to_string(article).unwrap(), Names::NONE).unwrap();
    let seed = fs::read_to_string(data().join("01-nat-fwmark-http-https.cf")).unwrap();
    assert_eq!(article, load(&seed, Names::NONE).unwrap());
}

#[test]
fn zz_look() {
    for entry in fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            println!("{}", with_services(|n| xlvs::config::report::check_file(&path, n)).text);
        }
    }
}
