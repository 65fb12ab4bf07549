//! Words of a line of `lvs.cf` (reference piranha.md, section 1.1).

use std::net::Ipv4Addr;

/// Words that the original accepts on one line.
pub const MOST_WORDS: usize = 99;

/// One word, without the quotes it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The text between the quotes, or the plain word.
    pub text: &'a str,
    /// The quote character, if the word began with one.
    pub quote: Option<char>,
}

/// A word that begins with a quote and does not end with it; holds the rest of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteMismatch<'a>(pub &'a str);

/// What separates words.
pub const BLANKS: [char; 2] = [' ', '\t'];

/// Splits a line at blanks, keeping quoted words together; a comment line has no words.
pub fn words(line: &str) -> Result<Vec<Word<'_>>, QuoteMismatch<'_>> {
    let mut rest = line.trim_start_matches(BLANKS);
    let mut words = Vec::new();
    if rest.starts_with('#') {
        return Ok(words);
    }
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => quoted(rest, first)?,
            _ => plain(rest),
        };
        words.push(word);
        rest = after.trim_start_matches(BLANKS);
    }
    Ok(words)
}

fn plain(rest: &str) -> (Word<'_>, &str) {
    let (text, after) = rest.split_at(rest.find(BLANKS).unwrap_or(rest.len()));
    (Word { text, quote: None }, after)
}

/// The original looks for the next blank first and only then for a closing quote, so quotes inside the first chunk
/// are part of the word.
fn quoted(rest: &str, quote: char) -> Result<(Word<'_>, &str), QuoteMismatch<'_>> {
    let chunk = rest.find(BLANKS).unwrap_or(rest.len());
    let end = match chunk >= 2 && rest[..chunk].ends_with(quote) {
        true => chunk,
        false => chunk + rest[chunk..].find(quote).ok_or(QuoteMismatch(rest))? + 1,
    };
    let (word, after) = rest.split_at(end);
    if !(after.is_empty() || after.starts_with(BLANKS)) {
        return Err(QuoteMismatch(rest));
    }
    Ok((Word { text: &word[1..end - 1], quote: Some(quote) }, after))
}

/// A whole number as C's `strtol` with base 0 reads it: decimal, `0x` hexadecimal, `0` octal, signed; saturates.
pub fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = radix_of(digits);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

fn radix_of(digits: &str) -> (u32, &str) {
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    }
}

/// An IPv4 address as `inet_aton` reads it: one to four numbers in any base, the last one filling what is left.
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    let bits_left = 32u32.checked_sub(8 * u32::try_from(leading.len()).ok()?)?;
    if bits_left == 0 || u64::from(*last) >> bits_left != 0 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let high = leading.iter().fold(0u64, |address, part| address << 8 | u64::from(*part)) << bits_left;
    u32::try_from(high | u64::from(*last)).ok().map(Ipv4Addr::from)
}

fn part(text: &str) -> Option<u32> {
    match text.starts_with(|first: char| first.is_ascii_digit()) {
        true => u32::try_from(integer(text)?).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Result<Vec<&str>, &str> {
        words(line).map(|words| words.iter().map(|word| word.text).collect()).map_err(|mismatch| mismatch.0)
    }

    #[test]
    fn quotes_follow_the_original() {
        let table: [(&str, Result<Vec<&str>, &str>); 13] = [
            (r#"a = "x  y" z"#, Ok(vec!["a", "=", "x  y", "z"])),
            (r#""a\"b""#, Ok(vec![r#"a\"b"#])),
            (r#""a \" b""#, Ok(vec![r"a \", r#"b""#])),
            (r#""abc"def"#, Err(r#""abc"def"#)),
            (r#""ab"c""#, Ok(vec![r#"ab"c"#])),
            (r#"x"y""#, Ok(vec![r#"x"y""#])),
            (r#""""#, Ok(vec![""])),
            (r#"""#, Err(r#"""#)),
            (r#"" a""#, Ok(vec![" a"])),
            ("'a b' c", Ok(vec!["a b", "c"])),
            ("  # all \"comment", Ok(vec![])),
            ("a # b", Ok(vec!["a", "#", "b"])),
            ("a\u{c}b\tc ", Ok(vec!["a\u{c}b", "c"])),
        ];
        for (line, expected) in table {
            let got = texts(line);
            assert_eq!(got, expected, "{line}");
        }
    }

    #[test]
    fn integers_follow_strtol() {
        let table = [
            ("80", Some(80)),
            ("0x50", Some(80)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("-3", Some(-3)),
            ("+7", Some(7)),
            ("09", None),
            ("0x", None),
            ("", None),
            ("-", None),
            ("8x", None),
            ("--1", None),
            ("99999999999999999999", Some(i64::MAX)),
        ];
        for (text, expected) in table {
            assert_eq!(integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_follow_inet_aton() {
        let table = [
            ("10.1", Some([10, 0, 0, 1])),
            ("0x0a.010.1.2", Some([10, 8, 1, 2])),
            ("1.2.3.4", Some([1, 2, 3, 4])),
            ("1.2.259", Some([1, 2, 1, 3])),
            ("4294967295", Some([255; 4])),
            ("0", Some([0; 4])),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("256.1", None),
            ("1.2.3.", None),
            ("", None),
            ("1.-2", None),
            ("4294967296", None),
        ];
        for (text, expected) in table {
            assert_eq!(ipv4(text), expected.map(Ipv4Addr::from), "{text:?}");
        }
    }
}
