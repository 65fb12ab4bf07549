//! What workers and sockets hand each other, and what is counted of it. It is among the shared tables, because any worker may
//! take in any message, and workers send so little that one queue serves them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam::channel::{self, Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::message::Refused;
use crate::ipvs::edit::Forward;
use crate::ipvs::server::RealServer;

/// Messages that may wait for the workers.
const INCOMING: usize = 1024;

/// A message that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// By which of the daemon's ports.
    pub port: usize,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Numbers for a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCounts {
    /// Messages sent.
    pub messages_sent: u64,
    /// Connections and templates told of in them.
    pub entries_sent: u64,
    /// Messages that were not sent because too many waited (`sync_qlen_max`).
    pub queue_full: u64,
    /// Messages that the network refused.
    pub send_errors: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Connections and templates taken from them.
    pub entries_received: u64,
    /// Messages that were lost because too many waited for the workers.
    pub lost: u64,
    /// Messages and entries that were refused, by reason.
    pub refused: Vec<(String, u64)>,
}

#[derive(Debug, Default)]
struct Counters {
    messages_sent: AtomicU64,
    entries_sent: AtomicU64,
    queue_full: AtomicU64,
    send_errors: AtomicU64,
    messages_received: AtomicU64,
    entries_received: AtomicU64,
    lost: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The queues and the counters.
#[derive(Debug)]
pub struct Exchange {
    outgoing: (Sender<Posted>, Receiver<Posted>),
    incoming: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    counters: Counters,
    strangers: [Arc<RealServer>; 4],
    met_stranger: AtomicBool,
    walked: AtomicUsize,
}

impl Default for Exchange {
    fn default() -> Self {
        let forwards = [Forward::Masquerade, Forward::Local, Forward::Tunnel, Forward::Route];
        Exchange {
            outgoing: channel::unbounded(),
            incoming: channel::bounded(INCOMING),
            counters: Counters::default(),
            strangers: forwards.map(|forward| Arc::new(RealServer::stranger(forward))),
            met_stranger: AtomicBool::new(false),
            walked: AtomicUsize::new(0),
        }
    }
}

impl Exchange {
    /// Puts a message with so many entries into the queue, unless as many as `most` wait.
    pub fn post(&self, posted: Posted, entries: usize, most: i64) {
        if self.outgoing.0.len() as u64 >= most as u64 {
            return add(&self.counters.queue_full, 1);
        }
        add(&self.counters.entries_sent, entries as u64);
        // It has a receiver as long as it is there.
        let _ = self.outgoing.0.send(posted);
    }

    /// The messages to be sent.
    pub fn outgoing(&self) -> &Receiver<Posted> {
        &self.outgoing.1
    }

    /// What became of sending one.
    pub fn count_sent(&self, sent: bool) {
        let Counters { messages_sent, send_errors, .. } = &self.counters;
        add(if sent { messages_sent } else { send_errors }, 1);
    }

    /// Takes a message for the workers.
    pub fn receive(&self, bytes: Vec<u8>) {
        add(&self.counters.messages_received, 1);
        if self.incoming.0.try_send(bytes).is_err() {
            add(&self.counters.lost, 1);
        }
    }

    /// Whether messages wait for a worker.
    pub fn has_received(&self) -> bool {
        !self.incoming.1.is_empty()
    }

    /// The next message, for a worker.
    pub fn next_received(&self) -> Option<Vec<u8>> {
        self.incoming.1.try_recv().ok()
    }

    /// What became of a received entry, or of a whole message.
    pub fn count_entry(&self, outcome: Result<(), Refused>) {
        match outcome {
            Ok(()) => add(&self.counters.entries_received, 1),
            Err(refused) => add(&self.counters.refused[refused as usize], 1),
        }
    }

    /// What stands for a server that nobody here knows, reached by this method. It shares nothing with the servers of services
    /// but its looks: it counts nothing, and has no address of its own.
    pub fn stranger(&self, forward: Forward) -> &Arc<RealServer> {
        self.met_stranger.store(true, Ordering::Relaxed);
        &self.strangers[match forward {
            Forward::Masquerade => 0,
            Forward::Local => 1,
            Forward::Tunnel => 2,
            Forward::Route => 3,
        }]
    }

    /// Whether any connection or template leads to a stranger.
    pub fn has_strangers(&self) -> bool {
        self.strangers.iter().any(|stranger| !stranger.is_idle())
    }

    /// Whether there have been connections to strangers since this was asked last: their packets have to come up, too.
    pub fn has_met_stranger(&self) -> bool {
        self.met_stranger.swap(false, Ordering::Relaxed)
    }

    /// Which part of the connection table is to be looked through next.
    pub fn next_part(&self) -> usize {
        self.walked.fetch_add(1, Ordering::Relaxed)
    }

    /// The numbers.
    pub fn counts(&self) -> SyncCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let refused = Refused::ALL.iter().zip(&counters.refused);
        let refused = refused.map(|(reason, count)| (reason.name().to_owned(), read(count)));
        SyncCounts {
            messages_sent: read(&counters.messages_sent),
            entries_sent: read(&counters.entries_sent),
            queue_full: read(&counters.queue_full),
            send_errors: read(&counters.send_errors),
            messages_received: read(&counters.messages_received),
            entries_received: read(&counters.entries_received),
            lost: read(&counters.lost),
            refused: refused.filter(|(_, count)| *count != 0).collect(),
        }
    }
}
