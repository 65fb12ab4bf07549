//! Sequence numbers of a TCP stream in which a stretch of bytes leaves as other bytes, longer or shorter.
//!
//! All positions are the sender's sequence numbers; comparisons wrap (RFC 9293 section 3.4). Only the last stretch is
//! remembered, as in Linux: what was sent before it is numbered by the shift that held then (golden `ftp-deltas`).

/// A stretch of a stream, and what leaves in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Sequence number of the stretch.
    pub(in crate::ipvs) from: u32,
    /// Its length so far; grows while `open`.
    pub(in crate::ipvs) len: u32,
    /// Whether more bytes may belong to it.
    pub(in crate::ipvs) open: bool,
    /// What leaves in its place.
    pub(in crate::ipvs) text: Vec<u8>,
    /// What numbers before it are shifted by.
    pub(in crate::ipvs) before: u32,
}

/// Where a sequence number lies.
enum Position {
    Before,
    /// In the stretch, with at least one byte of it before.
    Within,
    /// Behind it, by as many bytes.
    Behind(u32),
}

impl Replacement {
    /// `text` leaves in place of the `len` bytes from `from`; `former` is what was replaced before in this stream.
    pub fn new(from: u32, len: usize, text: Vec<u8>, former: Option<&Replacement>) -> Self {
        let before = former.map_or(0, Replacement::after);
        Replacement { from, len: len as u32, open: false, text, before }
    }

    /// The same, with more of the stretch to come in later segments.
    pub fn open(self) -> Self {
        Replacement { open: true, ..self }
    }

    /// Whether the stretch begins here.
    pub fn begins_at(&self, sequence: u32) -> bool {
        self.from == sequence
    }

    /// The stretch reaches `len` bytes now, and ends there unless `open`.
    pub fn extend(&mut self, len: usize, open: bool) {
        self.len = len as u32;
        self.open = open;
    }

    fn after(&self) -> u32 {
        self.before.wrapping_add(self.text.len() as u32).wrapping_sub(self.len)
    }

    fn position(&self, sequence: u32) -> Position {
        match sequence.wrapping_sub(self.from) as i32 {
            i32::MIN..=0 => Position::Before,
            offset if (offset as u32) < self.len || self.open => Position::Within,
            offset => Position::Behind(offset as u32 - self.len),
        }
    }

    /// A sender's sequence number as its receiver counts.
    pub fn shift(&self, sequence: u32) -> u32 {
        match self.position(sequence) {
            Position::Before => sequence.wrapping_add(self.before),
            Position::Within => self.end(),
            Position::Behind(bytes) => self.end().wrapping_add(bytes),
        }
    }

    /// Where what leaves ends, as the receiver counts.
    fn end(&self) -> u32 {
        self.from.wrapping_add(self.before).wrapping_add(self.text.len() as u32)
    }

    /// A receiver's acknowledgement as the sender counts: never more than has arrived.
    pub fn unshift(&self, acknowledgement: u32) -> u32 {
        let start = self.from.wrapping_add(self.before);
        match acknowledgement.wrapping_sub(start) as i32 {
            i32::MIN..=0 => acknowledgement.wrapping_sub(self.before),
            offset if (offset as usize) < self.text.len() => self.from,
            _ => acknowledgement.wrapping_sub(self.after()),
        }
    }

    /// What leaves in place of a payload that begins at `sequence`; `None` if it stays as it is.
    pub fn apply(&self, sequence: u32, payload: &[u8]) -> Option<Vec<u8>> {
        let offset = self.from.wrapping_sub(sequence) as i32;
        if offset >= payload.len() as i32 || offset.saturating_add(self.len as i32) <= 0 {
            return None;
        }
        let start = offset.max(0) as usize;
        let end = if self.open { payload.len() } else { (offset + self.len as i32) as usize };
        let text: &[u8] = if offset >= 0 { &self.text } else { &[] };
        let rest = &payload[end.min(payload.len())..];
        Some([&payload[..start], text, rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `stream` from `first` in segments that end at `cuts`, and puts together what arrives.
    fn arrives(replacement: &Replacement, first: u32, stream: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut arrived = Vec::new();
        let base = first.wrapping_add(replacement.before);
        let ends = cuts.iter().copied().chain([stream.len()]);
        let mut start = 0;
        for end in ends {
            let sequence = first.wrapping_add(start as u32);
            let payload = &stream[start..end];
            let sent = replacement.apply(sequence, payload).unwrap_or_else(|| payload.to_vec());
            let place = replacement.shift(sequence).wrapping_sub(base) as usize;
            assert!(place <= arrived.len(), "a hole before {place}, cut at {cuts:?}");
            arrived.truncate(place);
            arrived.extend(sent);
            start = end;
        }
        arrived
    }

    #[test]
    fn however_it_is_cut_the_same_arrives() {
        let stream = b"abc[12345]defgh";
        for (first, text) in [(100, &b"a longer text"[..]), (u32::MAX - 5, b"x"), (u32::MAX - 7, b"")] {
            let former = Replacement::new(50, 2, b"12345".to_vec(), None);
            let replacement = Replacement::new(first.wrapping_add(4), 5, text.to_vec(), Some(&former));
            let expected = [&b"abc["[..], text, b"]defgh"].concat();
            for cut in 0..stream.len() {
                for second in cut..stream.len() {
                    let arrived = arrives(&replacement, first, stream, &[cut, second]);
                    assert_eq!(arrived, expected, "first {first}, cut at {cut} and {second}");
                }
            }
        }
    }

    #[test]
    fn acknowledgements_never_say_more_than_has_arrived() {
        let replacement = Replacement::new(104, 5, b"sixsix".to_vec(), None);
        for (acknowledgement, expected) in
            [(90, 90), (104, 104), (105, 104), (109, 104), (110, 109), (111, 110), (200, 199)]
        {
            assert_eq!(replacement.unshift(acknowledgement), expected, "{acknowledgement}");
        }
    }

    #[test]
    fn shifts_add_up() {
        let first = Replacement::new(100, 5, b"sixsix".to_vec(), None);
        let second = Replacement::new(200, 5, b"sevenof".to_vec(), Some(&first));
        assert_eq!(second.shift(150), 151);
        assert_eq!(second.shift(300), 303);
        assert_eq!(second.unshift(303), 300);
    }
}
