//! Whether a packet may open a connection: how many its source has opened lately, and whether the table has room or can be
//! made to have some. Packets of connections never come here.

use std::time::Duration;

use super::open::is_one_packet;
use super::{Burst, Datapath};
use crate::ipvs::beyond::Switches;
use crate::ipvs::connection::Connection;
use crate::ipvs::service::VirtualService;
use crate::ipvs::snapshot::Tables;
use crate::ipvs::table::Found;
use crate::ipvs::verdict::DropReason;
use crate::net::flow::FlowKey;

/// Half-open connections that are compared: the one of eight that has waited longest is one of the youngest tenth once in a
/// hundred million times.
const CANDIDATES: usize = 8;
/// Connections that may make room for one, when `conn_max` has been lowered or other workers were faster.
const ATTEMPTS: usize = 4;
/// After a search in vain no other one for so long. Such a search reads some three hundred connections, and a flood must not
/// make a worker do that for every packet.
const PAUSE: Duration = Duration::from_millis(1);

impl Datapath {
    /// Why a packet that would open a connection of this flow is dropped instead, if it is.
    pub(super) fn refusal(
        &mut self,
        burst: &Burst<'_>,
        service: &VirtualService,
        flow: &FlowKey,
    ) -> Option<DropReason> {
        let Switches { source_rate, source_burst, .. } = burst.snapshot.beyond.switches;
        let admission = &self.tables.admission;
        if source_rate != 0 && !admission.sources.allows(flow.source, source_rate, source_burst, burst.now) {
            admission.counters.add_source_refused();
            return Some(DropReason::SourceRate);
        }
        let fits = is_one_packet(service, flow) || self.has_room(burst);
        (!fits).then_some(DropReason::TableFull)
    }

    /// Whether the table has room for one connection more.
    #[inline]
    pub(super) fn has_room(&mut self, burst: &Burst<'_>) -> bool {
        !self.is_full(burst) || self.make_room(burst)
    }

    /// Whether there are as many connections as there may be.
    #[inline]
    pub(super) fn is_full(&self, burst: &Burst<'_>) -> bool {
        let limit = u64::from(burst.snapshot.beyond.switches.conn_max);
        limit != 0 && self.tables.connections.len() >= limit
    }

    #[cold]
    fn make_room(&mut self, burst: &Burst<'_>) -> bool {
        for _ in 0..ATTEMPTS {
            if burst.now < self.next_search {
                break;
            }
            match longest_waiting(&self.tables, burst) {
                Some(connection) => self.evict(&connection),
                None => self.next_search = burst.now + PAUSE,
            }
            if !self.is_full(burst) {
                return true;
            }
        }
        self.tables.admission.counters.add_table_full();
        false
    }

    /// What ends long before its time would fill the wheels.
    fn evict(&mut self, connection: &Connection) {
        if self.tables.drop_half_open(connection) {
            self.tables.admission.counters.add_evicted();
            self.wheel.weed(|connection| connection.is_unbound());
            self.template_wheel.weed(|template| template.is_gone());
        }
    }
}

/// Of some half-open connections the one whose last packet is longest ago: its client will hardly go on with it. A deadline
/// would not tell, because timeouts differ.
fn longest_waiting<'b>(tables: &Tables, burst: &Burst<'b>) -> Option<Found<'b>> {
    let drawn = tables.drop_counters.draw();
    let sample = tables.connections.sample(drawn, burst.guard);
    let half_open = sample.filter(|connection| connection.is_half_open()).filter_map(|connection| {
        // What its client sends by the shortcut counts.
        tables.connections.refresh(&connection);
        Some((connection.expendable_since()?, connection))
    });
    half_open.take(CANDIDATES).min_by_key(|(since, _)| *since).map(|(_, connection)| connection)
}
