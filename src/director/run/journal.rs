//! The events that are kept, and who waits for the next one.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::director::event::Event;
use crate::director::event::journal::Journal;
use crate::director::protocol::Reply;
use crate::host::clock::time_of_day;
use crate::net::time::Instant;

/// How long a client is kept waiting: less than its own patience.
const WAIT: Duration = Duration::from_secs(5);

/// A client that waits.
#[derive(Debug)]
struct Waiting {
    after: u64,
    until: Instant,
    answer: oneshot::Sender<Reply>,
}

/// The journal with its readers.
#[derive(Debug, Default)]
pub struct Events {
    journal: Journal,
    waiting: Vec<Waiting>,
}

impl Events {
    /// With what another process has kept.
    pub fn going_on(journal: Journal) -> Self {
        Events { journal, waiting: Vec::new() }
    }

    /// What is kept.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sends those who wait to the process that serves from now on.
    pub fn dismiss(&mut self) {
        for Waiting { answer, .. } in self.waiting.drain(..) {
            // A client that has gone needs no answer.
            let _ = answer.send(Reply::Again);
        }
    }

    /// Keeps one.
    pub fn note(&mut self, event: Event) {
        self.journal.push(time_of_day(), event);
    }

    /// Answers a client at once, or when there is something to tell.
    pub fn serve(&mut self, now: Instant, after: u64, wait: bool, answer: oneshot::Sender<Reply>) {
        self.waiting.push(Waiting { after, until: if wait { now + WAIT } else { now }, answer });
        self.answer(now);
    }

    /// Answers those for whom there is something, and those who have waited long enough. To be called after events were noted.
    pub fn answer(&mut self, now: Instant) {
        let last = self.journal.last();
        // A number that is still to come is one of another run of the daemon.
        let is_due = |waiting: &mut Waiting| last != waiting.after || waiting.until <= now;
        for Waiting { after, answer, .. } in self.waiting.extract_if(.., is_due) {
            let after = if after > last { 0 } else { after };
            // A client that has gone needs no answer.
            let _ = answer.send(Reply::Events { entries: self.journal.after(after), last });
        }
    }

    /// When [`Events::answer`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }
}
