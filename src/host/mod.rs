//! Layer 2: this machine: its clock, its kernel's network configuration, raw sockets and privileges.

pub mod announce;
pub mod channel;
pub mod clock;
pub mod descriptors;
pub mod heartbeat;
pub mod interrupts;
pub mod journal;
pub mod kernel;
pub mod memory;
pub mod multicast;
pub mod netlink;
pub mod peer;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod raw;
