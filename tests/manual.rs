//! The manual pages: made from the tables, complete, and rendered without a complaint.

use std::io::Write;
use std::process::{Command, Stdio};

use xlvs::admin::help::{Group, commands, help, ways};
use xlvs::admin::manual::{NAMES, page};
use xlvs::admin::options::{CHOICES, SWITCHES};
use xlvs::admin::print::proc::ProcFile;
use xlvs::admin::subcommands::{self, JSON, SUBCOMMANDS};
use xlvs::config::health_keys::HEALTH;
use xlvs::config::keys::{GLOBAL, Key, SERVER, Takes, VIRTUAL};
use xlvs::config::lvs::LvsConfig;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::ipvs::scheduler;

/// The page as man(1) shows it, 80 columns wide; what groff complains of fails the test.
fn rendered(name: &str) -> String {
    let source = page(name).unwrap();
    let arguments = ["-man", "-ww", "-Tascii", "-rLL=80n", "-P-cbou"];
    let mut groff = Command::new("groff")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("groff is missing; tests/install.sh test installs it (Debian's groff-base)");
    groff.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = groff.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{name}: groff says\n{complaints}\nof\n{source}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What heads the items of a rendered page.
fn headings(text: &str) -> Vec<&str> {
    let is_heading = |line: &&str| line.starts_with("       ") && !line.starts_with("        ");
    text.lines().filter(is_heading).map(str::trim).collect()
}

/// Whether some heading has these words among its own.
fn is_headed(text: &str, words: &[String]) -> bool {
    headings(text)
        .iter()
        .any(|heading| words.iter().all(|word| heading.split([' ', ',']).any(|own| own == word)))
}

#[test]
fn pages_have_their_sections_and_render_without_a_complaint() {
    for name in NAMES {
        let text = rendered(name);
        let mut sections =
            vec!["NAME", "SYNOPSIS", "DESCRIPTION", "DIFFERENCES", "FILES", "EXAMPLES", "SEE ALSO"];
        if name != "lvs.cf" {
            sections.extend(["COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT"]);
        }
        let missing: Vec<_> =
            sections.into_iter().filter(|section| !text.lines().any(|line| line == *section)).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}:\n{text}");
        let long = text.lines().find(|line| line.len() > 80);
        assert!(long.is_none(), "{name}: a line is wider than the terminal: {long:?}");
    }
}

/// Letters that roff would turn into others: not the markup, which is gone by then, and nothing beyond ASCII.
#[test]
fn pages_are_plain_text() {
    for name in NAMES {
        let source = page(name).unwrap();
        let strange: Vec<&str> =
            source.lines().filter(|line| !line.is_ascii() || line.contains(['`', '~', '^'])).collect();
        assert!(strange.is_empty(), "{name} has letters that roff changes:\n{}", strange.join("\n"));
        assert!(!source.contains("\n\n"), "{name} has an empty line, which roff takes for a gap:\n{source}");
    }
}

#[test]
fn every_switch_is_in_the_page_and_in_the_help_of_ipvsadm() {
    let (text, help) = (rendered("ipvsadm"), help());
    for switch in SWITCHES {
        let ways = ways(switch);
        assert!(is_headed(&text, &ways), "{} is not described in\n{text}", ways.join(", "));
        let line = format!("{} ", ways.join(", "));
        assert!(help.contains(&line), "{line} is not in\n{help}");
        let about = switch.3.about();
        let is_plain =
            !about.brief.is_empty() && !about.brief.contains(['`', '<']) && !about.brief.ends_with('.');
        assert!(is_plain, "{}: {}", ways.join(", "), about.brief);
    }
    let described = commands().count() + Group::ALL.iter().flat_map(|group| group.switches()).count();
    assert_eq!(described, SWITCHES.len() - 1, "-L and -l are described together, every other switch once");
}

#[test]
fn every_option_of_the_rules_has_a_switch() {
    for (choice, name) in CHOICES {
        let has_switch = SWITCHES.iter().any(|switch| switch.3.choice() == Some(choice));
        assert!(has_switch, "nothing can be typed for {name}");
    }
}

#[test]
fn every_scheduler_is_in_the_page() {
    let text = rendered("ipvsadm");
    for entry in scheduler::ENTRIES {
        let head = format!("{} ", entry.name);
        assert!(headings(&text).iter().any(|line| format!("{line} ").starts_with(&head)), "{head}: {text}");
    }
}

/// The exit code and all that was printed.
fn xlvs(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xlvs"))
        .args(words)
        .env("XLVS_SOCKET", "/nonexistent/socket")
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn every_command_of_xlvs_is_in_the_page_and_is_taken_with_its_options() {
    let (text, help) = (rendered("xlvs"), subcommands::help());
    assert_eq!(xlvs(&["help"]), (Some(0), help.clone()));
    for subcommand in SUBCOMMANDS {
        assert!(is_headed(&text, &[subcommand.name.to_owned()]), "{} is not in\n{text}", subcommand.name);
        for flag in subcommand.flags {
            assert!(is_headed(&text, &[flag.name.to_owned()]), "{} is not in\n{text}", flag.name);
            let value = flag.value.map(|_| "1");
            let words: Vec<&str> =
                [subcommand.name, flag.name].into_iter().chain(value).chain(["--help"]).collect();
            assert_eq!(xlvs(&words), (Some(0), help.clone()), "xlvs {}", words.join(" "));
        }
        if subcommand.json {
            assert_eq!(
                xlvs(&[subcommand.name, JSON, "--help"]),
                (Some(0), help.clone()),
                "xlvs {}",
                subcommand.name
            );
        }
        if subcommand.name != "version" {
            assert_eq!(
                xlvs(&[subcommand.name, "--help"]),
                (Some(0), help.clone()),
                "xlvs {}",
                subcommand.name
            );
        }
    }
}

#[test]
fn every_file_of_the_kernel_is_told() {
    let help = subcommands::help();
    let told: Vec<&str> = help.split([' ', ',', '\n']).collect();
    for file in ProcFile::ALL {
        assert!(told.contains(&file.name()), "{} is not in\n{help}", file.name());
    }
}

#[test]
fn what_is_not_in_the_table_is_refused() {
    for (words, told) in [
        (&["nonsense"][..], "xlvs: no such command: nonsense\nSee `xlvs help'.\n"),
        (&["status", "--config", "x"], "xlvs: invalid option '--config'\nSee `xlvs help'.\n"),
        (&["events", "now"], "xlvs: unexpected argument \"now\"\nSee `xlvs help'.\n"),
        (
            &["server", "sideways", "one"],
            "xlvs: which server? xlvs server down|up|auto SERVER [--virtual NAME]\nSee `xlvs help'.\n",
        ),
        (
            &["server", "down"],
            "xlvs: which server? xlvs server down|up|auto SERVER [--virtual NAME]\nSee `xlvs help'.\n",
        ),
        (&["sysctl", "-n"], "xlvs: invalid option '-n'\nSee `xlvs help'.\n"),
        (&["proc", "ip_vs", "--json"], "xlvs: invalid option '--json'\nSee `xlvs help'.\n"),
        (&["plan"], "xlvs: which lvs.cf? xlvs plan FILE\nSee `xlvs help'.\n"),
        (
            &["plan", "a", "--max-broken", "few"],
            "xlvs: --max-broken takes a number of connections, not `few'\nSee `xlvs help'.\n",
        ),
        (&["apply"], "xlvs: which lvs.cf? xlvs apply FILE\nSee `xlvs help'.\n"),
        (
            &["apply", "a", "--confirm", "soon"],
            "xlvs: --confirm takes a time such as 90, 90s or 5m, not `soon'\nSee `xlvs help'.\n",
        ),
        (&["apply", "a", "--abort"], "xlvs: --abort and a file do not go together\nSee `xlvs help'.\n"),
        (&["apply", "a", "b"], "xlvs: unexpected argument \"b\"\nSee `xlvs help'.\n"),
        (
            &["drain", "a", "--undo", "--wait"],
            "xlvs: --undo and --wait do not go together\nSee `xlvs help'.\n",
        ),
        (
            &["drain", "a", "--undo", "--deadline", "5"],
            "xlvs: --undo and --deadline do not go together\nSee `xlvs help'.\n",
        ),
        (&["man"], "xlvs: which page? xlvs man ipvsadm|xlvs|lvs.cf\nSee `xlvs help'.\n"),
        (&["man", "ls"], "xlvs: which page? xlvs man ipvsadm|xlvs|lvs.cf\nSee `xlvs help'.\n"),
        (
            &["completion", "zsh", "xlvs"],
            "xlvs: whose completion? xlvs completion bash ipvsadm|xlvs\nSee `xlvs help'.\n",
        ),
    ] {
        assert_eq!(xlvs(words), (Some(2), told.to_owned()), "xlvs {}", words.join(" "));
    }
}

#[test]
fn xlvs_prints_pages_and_completions() {
    for name in NAMES {
        assert_eq!(xlvs(&["man", name]), (Some(0), page(name).unwrap()));
    }
    let completion = xlvs::admin::completion::bash("ipvsadm").unwrap();
    assert_eq!(xlvs(&["completion", "bash", "ipvsadm"]), (Some(0), completion));
}

/// Something that a key takes.
fn sample(takes: Takes) -> String {
    match takes {
        Takes::Number | Takes::Long | Takes::Mark | Takes::Switch | Takes::Port | Takes::PortNumber => "1",
        Takes::Host | Takes::Director | Takes::Address => "192.0.2.7",
        Takes::Mask => "255.255.255.0",
        Takes::DeviceAddress => "192.0.2.7 eth0:1",
        Takes::Word | Takes::Text => "\"a word\"",
        Takes::OneOf(words) => return words().split(", ").next().unwrap().to_owned(),
        Takes::List => "[ a b ]",
        Takes::Count | Takes::Seconds | Takes::Percent | Takes::Days => "2",
        Takes::UrlPath | Takes::Trust => "/a/path",
        Takes::Name => "www.example.com",
        Takes::Statuses => "200-299,401",
        Takes::Header => "\"Server: ^nginx\"",
        Takes::Pattern => "\"^a+$\"",
    }
    .to_owned()
}

fn config(before: &str, line: &str, after: &str) -> LvsConfig {
    let text = format!("{before}{line}\n{after}");
    load(&text, Names::NONE).unwrap_or_else(|errors| panic!("{errors:?}\nof\n{text}"))
}

#[test]
fn keys_take_what_the_page_says_and_have_its_defaults() {
    let levels: [(&str, &[Key], &str); 3] = [
        ("", &GLOBAL, ""),
        ("virtual v {\n", &VIRTUAL, "}\n"),
        ("virtual v {\nserver s {\n", &SERVER, "}\n}\n"),
    ];
    let text = rendered("lvs.cf");
    for (before, keys, after) in levels {
        let absent = config(before, "", after);
        for key in keys {
            let name = key.name;
            config(before, &format!("{name} = {}", sample(key.takes)), after);
            if let Some(default) = key.default {
                let said = config(before, &format!("{name} = {default}"), after);
                assert_eq!(said, absent, "{name} is not {default} without a line");
            }
            assert!(is_headed(&text, &[name.to_owned(), "=".to_owned()]), "{name} is not in\n{text}");
        }
    }
}

#[test]
fn keys_beyond_piranha_take_what_the_page_says_at_every_level() {
    let text = rendered("lvs.cf");
    for (before, after) in [("", ""), ("virtual v {\n", "}\n"), ("virtual v {\nserver s {\n", "}\n}\n")] {
        for key in &HEALTH {
            let line = format!("#xlvs: {} = {}", key.name, sample(key.takes));
            assert_ne!(config(before, &line, after), config(before, "", after), "{line} says nothing");
            assert!(
                is_headed(&text, &[key.name.to_owned(), "=".to_owned()]),
                "{} is not in\n{text}",
                key.name
            );
        }
    }
}

/// Keys without a default must be absent without a line, not have one that the page does not tell.
#[test]
fn the_default_of_every_key_is_told() {
    let json = |config: &LvsConfig| serde_json::to_value(config).unwrap();
    let absent = json(&config("virtual v {\n", "server s {\n}\n", "}\n"));
    let of = |name: &str| absent.get(name).cloned();
    for key in GLOBAL.iter().filter(|key| key.default.is_none()) {
        assert!(
            of(key.name).is_none_or(|value| value.is_null()),
            "the page lacks the default of {}",
            key.name
        );
    }
    for key in VIRTUAL.iter().filter(|key| key.default.is_none()) {
        let value = absent["virtuals"][0].get(key.name);
        assert!(value.is_none_or(|value| value.is_null()), "the page lacks the default of {}", key.name);
    }
}

/// The example of the page is a file that can be used as it is.
#[test]
fn the_example_of_lvs_cf_is_right() {
    let text = rendered("lvs.cf");
    let example = text.split("\nEXAMPLES\n").nth(1).unwrap().split("\nSEE ALSO\n").next().unwrap();
    let config = load(example, Names::NONE).unwrap();
    assert_eq!(config.virtuals[0].servers[0].name, "lvs-03");
    assert_eq!(config.virtuals[0].send.as_deref(), Some("GET / HTTP/1.0\\r\\n\\r\\n"));
}
