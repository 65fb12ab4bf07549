//! Connections whose ends are to be told that they end, or asked what they await: the control side decides, engines send. And
//! connections that have ended so for a while, since a segment may be on its way that nobody awaits any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use foldhash::fast::RandomState;
use sdd::Shared;

use crate::ipvs::connection::Connection;
use crate::net::flow::FlowKey;
use crate::net::time::Instant;

/// Longer than a retransmission takes (RFC 6298: three seconds for the second one).
const MEMORY: Duration = Duration::from_secs(10);
/// Directions of connections that are remembered at most; of the others the ends learn as they can.
const MEMORY_MAX: usize = 1 << 18;

/// What an engine is to send about a connection.
#[derive(Debug)]
pub enum Notice {
    /// Segments that make both ends say which sequence number they await, where that is not known.
    Ask(Shared<Connection>),
    /// Resets to both ends.
    Reset(Shared<Connection>),
}

/// Notices that wait for an engine, and what has ended lately.
#[derive(Debug, Default)]
pub struct Farewells {
    waiting: SegQueue<Notice>,
    /// Until when, by what the packets look like.
    ended: Mutex<HashMap<FlowKey, Instant, RandomState>>,
    remembers: AtomicBool,
}

impl Farewells {
    /// Asks the ends of a connection soon.
    pub fn ask(&self, connection: Shared<Connection>) {
        self.waiting.push(Notice::Ask(connection));
    }

    /// Tells the ends of a connection that has been taken out of the table.
    pub fn reset(&self, connection: Shared<Connection>, now: Instant) {
        let mut ended = self.ended();
        for flow in [connection.request_key(), connection.reply_key()] {
            if ended.len() < MEMORY_MAX {
                ended.insert(flow, now + MEMORY);
            }
        }
        self.remembers.store(true, Ordering::Relaxed);
        drop(ended);
        self.waiting.push(Notice::Reset(connection));
    }

    /// The next notice, for the engine that sends it.
    pub fn pop(&self) -> Option<Notice> {
        self.waiting.pop()
    }

    /// Whether no notice waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether packets of this flow belong to a connection that has ended so.
    pub fn has_ended(&self, flow: &FlowKey, now: Instant) -> bool {
        self.remembers.load(Ordering::Relaxed) && self.ended().get(flow).is_some_and(|until| now < *until)
    }

    /// Forgets what ended long ago.
    pub fn forget(&self, now: Instant) {
        if self.remembers.load(Ordering::Relaxed) {
            let mut ended = self.ended();
            ended.retain(|_, until| now < *until);
            self.remembers.store(!ended.is_empty(), Ordering::Relaxed);
        }
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<FlowKey, Instant, RandomState>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
