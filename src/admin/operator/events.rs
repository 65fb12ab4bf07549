//! `xlvs events`: what has happened to servers and virtual servers.

use std::io::{self, Write};

use serde_json::json;

use super::unexpected;
use crate::admin::client::{ControlSocket, Transport};
use crate::admin::print::json;
use crate::director::event::journal::Entry;
use crate::director::protocol::{Reply, Request};

const DAY: u64 = 86_400;

/// Writes those that the daemon keeps; if asked to `follow`, also those that are still to come, until nobody reads any more.
pub(super) fn events(out: &mut dyn Write, follow: bool, as_json: bool) -> Result<(), String> {
    let mut socket = ControlSocket::from_environment();
    let (mut after, mut wait) = (0, false);
    loop {
        let request = Request::Events { after, wait };
        let (entries, last) = match socket.call(request).map_err(|error| format!("xlvs: {error}"))? {
            Reply::Events { entries, last } => (entries, last),
            other => return Err(unexpected(other)),
        };
        let written = write(out, &entries, as_json);
        if written.is_err() || !follow {
            return Ok(());
        }
        (after, wait) = (last, true);
    }
}

fn write(out: &mut dyn Write, entries: &[Entry], as_json: bool) -> io::Result<()> {
    for entry in entries {
        let time = time(entry.time_ms);
        let line = match as_json {
            true => json::line(&for_program(entry, &time)),
            false => format!("{time} {}\n", entry.event),
        };
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

fn for_program(entry: &Entry, time: &str) -> serde_json::Value {
    let mut value = json!(entry);
    value["time"] = json!(time);
    value["text"] = json!(entry.event.words());
    value
}

/// As in the log: `2025-11-27T12:20:03.123Z`.
fn time(time_ms: u64) -> String {
    let (seconds, millis) = (time_ms / 1000, time_ms % 1000);
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of so many days after the first of January 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_764_246_003, "2025-11-27T12:20:03.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(seconds * 1000), expected);
        }
    }
}
