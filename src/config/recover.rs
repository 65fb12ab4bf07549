//! What an unknown word was probably meant to be, so that one bad line is one error.

use super::complaint::{Fault, Reason};
use super::health_keys::HEALTH;
use super::keys::{self, Key};

/// Where a line stands, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Outside of all blocks.
    Top,
    /// In a `virtual` or `failover` block.
    Virtual,
    /// In a `server` block.
    Server,
}

/// The fault of a first word that is not a key here.
pub fn unknown(word: &str, level: Level) -> Fault {
    Fault::word(Reason::UnknownCommand, word, belongs(word, level))
}

/// The fault of a word behind `#xlvs:` that is not a key there.
pub fn unknown_beyond(word: &str) -> Fault {
    let split = word.split_once('=').map(|(key, _)| key).filter(|key| keys::has(&HEALTH, key));
    let expected = match split {
        Some(key) => format!("blanks around the equal sign: {key} = VALUE"),
        None if is_key(word) => format!("{word} to stand on a line of its own, without #xlvs:"),
        None => "a key beyond Piranha's; see lvs.cf(5)".to_owned(),
    };
    Fault::word(Reason::UnknownCommand, word, expected)
}

fn belongs(word: &str, level: Level) -> String {
    if let Some((key, _)) = word.split_once('=').filter(|(key, _)| is_key(key)) {
        return format!("blanks around the equal sign: {key} = VALUE");
    }
    match word {
        "}" => return "no closing brace here: no block is open".to_owned(),
        "debug" => return "debug_level, the key's real name".to_owned(),
        "expect_program" => {
            return "this line to be deleted: only the web tool writes it, and nothing reads it".to_owned();
        }
        "virtual" | "failover" => {
            return format!("the closing brace of the open block before a {word} block");
        }
        "server" if level == Level::Server => {
            return "the closing brace of the server block above".to_owned();
        }
        "server" => {
            return "a server block inside of a virtual block; is a closing brace too many above?".to_owned();
        }
        _ => {}
    }
    if keys::has(&HEALTH, word) {
        return format!("#xlvs: before a key beyond Piranha's: #xlvs: {word} = VALUE");
    }
    let homes = homes(word);
    match homes.is_empty() {
        true => format!("a key of {}", place(level)),
        false => format!("{word} to stand {}", homes.join(" or ")),
    }
}

fn homes(word: &str) -> Vec<&'static str> {
    let levels = [Level::Top, Level::Virtual, Level::Server];
    levels.into_iter().filter(|level| is_key_of(word, *level)).map(home).collect()
}

/// The keys of a level.
fn keys_of(level: Level) -> &'static [Key] {
    match level {
        Level::Top => &keys::GLOBAL,
        Level::Virtual => &keys::VIRTUAL,
        Level::Server => &keys::SERVER,
    }
}

/// Whether a word is a key of this level.
pub fn is_key_of(word: &str, level: Level) -> bool {
    keys::has(keys_of(level), word)
}

fn is_key(word: &str) -> bool {
    !homes(word).is_empty()
}

fn place(level: Level) -> &'static str {
    match level {
        Level::Top => "the top level",
        Level::Virtual => "a virtual block",
        Level::Server => "a server block",
    }
}

fn home(level: Level) -> &'static str {
    match level {
        Level::Top => "outside of all blocks",
        Level::Virtual => "in a virtual block",
        Level::Server => "in a server block",
    }
}
