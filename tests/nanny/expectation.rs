//! What configured strings mean, and what a reply means.

use xlvs::nanny::{Check, CheckError, Expect, Judgement, decode};
use xlvs::net::addr::Protocol;

pub(super) fn check() -> Check {
    Check {
        virtual_server: "web".to_owned(),
        server: "one".to_owned(),
        endpoint: ([127, 0, 0, 1], 1).into(),
        protocol: Protocol::TCP,
        virtual_port: 8080,
        send: None,
        expect: None,
        send_program: None,
        use_regex: false,
        timeout: 1,
        reentry: 1,
    }
}

#[test]
fn configured_strings_are_decoded() {
    let table: [(&str, &[u8]); 12] = [
        (r#""GET / HTTP/1.0\r\n\r\n""#, b"GET / HTTP/1.0\r\n\r\n"),
        ("HTTP", b"HTTP"),
        (r#""""#, b""),
        (r#""a\tb\\c\"d\'e""#, b"a\tb\\c\"d'e"),
        (r#""HTTP/1\.1 \d\0""#, br"HTTP/1\.1 \d\0"),
        (r#""HTTP/1\\.1""#, br"HTTP/1\.1"),
        (r"tail\", br"tail\"),
        (r#""\""#, br"\"),
        (r"'single \n'", b"'single \n'"),
        (r#"x"y""#, br#"x"y""#),
        ("\"", b"\""),
        ("", b""),
    ];
    for (value, expected) in table {
        let decoded = decode(value);
        assert_eq!(decoded, expected, "{value}: {}", decoded.escape_ascii());
    }
}

#[test]
fn replies_are_judged() {
    use Judgement::{Bad, Good, More};
    // (expect, regex, received, complete, judgement)
    let table = [
        ("HTTP", false, "", false, More),
        ("HTTP", false, "HT", false, More),
        ("HTTP", false, "HT", true, Bad),
        ("HTTP", false, "HTTP", false, Good),
        ("HTTP", false, "HTTP/1.0 500", true, Good),
        ("HTTP", false, "xHTTP", true, Bad),
        ("HTTP", false, "SSH-", false, Bad),
        ("*", false, "", false, More),
        ("*", false, "x", false, Good),
        ("*", false, "", true, Good),
        ("\"\"", false, "", false, More),
        ("\"\"", false, "anything", false, Good),
        ("\"\"", false, "", true, Good),
        ("**", false, "*", true, Bad),
        (r#""HTTP/1\\.[01] (2|3)""#, true, "HTTP/1.1 200 OK", false, Good),
        (r#""HTTP/1\.[01] 200""#, true, "HTTP/1.1 404", false, More),
        (r#""HTTP/1\.[01] 200""#, true, "HTTP/1.1 404", true, Bad),
        ("\"^a.*z$\"", true, "a\n\u{e9}z", false, Good),
        ("OK", true, "first line\nOK\n", false, Good),
        ("\"\"", true, "", true, Good),
    ];
    for (expect, regex, received, complete, expected) in table {
        let rule = Expect::new(expect, regex).expect("a valid expectation");
        let judged = rule.judge(received.as_bytes(), complete);
        assert_eq!(judged, expected, "expect {expect} regex {regex}, got {received:?}, {complete}");
    }
}

#[test]
fn a_bad_regular_expression_is_told_in_one_line() {
    let check = Check { expect: Some("\"(\"".to_owned()), use_regex: true, ..check() };
    let error = check.prepare().expect_err("the group is open").to_string();
    assert!(error.starts_with("expect of virtual server web is not a regular expression: "), "{error}");
    assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
}

#[test]
fn udp_needs_something_to_send() {
    let silent = Check { protocol: Protocol::UDP, expect: Some("x".to_owned()), ..check() };
    let error = silent.prepare().expect_err("nothing to send");
    assert_eq!(error, CheckError::SilentUdp { virtual_server: "web".to_owned() });
    let program = Check { send_program: Some("\"/bin/true\"".to_owned()), ..silent };
    program.prepare().expect("a program checks anything");
}

#[test]
fn a_web_server_is_assumed_on_port_80_only_if_nothing_is_configured() {
    let web = Check { virtual_port: 80, ..check() };
    assert!(web.assumes_web());
    assert!(!check().assumes_web());
    assert!(!Check { send: Some("\"\"".to_owned()), ..web.clone() }.assumes_web());
    assert!(!Check { expect: Some("\"\"".to_owned()), ..web.clone() }.assumes_web());
    assert!(!Check { send_program: Some("\"\"".to_owned()), ..web }.assumes_web());
}
