//! Which call a SIP message belongs to (RFC 3261 section 20.8), read as the kernel's `sip` persistence engine reads it, which
//! goldens `sip-headers` and `sip-call-id-length` show: the first header of that name decides, whatever is wrong with it.

/// More bytes than these are no Call-ID.
const LONGEST: usize = 255;
const NAME: &[u8] = b"call-id";

/// The Call-ID of a message; `None` if it has none that ends at the end of its line.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let value = header_value(message)?;
    let (id, rest) = value.split_at(id_len(value)?);
    (id.len() <= LONGEST && rest.first().is_some_and(is_line_end)).then_some(id)
}

/// What begins behind the name and the colon of the first Call-ID header. The first line is no header. A line has at least
/// one byte, so that of two line feeds in a row the second does not begin another line.
fn header_value(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        let line = next_line(rest)?;
        if let Some(behind) = behind_name(line) {
            return skip_blanks(skip_blanks(behind)?.strip_prefix(b":")?);
        }
        rest = line.get(1..)?;
    }
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What comes behind the next line end.
fn next_line(text: &[u8]) -> Option<&[u8]> {
    let end = &text[text.iter().position(is_line_end)?..];
    Some(end.strip_prefix(b"\r\n").unwrap_or(&end[1..]))
}

/// What follows the name in a line that begins with it, or with its compact form.
fn behind_name(line: &[u8]) -> Option<&[u8]> {
    match line {
        [b'i' | b'I', rest @ ..] if rest.first().is_some_and(|next| !is_letter(*next)) => Some(rest),
        _ => {
            let (name, rest) = line.split_at_checked(NAME.len())?;
            name.eq_ignore_ascii_case(NAME).then_some(rest)
        }
    }
}

/// Skips blanks, and one line end that a blank follows (RFC 3261 section 7.3.1); any other line end ends the header.
fn skip_blanks(text: &[u8]) -> Option<&[u8]> {
    let text = trim(text);
    if !text.first().is_some_and(is_line_end) {
        return Some(text);
    }
    let folded = next_line(text)?;
    folded.first().is_some_and(|byte| is_blank(*byte)).then(|| trim(folded))
}

fn trim(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

/// Length of `word` or `word@word` (RFC 3261 section 25.1).
fn id_len(value: &[u8]) -> Option<usize> {
    let local = word_len(value);
    let (len, complete) = match value.get(local) {
        Some(b'@') => {
            let host = word_len(&value[local + 1..]);
            (local + 1 + host, host != 0)
        }
        _ => (local, true),
    };
    (local != 0 && complete).then_some(len)
}

fn word_len(text: &[u8]) -> usize {
    let is_word =
        |byte: u8| is_letter(byte) || byte.is_ascii_digit() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&byte);
    text.iter().take_while(|byte| is_word(**byte)).count()
}

/// The kernel counts those of Latin-1 too.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || (byte >= 0xc0 && !matches!(byte, 0xd7 | 0xf7))
}
