//! The state of a device: `ipvsadm` listings, read so that they can be compared.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use crate::support::scenario::Sections;

/// Beginnings of the header lines of the listings.
const HEADERS: [&str; 5] = ["IP Virtual", "Prot ", "-> RemoteA", "pro expire", "IPVS conn"];

/// A connection of `ipvsadm -Lnc`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionRecord {
    /// The line without its expiry: protocol, state, client, virtual address, server.
    pub c: String,
    /// Seconds left, as the listing rounds them.
    pub exp: i64,
    /// Seconds it was given, where the moment of its last packet is known.
    pub timeout: Option<i64>,
}

impl ConnectionRecord {
    /// The client's `address:port`.
    pub fn client(&self) -> &str {
        self.c.split(' ').nth(2).unwrap_or_default()
    }
}

/// Parts of a device's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Dump {
    /// The connections, sorted.
    pub conns: Option<Vec<ConnectionRecord>>,
    /// The other sections without their header lines, runs of blanks as one.
    #[serde(flatten)]
    pub sections: Sections,
}

impl Dump {
    /// Reads what a device prints; keeps the sections in `wanted`.
    pub fn parse(text: &str, wanted: &[String]) -> Dump {
        let mut sections = split(text);
        let conns = sections.remove("Lnc").unwrap_or_default();
        let mut conns: Vec<_> = conns.iter().filter_map(|line| connection(line)).collect();
        conns.sort_by(|a, b| (&a.c, a.exp).cmp(&(&b.c, b.exp)));
        let is_wanted = |name: &str| wanted.iter().any(|section| section == name);
        for lines in sections.values_mut() {
            lines.retain(|line| !HEADERS.iter().any(|header| line.starts_with(header)));
        }
        sections.retain(|name, _| is_wanted(name));
        Dump { conns: is_wanted("conns").then_some(conns), sections }
    }

    /// Reckons the timeouts at `now` from the moments of the clients' last packets (by `address:port`).
    pub fn reckon_timeouts(&mut self, now: Duration, last_packets: &HashMap<String, Duration>) {
        for connection in self.conns.iter_mut().flatten() {
            if let Some(last) = last_packets.get(connection.client()) {
                let since = now.saturating_sub(*last).as_secs_f64();
                connection.timeout = Some((connection.exp as f64 + since).ceil() as i64);
            }
        }
    }
}

fn split(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            current = Some(sections.entry(name.to_owned()).or_default());
        } else if let Some(lines) = &mut current {
            lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    sections
}

/// `TCP 00:59 SYN_RECV …`; anything else (a header) is no connection.
fn connection(line: &str) -> Option<ConnectionRecord> {
    let (protocol, rest) = line.split_once(' ')?;
    let (expiry, rest) = rest.split_once(' ')?;
    let (minutes, seconds) = expiry.split_once(':')?;
    let exp = minutes.parse::<i64>().ok()? * 60 + seconds.parse::<i64>().ok()?;
    Some(ConnectionRecord { c: format!("{protocol} {rest}"), exp, timeout: None })
}
