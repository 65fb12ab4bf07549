//! Quotes and backslashes in texts of the health check (reference piranha.md, sections 1.1 and 2.2).

/// The bytes that a `send` or `expect` value of lvs.cf stands for: without its double quotes, and with `\n \r \t \\ \'
/// \"` converted. Any other backslash stays, and a single character is never converted.
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

/// The value without double quotes around it. Apostrophes stay: Piranha passed them on.
pub fn strip_quotes(value: &str) -> &str {
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}
