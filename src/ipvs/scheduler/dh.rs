//! Destination hashing: a virtual address means a server, whoever the client; weights count only as zero or not.

use std::sync::Arc;

use super::hash::{BucketTable, address_word, bucket};
use super::{Arrival, Change, Scheduler, is_usable};
use crate::ipvs::server::RealServer;

/// The table, remade when servers come and go.
#[derive(Default)]
pub struct DestinationHashing {
    table: BucketTable,
}

impl Scheduler for DestinationHashing {
    fn schedule(&self, _: &[Arc<RealServer>], arrival: &Arrival<'_>) -> Option<Arc<RealServer>> {
        let chosen = self.table.get(bucket(address_word(arrival.addressed)))?;
        (chosen.is_available() && is_usable(&chosen)).then_some(chosen)
    }

    fn servers_changed(&self, servers: &[Arc<RealServer>], change: Change<'_>) {
        if !matches!(change, Change::Edited) {
            self.table.fill(servers, |_| 1);
        }
    }
}
