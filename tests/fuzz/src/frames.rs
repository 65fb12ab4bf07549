//! A row of packets, frames, commands and pauses, with no services but those that the commands make. Every scenario is one.

use std::time::Duration;

use crate::record::{self, Record};
use crate::router::Fuzzed;
use crate::support::device::Side;

/// An IP packet from the clients' side.
pub const FROM_CLIENT: u8 = 0;
/// An IP packet from the servers' side.
pub const FROM_SERVER: u8 = 1;
/// A pause: tenths of a second in two bytes, the lower one first.
pub const PAUSE: u8 = 2;
/// A command line.
pub const COMMAND: u8 = 3;
/// A whole frame from the clients' side.
const FRAME: u8 = 4;
const KINDS: u8 = 5;

/// Plays an input.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::new();
    for Record { tag, content } in record::read(data) {
        match tag % KINDS {
            FROM_CLIENT => drop(router.packet(Side::Client, &content)),
            FROM_SERVER => drop(router.packet(Side::Server, &content)),
            FRAME => drop(router.frame(Side::Client, &content)),
            PAUSE => {
                let tenths = [0, 1].map(|byte| content.get(byte).copied().unwrap_or(0));
                router.pass(Duration::from_millis(u64::from(u16::from_le_bytes(tenths)) * 100));
            }
            _ => router.run(&String::from_utf8_lossy(&content)),
        }
    }
    router.finish();
}
