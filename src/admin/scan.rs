//! Words into switches, by the rules of the popt library that the original uses: bundled short options, `-t=X`, `-tX`,
//! `--long=X`, options after plain words, `--` as the end of options.

use std::collections::VecDeque;

use super::options::{Meaning, SWITCHES, Switch, Takes};
use super::usage::UsageError;

/// A switch as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// What it stands for.
    pub meaning: Meaning,
    /// Its value, if it takes one and one was there.
    pub value: Option<String>,
}

/// Reads a command line once, from left to right.
pub struct Scanner {
    words: VecDeque<String>,
    /// What remains of a word of bundled short options.
    bundle: String,
    /// The word read last: what popt's messages show.
    last: String,
    plain: VecDeque<String>,
}

impl Scanner {
    /// Reads `words`, the program's name not among them.
    pub fn new(words: &[String]) -> Self {
        Scanner {
            words: words.iter().cloned().collect(),
            bundle: String::new(),
            last: String::new(),
            plain: VecDeque::new(),
        }
    }

    /// The word read last.
    pub fn last_word(&self) -> &str {
        &self.last
    }

    /// The next word that is no option. Complete only after [`Self::next_switch`] has come to the end.
    pub fn next_plain(&mut self) -> Option<String> {
        self.plain.pop_front()
    }

    /// The next switch, or `None` at the end.
    pub fn next_switch(&mut self) -> Result<Option<Typed>, UsageError> {
        if !self.bundle.is_empty() {
            return self.short().map(Some);
        }
        while let Some(word) = self.take_word() {
            if word == "--" {
                self.plain.append(&mut self.words);
            } else if let Some(long) = word.strip_prefix("--") {
                return self.long(long).map(Some);
            } else if word.len() > 1 && word.starts_with('-') {
                self.bundle = word[1..].to_owned();
                return self.short().map(Some);
            } else {
                self.plain.push_back(word);
            }
        }
        Ok(None)
    }

    fn take_word(&mut self) -> Option<String> {
        let word = self.words.pop_front()?;
        self.last.clone_from(&word);
        Some(word)
    }

    fn long(&mut self, text: &str) -> Result<Typed, UsageError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let switch = SWITCHES.iter().find(|switch| switch.0 == name).ok_or_else(|| self.unknown())?;
        if switch.2 == Takes::Nothing && value.is_some() {
            return Err(UsageError::UnwantedArgument(self.last.clone()));
        }
        self.with_value(switch, value)
    }

    fn short(&mut self) -> Result<Typed, UsageError> {
        let letter = self.bundle.remove(0);
        let switch = SWITCHES.iter().find(|switch| switch.1 == Some(letter)).ok_or_else(|| self.unknown())?;
        if switch.2 == Takes::Nothing && self.bundle.starts_with('=') {
            return Err(UsageError::UnwantedArgument(self.last.clone()));
        }
        let attached = switch.2 != Takes::Nothing && !self.bundle.is_empty();
        let value = attached.then(|| {
            let rest = std::mem::take(&mut self.bundle);
            rest.strip_prefix('=').map_or(rest.clone(), str::to_owned)
        });
        self.with_value(switch, value)
    }

    fn with_value(&mut self, switch: &Switch, attached: Option<String>) -> Result<Typed, UsageError> {
        let next_is_option = self.words.front().is_some_and(|word| word.starts_with('-'));
        let value = match switch.2 {
            Takes::Nothing => None,
            _ if attached.is_some() => attached,
            Takes::MaybeValue if next_is_option => None,
            Takes::MaybeValue => self.take_word(),
            Takes::Value => {
                let missing = UsageError::MissingArgument(self.last.clone());
                Some(self.take_word().ok_or(missing)?)
            }
        };
        Ok(Typed { meaning: switch.3, value })
    }

    fn unknown(&self) -> UsageError {
        UsageError::UnknownOption(self.last.clone())
    }
}
