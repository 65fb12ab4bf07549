//! `xlvs status` for a person.

use std::fmt::Write as _;

use super::{pair, source_line};
use crate::director::member::{Override, State};
use crate::director::protocol::{
    DrainStatus, ServerStatus, ShortcutStatus, SorryStatus, Status, VirtualStatus,
};
use crate::ipvs::sync::SyncCounts;
use crate::ipvs::verdict::PacketTotals;

/// The whole answer in lines.
pub(super) fn describe(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_status(&mut text, status);
    text
}

fn write_status(text: &mut String, status: &Status) -> std::fmt::Result {
    write!(text, "xlvs {}, running for {} s, ", status.version, status.uptime)?;
    if let Some(seconds) = status.upgraded {
        write!(text, "upgraded {seconds} s ago, ")?;
    }
    writeln!(text, "{} worker(s)", status.workers)?;
    if let Some(report) = &status.pulse {
        pair::write_report(text, report)?;
    }
    if let Some(report) = &status.replica {
        pair::write_replica(text, report)?;
    }
    for port in &status.ports {
        writeln!(
            text,
            "port {}: XDP {}, AF_XDP {}, {} queue(s)",
            port.name, port.mode, port.copy, port.queues
        )?;
    }
    let ShortcutStatus { state, packets, flows, refused } = &status.shortcut;
    writeln!(text, "{state}")?;
    if *flows != 0 || *packets != 0 || *refused != 0 {
        writeln!(text, "  packets {packets}, directions of connections {flows}, no room for {refused}")?;
    }
    let Status { connections, templates, conn_max, evicted, .. } = status;
    match conn_max {
        0 => writeln!(text, "connections: {connections}, persistence templates: {templates}")?,
        _ => writeln!(
            text,
            "connections: {connections} of at most {conn_max}, persistence templates: {templates}"
        )?,
    }
    if *evicted != 0 {
        writeln!(text, "  half-open connections that made room for others: {evicted}")?;
    }
    let packets = &status.packets;
    let dropped: u64 = packets.dropped.iter().map(|(_, count)| count).sum();
    writeln!(
        text,
        "packets: received {} = transmitted {} + passed {} + handed over {} + dropped {dropped}",
        packets.received, packets.transmitted, packets.passed, packets.handed_over
    )?;
    if packets.made != 0 || packets.absorbed != 0 || packets.held != 0 {
        let PacketTotals { made, absorbed, held, .. } = packets;
        writeln!(text, "  made besides {made}; taken into those {absorbed}; held now {held}")?;
    }
    for (reason, count) in &packets.dropped {
        writeln!(text, "  dropped, {}: {count}", reason.as_str())?;
    }
    if status.ring_full + status.no_frame != 0 {
        let (ring_full, no_frame) = (status.ring_full, status.no_frame);
        writeln!(
            text,
            "  lost before they were received: receive ring full {ring_full}, no free frame {no_frame}"
        )?;
    }
    write!(text, "{}", source_line(status))?;
    write_sync(text, &status.sync)?;
    for virtual_server in &status.virtuals {
        write_virtual(text, virtual_server)?;
    }
    if status.notices_lost != 0 {
        writeln!(
            text,
            "runs of the notify command left out because too many waited: {}",
            status.notices_lost
        )?;
    }
    for drain in &status.drains {
        let DrainStatus { service, server, cause, .. } = drain;
        writeln!(text, "draining {server} of {service} ({}): {}", cause.words(), drain.progress())?;
    }
    Ok(())
}

/// Nothing where no synchronisation daemon has had anything to do.
fn write_sync(text: &mut String, counts: &SyncCounts) -> std::fmt::Result {
    if *counts == SyncCounts::default() {
        return Ok(());
    }
    let SyncCounts { messages_sent, entries_sent, messages_received, entries_received, .. } = counts;
    writeln!(
        text,
        "synchronisation: sent {entries_sent} in {messages_sent} message(s), received {entries_received} in \
         {messages_received}"
    )?;
    let losses = [
        ("not sent, too many waited", counts.queue_full),
        ("not sent, the network refused", counts.send_errors),
        ("received but lost, too many waited", counts.lost),
    ];
    for (what, count) in losses.iter().filter(|(_, count)| *count != 0) {
        writeln!(text, "  {what}: {count}")?;
    }
    for (reason, count) in &counts.refused {
        writeln!(text, "  refused, {reason}: {count}")?;
    }
    Ok(())
}

fn write_virtual(text: &mut String, virtual_server: &VirtualStatus) -> std::fmt::Result {
    let VirtualStatus { name, service, up, since, sorry, servers } = virtual_server;
    let since = if *up == 0 { format!(", since {}", span(*since)) } else { String::new() };
    writeln!(text, "virtual {name} ({service}): {up} of {} servers up{since}", servers.len())?;
    for server in servers {
        writeln!(text, "  {} {}: {}", server.name, server.endpoint, standing(server))?;
    }
    if let Some(SorryStatus { endpoint, active }) = sorry {
        writeln!(text, "  sorry server {endpoint}: {}", if *active { "stands in" } else { "not needed" })?;
    }
    Ok(())
}

fn standing(server: &ServerStatus) -> String {
    let ServerStatus { state, forced, check, reason, since, .. } = server;
    let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let state = match (forced, state) {
        (Override::Auto, State::Unknown) => "its first check has not ended yet".to_owned(),
        (Override::Auto, State::Up) => format!("up for {}", span(*since)),
        (Override::Auto, State::Down) => format!("down for {}{said}", span(*since)),
        (_, state) => {
            let check = check.word();
            format!("{} by hand for {} (its check says {check}{said})", state.word(), span(*since))
        }
    };
    format!("{state}; {}", place(server))
}

fn place(server: &ServerStatus) -> String {
    let ServerStatus { weight, full_weight, slow_start, by_hand, deleted, connections, .. } = server;
    let weight = match weight {
        None if *deleted => return "deleted from the table by hand".to_owned(),
        None => return "not in the table".to_owned(),
        Some(weight) if *slow_start => format!("weight {weight} of {full_weight}, slow start"),
        Some(weight) if weight > full_weight => format!("weight {weight} by its load, else {full_weight}"),
        Some(weight) => format!("weight {weight}"),
    };
    let by_hand = if *by_hand { ", edited by hand" } else { "" };
    format!("{weight}{by_hand}; connections {connections}")
}

/// A time in one unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
