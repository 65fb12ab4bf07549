//! IPv6 extension headers (RFC 8200 section 4): the way from the fixed header to the transport header.

use crate::net::addr::Protocol;

const IPV6_LEN: usize = 40;
/// Offset of the fixed header's field.
const NEXT_HEADER: usize = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
/// No sender has a use for more; bounds the work on a hostile packet.
const HEADERS_MAX: usize = 8;

/// Which part of which datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification of the datagram.
    pub id: u32,
    /// Where its bytes belong, counted from the end of the unfragmentable part.
    pub offset: usize,
    /// Whether others follow behind it.
    pub more: bool,
    /// Offset in the frame of the header that says so: the IPv4 header or the IPv6 fragment header.
    pub header: usize,
}

/// Where a chain of extension headers leads.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The protocol behind it.
    pub protocol: Protocol,
    /// Offset of the transport header; within the packet, or at its end.
    pub l4: usize,
    /// What its fragment header says, if it has one.
    pub piece: Option<Piece>,
}

/// Follows the extension headers of the packet that ends with `bytes`, from the one at `at`, which is of type `next`.
/// Behind the fragment header of a later fragment there is payload, so the walk ends there. `None` if a header is cut off, or
/// if there are too many.
pub fn walk(bytes: &[u8], mut at: usize, mut next: u8) -> Option<Chain> {
    let mut piece = None;
    for _ in 0..HEADERS_MAX {
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8 + 8 * usize::from(*bytes.get(at + 1)?),
            AUTHENTICATION => 8 + 4 * usize::from(*bytes.get(at + 1)?),
            FRAGMENT => {
                piece = Some(fragment_header(bytes, at)?);
                8
            }
            _ => return Some(Chain { protocol: Protocol(next), l4: at, piece }),
        };
        next = *bytes.get(at)?;
        at += len;
        if at > bytes.len() {
            return None;
        }
        if next == NO_NEXT || piece.is_some_and(|piece| piece.offset != 0) {
            return Some(Chain { protocol: Protocol(next), l4: at, piece });
        }
    }
    None
}

/// Where the part of an IPv6 packet ends that every fragment repeats, and the offset of the field there that says what
/// follows. Linux counts destination options to it unless they come behind a routing header.
pub fn unfragmentable_end(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut field) = (IPV6_LEN, NEXT_HEADER);
    let mut routed = false;
    for _ in 0..HEADERS_MAX {
        match *packet.get(field)? {
            HOP_BY_HOP => {}
            ROUTING => routed = true,
            DESTINATION_OPTIONS if !routed => {}
            _ => return Some((at, field)),
        }
        field = at;
        at += 8 + 8 * usize::from(*packet.get(at + 1)?);
    }
    None
}

/// Offset of the field that announces the header at `header` in the IPv6 packet at `l3`.
pub fn field_before(bytes: &[u8], l3: usize, header: usize) -> Option<usize> {
    let (mut at, mut field) = (l3 + IPV6_LEN, l3 + NEXT_HEADER);
    for _ in 0..HEADERS_MAX {
        if at == header {
            return Some(field);
        }
        let unit = if *bytes.get(field)? == AUTHENTICATION { 4 } else { 8 };
        field = at;
        at += 8 + unit * usize::from(*bytes.get(at + 1)?);
    }
    None
}

fn fragment_header(bytes: &[u8], at: usize) -> Option<Piece> {
    let header = bytes.get(at..)?.first_chunk::<8>()?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Some(Piece { id, offset: usize::from(field & !7), more: field & 1 != 0, header: at })
}
