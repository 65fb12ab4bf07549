//! Maglev hashing: as source hashing, but a change of the servers moves few clients (ipvs.md section 5.3; Eisenbud et al.,
//! "Maglev", NSDI 2016). The table equals that of a 64-bit kernel.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use siphasher::sip::SipHasher13;

use super::hash::address_word;
use super::{Arrival, Change, Scheduler, common_divisor, is_usable};
use crate::ipvs::server::RealServer;

/// The kernel's default table size, a prime.
const SLOTS: u32 = 4093;
/// Half of the bits of the table's index, which bounds how many slots in a row a heavy server claims.
const TURN_BITS: u32 = 6;
const KEY_START: u64 = 2_654_435_761;
const KEY_SKIP: u64 = 2_654_446_892;

/// The table, remade at every change.
#[derive(Default)]
pub struct Maglev {
    slots: ArcSwap<Vec<Arc<RealServer>>>,
}

/// The kernel's hash of one word under a key.
fn hash(word: u32, key: u64) -> u32 {
    SipHasher13::new_with_keys(key, key).hash(&word.to_le_bytes()) as u32
}

fn word(address: IpAddr, port: u16) -> u32 {
    address_word(address).wrapping_add(u32::from(port))
}

/// A server's walk through the table while it is filled.
struct Claim<'a> {
    server: &'a Arc<RealServer>,
    position: u32,
    skip: u32,
    turns: i64,
}

impl<'a> Claim<'a> {
    fn new(server: &'a Arc<RealServer>, scale: impl Fn(i64) -> i64) -> Self {
        let word = word(server.id().address, server.id().port);
        let position = hash(word, KEY_START) % SLOTS;
        let skip = hash(word, KEY_SKIP) % (SLOTS - 1) + 1;
        Claim { server, position, skip, turns: scale(i64::from(server.last_weight())) }
    }

    /// Takes the next free slot of the walk.
    fn take(&mut self, slots: &mut [Option<&'a Arc<RealServer>>]) {
        while slots[self.position as usize].is_some() {
            self.position = (self.position + self.skip) % SLOTS;
        }
        slots[self.position as usize] = Some(self.server);
    }
}

/// How many slots in a row a server of a weight claims: by the weights' ratio, but never more than the table has room for.
fn turns(servers: &[Arc<RealServer>]) -> impl Fn(i64) -> i64 {
    let weights =
        || servers.iter().map(|server| i64::from(server.last_weight())).filter(|weight| *weight > 0);
    let divisor = common_divisor(weights());
    let largest = weights().max().unwrap_or(0) / divisor;
    let bits = i64::BITS - largest.leading_zeros();
    let shift = bits.saturating_sub(TURN_BITS);
    move |weight| if weight == 0 { 0 } else { ((weight / divisor) >> shift).max(1) }
}

fn populate(servers: &[Arc<RealServer>]) -> Vec<Arc<RealServer>> {
    let scale = turns(servers);
    let mut claims: Vec<Claim<'_>> = servers.iter().map(|server| Claim::new(server, &scale)).collect();
    claims.retain(|claim| claim.turns > 0);
    if claims.is_empty() || servers.len() > SLOTS as usize {
        return Vec::new();
    }
    let mut slots = vec![None; SLOTS as usize];
    let mut free = SLOTS;
    while free > 0 {
        for claim in &mut claims {
            for _ in 0..claim.turns.min(i64::from(free)) {
                claim.take(&mut slots);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().cloned().collect()
}

impl Scheduler for Maglev {
    fn schedule(&self, _: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let slots = self.slots.load();
        let (fallback, with_port) = (arrival.flags.flag1, arrival.flags.flag2);
        let client = word(arrival.flow.source, if with_port { arrival.flow.source_port } else { 0 });
        let slot = |offset: u32| hash(client.wrapping_add(offset), KEY_START) % SLOTS;
        let usable = |index: u32| slots.get(index as usize).filter(|server| is_usable(server));
        let first = slot(0);
        match usable(first) {
            None if fallback => (0..SLOTS).find_map(|offset| usable(slot((offset + first) % SLOTS))).cloned(),
            chosen => chosen.cloned(),
        }
    }

    fn servers_changed(&self, servers: &[Arc<RealServer>], _: Change<'_>) {
        self.slots.store(Arc::new(populate(servers)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::edit::{Forward, ServerId, ServerSpec, ServiceId};
    use crate::ipvs::stats::Stats;
    use crate::net::addr::Family;
    use crate::net::tunnel::Encapsulation;

    fn server(host: u8, weight: i32) -> Arc<RealServer> {
        let id = ServerId { address: [10, 0, 0, host].into(), port: 80 };
        let service = ServiceId::FwMark { mark: 1, family: Family::V4 };
        let forward = Forward::Masquerade;
        let spec = ServerSpec {
            id,
            forward,
            tunnel: Encapsulation::Ipip,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        Arc::new(RealServer::new(&spec, service, 1, Arc::new(Stats::new(1))))
    }

    fn counts(servers: &[Arc<RealServer>]) -> Vec<usize> {
        let slots = populate(servers);
        servers.iter().map(|server| slots.iter().filter(|slot| Arc::ptr_eq(slot, server)).count()).collect()
    }

    #[test]
    fn hashes_of_the_reference() {
        let both = |word| (hash(word, KEY_START), hash(word, KEY_SKIP));
        assert_eq!(both(0x0a00_0001), (0x0308_0ce4, 0x48f9_d0c1));
        assert_eq!(both(0), (0x1d5a_77c2, 0xf882_433f));
        assert_eq!(hash(0xc0a8_0001, KEY_START), 0x8334_668e);
    }

    #[test]
    fn table_of_the_reference() {
        let servers = [server(3, 1), server(2, 1), server(1, 1)];
        assert_eq!(counts(&servers), [1365, 1364, 1364]);
        let index = |slot: &Arc<RealServer>| servers.iter().position(|server| Arc::ptr_eq(server, slot));
        let first: Vec<usize> = populate(&servers).iter().take(12).filter_map(index).collect();
        assert_eq!(first, [2, 1, 1, 0, 0, 2, 1, 0, 0, 2, 2, 1]);
        assert_eq!(counts(&[server(3, 3), server(2, 2), server(1, 1)]), [2047, 1364, 682]);
    }
}
