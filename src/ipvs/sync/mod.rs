//! Connection synchronisation by IPVS's own protocol (ipvs.md section 7): a master multicasts what it knows of its
//! connections, a backup makes connections of it.
//!
//! Here is what needs no table: the messages, and which connection is told of when. What a worker does with it is in
//! [`crate::ipvs::datapath`]; sockets and threads are the daemon's.

mod batch;
mod daemon;
mod entry;
mod exchange;
mod master;
mod message;

pub use batch::Batch;
pub use daemon::{Running, SyncDaemon, SyncDaemons, SyncRole};
pub use entry::{Entry, Version, flags};
pub use exchange::{Exchange, Posted, SyncCounts};
pub use master::{Announced, Standing, is_due, needs_telling, round};
pub use message::{Message, Refused};
