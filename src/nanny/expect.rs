//! What a server must answer.

use std::hash::{Hash, Hasher};

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// A regular expression that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PatternError(String);

/// A regular expression about bytes. Two are equal if they are written in the same way.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// `text` is in the syntax of the regex crate; a letter is a byte.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(text).unicode(false).build();
        regex.map(Pattern).map_err(|error| PatternError(error.to_string()))
    }

    /// Whether it is found somewhere in `text`.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// What a reply must look like (reference/piranha.md 2.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The server says anything, or closes.
    Anything,
    /// The reply starts with these bytes.
    Prefix(Vec<u8>),
    /// The regular expression is found somewhere in the reply.
    Pattern(Pattern),
}

/// What a reply received so far means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is as expected.
    Good,
    /// Nothing that may follow can make it good.
    Bad,
    /// Undecided until more comes.
    More,
}

impl Expect {
    /// Judges what was received so far; `complete` when nothing will follow, because the server closed or the reply is
    /// one datagram. Judging every time that something came, not one single read, lets a reply arrive in pieces.
    pub fn judge(&self, received: &[u8], complete: bool) -> Judgement {
        let good = match self {
            Expect::Anything => complete || !received.is_empty(),
            Expect::Prefix(prefix) => received.starts_with(prefix),
            Expect::Pattern(pattern) => pattern.is_in(received),
        };
        let hopeless = matches!(self, Expect::Prefix(prefix) if !prefix.starts_with(received));
        match good {
            true => Judgement::Good,
            false if complete || hopeless => Judgement::Bad,
            false => Judgement::More,
        }
    }
}
