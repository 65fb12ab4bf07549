//! All that is known of connections and templates, for another process to go on with: the standby of a pair, or the next
//! xlvs on this machine.
//!
//! [`Record`] is what is said of one of them, [`part`] says it of all that there are, and [`install`] makes a connection or
//! template of it. [`Replication`] is what the tables, the workers and whoever tells another process have in common. Two
//! routers of a pair keep each other in step by [`Replica`], a state machine that knows neither clock nor socket.

mod bytes;
mod control;
mod exchange;
mod home;
mod homecoming;
mod install;
mod live;
mod look;
mod machine;
mod message;
mod mirror;
mod paths;
mod receiver;
mod record;
mod report;
mod sender;
mod stream;

pub use exchange::Replication;
pub use home::Home;
pub use homecoming::Homecoming;
pub use install::{Installed, Origin, Outcome, install};
pub use live::{
    PARTS, borrowed_part, connection_for_successor, current, keep_all, part, part_of, template_for_successor,
};
pub use machine::{Datagram, LEAST_LIMIT, Replica, Settings, Source};
pub use message::{Refusal, Side};
pub use mirror::{BUCKETS, Buckets, Mirror, bucket_of, digest, fingerprint};
pub use paths::Path;
pub use receiver::Store;
pub use record::{ConnectionRecord, Key, LONGEST, Marks, Record, Refused, TemplateRecord, VERSION};
pub use report::{PathDown, Report, State};
