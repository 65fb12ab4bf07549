//! What can be wrong with a line of `lvs.cf`.

use std::fmt;
use std::ops::Deref;

use thiserror::Error;

/// Kinds of errors, with the original's wording (reference piranha.md, section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// A quote that does not close at the end of a word.
    #[error("quotation mismatch")]
    Quotation,
    /// More words than the key takes.
    #[error("unexpected arguments")]
    UnexpectedArguments,
    /// The second word is not `=`.
    #[error("equal (=) expected after command")]
    EqualExpected,
    /// Fewer words than the key takes.
    #[error("missing arguments")]
    MissingArguments,
    /// 0.0.0.0 where a director's address is needed.
    #[error("invalid host name or ip address")]
    InvalidHost,
    /// Not one of the values that the key has.
    #[error("invalid argument")]
    InvalidArgument,
    /// Not a whole number.
    #[error("integer expected")]
    IntegerExpected,
    /// A whole number that is neither 0 nor 1.
    #[error("boolean expected")]
    BooleanExpected,
    /// Not a key, or not one of this block.
    #[error("unknown command")]
    UnknownCommand,
    /// Not `[ a b c ]`.
    #[error("list expected")]
    ListExpected,
    /// Not a netmask.
    #[error("Bad subnet mask specified")]
    BadMask,
    /// A file of no bytes.
    #[error("Empty configuration")]
    Empty,
}

/// What is wrong with a line, before it is known which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kind.
    pub reason: Reason,
    /// The word at fault, if one is there.
    pub word: Option<String>,
    /// What should stand there.
    pub expected: String,
}

impl Fault {
    /// A fault of a word that is there.
    pub fn word(reason: Reason, word: &str, expected: impl Into<String>) -> Fault {
        Fault { reason, word: Some(word.to_owned()), expected: expected.into() }
    }

    /// A fault of something that is not there.
    pub fn absent(reason: Reason, expected: impl Into<String>) -> Fault {
        Fault { reason, word: None, expected: expected.into() }
    }
}

/// One error of a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ParseError {
    /// 1-based line; 0 for the file as a whole.
    pub line: usize,
    /// The line as written, without the blanks around it.
    pub text: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}; expected {}", self.headline(), self.fault.expected)
    }
}

impl ParseError {
    /// The original's wording and the word at fault.
    pub fn headline(&self) -> String {
        match &self.fault.word {
            Some(word) => format!("{}: '{word}'", self.fault.reason),
            None => self.fault.reason.to_string(),
        }
    }
}

/// Errors of a file that are kept, so that a file of nonsense does not fill the memory.
pub const MOST_KEPT: usize = 1000;

/// The first errors of a file, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints<E> {
    kept: Vec<E>,
    total: usize,
}

impl<E> Default for Complaints<E> {
    fn default() -> Self {
        Complaints { kept: Vec::new(), total: 0 }
    }
}

impl<E> Complaints<E> {
    /// Counts an error and keeps it if there is room.
    pub fn push(&mut self, error: E) {
        self.total += 1;
        if self.kept.len() < MOST_KEPT {
            self.kept.push(error);
        }
    }

    /// All errors, also those that are not kept.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Adds those found elsewhere in the file and puts all in order.
    pub fn merge<K: Ord>(&mut self, others: Complaints<E>, order: impl Fn(&E) -> K) {
        self.total += others.total;
        self.kept.extend(others.kept);
        self.kept.sort_by_key(order);
        self.kept.truncate(MOST_KEPT);
    }
}

/// Those that are kept.
impl<E> Deref for Complaints<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.kept
    }
}
