//! The order of listings. ipvsadm compares by 32-bit signed subtraction, which is no order at all for addresses (or
//! marks) that lie 2³¹ or more apart; what comes out is decided by the C library's merge sort, which is repeated here.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::ipvs::edit::ServiceId;
use crate::ipvs::view::{ServerView, ServiceView};
use crate::net::addr::Protocol;

/// Services by mark, family, protocol, address and port, or as they are.
pub fn services(services: &[ServiceView], sorted: bool) -> Vec<&ServiceView> {
    let list = services.iter().collect();
    if sorted { merge_sort(list, |a, b| compare_services(&a.spec.id, &b.spec.id)) } else { list }
}

/// Servers by address and port, or as they are.
pub fn servers(servers: &[ServerView], sorted: bool) -> Vec<&ServerView> {
    let list = servers.iter().collect();
    let compare = |a: &ServerView, b: &ServerView| {
        let (a, b) = (&a.spec.id, &b.spec.id);
        compare_addresses(a.address, b.address).then(a.port.cmp(&b.port))
    };
    if sorted { merge_sort(list, compare) } else { list }
}

fn compare_services(a: &ServiceId, b: &ServiceId) -> Ordering {
    let parts = |id: &ServiceId| match *id {
        ServiceId::Address { protocol, address, port } => (0, id.family(), protocol, Some(address), port),
        ServiceId::FwMark { mark, family } => (mark, family, Protocol::IP, None, 0),
    };
    let (a_mark, a_family, a_protocol, a_address, a_port) = parts(a);
    let (b_mark, b_family, b_protocol, b_address, b_port) = parts(b);
    let addresses = match (a_address, b_address) {
        (Some(a), Some(b)) => compare_addresses(a, b),
        _ => Ordering::Equal,
    };
    subtract(a_mark, b_mark)
        .then((a_family, a_protocol).cmp(&(b_family, b_protocol)))
        .then(addresses)
        .then(a_port.cmp(&b_port))
}

/// Word by word, each subtracted for itself (golden `ipv6-odd-edits`).
fn compare_addresses(a: IpAddr, b: IpAddr) -> Ordering {
    let words = words(a).into_iter().zip(words(b));
    words.map(|(a, b)| subtract(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn subtract(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [u32::from(address), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn merge_sort<T>(mut list: Vec<&T>, compare: impl Fn(&T, &T) -> Ordering + Copy) -> Vec<&T> {
    if list.len() < 2 {
        return list;
    }
    let right = merge_sort(list.split_off(list.len() / 2), compare);
    let left = merge_sort(list, compare);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(a, b).is_gt() { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left.chain(right));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_half_the_space_apart_compare_the_wrong_way_round() {
        let compare = |a: [u8; 4], b: [u8; 4]| compare_addresses(IpAddr::from(a), IpAddr::from(b));
        assert_eq!(compare([10, 0, 0, 1], [10, 0, 0, 2]), Ordering::Less);
        assert_eq!(compare([10, 0, 0, 1], [200, 0, 0, 1]), Ordering::Greater);
    }

    #[test]
    fn a_circle_of_comparisons_still_sorts() {
        let list = [10u32 << 24, 130 << 24, 250 << 24, 11 << 24, 131 << 24, 251 << 24];
        let mut sorted = merge_sort(list.iter().collect(), |a, b| subtract(*a, *b));
        assert_eq!(sorted.len(), list.len());
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), list.len());
    }
}
