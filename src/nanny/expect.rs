//! What a server must answer.

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// A regular expression that cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PatternError(String);

/// What a reply must look like (reference/piranha.md 2.4).
#[derive(Clone, Debug)]
pub enum Expect {
    /// `""` or `*`: the server says anything, or closes.
    Anything,
    /// The reply starts with these bytes.
    Prefix(Vec<u8>),
    /// The regular expression matches somewhere in the reply.
    Pattern(Regex),
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
    /// Reads an `expect` value as lvs.cf has it, with quotes and escapes.
    pub fn new(value: &str, use_regex: bool) -> Result<Self, PatternError> {
        let bytes = decode(value);
        match bytes.as_slice() {
            b"" => Ok(Expect::Anything),
            b"*" if !use_regex => Ok(Expect::Anything),
            _ if use_regex => pattern(&bytes),
            _ => Ok(Expect::Prefix(bytes)),
        }
    }

    /// Judges what was received so far; `complete` when nothing will follow, because the server closed or the reply is
    /// one datagram. Judging every time that something came, not one single read, lets a reply arrive in pieces.
    pub fn judge(&self, received: &[u8], complete: bool) -> Judgement {
        let good = match self {
            Expect::Anything => complete || !received.is_empty(),
            Expect::Prefix(prefix) => received.starts_with(prefix),
            Expect::Pattern(regex) => regex.is_match(received),
        };
        let hopeless = matches!(self, Expect::Prefix(prefix) if !prefix.starts_with(received));
        match good {
            true => Judgement::Good,
            false if complete || hopeless => Judgement::Bad,
            false => Judgement::More,
        }
    }
}

/// POSIX rules where the two differ: bytes are bytes, a dot matches a line end too.
fn pattern(bytes: &[u8]) -> Result<Expect, PatternError> {
    let text = String::from_utf8_lossy(bytes);
    let regex = RegexBuilder::new(&text).unicode(false).dot_matches_new_line(true).build();
    regex.map(Expect::Pattern).map_err(|error| one_line(&error))
}

/// The last line says what is wrong; those before draw the place, which a log line has no room for.
fn one_line(error: &regex::Error) -> PatternError {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or(&text);
    PatternError(last.trim_start_matches("error: ").to_owned())
}

/// The bytes that a `send` or `expect` value of lvs.cf stands for: without its double quotes, and with `\n \r \t \\ \'
/// \"` converted. Any other backslash stays, and a single character is never converted (reference/piranha.md 2.2).
pub fn decode(value: &str) -> Vec<u8> {
    let text = strip_quotes(value);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.first().filter(|_| *first == b'\\').and_then(|next| escape(*next));
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[1..] } else { tail };
    }
    bytes
}

fn escape(letter: u8) -> Option<u8> {
    match letter {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'\\' | b'\'' | b'"' => Some(letter),
        _ => None,
    }
}

/// The value without double quotes around it. Apostrophes stay: Piranha passed them on (reference/piranha.md 1.1).
pub(super) fn strip_quotes(value: &str) -> &str {
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}
