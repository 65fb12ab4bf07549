//! What configured strings mean, and what a reply means.

use xlvs::config::escape::decode;
use xlvs::nanny::{Expect, Judgement};

use super::{pattern, prefix};

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
    let http = || prefix("HTTP");
    let regex = |text| Some(Expect::Pattern(pattern(text)));
    let anything = || Some(Expect::Anything);
    let table = [
        (http(), "", false, More),
        (http(), "HT", false, More),
        (http(), "HT", true, Bad),
        (http(), "HTTP", false, Good),
        (http(), "HTTP/1.0 500", true, Good),
        (http(), "xHTTP", true, Bad),
        (http(), "SSH-", false, Bad),
        (anything(), "", false, More),
        (anything(), "x", false, Good),
        (anything(), "", true, Good),
        (prefix("**"), "*", true, Bad),
        (regex(r"HTTP/1\.[01] (2|3)"), "HTTP/1.1 200 OK", false, Good),
        (regex(r"HTTP/1\.[01] 200"), "HTTP/1.1 404", false, More),
        (regex(r"HTTP/1\.[01] 200"), "HTTP/1.1 404", true, Bad),
        (regex("^a.*z$"), "a\n\u{e9}z", false, Good),
        (regex("OK"), "first line\nOK\n", false, Good),
    ];
    for (expect, received, complete, expected) in table {
        let judged = expect.clone().expect("something").judge(received.as_bytes(), complete);
        assert_eq!(judged, expected, "{expect:?}, got {received:?}, {complete}");
    }
}
