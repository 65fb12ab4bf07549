//! POSIX extended regular expressions as glibc reads them in the C locale, said in the syntax of the regex crate. What
//! that cannot say (back references) is refused. Whether a text matches is all that is asked, so that greed, and which
//! of several matches is taken, do not count.

mod bracket;

use std::fmt::Write as _;

use thiserror::Error;

use self::bracket::ByteSet;

/// Longest pattern, in bytes.
pub const LONGEST: usize = 4096;

/// glibc's `RE_DUP_MAX`.
const MOST_REPETITIONS: u32 = 0x7fff;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// `*`, `+`, `?` or `{` at the start, behind `(`, `|` or an anchor.
    #[error("nothing stands before {0} that could be repeated; write \\{0} for the character")]
    NothingToRepeat(char),
    /// `{` without a count behind it.
    #[error("{{ begins a number of repetitions such as {{2,3}}; write \\{{ for the character")]
    Interval,
    /// `{m,n}` with more than [`MOST_REPETITIONS`].
    #[error("more than {MOST_REPETITIONS} repetitions")]
    TooManyRepetitions,
    /// `\1` and so on.
    #[error("\\{0} refers back to what a group matched, which is not supported; write the text again")]
    BackReference(char),
    /// A backslash at the end.
    #[error("a backslash stands at the end; write \\\\ for the character")]
    TrailingBackslash,
    /// `(` without `)`.
    #[error("a ( is not closed; write \\( for the character")]
    OpenGroup,
    /// `[` without `]`.
    #[error("a [ is not closed; write \\[ for the character")]
    OpenBracket,
    /// `[[:name:]]`.
    #[error("there is no class of characters [:{0}:]")]
    Class(String),
    /// `[[.name.]]` or `[[=name=]]` of more than one character.
    #[error("[{0}] names no single character")]
    Collation(String),
    /// `[z-a]`, `[a-c-e]`.
    #[error("a range in brackets goes backwards, or a - does not stand first or last in them")]
    Range,
    /// NUL: glibc would take it for the end.
    #[error("it has a NUL byte")]
    Nul,
    /// Longer than [`LONGEST`].
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// The engine's own limits.
    #[error("{0}")]
    Engine(String),
}

/// The pattern for a regex crate that has Unicode switched off.
pub fn translate(pattern: &[u8]) -> Result<String, PatternError> {
    if pattern.len() > LONGEST {
        return Err(PatternError::TooLong);
    }
    if pattern.contains(&0) {
        return Err(PatternError::Nul);
    }
    let mut translator = Translator { rest: pattern, out: String::new(), atom: None, groups: Vec::new() };
    while let Some(byte) = translator.next() {
        translator.byte(byte)?;
    }
    if translator.groups.is_empty() { Ok(translator.out) } else { Err(PatternError::OpenGroup) }
}

/// The same, tried out: a pattern within the engine's limits.
pub fn checked(pattern: &[u8]) -> Result<String, PatternError> {
    let text = translate(pattern)?;
    let built = regex::bytes::RegexBuilder::new(&text).unicode(false).build();
    built.map_err(|error| PatternError::Engine(one_line(&error)))?;
    Ok(text)
}

/// A backslash and a letter that stand for that letter alone, although other kinds of regular expression give them a
/// meaning: `\d` is no digit.
pub fn misleading_escape(pattern: &[u8]) -> Option<char> {
    let mut rest = pattern.iter();
    while let Some(byte) = rest.next() {
        let escaped = if *byte == b'\\' { rest.next() } else { None };
        if let Some(letter) = escaped.filter(|letter| b"dDAzZhHvVKQEGpPxurnftaec0".contains(letter)) {
            return Some(char::from(*letter));
        }
    }
    None
}

/// The last line says what is wrong; those before draw the place, in a pattern that nobody wrote.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or(&text);
    last.trim_start_matches("error: ").to_owned()
}

struct Translator<'a> {
    rest: &'a [u8],
    out: String,
    /// Where in `out` the piece begins that a repetition would be about.
    atom: Option<usize>,
    /// Where in `out` each open group begins.
    groups: Vec<usize>,
}

impl Translator<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn byte(&mut self, byte: u8) -> Result<(), PatternError> {
        match byte {
            b'*' | b'+' | b'?' => self.repeat(char::from(byte), &char::from(byte).to_string())?,
            b'{' => self.interval()?,
            b'(' => {
                self.groups.push(self.out.len());
                self.zero_width("(?:");
            }
            b')' => match self.groups.pop() {
                Some(start) => {
                    self.out.push(')');
                    self.atom = Some(start);
                }
                None => self.literal(byte),
            },
            b'|' => self.zero_width("|"),
            b'^' => self.zero_width("^"),
            b'$' => self.zero_width("$"),
            b'.' => self.set(&ByteSet::of(|byte| byte != 0)),
            b'[' => {
                let (set, rest) = bracket::parse(self.rest)?;
                self.rest = rest;
                self.set(&set);
            }
            b'\\' => self.escape()?,
            _ => self.literal(byte),
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let letter = self.next().ok_or(PatternError::TrailingBackslash)?;
        match letter {
            b'1'..=b'9' => return Err(PatternError::BackReference(char::from(letter))),
            b'<' => self.zero_width(r"\b{start}"),
            b'>' => self.zero_width(r"\b{end}"),
            b'b' => self.zero_width(r"\b"),
            b'B' => self.zero_width(r"\B"),
            b'`' => self.zero_width(r"\A"),
            b'\'' => self.zero_width(r"\z"),
            b'w' => self.set(&ByteSet::of(is_word)),
            b'W' => self.set(&ByteSet::of(|byte| !is_word(byte))),
            b's' => self.set(&ByteSet::of(bracket::is_space)),
            b'S' => self.set(&ByteSet::of(|byte| !bracket::is_space(byte))),
            _ => self.literal(letter),
        }
        Ok(())
    }

    fn literal(&mut self, byte: u8) {
        self.atom = Some(self.out.len());
        // Writing to a string does not fail.
        let _ = match byte.is_ascii_alphanumeric() {
            true => write!(self.out, "{}", char::from(byte)),
            false => write!(self.out, "\\x{byte:02x}"),
        };
    }

    fn set(&mut self, set: &ByteSet) {
        self.atom = Some(self.out.len());
        set.write(&mut self.out);
    }

    /// Something that no repetition may follow.
    fn zero_width(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = None;
    }

    /// The group keeps `a+?` from being a lazy `a+`.
    fn repeat(&mut self, sign: char, operator: &str) -> Result<(), PatternError> {
        let start = self.atom.ok_or(PatternError::NothingToRepeat(sign))?;
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        self.out.push_str(operator);
        Ok(())
    }

    fn interval(&mut self) -> Result<(), PatternError> {
        let end = self.rest.iter().position(|byte| *byte == b'}').ok_or(PatternError::Interval)?;
        let (inner, rest) = self.rest.split_at(end);
        if self.atom.is_none() {
            return Err(PatternError::NothingToRepeat('{'));
        }
        self.rest = &rest[1..];
        let mut bounds = inner.split(|byte| *byte == b',').map(number);
        let (least, most) = match (bounds.next(), bounds.next(), bounds.next()) {
            (Some(Ok(Some(times))), None, None) => (times, Some(times)),
            (Some(Ok(least)), Some(Ok(most)), None) => (least.unwrap_or(0), most),
            _ => return Err(PatternError::Interval),
        };
        if most.is_some_and(|most| most < least) {
            return Err(PatternError::Interval);
        }
        if most.unwrap_or(least) > MOST_REPETITIONS {
            return Err(PatternError::TooManyRepetitions);
        }
        let most = most.map_or(String::new(), |most| most.to_string());
        self.repeat('{', &format!("{{{least},{most}}}"))
    }
}

/// `Ok(None)` of no digits at all.
fn number(digits: &[u8]) -> Result<Option<u32>, PatternError> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(PatternError::Interval);
    }
    let add = |sum: u32, digit: &u8| (sum * 10 + u32::from(digit - b'0')).min(MOST_REPETITIONS + 1);
    Ok((!digits.is_empty()).then(|| digits.iter().fold(0, add)))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
