//! Every trap of Piranha's (reference piranha.md: what it ignored, what surprises, what crashed it, what is repaired) is told by
//! `xlvs check`. A file of tests/lvscf/traps for each, named by the section: what it exercises in the first line, and behind `#>`
//! all that is said of it besides what is said of every file.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use xlvs::config::names::{Names, Services};
use xlvs::config::report::check_lvs;

const CLEAN: &str = "primary = 192.0.2.1\nvirtual v {\n active = 1\n address = 192.0.2.9 eth0:1\n \
                     vip_nmask = 255.255.255.255\n port = 8080\n server s {\n  address = 10.0.0.1\n  active = 1\n }\n}\n";

/// Warnings and notes of a file, without its name.
fn remarks(text: &str) -> Vec<String> {
    let services = Services::parse("http 80/tcp\n");
    let host = |name: &str| (name == "lb.example.com").then_some(Ipv4Addr::new(192, 0, 2, 77));
    let names = Names { host: &host, service: &|name, protocol| services.port(name, protocol) };
    let outcome = check_lvs("F", text, names);
    assert_eq!(outcome.errors, 0, "{}", outcome.text);
    let lines: Vec<String> = outcome.text.lines().map(str::to_owned).collect();
    let remarks = lines[..lines.len() - 1].iter();
    remarks.map(|line| line.trim_start_matches(['F', ':', ' ']).to_owned()).collect()
}

#[test]
fn each_trap_is_told() {
    let everywhere: BTreeSet<String> = remarks(CLEAN).into_iter().collect();
    assert!(everywhere.iter().all(|line| line.starts_with("note: ")), "{everywhere:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lvscf/traps");
    let mut story = String::new();
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#> ")).collect();
        let found = remarks(&text);
        let found: Vec<&str> =
            found.iter().map(String::as_str).filter(|line| !everywhere.contains(*line)).collect();
        if found != expected || expected.is_empty() {
            story += &format!(
                "{}\n  said     {}\n  expected {}\n",
                path.display(),
                found.join("\n           "),
                expected.join("\n           ")
            );
        }
        files += 1;
    }
    assert!(story.is_empty() && files > 80, "{files} files\n{story}");
}

#[test]
fn what_every_file_meets_is_said_once() {
    let notes = remarks(CLEAN);
    for (count, text) in [
        (1, "a reload of Piranha's"),
        (1, "the end of one health check"),
        (1, "the table is there first"),
        (1, "listens for deadtime, 5 s"),
    ] {
        assert_eq!(notes.iter().filter(|note| note.contains(text)).count(), count, "{text}: {notes:#?}");
    }
    let inactive = CLEAN.replacen(" active = 1", " active = 0", 1);
    assert!(
        !remarks(&inactive).iter().any(|note| note.contains("a reload")),
        "what is not run meets nothing"
    );
}
