//! Layer 1: the semantics of IPVS, pure: no clock, no socket, no thread, no log line.

pub mod beyond;
pub mod call_id;
pub mod connection;
pub mod datapath;
pub mod defence;
pub mod drop_entry;
pub mod edit;
pub mod estimator;
pub mod helper;
pub mod lottery;
pub mod mark;
pub mod outbox;
pub mod persistence;
pub mod protocol;
pub mod scheduler;
pub mod server;
pub mod service;
pub mod service_table;
pub mod snapshot;
pub mod stats;
pub mod steering;
pub mod sysctl;
pub mod table;
pub mod timer;
pub mod verdict;
pub mod view;
