//! Source hashing: a client's address (with sh-port also its port) means a server, in proportion to the weights.

use std::sync::Arc;

use super::hash::{BUCKETS, BucketTable, address_word, bucket};
use super::{Arrival, Change, Scheduler, is_usable};
use crate::ipvs::server::RealServer;

/// The table, remade at every change.
#[derive(Default)]
pub struct SourceHashing {
    table: BucketTable,
}

impl Scheduler for SourceHashing {
    fn schedule(&self, _: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let (fallback, with_port) = (arrival.flags.flag1, arrival.flags.flag2);
        let port = if with_port { u32::from(arrival.flow.source_port) } else { 0 };
        let first = bucket(address_word(arrival.flow.source).wrapping_add(port));
        let usable = |server: &Arc<RealServer>| is_usable(server);
        match self.table.get(first).filter(usable) {
            None if fallback => {
                (0..BUCKETS).find_map(|offset| self.table.get(2 * first + offset).filter(usable))
            }
            chosen => chosen,
        }
    }

    fn servers_changed(&self, servers: &[Arc<RealServer>], _: Change<'_>) {
        self.table.fill(servers, |server| usize::try_from(server.weight()).unwrap_or(0));
    }
}
