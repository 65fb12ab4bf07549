//! Regular expressions are glibc's: bash's `=~` asks `regcomp` with REG_EXTENDED.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs::config::posix::{PatternError, checked};
use xlvs::nanny::Pattern;

/// What glibc says of each pair of a pattern and a text: `1` matches, `0` does not, `-` is no pattern.
fn glibc(pairs: &[(String, String)]) -> Vec<char> {
    const SCRIPT: &str = r#"while IFS= read -r -d '' p && IFS= read -r -d '' t; do
        [[ $t =~ $p ]]; case $? in 0) printf 1 ;; 1) printf 0 ;; *) printf - ;; esac; done"#;
    let mut bash = Command::new("bash")
        .args(["-c", SCRIPT])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash is there");
    let mut input = bash.stdin.take().expect("a pipe");
    let text: String = pairs.iter().map(|(pattern, text)| format!("{pattern}\0{text}\0")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = bash.wait_with_output().expect("bash ends");
    writer.join().expect("no panic").expect("bash reads everything");
    String::from_utf8(output.stdout).expect("digits").chars().collect()
}

fn ours(pattern: &str, text: &str) -> char {
    match checked(pattern.as_bytes()) {
        Err(_) => '-',
        Ok(translated) => {
            let pattern = Pattern::new(&translated).expect("it was checked");
            if pattern.is_in(text.as_bytes()) { '1' } else { '0' }
        }
    }
}

/// All pairs in which the two differ. Back references are refused here.
fn differences(pairs: &[(String, String)]) -> String {
    let said = glibc(pairs);
    assert_eq!(said.len(), pairs.len(), "bash answers every question");
    let mut differences = String::new();
    for ((pattern, text), glibc) in pairs.iter().zip(said) {
        let refused = matches!(checked(pattern.as_bytes()), Err(PatternError::BackReference(_)));
        let ours = ours(pattern, text);
        if ours != glibc && !refused {
            let _ = writeln!(differences, "{pattern:?} in {text:?}: glibc {glibc}, xlvs {ours}");
        }
    }
    differences
}

const PATTERNS: &[&str] = &[
    // Repetitions.
    "*a",
    "+",
    "?a",
    "(*a)",
    "a|*b",
    "^*",
    "^+a",
    "a$*",
    "a**",
    "a+?",
    "^a+?$",
    "^(a?)+?b$",
    "()*",
    "(^)*a",
    "\\<*",
    // Intervals.
    "{",
    "{1}",
    "a{",
    "a{1",
    "a{x}",
    "a{}",
    "a{,2}",
    "^a{,2}$",
    "a{,}",
    "a{2}",
    "^a{2}$",
    "a{2,1}",
    "a{1,2,3}",
    "a{0}",
    "a{1}{2}",
    "^a{2}{2}$",
    "a}",
    "}",
    "\\{",
    "a\\{1\\}",
    "a{32767}",
    "a{32768}",
    "a{1",
    "(a{2,}){3}",
    // Groups and branches.
    "(",
    ")",
    "a)",
    "()",
    "(a",
    "a|",
    "|a",
    "a||b",
    "(|a)b",
    "((a)",
    "(?i)a",
    "(?:a)",
    "\\(a\\)",
    // Anchors, also in the middle.
    "^a",
    "a^",
    "a$",
    "$a",
    "^$",
    "a^b",
    "(^a)",
    "(a$)",
    "x*^a",
    // Escapes.
    "\\",
    "a\\",
    "\\d",
    "\\D",
    "\\n",
    "\\x41",
    "\\w",
    "\\W",
    "\\s",
    "\\S",
    "\\b",
    "\\Ba",
    "\\<a",
    "a\\>",
    "\\`a",
    "a\\'",
    "\\.",
    "\\*",
    "\\]",
    "\\/",
    "\\-",
    "\\pL",
    "(a)\\1",
    "\\1",
    // Brackets.
    "[",
    "[a",
    "[]",
    "[]a]",
    "[^]a]",
    "[a]",
    "[^a]",
    "[a-c]",
    "[c-a]",
    "[a-]",
    "[-a]",
    "[--a]",
    "[a--]",
    "[a-c-e]",
    "[a-c-]",
    "[%--]",
    "[]-a]",
    "[\\d]",
    "[\\]",
    "[\\n]",
    "[\\]]",
    "[a&&b]",
    "[[a]",
    "[[]",
    "[a[]",
    "[~~a]",
    "[^^]",
    "[^-a]",
    "[[:alpha:]]",
    "[^[:alpha:]]",
    "[[:alpha:][:digit:]_]",
    "[[:foo:]]",
    "[:alpha:]",
    "[[:alpha:",
    "[[:a",
    "[[.a.]]",
    "[[.a.]-c]",
    "[[.-.]]",
    "[[.space.]]",
    "[[=a=]]",
    "[[=a=]-c]",
    "[a-[:digit:]]",
    "[[:digit:]-a]",
    "[[:digit:]-]",
    "[[:blank:]]",
    "[[:punct:]]",
    "[[:cntrl:]]",
    "[[:xdigit:]]",
    "[[:space:]]",
    "[[:print:]]",
    "[[:graph:]]",
    "[[:upper:]]",
    "[[:lower:]]",
    "[[:alnum:]]",
    "[[..]]",
    "[[.]]",
    "[[==]]",
    "[[.].]]",
    "[[.a.",
    // Bytes.
    ".",
    "^.$",
    "^..$",
    "é",
    "[é]",
    "a.c",
    "#",
    " a",
    "a b",
];

const TEXTS: &[&str] = &[
    "", "a", "aa", "aaa", "b", "ab", "abc", "d", "1", "_", "a-b", "-", "]", "[", "\\", "{", "}", "a{1", "a}",
    ")", "(", "a)", "(a)", "a b", " ", "\t", "\u{b}", "\n", "a\nb", "é", "x41", "A", "^", "$", "|", "*", "n",
    "&", "~", ":", ".", "a^", "pL", "aaaa", "aaaaaaa", "#", "\u{1}",
];

#[test]
fn a_table_of_what_is_different_elsewhere() {
    let pairs: Vec<_> = PATTERNS
        .iter()
        .flat_map(|pattern| TEXTS.iter().map(|text| (pattern.to_string(), text.to_string())))
        .collect();
    assert_eq!(differences(&pairs), "");
}

#[test]
fn patterns_by_chance() {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "-",
        "_",
        ".",
        "*",
        "+",
        "?",
        "{",
        "}",
        "{2}",
        "{,1}",
        "{1,3}",
        "(",
        ")",
        "(",
        ")",
        "|",
        "^",
        "$",
        "[",
        "]",
        "[^",
        "[a-c]",
        "[[:alpha:]]",
        "[:",
        ":]",
        "\\",
        "\\<",
        "\\>",
        "\\b",
        "\\w",
        "\\W",
        "\\s",
        "\\d",
        "\\(",
        ",",
        "1",
        " ",
    ]);
    let pattern = prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat());
    let text = prop::collection::vec(
        prop::sample::select(vec!["a", "b", "c", "-", "_", "1", " ", "(", "{", "]"]),
        0..7,
    );
    let pairs = prop::collection::vec((pattern, text.prop_map(|letters| letters.concat())), 4000);
    // One run of bash for all: a failure is told pair by pair, so that there is nothing to shrink.
    let config = Config { cases: 1, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let told = runner.run(&pairs, |pairs| {
        let told = differences(&pairs);
        if told.is_empty() { Ok(()) } else { Err(TestCaseError::fail(told)) }
    });
    if let Err(error) = told {
        panic!("{error}");
    }
}

#[test]
fn what_is_refused_says_what_to_write() {
    let table = [
        ("*a", "nothing stands before * that could be repeated; write \\* for the character"),
        ("{\"ok\"}", "nothing stands before { that could be repeated; write \\{ for the character"),
        ("a{x}", "{ begins a number of repetitions such as {2,3}; write \\{ for the character"),
        ("(a)\\1", "\\1 refers back to what a group matched, which is not supported; write the text again"),
        ("[[:foo:]]", "there is no class of characters [:foo:]"),
        ("[z-a]", "a range in brackets goes backwards, or a - does not stand first or last in them"),
    ];
    for (pattern, told) in table {
        assert_eq!(checked(pattern.as_bytes()).expect_err(pattern).to_string(), told, "{pattern}");
    }
    let long = "a".repeat(4097);
    assert_eq!(checked(long.as_bytes()), Err(PatternError::TooLong));
    let large = checked(b"((a{1000}){1000}){1000}").expect_err("more than memory has").to_string();
    assert!(large.contains("size limit"), "{large}");
}
