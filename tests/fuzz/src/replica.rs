//! Records of connections and templates, between packets of the clients that they tell of.

use std::time::Duration;

use crate::record::{self, Record};
use crate::router::Fuzzed;
use crate::support::device::Side;

/// Records, one behind the other.
pub const RECORDS: u8 = 0;
/// An IP packet from the clients' side.
const FROM_CLIENT: u8 = 1;
/// An IP packet from the servers' side.
const FROM_SERVER: u8 = 2;
/// A pause of so many seconds.
const PAUSE: u8 = 3;
/// A server more, or less.
const SERVER: u8 = 4;
const KINDS: u8 = 5;

/// What there is at the start.
pub const SETUP: [&str; 8] = [
    "ipvsadm -A -t 10.10.1.30:80 -s rr -p 60",
    "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m",
    "ipvsadm -A -u 10.10.1.30:53 -s rr",
    "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33:53 -g",
    "ipvsadm -A -t 10.10.1.30:21 -s rr",
    "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.33:21 -m",
    "ipvsadm -A -t [fd00:10::30]:80 -s rr",
    "ipvsadm -a -t [fd00:10::30]:80 -r [fd00:8::33]:8080 -m",
];
const SERVERS: [&str; 2] =
    ["ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.40:8080 -m", "ipvsadm -d -t 10.10.1.30:80 -r 10.8.8.40:8080"];

/// Plays an input.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::with(&SETUP);
    for Record { tag, content } in record::read(data) {
        match tag % KINDS {
            RECORDS => router.install(&content),
            FROM_CLIENT => drop(router.packet(Side::Client, &content)),
            FROM_SERVER => drop(router.packet(Side::Server, &content)),
            PAUSE => router.pass(Duration::from_secs(content.first().copied().unwrap_or(0).into())),
            SERVER => router.run(SERVERS[usize::from(content.first().copied().unwrap_or(0)) % 2]),
            _ => {}
        }
    }
    router.finish();
}
