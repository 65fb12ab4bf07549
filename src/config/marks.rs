//! Saved rules, as `iptables-save` and `ip6tables-save` write them, into the marks that the mangle table's PREROUTING
//! gives. Other tables, and chains that PREROUTING does not reach, are not looked at.

use std::collections::HashMap;

use thiserror::Error;

use super::complaint::Complaints;
use super::names::Names;
use super::rule::{self, Jump};
use crate::ipvs::mark::{MarkRules, Rule, Target};
use crate::net::addr::Family;

/// Rules that one packet may run through at most, calls of chains multiplied out.
pub const MOST_RULES_A_PACKET: usize = 65536;
/// Chains that may call one another in a row.
pub const DEEPEST_CALL: usize = 64;

const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

const NO_TABLE_OPEN: &str = "no table is open here; expected a line such as *mangle";
const NO_TABLE: &str = "the line *mangle is missing above the rules, and COMMIT below them; xlvs reads what \
                        `iptables-save -t mangle` prints, not commands";

/// One thing in the file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}: {text}")]
pub struct MarkError {
    /// 1-based line; 0 for the file as a whole.
    pub line: usize,
    /// The line as written, without the blanks around it.
    pub text: String,
    /// What is not understood and what to do.
    pub reason: String,
}

/// Reads the text of `iptables-save`. Rules take IPv4 packets unless they say `-6` or name an IPv6 address.
pub fn parse_marks(text: &str, names: Names<'_>) -> Result<MarkRules, Complaints<MarkError>> {
    parse_marks_of(Family::V4, text, names)
}

/// Reads the text of `iptables-save` (IPv4) or `ip6tables-save` (IPv6). Rules of the latter take IPv6 packets, and lines
/// that say `-4` take none, as ip6tables-restore(8) has it; then [`MarkRules::with_ipv6`] is for the result.
pub fn parse_marks_of(
    family: Family,
    text: &str,
    names: Names<'_>,
) -> Result<MarkRules, Complaints<MarkError>> {
    let mut file = SavedFile::default();
    file.read(text);
    let mut reader = Reader {
        names,
        family,
        file: &file,
        chains: Vec::new(),
        calls: Vec::new(),
        errors: Complaints::default(),
    };
    reader.reach();
    let Reader { chains, calls, mut errors, .. } = reader;
    errors.merge(call_errors(&chains, &calls, &file), |error| error.line);
    errors.merge(file.errors, |error| error.line);
    if errors.is_empty() { Ok(MarkRules { chains }) } else { Err(errors) }
}

/// Which of the two programs saved a file: by its name, or by the comment that they write.
pub fn family_of(file: &str, text: &str) -> Family {
    let name = file.rsplit('/').next().unwrap_or_default();
    let generated = |line: &str| line.starts_with('#') && line.contains("ip6tables-save");
    match name.contains("ip6tables") || text.lines().any(generated) {
        true => Family::V6,
        false => Family::V4,
    }
}

/// Whether a line is of saved rules or of a script that makes them, and of nothing else.
pub fn is_rule_like(line: &str) -> bool {
    let first = line.split_ascii_whitespace().next().unwrap_or_default();
    let program = first.rsplit('/').next();
    matches!(first, "-A" | "-N" | "-I" | ":PREROUTING") || matches!(program, Some("iptables" | "ip6tables"))
}

/// Words of a rule; double and single quotes keep blanks, a backslash keeps the next character.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut letters = line.chars().peekable();
    while letters.peek().is_some() {
        while letters.next_if(|letter| letter.is_ascii_whitespace()).is_some() {}
        let mut word: Option<String> = None;
        while let Some(letter) = letters.next_if(|letter| !letter.is_ascii_whitespace()) {
            let word = word.get_or_insert_default();
            match letter {
                '\\' => word.push(letters.next()?),
                '"' | '\'' => quoted(&mut letters, letter, word)?,
                _ => word.push(letter),
            }
        }
        words.extend(word);
    }
    Some(words)
}

fn quoted(letters: &mut impl Iterator<Item = char>, quote: char, word: &mut String) -> Option<()> {
    loop {
        match letters.next()? {
            letter if letter == quote => return Some(()),
            '\\' if quote == '"' => word.push(letters.next()?),
            letter => word.push(letter),
        }
    }
}

#[derive(Default)]
struct SavedChain<'a> {
    policy: Option<(usize, &'a str)>,
    rules: Vec<(usize, &'a str)>,
}

/// The mangle table as lines, before any rule is understood.
#[derive(Default)]
struct SavedFile<'a> {
    table: Option<&'a str>,
    table_line: usize,
    seen_table: bool,
    stray: bool,
    chains: HashMap<&'a str, SavedChain<'a>>,
    errors: Complaints<MarkError>,
}

impl<'a> SavedFile<'a> {
    fn read(&mut self, text: &'a str) {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.line(index + 1, line);
            }
        }
        if let Some(table) = self.table.take() {
            let reason = "COMMIT is missing at the end of the table, so iptables-restore would not load it";
            self.error(self.table_line, table, reason);
        }
    }

    fn line(&mut self, number: usize, line: &'a str) {
        if let Some(table) = line.strip_prefix('*') {
            if self.table.is_some() {
                self.error(number, line, "COMMIT is missing before this table");
            }
            (self.table, self.table_line, self.seen_table) = (Some(line), number, true);
            if table.trim() == "mangle" {
                self.chains = BUILT_IN.map(|name| (name, SavedChain::default())).into();
            }
        } else if self.table.is_none() {
            if !std::mem::replace(&mut self.stray, true) {
                self.error(number, line, if self.seen_table { NO_TABLE_OPEN } else { NO_TABLE });
            }
        } else if line == "COMMIT" {
            self.table = None;
        } else if self.table == Some("*mangle") {
            self.mangle(number, line);
        }
    }

    fn mangle(&mut self, number: usize, line: &'a str) {
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_ascii_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                return self.error(number, line, "expected :CHAIN POLICY [packets:bytes]");
            };
            self.chains.entry(name).or_default().policy = Some((number, policy));
            return;
        }
        let rule = match line.strip_prefix('[').and_then(|counted| counted.split_once(']')) {
            Some((_, rule)) => rule.trim_start(),
            None => line,
        };
        let mut parts = rule.splitn(3, |letter: char| letter.is_ascii_whitespace());
        let (command, chain) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !matches!(command, "-A" | "--append") {
            let reason = format!("{command} is not understood; expected -A CHAIN, :CHAIN or COMMIT");
            return self.error(number, line, &reason);
        }
        match self.chains.get_mut(chain) {
            Some(chain) => chain.rules.push((number, parts.next().unwrap_or_default())),
            None => self.error(
                number,
                line,
                &format!("there is no chain {chain}; expected a line :{chain} - [0:0] above"),
            ),
        }
    }

    fn error(&mut self, line: usize, text: &str, reason: &str) {
        self.errors.push(MarkError { line, text: text.to_owned(), reason: reason.to_owned() });
    }
}

/// A jump from one chain to another and its line.
struct Call {
    from: usize,
    to: usize,
    line: usize,
    text: String,
}

struct Reader<'a> {
    names: Names<'a>,
    family: Family,
    file: &'a SavedFile<'a>,
    chains: Vec<Vec<Rule>>,
    calls: Vec<Call>,
    errors: Complaints<MarkError>,
}

impl<'a> Reader<'a> {
    /// Understands PREROUTING and, one after the other, the chains that turn up in jumps.
    fn reach(&mut self) {
        self.check_policy();
        let mut order = vec!["PREROUTING"];
        let mut index = HashMap::from([("PREROUTING", 0)]);
        while let Some(&name) = order.get(self.chains.len()) {
            let from = self.chains.len();
            let lines = self.file.chains.get(name).map(|chain| chain.rules.as_slice()).unwrap_or_default();
            let mut rules = Vec::with_capacity(lines.len());
            for &(line, text) in lines {
                match rule::parse(text, self.names, self.family, |name| self.known(name).is_some()) {
                    Ok((matches, Jump::Target(target))) => rules.push(Rule { matches, target }),
                    Ok((matches, Jump::Chain { name: called, goto })) => match self.known(&called) {
                        Some(called) => {
                            let to = *index.entry(called).or_insert_with(|| {
                                order.push(called);
                                order.len() - 1
                            });
                            self.calls.push(Call { from, to, line, text: quote(name, text) });
                            rules.push(Rule { matches, target: Target::Chain { index: to, goto } });
                        }
                        None => self.error(line, quote(name, text), unknown_target(&called)),
                    },
                    Err(reason) => self.error(line, quote(name, text), reason),
                }
            }
            self.chains.push(rules);
        }
    }

    fn check_policy(&mut self) {
        let policy = self.file.chains.get("PREROUTING").and_then(|chain| chain.policy);
        if let Some((line, policy)) = policy.filter(|(_, policy)| *policy != "ACCEPT") {
            let reason =
                format!("the policy {policy} cannot be followed: xlvs only marks packets; use ACCEPT");
            self.error(line, format!(":PREROUTING {policy}"), reason);
        }
    }

    fn known(&self, name: &str) -> Option<&'a str> {
        let known = self.file.chains.get_key_value(name).map(|(name, _)| *name);
        known.filter(|name| !BUILT_IN.contains(name))
    }

    fn error(&mut self, line: usize, text: String, reason: String) {
        self.errors.push(MarkError { line, text, reason });
    }
}

fn quote(chain: &str, rule: &str) -> String {
    format!("-A {chain} {rule}").trim_end().to_owned()
}

fn unknown_target(name: &str) -> String {
    format!("target {name} is not understood: it is no chain of this table; {}", rule::ADVICE)
}

/// Circles, calls too deep, and chains too long when multiplied out.
fn call_errors(chains: &[Vec<Rule>], calls: &[Call], file: &SavedFile<'_>) -> Complaints<MarkError> {
    let mut outgoing: Vec<Vec<&Call>> = vec![Vec::new(); chains.len()];
    for call in calls {
        outgoing[call.from].push(call);
    }
    let mut walk =
        Walk { chains, outgoing, state: vec![State::New; chains.len()], errors: Complaints::default() };
    let total = walk.visit(0, 1);
    if total.is_some_and(|sum| sum.rules > MOST_RULES_A_PACKET) {
        let line =
            file.chains.get("PREROUTING").and_then(|chain| chain.rules.first()).map_or(0, |(line, _)| *line);
        let reason = format!("a packet could run through more than {MOST_RULES_A_PACKET} rules");
        walk.errors.push(MarkError { line, text: "PREROUTING".to_owned(), reason });
    }
    walk.errors
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done(Sum),
}

/// A chain with everything it calls.
#[derive(Clone, Copy, PartialEq)]
struct Sum {
    rules: usize,
    depth: usize,
}

struct Walk<'a> {
    chains: &'a [Vec<Rule>],
    outgoing: Vec<Vec<&'a Call>>,
    state: Vec<State>,
    errors: Complaints<MarkError>,
}

impl Walk<'_> {
    /// `None` when an error was found below this chain.
    fn visit(&mut self, chain: usize, depth: usize) -> Option<Sum> {
        self.state[chain] = State::Open;
        let mut sum = Sum { rules: self.chains[chain].len(), depth: 1 };
        let mut good = true;
        for call in self.outgoing[chain].clone() {
            match self.call(call, depth) {
                Some(called) => {
                    sum.rules = sum.rules.saturating_add(called.rules);
                    sum.depth = sum.depth.max(called.depth + 1);
                }
                None => good = false,
            }
        }
        self.state[chain] = State::Done(sum);
        good.then_some(sum)
    }

    fn call(&mut self, call: &Call, depth: usize) -> Option<Sum> {
        let called = match self.state[call.to] {
            State::Open => return self.refuse(call, "the chains call each other in a circle"),
            State::New if depth >= DEEPEST_CALL => {
                return self.refuse(call, "more than 64 chains call each other");
            }
            State::New => self.visit(call.to, depth + 1)?,
            State::Done(sum) => sum,
        };
        match depth + called.depth > DEEPEST_CALL {
            true => self.refuse(call, "more than 64 chains call each other"),
            false => Some(called),
        }
    }

    fn refuse(&mut self, call: &Call, reason: &str) -> Option<Sum> {
        self.errors.push(MarkError { line: call.line, text: call.text.clone(), reason: reason.to_owned() });
        None
    }
}
