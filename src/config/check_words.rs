//! Words that mean something else than they seem to (reference piranha.md, section 1.1).

use std::collections::HashMap;

use super::check::Checker;
use super::keys::{GLOBAL, Key, SERVER, Takes, VIRTUAL};
use super::lex;
use super::lvs::Protocol;
use super::parse::{Block, Kind, Statement};

/// Adds the warnings about words.
pub(super) fn words(checker: &mut Checker<'_>) {
    for said in &checker.parsed.statements {
        if let Some(key) = key_of(said) {
            number(checker, said, key);
            address(checker, said, key);
            port_name(checker, said, key);
        }
    }
    same_names(checker);
}

fn key_of(said: &Statement) -> Option<&'static Key> {
    let keys: &[Key] = match said.block {
        Block::Top => &GLOBAL,
        Block::Virtual(Kind::Virtual, _) => &VIRTUAL,
        Block::Server(Kind::Virtual, ..) => &SERVER,
        // What is not run needs no warnings.
        Block::Virtual(Kind::Failover, _) | Block::Server(Kind::Failover, ..) => return None,
    };
    keys.iter().find(|key| key.name == said.key)
}

fn is_octal(word: &str) -> bool {
    let digits = word.trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit())
}

fn number(checker: &mut Checker<'_>, said: &Statement, key: &Key) {
    let takes_number = matches!(
        key.takes,
        Takes::Number | Takes::Long | Takes::Mark | Takes::Switch | Takes::Port | Takes::PortNumber
    );
    if let Some(value) = lex::integer(&said.value).filter(|_| takes_number && is_octal(&said.value)) {
        let text = format!("{} = {} begins with 0 and is octal: it means {value}", key.name, said.value);
        checker.warn(Some(said.line), text);
    }
}

fn address(checker: &mut Checker<'_>, said: &Statement, key: &Key) {
    let takes_name = matches!(key.takes, Takes::Host | Takes::Director | Takes::DeviceAddress);
    let takes_address = takes_name || matches!(key.takes, Takes::Address | Takes::Mask);
    let Some(word) = said.value.split(' ').next().filter(|word| takes_address && !word.is_empty()) else {
        return;
    };
    let text = match lex::ipv4(word) {
        Some(address) if word.split('.').any(is_octal) => {
            format!("{word} has a part that begins with 0 and is octal: it means {address}")
        }
        Some(address) if word.split('.').count() < 4 => format!("{word} is short for {address}; write that"),
        None if takes_name => format!(
            "{word} is looked up once, when the file is read, and its first address is taken; write the address"
        ),
        _ => return,
    };
    checker.warn(Some(said.line), text);
}

fn port_name(checker: &mut Checker<'_>, said: &Statement, key: &Key) {
    let Block::Virtual(Kind::Virtual, index) = said.block else { return };
    let is_name = matches!(key.takes, Takes::Port) && lex::integer(&said.value).is_none();
    let block = &checker.parsed.config.virtuals[index];
    if is_name && block.protocol == Protocol::Udp {
        let text = format!(
            "port = {} is looked up as a TCP service, also for protocol = udp: it means {}",
            said.value, block.port
        );
        checker.warn(Some(said.line), text);
    }
}

/// Blocks of one name are not joined.
fn same_names(checker: &mut Checker<'_>) {
    let mut seen: HashMap<(Option<usize>, &str, &str), usize> = HashMap::new();
    let parsed = checker.parsed;
    for said in &parsed.statements {
        let within = match (said.block, said.key.as_str()) {
            (Block::Virtual(Kind::Virtual, _), "virtual") => None,
            (Block::Server(Kind::Virtual, index, _), "server") => Some(index),
            _ => continue,
        };
        if let Some(first) = seen.insert((within, &said.key, &said.value), said.line) {
            let text = format!(
                "there is a {} {} at line {first} already: the two are not joined but stand beside each other",
                said.key, said.value
            );
            checker.warn(Some(said.line), text);
        }
    }
}

/// The first letter of a command that means something to a shell alone.
pub(super) fn for_a_shell(command: &str) -> Option<char> {
    command.trim_matches('"').chars().find(|letter| "|&;<>$`*?()\'\"".contains(*letter))
}

/// What to say about it.
pub(super) fn without_shell(key: &str, letter: char) -> String {
    format!(
        "{key} is run without a shell, so that {letter} means nothing and is passed as it is; put the command into a script"
    )
}
