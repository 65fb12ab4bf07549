//! The binary form of inputs that are a row of events: each a tag, a length and content, so that a mutation of one leaves the
//! others what they are.

/// Longest content.
const LONGEST: usize = 1600;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What kind of event; each target has its own.
    pub tag: u8,
    /// What it is about.
    pub content: Vec<u8>,
}

/// The records of an input; what does not fit at the end is left out.
pub fn read(mut data: &[u8]) -> impl Iterator<Item = Record> {
    std::iter::from_fn(move || {
        let (&[tag, low, high], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(LONGEST).min(rest.len());
        let (content, rest) = rest.split_at(length);
        data = rest;
        Some(Record { tag, content: content.to_vec() })
    })
}

/// The input that reads as these records.
pub fn write(records: &[Record]) -> Vec<u8> {
    let mut data = Vec::new();
    for Record { tag, content } in records {
        let content = &content[..content.len().min(LONGEST)];
        data.push(*tag);
        data.extend((content.len() as u16).to_le_bytes());
        data.extend(content);
    }
    data
}
