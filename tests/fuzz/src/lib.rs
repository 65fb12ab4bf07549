//! What the fuzz targets do with an input. An input is bad if something panics, or if one of the laws of [`router`] breaks.

// What the scenario runner needs beyond this is not used here.
#[allow(dead_code)]
#[path = "../../support/mod.rs"]
pub mod support;

pub mod control_json;
pub mod fragments;
pub mod frames;
pub mod ftp_payload;
pub mod icmp_quotes;
pub mod iptables_save;
pub mod lvs_cf;
pub mod record;
pub mod replica;
pub mod router;
pub mod sync_messages;
