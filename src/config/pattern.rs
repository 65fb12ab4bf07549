//! Whether the `expect` of a check with `use_regex = 1` can be a regular expression. The health checks read it the same
//! way (reference piranha.md, section 2.2), but configuration and health checks do not know each other.

use regex::bytes::RegexBuilder;

/// What is wrong with the pattern that an `expect` value stands for; `None` if nothing is.
pub(super) fn fault(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
    let error =
        RegexBuilder::new(&unescaped(inner)).unicode(false).dot_matches_new_line(true).build().err()?;
    let text = error.to_string();
    // The lines before the last draw the place in the pattern.
    Some(text.lines().last().unwrap_or(&text).trim_start_matches("error: ").to_owned())
}

fn unescaped(text: &str) -> String {
    let mut letters = text.chars().peekable();
    let mut unescaped = String::with_capacity(text.len());
    while let Some(letter) = letters.next() {
        let escape = letters.peek().copied().filter(|_| letter == '\\').and_then(escape);
        unescaped.push(escape.unwrap_or(letter));
        if escape.is_some() {
            letters.next();
        }
    }
    unescaped
}

fn escape(letter: char) -> Option<char> {
    match letter {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '\\' | '\'' | '"' => Some(letter),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_before_the_pattern() {
        for good in [r#""HTTP/1\\.[01] 200""#, r"^a\n$", "\\d+", "(?i)ok", "*"] {
            let wrong = fault(good);
            assert_eq!(wrong.is_some(), good == "*", "{good}: {wrong:?}");
        }
        assert_eq!(fault("(ok").as_deref(), Some("unclosed group"));
        assert!(fault(r"[\\]").is_some(), "two backslashes are one, which escapes the bracket");
    }
}
