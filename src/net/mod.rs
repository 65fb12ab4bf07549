//! Layer 0: packets as bytes, addresses, routes and time. Knows no state and no IPVS word.

pub mod addr;
pub mod announce;
pub mod checksum;
pub mod extension;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod icmp;
pub mod parse;
pub mod reset;
pub mod rewrite;
pub mod route;
pub mod segment;
pub mod time;
pub mod tunnel;
