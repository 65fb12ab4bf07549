//! Fragments of both families: cutting packets, and putting datagrams together.

mod collection;
mod reassemble;
mod split;

pub use collection::{Datagram, ReceivedFrame};
pub use reassemble::{Admission, Lapse, Limits, Outcome, Reassembler};
pub use split::{Cut, split};

/// Why a fragment is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All of it has come before.
    Duplicate,
    /// Some of it has come before; none of it can be trusted (RFC 5722).
    Overlap,
    /// It says something else about the datagram than the others.
    Contradiction,
    /// The datagram would be longer than an IP packet can be.
    TooLong,
    /// The first fragment of an IPv6 datagram lacks a part of the headers.
    Truncated,
    /// An IPv6 fragment that others follow, but whose length is no multiple of eight. Linux lets it go on as it is, and its
    /// own reassembly tells the sender (golden `ipv6-fragments-fields`).
    Unaligned,
}
