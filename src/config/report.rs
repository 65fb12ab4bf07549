//! `xlvs check`: what is wrong with a file, as text for a person.

use std::fmt::Write;
use std::path::Path;

use super::check::{Warning, check};
use super::complaint::{Complaints, ParseError};
use super::lvs::LvsConfig;
use super::marks::{self, MarkError};
use super::migration::notes;
use super::names::Names;
use super::parse::parse;
use super::recover::{Level, is_key_of};
use super::{settings, text};
use crate::net::addr::Family;

/// Errors of one file that are printed.
const MOST_PRINTED: usize = 50;
/// Longest piece of a line that is quoted, in characters.
const LONGEST_QUOTE: usize = 160;
/// Longest message, in characters; it may have words of the file in it.
const LONGEST_MESSAGE: usize = 480;

/// The outcome of checking one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOutcome {
    /// `FILE:LINE: error: …` and so on, ending in a line break.
    pub text: String,
    /// Errors found; the file is not usable unless 0.
    pub errors: usize,
    /// Warnings found.
    pub warnings: usize,
    /// Places where xlvs does otherwise than Piranha.
    pub notes: usize,
}

/// Reads and checks a file: `xlvs.toml` by its ending `.toml`, saved iptables or ip6tables rules by their lines, anything else as
/// `lvs.cf`.
pub fn check_file(path: &Path, names: Names<'_>) -> CheckOutcome {
    let file = path.display().to_string();
    let content = match text::read(path) {
        Ok(content) => content,
        Err(error) => {
            let place = error.line().map(|line| format!(":{line}")).unwrap_or_default();
            let text = format!("{file}{place}: error: {}\n", error.reason());
            return CheckOutcome { text, errors: 1, ..CheckOutcome::default() };
        }
    };
    if path.extension().is_some_and(|ending| ending == "toml") {
        check_settings(&file, &content)
    } else if has_rules(&content) {
        check_marks_of(marks::family_of(&file, &content), &file, &content, names)
    } else {
        check_lvs(&file, &content, names)
    }
}

/// Saved rules that lost their `*mangle` are still no `lvs.cf`, unless one of its keys stands there too.
fn has_rules(content: &str) -> bool {
    let of_lvs = |line: &str| {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        first == "virtual" || is_key_of(first, Level::Top)
    };
    content.lines().any(|line| line.starts_with('*'))
        || content.lines().any(marks::is_rule_like) && !content.lines().any(of_lvs)
}

/// Checks the text of an `lvs.cf`. Warnings are looked for once there are no errors, since a line that was not
/// understood would cause false ones.
pub fn check_lvs(file: &str, content: &str, names: Names<'_>) -> CheckOutcome {
    let parsed = parse(content, names);
    let mut outcome = CheckOutcome::default();
    outcome.lvs_errors(file, &parsed.errors);
    if parsed.errors.is_empty() {
        for warning in check(&parsed) {
            outcome.warning(file, &warning);
        }
        for note in notes(&parsed) {
            outcome.note(file, &note);
        }
    }
    let content = format!("{} and {}", virtuals(&parsed.config), servers(&parsed.config));
    outcome.total(file, &content)
}

/// Checks the text of saved iptables rules.
pub fn check_marks(file: &str, content: &str, names: Names<'_>) -> CheckOutcome {
    check_marks_of(Family::V4, file, content, names)
}

/// Checks the text of saved rules of iptables (IPv4) or ip6tables (IPv6).
pub fn check_marks_of(family: Family, file: &str, content: &str, names: Names<'_>) -> CheckOutcome {
    let mut outcome = CheckOutcome::default();
    let mut rules = 0;
    match marks::parse_marks_of(family, content, names) {
        Ok(found) => rules = found.chains.iter().map(Vec::len).sum(),
        Err(errors) => {
            for MarkError { line, text, reason } in errors.iter().take(MOST_PRINTED) {
                outcome.error(file, *line, reason, text, None);
            }
            outcome.more(file, errors.total());
        }
    }
    outcome.total(file, &format!("{} that PREROUTING of mangle reaches", count(rules, "rule")))
}

/// Checks the text of an `xlvs.toml`.
pub fn check_settings(file: &str, content: &str) -> CheckOutcome {
    let mut outcome = CheckOutcome::default();
    if let Err(error) = settings::parse(file, content) {
        let _ = writeln!(outcome.text, "{error}");
        outcome.errors = 1;
    }
    outcome.total(file, "settings")
}

impl CheckOutcome {
    fn lvs_errors(&mut self, file: &str, errors: &Complaints<ParseError>) {
        for error in errors.iter().take(MOST_PRINTED) {
            self.error(file, error.line, &error.headline(), &error.text, Some(&error.fault.expected));
        }
        self.more(file, errors.total());
    }

    /// Counts all errors, and says how many were not printed.
    fn more(&mut self, file: &str, total: usize) {
        self.errors = total;
        if let Some(more) = total.checked_sub(MOST_PRINTED).filter(|more| *more > 0) {
            let _ = writeln!(self.text, "{file}: … and {more} more");
        }
    }

    fn error(&mut self, file: &str, line: usize, headline: &str, quoted: &str, expected: Option<&str>) {
        let place = if line > 0 { format!("{file}:{line}") } else { file.to_owned() };
        let _ = writeln!(self.text, "{place}: error: {}", printable(headline, LONGEST_MESSAGE));
        if !quoted.is_empty() {
            let _ = writeln!(self.text, "    {}", printable(quoted, LONGEST_QUOTE));
        }
        if let Some(expected) = expected {
            let _ = writeln!(self.text, "    expected {expected}");
        }
    }

    fn warning(&mut self, file: &str, warning: &Warning) {
        self.warnings += 1;
        self.remark(file, "warning", warning);
    }

    fn note(&mut self, file: &str, note: &Warning) {
        self.notes += 1;
        self.remark(file, "note", note);
    }

    fn remark(&mut self, file: &str, word: &str, Warning { line, text }: &Warning) {
        let place = line.map(|line| format!(":{line}")).unwrap_or_default();
        let _ = writeln!(self.text, "{file}{place}: {word}: {}", printable(text, LONGEST_MESSAGE));
    }

    fn total(mut self, file: &str, content: &str) -> CheckOutcome {
        let _ = match (self.errors, self.warnings) {
            (0, 0) => writeln!(self.text, "{file}: good: {content}"),
            (0, warnings) => writeln!(self.text, "{file}: {}: {content}", count(warnings, "warning")),
            (errors, _) => writeln!(self.text, "{file}: {}", count(errors, "error")),
        };
        self
    }
}

/// Errors of an `lvs.cf` as [`check_lvs`] prints them, for a log or a reload's answer.
pub fn render_errors(file: &str, errors: &Complaints<ParseError>) -> String {
    let mut outcome = CheckOutcome::default();
    outcome.lvs_errors(file, errors);
    outcome.text
}

fn virtuals(config: &LvsConfig) -> String {
    let active = config.virtuals.iter().filter(|server| server.active).count();
    format!("{} ({active} active)", count(config.virtuals.len(), "virtual server"))
}

fn servers(config: &LvsConfig) -> String {
    let all = || config.virtuals.iter().flat_map(|server| &server.servers);
    let active = all().filter(|real| real.active).count();
    format!("{} ({active} active)", count(all().count(), "real server"))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Quoted text must not reach a terminal with control characters, nor at any length.
fn printable(text: &str, longest: usize) -> String {
    let shown = |letter: char| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter };
    let mut printed: String = text.chars().take(longest).map(shown).collect();
    if text.chars().nth(longest).is_some() {
        printed.push('…');
    }
    printed
}
