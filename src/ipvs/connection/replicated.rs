//! A connection as a record tells of it.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;
use sdd::Shared;

use super::{ACTIVE, AWAITS_PORT, BORROWED, Connection, KNOWN, NO_OUTPUT, Rare, STATE, SYNCED, UNANSWERED};
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::Direction;
use crate::ipvs::replica::{ConnectionRecord, Marks};
use crate::ipvs::server::RealServer;

impl Connection {
    /// What its status says besides its state.
    pub fn marks(&self) -> Marks {
        let status = self.status.load(Ordering::Relaxed);
        Marks {
            active: status & ACTIVE != 0,
            no_output: status & NO_OUTPUT != 0,
            awaits_port: status & AWAITS_PORT != 0,
            unanswered: status & UNANSWERED != 0,
            synced: status & SYNCED != 0,
            borrowed: status & BORROWED != 0,
        }
    }

    /// The connection of a record, to `server`; with its template and its control connection if they are here.
    pub fn restored(
        record: &ConnectionRecord,
        server: Arc<RealServer>,
        template: Option<Arc<PersistenceTemplate>>,
        parent: Option<Shared<Connection>>,
        told: Told,
    ) -> Self {
        let connection = Connection::new(&record.flow(), server, record.server, template);
        let rare =
            (parent.is_some() || record.ftp.is_some() || record.acknowledged != [None; 2]).then(|| {
                if let Some(parent) = &parent {
                    parent.rare().children.fetch_add(1, Ordering::Relaxed);
                }
                let acknowledged = record.acknowledged.map(|number| AtomicU64::new(known(number)));
                Box::new(Rare {
                    parent,
                    ftp: record.ftp.clone().map(Into::into),
                    acknowledged,
                    ..Rare::default()
                })
            });
        let rare = rare.map_or_else(OnceBox::new, OnceBox::with_value);
        let awaits = if record.marks.awaits_port { AWAITS_PORT } else { 0 };
        connection.status.store(awaits, Ordering::Relaxed);
        let connection = Connection { rare, forward: record.forward, ..connection };
        connection.adopt(record, told);
        connection
    }

    /// Takes over what a record says of it. Whose connection it is, and to where, does not change.
    pub fn adopt(&self, record: &ConnectionRecord, told: Told) {
        let marks = record.marks;
        let bits = [
            (marks.no_output, NO_OUTPUT),
            (marks.unanswered, UNANSWERED),
            (told.synced, SYNCED),
            (told.borrowed, BORROWED),
        ];
        let bits = bits.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit);
        let after = bits | u32::from(record.state);
        let others = !(STATE | NO_OUTPUT | UNANSWERED | SYNCED | BORROWED);
        let set = |status: u32| Some((status & others) | after);
        let _ = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
        self.set_active(marks.active);
        self.set_timeout(record.timeout);
        self.packets_in.store(record.packets, Ordering::Relaxed);
        for (direction, number) in [Direction::In, Direction::Out].into_iter().zip(record.acknowledged) {
            number.iter().for_each(|number| self.note_acknowledged(direction, *number));
        }
        if let (Some(ftp), Some(told)) = (self.ftp(), &record.ftp) {
            ftp.lock().unwrap_or_else(PoisonError::into_inner).clone_from(told);
        }
    }
}

/// How a connection or template has come to be here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// A message of the synchronisation told of it.
    pub synced: bool,
    /// It is the partner's: it ends when the partner says so, or no longer tells of it.
    pub borrowed: bool,
}

impl Connection {
    /// Whether it is the partner's.
    pub fn is_borrowed(&self) -> bool {
        self.status.load(Ordering::Relaxed) & BORROWED != 0
    }

    /// From now on it is this machine's own.
    pub fn keep(&self) {
        self.status.fetch_and(!BORROWED, Ordering::Relaxed);
    }

    /// How it has come to be here.
    pub fn told(&self) -> Told {
        Told { synced: self.is_synced(), borrowed: self.is_borrowed() }
    }
}

fn known(number: Option<u32>) -> u64 {
    number.map_or(0, |number| KNOWN | u64::from(number))
}
