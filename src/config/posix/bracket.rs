//! `[...]`. The rules about hyphens are glibc's: one stands for itself as the first or the last character and at the end of a
//! range, and is an error elsewhere.

use std::fmt::Write as _;

use super::PatternError;

/// Longest name of a class, in bytes; glibc's `BRACKET_NAME_BUF_SIZE`.
const LONGEST_NAME: usize = 32;

/// A set of bytes.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// Those that a rule holds for.
    pub(super) fn of(rule: impl Fn(u8) -> bool) -> Self {
        let mut set = ByteSet([false; 256]);
        set.add(rule);
        set
    }

    fn add(&mut self, rule: impl Fn(u8) -> bool) {
        for byte in 0..=u8::MAX {
            self.0[usize::from(byte)] |= rule(byte);
        }
    }

    /// Appends it as a class of the regex crate. Never empty: what is left out is a part of some 255 characters.
    pub(super) fn write(&self, out: &mut String) {
        out.push('[');
        let mut from = 0;
        while from < self.0.len() {
            let length = self.0[from..].iter().take_while(|is_in| **is_in).count();
            if length > 0 {
                // Writing to a string does not fail.
                let _ = write!(out, "\\x{from:02x}-\\x{:02x}", from + length - 1);
            }
            from += length + 1;
        }
        out.push(']');
    }
}

/// One thing in brackets.
enum Element {
    Byte(u8),
    Class(fn(&u8) -> bool),
    /// `[=a=]`, which cannot begin or end a range.
    Equivalent(u8),
}

/// Reads up to the closing bracket; `text` begins behind the opening one. Returns what follows it, too.
pub(super) fn parse(text: &[u8]) -> Result<(ByteSet, &[u8]), PatternError> {
    let (negated, mut rest) = match text {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut set = ByteSet([false; 256]);
    let mut is_first = true;
    while is_first || !matches!(rest, [b']', ..]) {
        let (element, after) = element(rest, is_first)?;
        rest = after;
        is_first = false;
        match (element, rest) {
            (_, []) => return Err(PatternError::OpenBracket),
            (Element::Class(class), _) => set.add(|byte| class(&byte)),
            (Element::Equivalent(byte), _) => set.add(|other| other == byte),
            (Element::Byte(_), [b'-']) => return Err(PatternError::OpenBracket),
            (Element::Byte(low), [b'-', tail @ ..]) if tail.first() != Some(&b']') => {
                let (end, after) = self::element(tail, true)?;
                let Element::Byte(high) = end else { return Err(PatternError::Range) };
                if high < low {
                    return Err(PatternError::Range);
                }
                set.add(|byte| (low..=high).contains(&byte));
                rest = after;
            }
            (Element::Byte(byte), _) => set.add(|other| other == byte),
        }
    }
    if negated {
        set.0.iter_mut().for_each(|is_in| *is_in = !*is_in);
    }
    Ok((set, &rest[1..]))
}

fn element(text: &[u8], hyphen_allowed: bool) -> Result<(Element, &[u8]), PatternError> {
    match text {
        [] => Err(PatternError::OpenBracket),
        [b'[', kind @ (b':' | b'.' | b'='), tail @ ..] => named(*kind, tail),
        [b'-', tail @ ..] if !hyphen_allowed && tail.first() != Some(&b']') => Err(PatternError::Range),
        [byte, tail @ ..] => Ok((Element::Byte(*byte), tail)),
    }
}

fn named(kind: u8, text: &[u8]) -> Result<(Element, &[u8]), PatternError> {
    let ends = |pair: &[u8]| pair == [kind, b']'];
    let length = text.windows(2).position(ends).filter(|length| *length < LONGEST_NAME);
    let length = length.ok_or(PatternError::OpenBracket)?;
    let (name, rest) = (&text[..length], &text[length + 2..]);
    let readable = String::from_utf8_lossy(name);
    let element = match (kind, name) {
        (b':', _) => Element::Class(class(name).ok_or(PatternError::Class(readable.into_owned()))?),
        (b'.', [byte]) => Element::Byte(*byte),
        (b'=', [byte]) => Element::Equivalent(*byte),
        _ => {
            let kind = char::from(kind);
            return Err(PatternError::Collation(format!("{kind}{readable}{kind}")));
        }
    };
    Ok((element, rest))
}

/// The classes of the C locale.
fn class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alpha" => u8::is_ascii_alphabetic,
        b"digit" => u8::is_ascii_digit,
        b"alnum" => u8::is_ascii_alphanumeric,
        b"upper" => u8::is_ascii_uppercase,
        b"lower" => u8::is_ascii_lowercase,
        b"space" => |byte| is_space(*byte),
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"punct" => u8::is_ascii_punctuation,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"graph" => u8::is_ascii_graphic,
        b"cntrl" => u8::is_ascii_control,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

/// `[[:space:]]`, which has the vertical tab that Rust leaves out.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}
