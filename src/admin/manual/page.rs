//! A manual page under construction. Its texts have a little markup: `` `this` `` is bold, `<THIS>` is italic.

use roff::{Inline, Roff, bold, italic, roman};

/// A page in roff's man macros.
pub struct Page(Roff);

impl Page {
    /// A page with its name line: `title` in capitals, `names` what it is about.
    pub fn new(title: &str, section: &str, names: &str, summary: &str) -> Page {
        let source = concat!("xlvs ", env!("CARGO_PKG_VERSION"));
        let mut roff = Roff::new();
        // An empty date: the page is the same whenever it is made.
        roff.control("TH", [title, section, "\"\"", source, "Linux Virtual Server"]);
        // Neither hyphens that nobody wrote nor gaps between words.
        roff.control("nh", []).control("ad", ["l"]);
        roff.control("SH", ["NAME"]).text([roman(format!("{names} - {summary}"))]);
        Page(roff)
    }

    /// A heading.
    pub fn section(&mut self, title: &str) -> &mut Self {
        self.0.control("SH", [title]);
        self
    }

    /// A lesser heading.
    pub fn subsection(&mut self, title: &str) -> &mut Self {
        self.0.control("SS", [title]);
        self
    }

    /// Ways to call a program, one below the other.
    pub fn usage<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.0.control("PP", []);
        for line in lines {
            // Not the crate's line break, which leaves an empty line in the source.
            self.0.text(usage(line)).control("br", []);
        }
        self
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) -> &mut Self {
        self.0.control("PP", []).text(marked(text));
        self
    }

    /// Something with its description.
    pub fn item(&mut self, what: &str, text: &str) -> &mut Self {
        self.0.control("TP", []).text(marked(what)).text(marked(text));
        self
    }

    /// Lines as they are.
    pub fn example(&mut self, lines: &str) -> &mut Self {
        self.0.control("PP", []).control("RS", ["4"]).control("nf", []);
        for line in lines.lines() {
            self.0.text([roman(line)]);
        }
        self.0.control("fi", []).control("RE", []);
        self
    }

    /// The finished page.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// A sentence of what had been a line in a list. Names of files keep their first letter.
pub fn sentence(brief: &str) -> String {
    let brief = brief.replace('\n', " ");
    let is_file = brief.split(' ').next().is_some_and(|word| word.contains('.'));
    let mut letters = brief.chars();
    let first = letters.next().map(|letter| if is_file { letter } else { letter.to_ascii_uppercase() });
    first.into_iter().chain(letters).chain(['.']).collect()
}

/// The markup of what stands for something, which is in capitals.
pub fn placeholders(value: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for letter in value.chars() {
        if letter.is_ascii_uppercase() != inside {
            text.push(if inside { '>' } else { '<' });
            inside = !inside;
        }
        text.push(letter);
    }
    if inside { text + ">" } else { text }
}

fn marked(text: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    for (index, piece) in text.split('`').enumerate() {
        if index % 2 == 1 {
            parts.push(bold(piece));
            continue;
        }
        let mut rest = piece;
        while let Some((before, (inside, after))) =
            rest.split_once('<').and_then(|(before, tail)| Some((before, tail.split_once('>')?)))
        {
            parts.extend([roman(before), italic(inside)]);
            rest = after;
        }
        parts.push(roman(rest));
    }
    parts.retain(|part| !matches!(part, Inline::Roman(text) if text.is_empty()));
    parts
}

/// A line of usage: what is typed as it is bold, what stands for something italic.
fn usage(line: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    let is_mark = |letter: char| " []|.:,=".contains(letter);
    for piece in line.split_inclusive(is_mark) {
        let word = piece.trim_end_matches(is_mark);
        let mark = &piece[word.len()..];
        match word.starts_with(|letter: char| letter.is_ascii_uppercase()) {
            _ if word.is_empty() => {}
            true => parts.push(italic(word)),
            false => parts.push(bold(word)),
        }
        parts.push(roman(mark));
    }
    parts.retain(|part| !matches!(part, Inline::Roman(text) if text.is_empty()));
    parts
}
