//! Traffic counters of a service, a server, or everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::ipvs::estimator::Estimator;
use crate::ipvs::protocol::Direction;
use crate::ipvs::shortcut::Traffic;
use crate::ipvs::view::StatsView;

/// Counters with one cell a worker, so that no two workers write to one cache line.
#[derive(Debug)]
pub struct Stats {
    cells: Box<[CachePadded<StatsCell>]>,
    estimator: Mutex<Estimator>,
}

/// What has been counted, as one process leaves it to the next.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CounterEstate {
    /// The sum over all workers.
    pub totals: StatsView,
    /// The estimator.
    pub estimator: Estimator,
}

/// One worker's share. Only that worker writes, so a plain load and store is enough.
#[derive(Debug, Default)]
pub struct StatsCell {
    conns: AtomicU64,
    inpkts: AtomicU64,
    outpkts: AtomicU64,
    inbytes: AtomicU64,
    outbytes: AtomicU64,
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl StatsCell {
    /// One more connection was scheduled.
    pub fn add_connection(&self) {
        bump(&self.conns, 1);
    }

    /// A packet of `bytes` (IP header included) goes to a server.
    pub fn add_in(&self, bytes: usize) {
        bump(&self.inpkts, 1);
        bump(&self.inbytes, bytes as u64);
    }

    /// A packet of `bytes` (IP header included) goes to a client.
    pub fn add_out(&self, bytes: usize) {
        bump(&self.outpkts, 1);
        bump(&self.outbytes, bytes as u64);
    }

    /// Packets that went this way.
    pub fn add_traffic(&self, direction: Direction, traffic: Traffic) {
        let (packets, bytes) = match direction {
            Direction::In => (&self.inpkts, &self.inbytes),
            Direction::Out => (&self.outpkts, &self.outbytes),
        };
        bump(packets, traffic.packets);
        bump(bytes, traffic.bytes);
    }

    fn view(&self) -> StatsView {
        StatsView {
            conns: self.conns.load(Ordering::Relaxed),
            inpkts: self.inpkts.load(Ordering::Relaxed),
            outpkts: self.outpkts.load(Ordering::Relaxed),
            inbytes: self.inbytes.load(Ordering::Relaxed),
            outbytes: self.outbytes.load(Ordering::Relaxed),
        }
    }
}

impl Stats {
    /// Counters for `workers` workers (at least one).
    pub fn new(workers: usize) -> Self {
        let cells = (0..workers.max(1)).map(|_| CachePadded::default()).collect();
        Stats { cells, estimator: Mutex::default() }
    }

    /// The cell of one worker. Panics if there is no such worker: workers are numbered when the tables are made.
    pub fn cell(&self, worker: usize) -> &StatsCell {
        &self.cells[worker]
    }

    /// Each worker's counters now.
    pub fn by_worker(&self) -> impl Iterator<Item = StatsView> {
        self.cells.iter().map(|cell| cell.view())
    }

    /// The sum over all workers now.
    pub fn totals(&self) -> StatsView {
        self.by_worker().fold(StatsView::default(), |sum, cell| StatsView {
            conns: sum.conns + cell.conns,
            inpkts: sum.inpkts + cell.inpkts,
            outpkts: sum.outpkts + cell.outpkts,
            inbytes: sum.inbytes + cell.inbytes,
            outbytes: sum.outbytes + cell.outbytes,
        })
    }

    /// The estimator, which the control side alone uses.
    pub fn estimator(&self) -> MutexGuard<'_, Estimator> {
        self.estimator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been counted, for another process.
    pub fn estate(&self) -> CounterEstate {
        CounterEstate { totals: self.totals(), estimator: *self.estimator() }
    }

    /// Goes on with what another process has counted, as if the first worker had.
    pub fn inherit(&self, estate: &CounterEstate) {
        let Some(cell) = self.cells.first() else { return };
        let StatsView { conns, inpkts, outpkts, inbytes, outbytes } = estate.totals;
        cell.conns.store(conns, Ordering::Relaxed);
        cell.inpkts.store(inpkts, Ordering::Relaxed);
        cell.outpkts.store(outpkts, Ordering::Relaxed);
        cell.inbytes.store(inbytes, Ordering::Relaxed);
        cell.outbytes.store(outbytes, Ordering::Relaxed);
        *self.estimator() = estate.estimator;
    }

    /// Takes the estimator's two-second sample.
    pub fn sample(&self) {
        self.estimator().sample(self.totals());
    }
}
