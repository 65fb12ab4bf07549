//! `#xlvs:` lines: how they are read, and what `xlvs check` says about them.

use std::fs;
use std::path::Path;

use xlvs::config::check::check;
use xlvs::config::complaint;
use xlvs::config::health::{CheckKind, HealthKeys};
use xlvs::config::lvs::LvsConfig;
use xlvs::config::names::Names;
use xlvs::config::parse::{load, parse};
use xlvs::config::report::check_lvs;

/// The file in which the lines stand in all three places; those of the block begin at line 6, those of the server at 9 if it has one.
fn file(top: &str, block: &str, server: &str) -> String {
    format!(
        "primary = 192.0.2.1\n{top}virtual v {{\nactive = 1\naddress = 192.0.2.9 eth0:1\n\
         vip_nmask = 255.255.255.255\n{block}server s {{\naddress = 10.0.0.1\nactive = 1\n{server}}}\n}}\n"
    )
}

/// `line message word; expected` of every error.
fn errors(text: &str) -> Vec<String> {
    let told = |error: &complaint::ParseError| {
        let word = error.fault.word.as_deref().unwrap_or("-");
        format!("{} {} {word}; {}", error.line, error.fault.reason, error.fault.expected)
    };
    parse(text, Names::NONE).errors.iter().map(told).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let parsed = parse(text, Names::NONE);
    assert!(parsed.errors.is_empty(), "{text}{:?}", parsed.errors);
    let place = |line: Option<usize>| line.map_or("-".to_owned(), |line| line.to_string());
    check(&parsed).into_iter().map(|warning| format!("{} {}", place(warning.line), warning.text)).collect()
}

#[test]
fn they_stand_in_every_place_and_with_any_blanks() {
    let text = file("#xlvs: check_port = 1\n", "  #xlvs:check_port = 2\n", "\t#xlvs:  check_port =\t0x3\n");
    let config = load(&text, Names::NONE).unwrap();
    let ports = [&config.health, &config.virtuals[0].health, &config.virtuals[0].servers[0].health];
    assert_eq!(ports.map(|keys| keys.check_port), [Some(1), Some(2), Some(3)]);
    let quoted = file("", "#xlvs: http_header = \"Server: a  b\"\n#xlvs: check = 'icmp'\n", "");
    let keys = &load(&quoted, Names::NONE).unwrap().virtuals[0].health;
    assert_eq!(keys.http_header.as_ref().unwrap().pattern, b"a  b");
    assert_eq!(keys.check, Some(CheckKind::Icmp));
}

fn without_health(mut config: LvsConfig) -> LvsConfig {
    config.health = HealthKeys::default();
    for block in config.virtuals.iter_mut().chain(&mut config.failovers) {
        block.health = HealthKeys::default();
        block.servers.iter_mut().for_each(|server| server.health = HealthKeys::default());
    }
    config
}

/// Every sample file says the same with such a line behind each of its lines.
#[test]
fn the_samples_are_as_before_with_lines_of_ours_everywhere() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lvscf");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "cf") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: String = text.lines().map(|line| format!("{line}\n  #xlvs: check_fall = 2\n")).collect();
        let (with, without) = (parse(&lines, Names::NONE), parse(&text, Names::NONE));
        assert_eq!(without_health(with.config), without.config, "{}", path.display());
        let words = |parsed: &complaint::Complaints<complaint::ParseError>| -> Vec<String> {
            parsed.iter().filter(|error| error.line > 0).map(complaint::ParseError::headline).collect()
        };
        assert_eq!(words(&with.errors), words(&without.errors), "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 27);
}

#[test]
fn the_shipped_example_has_no_traps() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/health-checks.cf");
    assert_eq!(warnings(&fs::read_to_string(path).unwrap()), Vec::<String>::new());
}

/// Piranha takes them for comments: what else is in the file says the same with and without them.
#[test]
fn the_rest_of_the_file_is_as_without_them() {
    let lines = "#xlvs: check = https\n#xlvs: nothing = 1\n#xlvs: }\n#xlvs: virtual w {\n#xlvs: \"\n#xlvs:\n";
    let with = parse(&file(lines, lines, lines), Names::NONE).config;
    assert_eq!(without_health(with), parse(&file("", "", ""), Names::NONE).config);
}

/// (line, `message word; expected`).
const WRONG: &[(&str, &str)] = &[
    ("#xlvs: chek = tcp", "unknown command chek; a key beyond Piranha's; see lvs.cf(5)"),
    ("#xlvs: check=tcp", "unknown command check=tcp; blanks around the equal sign: check = VALUE"),
    ("#xlvs: timeout = 5", "unknown command timeout; timeout to stand on a line of its own, without #xlvs:"),
    ("#xlvs: check tcp", "equal (=) expected after command tcp; an equal sign between blanks: check = VALUE"),
    ("#xlvs: check", "equal (=) expected after command -; an equal sign between blanks: check = VALUE"),
    ("#xlvs:", "missing arguments -; #xlvs: KEY = VALUE"),
    ("#xlvs: check = \"tcp", "quotation mismatch \"tcp; a closing quote, at the end of its word"),
    ("check = tcp", "unknown command check; #xlvs: before a key beyond Piranha's: #xlvs: check = VALUE"),
    (
        "#xlvs: check = TCP",
        "invalid argument TCP; one of tcp, udp, program, tls, http, https, dns, grpc, grpcs, icmp",
    ),
    ("#xlvs: check_port = 0", "invalid argument 0; a port from 1 to 65535"),
    ("#xlvs: check_port = 65536", "invalid argument 65536; a port from 1 to 65535"),
    ("#xlvs: check_port = http", "invalid argument http; a port from 1 to 65535"),
    ("#xlvs: check_source = host", "invalid argument host; an IPv4 address (no name here)"),
    ("#xlvs: check_interval = 0", "invalid argument 0; seconds from 0.1 to 86400, such as 2 or 0.5"),
    ("#xlvs: check_interval = 1e3", "invalid argument 1e3; seconds from 0.1 to 86400, such as 2 or 0.5"),
    ("#xlvs: check_limit = 5s", "invalid argument 5s; seconds from 0.1 to 86400, such as 2 or 0.5"),
    ("#xlvs: check_rise = 0", "invalid argument 0; a whole number from 1 to 1000"),
    ("#xlvs: check_fall = x", "integer expected x; a whole number from -2147483648 to 2147483647"),
    ("#xlvs: check_jitter = 51", "invalid argument 51; a whole number from 0 to 50"),
    ("#xlvs: http_version = 3", "invalid argument 3; one of 1, 2"),
    ("#xlvs: http_path = health", "invalid argument health; a path that begins with /, without blanks or #"),
    ("#xlvs: http_path = \"/a b\"", "invalid argument /a b; a path that begins with /, without blanks or #"),
    (
        "#xlvs: http_status = 2xx",
        "invalid argument 2xx; statuses from 100 to 599, such as 200 or 200-299,401",
    ),
    (
        "#xlvs: http_status = 300-200",
        "invalid argument 300-200; statuses from 100 to 599, such as 200 or 200-299,401",
    ),
    ("#xlvs: http_status = 200, 301", "unexpected arguments 301; one value (quote it if it has blanks)"),
    (
        "#xlvs: http_header = Server",
        "invalid argument Server; \"NAME: PATTERN\", such as \"Content-Type: ^text/\"",
    ),
    (
        "#xlvs: http_body = \"(\"",
        "invalid argument (; an extended regular expression: a ( is not closed; write \\( for the character",
    ),
    ("#xlvs: tls_name = \"a b\"", "invalid argument a b; a host name in ASCII, such as www.example.com"),
    (
        "#xlvs: tls_verify = ca.pem",
        "invalid argument ca.pem; none, system, or the absolute path of a PEM file",
    ),
    ("#xlvs: dns_name = a..b", "invalid argument a..b; a domain name in ASCII, such as www.example.com"),
    ("#xlvs: dns_type = a", "invalid argument a; one of A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT"),
];

#[test]
fn what_is_wrong_with_a_line_is_told() {
    for (line, expected) in WRONG {
        let told = errors(&file("", &format!("{line}\n"), ""));
        assert_eq!(told, [format!("6 {expected}")], "{line}");
    }
}

#[test]
fn in_a_block_that_is_not_understood_they_are_passed_over() {
    let text = format!("nonsense {{\n#xlvs: nonsense = 1\n}}\n{}", file("", "", ""));
    assert_eq!(errors(&text).len(), 1, "only the block itself");
}

const HTTPS: &str = "#xlvs: check = https\n";
/// (lines outside, in the block, in the server; every warning): keys that no check looks at.
const NEEDLESS: &[(&str, &str, &str, &[&str])] = &[
    ("", HTTPS, "", &[]),
    ("", "#xlvs: check_fall = 2\n", "", &[]),
    ("", "#xlvs: http_path = /x\n", "", &["6 http_path has no effect here; it is for check = http, https"]),
    (
        "",
        "#xlvs: tls_expiry = 7\n",
        "",
        &["6 tls_expiry has no effect here; it is for check = tls, https, grpcs"],
    ),
    ("", "#xlvs: dns_type = NS\n", "", &["6 dns_type has no effect here; it is for check = dns"]),
    (
        "",
        "#xlvs: grpc_service = a\n",
        "",
        &["6 grpc_service has no effect here; it is for check = grpc, grpcs"],
    ),
    ("", "", HTTPS, &[]),
    ("", "#xlvs: http_path = /x\n", HTTPS, &[]),
    ("#xlvs: http_path = /x\n", "", HTTPS, &[]),
    ("#xlvs: http_path = /x\n", "", "", &["2 http_path has no effect here; it is for check = http, https"]),
    (
        "",
        HTTPS,
        "#xlvs: check = icmp\n#xlvs: check_port = 7\n",
        &[
            "11 check_port has no effect here; it is for check = tcp, udp, program, tls, http, https, dns, grpc, grpcs",
        ],
    ),
    (
        "",
        "#xlvs: check = https\nexpect = HTTP\nsend = x\n",
        "",
        &[
            "7 expect has no effect with check = https; delete it",
            "8 send has no effect with check = https; delete it",
        ],
    ),
    ("", "#xlvs: check = tls\nexpect = 220\n", "", &[]),
    (
        "",
        "#xlvs: check = tcp\nsend_program = /x\nexpect = a\n",
        "",
        &["7 send_program has no effect with check = tcp; delete it"],
    ),
    (
        "",
        "#xlvs: check_rise = 2\nreentry = 5\n",
        "",
        &["7 reentry has no effect beside check_rise; delete one of them"],
    ),
];

/// The same: what is missing, or not what it seems.
const INCOMPLETE: &[(&str, &str, &str, &[&str])] = &[
    (
        "",
        "#xlvs: check = program\n",
        "",
        &["6 check = program needs send_program; without it the service is not run"],
    ),
    ("", "#xlvs: check = dns\n", "", &["6 check = dns needs dns_name; without it the service is not run"]),
    (
        "",
        "#xlvs: check = https\n#xlvs: tls_verify = system\n",
        "",
        &[
            "7 tls_verify without tls_name: the certificate must have the server's address in it; add tls_name = NAME",
        ],
    ),
    (
        "",
        "# xlvs: check = https\n#XLVS: check = icmp\n",
        "",
        &[
            "6 this is a comment; what xlvs is to read begins with #xlvs: and has no blank in that",
            "7 this is a comment; what xlvs is to read begins with #xlvs: and has no blank in that",
        ],
    ),
    (
        "",
        "# xlvs is what reads this file\n#xlvs:check = icmp\n#xlvs: check = icmp\n",
        "",
        &["7 check is given again at line 8, and the last one counts; delete this one"],
    ),
];

#[test]
fn what_means_nothing_is_told() {
    for (top, block, server, expected) in NEEDLESS.iter().chain(INCOMPLETE) {
        let text = file(top, block, server);
        assert_eq!(warnings(&text), *expected, "{text}");
    }
}

#[test]
fn letters_that_are_no_classes_are_told() {
    let said = "expect = \"\\\\d+\"\nuse_regex = 1\n";
    let expected = "6 \\d is the character d in an extended regular expression";
    let told = warnings(&file("", said, ""));
    assert!(told.iter().any(|warning| warning.starts_with(expected)), "{told:?}");
    let told = warnings(&file("", "send = \"?\"\nexpect = \"[[:digit:]]+\"\nuse_regex = 1\n", ""));
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn the_report_quotes_the_line() {
    let outcome = check_lvs("lvs.cf", &file("", "#xlvs: check = smtp\n", ""), Names::NONE);
    let expected = "lvs.cf:6: error: invalid argument: 'smtp'\n    #xlvs: check = smtp\n    \
                    expected one of tcp, udp, program, tls, http, https, dns, grpc, grpcs, icmp\nlvs.cf: 1 error\n";
    assert_eq!((outcome.text.as_str(), outcome.errors), (expected, 1));
}
