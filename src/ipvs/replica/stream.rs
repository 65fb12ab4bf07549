//! What is in batches and acknowledgements.
//!
//! A batch names its stream and its number in it, from 1 up, and has items, which are records or one of these, framed alike:
//!
//! | kind | what it says |
//! |---|---|
//! | 16 | from here on all of these buckets is told of: a set of buckets |
//! | 17 | that was all: what has not been told of since is not there any more |
//! | 18 | sums of some buckets as of here: number of the round, the first bucket, then a number for each |
//!
//! An acknowledgement names the stream, the last number up to which all has come, and those of the next 64 that have; the last
//! round of sums, and the buckets that differed.

use super::bytes::Reader;
use super::mirror::{BUCKETS, Buckets, SET_LEN};
use super::record::{Record, Refused};

const PASS_BEGIN: u8 = 16;
const PASS_END: u8 = 17;
const SUMS: u8 = 18;
/// So many sums are in one item.
pub(super) const SUMS_AT_ONCE: usize = 128;
/// Bytes of a batch before its items.
pub(super) const BATCH_HEAD: usize = 12;

/// An item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Record(Record),
    PassBegin(Box<Buckets>),
    PassEnd,
    Sums { round: u32, first: usize, sums: Vec<u64> },
}

impl Item {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut framed = |kind: u8, fill: &dyn Fn(&mut Vec<u8>)| {
            let start = out.len();
            out.extend([kind, 0, 0]);
            fill(out);
            let length = (out.len() - start - 3) as u16;
            out[start + 1..start + 3].copy_from_slice(&length.to_be_bytes());
        };
        match self {
            Item::Record(record) => record.put(out),
            Item::PassBegin(buckets) => framed(PASS_BEGIN, &|out| buckets.put(out)),
            Item::PassEnd => framed(PASS_END, &|_| {}),
            Item::Sums { round, first, sums } => framed(SUMS, &|out| {
                out.extend(round.to_be_bytes());
                out.extend((*first as u16).to_be_bytes());
                sums.iter().for_each(|sum| out.extend(sum.to_be_bytes()));
            }),
        }
    }

    /// The item that `bytes` begin with, and what follows.
    fn read(bytes: &[u8]) -> Result<(Item, &[u8]), Refused> {
        if bytes.first().is_some_and(|kind| *kind < PASS_BEGIN) {
            let (record, rest) = Record::read(bytes)?;
            return Ok((Item::Record(record), rest));
        }
        let rest = Record::skip(bytes)?;
        let body = &bytes[3..bytes.len() - rest.len()];
        let item = match bytes[0] {
            PASS_BEGIN => {
                let set = body.get(..SET_LEN).and_then(Buckets::read).ok_or(Refused::CutOff)?;
                Item::PassBegin(Box::new(set))
            }
            PASS_END => Item::PassEnd,
            SUMS => read_sums(Reader(body))?,
            _ => return Err(Refused::Layout),
        };
        Ok((item, rest))
    }
}

fn read_sums(mut body: Reader<'_>) -> Result<Item, Refused> {
    let (round, first) = (body.u32()?, usize::from(body.u16()?));
    let mut sums = Vec::new();
    while !body.0.is_empty() {
        sums.push(body.u64()?);
    }
    if first + sums.len() > BUCKETS {
        return Err(Refused::Layout);
    }
    Ok(Item::Sums { round, first, sums })
}

/// A batch as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) stream: u32,
    pub(super) number: u64,
    pub(super) items: &'a [u8],
}

impl<'a> Batch<'a> {
    pub(super) fn read(content: &'a [u8]) -> Result<Self, Refused> {
        let mut reader = Reader(content);
        Ok(Batch { stream: reader.u32()?, number: reader.u64()?, items: reader.0 })
    }
}

/// The items of a batch, each as it is or why it is not taken in; one that cannot be read is passed over if its end is known.
pub(super) fn items(mut bytes: &[u8]) -> impl Iterator<Item = Result<Item, Refused>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        Some(match Item::read(bytes) {
            Ok((item, rest)) => {
                bytes = rest;
                Ok(item)
            }
            Err(refused) => {
                bytes = Record::skip(bytes).unwrap_or_default();
                Err(refused)
            }
        })
    })
}

/// How far a stream has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    pub(super) stream: u32,
    /// All up to this one have been taken in.
    pub(super) all: u64,
    /// Bit n: the one numbered n + 2 above `all` has come.
    pub(super) beyond: u64,
    /// The last round of sums that has been compared; 0 before the first.
    pub(super) round: u32,
    /// What differed in it.
    pub(super) differing: Buckets,
}

impl Acknowledgement {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.stream.to_be_bytes());
        [self.all, self.beyond].iter().for_each(|number| out.extend(number.to_be_bytes()));
        out.extend(self.round.to_be_bytes());
        if !self.differing.is_empty() {
            self.differing.put(out);
        }
    }

    pub(super) fn read(content: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader(content);
        let (stream, all, beyond, round) = (reader.u32()?, reader.u64()?, reader.u64()?, reader.u32()?);
        let differing = match reader.0 {
            [] => Buckets::default(),
            set => set.get(..SET_LEN).and_then(Buckets::read).ok_or(Refused::CutOff)?,
        };
        Ok(Acknowledgement { stream, all, beyond, round, differing })
    }

    pub(super) fn has(&self, number: u64) -> bool {
        let beyond = number.checked_sub(self.all + 2);
        number <= self.all || beyond.is_some_and(|place| place < 64 && self.beyond & 1 << place != 0)
    }
}
