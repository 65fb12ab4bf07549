//! The pair for a person.

use std::fmt::Write as _;

use crate::ipvs::replica::{self, PathDown, State};
use crate::pulse::wire::{Refused, Role};
use crate::pulse::{Account, PartnerReport, Report, SyncReport, Word};

/// Role, state, since when and why; and what is known of the partner.
pub(super) fn write_report(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { role, state, since_ms, why, links_down, sync, partner } = report;
    let state = state.name();
    let since = seconds(*since_ms);
    match partner {
        None => writeln!(text, "{state} for {since}, without a partner: {why}")?,
        Some(_) => writeln!(text, "{role}: {state} for {since}: {why}")?,
    }
    for path in links_down {
        writeln!(text, "  the link of the {path} path is down")?;
    }
    sync.iter().try_for_each(|sync| writeln!(text, "  {}", describe_sync(sync)))?;
    partner.iter().try_for_each(|partner| write_partner(text, partner, *role))
}

/// Who tells of connections, and what is known of how far that has come.
fn describe_sync(sync: &SyncReport) -> String {
    let SyncReport { by, sends, connections, messages, failed, in_sync, lag_ms } = sync;
    let does = if *sends { "tells of connections" } else { "is told of connections" };
    let agree = match in_sync {
        Some(true) => "in sync",
        Some(false) => "not in sync",
        None if by == "xlvs" => "whether in sync is not known without the other router",
        None => "whether in sync is not known by this protocol",
    };
    let lag = lag_ms.map_or(String::new(), |lag| format!(", {lag} ms behind"));
    format!(
        "synchronisation ({by}): {does}, {connections} in the table, {messages} messages, {failed} lost or refused; {agree}{lag}"
    )
}

/// What the partner says of itself, in the same words as what this router says.
fn write_account(text: &mut String, role: Role, account: &Account, ago: u64) -> std::fmt::Result {
    let Account { version, state, since_ms, why, sync } = account;
    let since = seconds(since_ms + ago);
    writeln!(
        text,
        "  {role}: {} for {since}: {why} (xlvs {version}, said {} ago)",
        state.name(),
        seconds(ago)
    )?;
    sync.iter().try_for_each(|sync| writeln!(text, "  {}", describe_sync(sync)))
}

fn write_partner(text: &mut String, partner: &PartnerReport, role: Role) -> std::fmt::Result {
    let word = match partner.word {
        Some(Word::Running) => "active",
        Some(Word::Stopped) => "inactive",
        _ => "not heard yet",
    };
    let heard = [("public", partner.public_ms), ("private", partner.private_ms)];
    let heard: Vec<String> = heard
        .into_iter()
        .filter_map(|(path, ago)| Some(format!("{path} path {} ago", seconds(ago?))))
        .collect();
    let silent = if partner.heard || partner.word.is_none() { "" } else { ", silent since" };
    let proof = if partner.authenticated { "authenticated" } else { "not authenticated" };
    write!(text, "partner: {word}{silent}")?;
    if !heard.is_empty() {
        write!(text, "; heard on the {}", heard.join(", "))?;
    }
    writeln!(text, "; heartbeats {proof}")?;
    if let (Some(account), Some(ago)) = (&partner.account, partner.account_ms) {
        write_account(text, role.partner(), account, ago)?;
    }
    let Refused { stranger, malformed, incompatible, unlike, forged, same_role, repeated, unfresh } =
        partner.refused;
    if partner.refused.total() != 0 {
        writeln!(
            text,
            "  heartbeats refused: from strangers {stranger}, malformed {malformed}, incompatible {incompatible}, \
             on one side without a key {unlike}, forged {forged}, of the same role {same_role}, repeated {repeated}, from before a start {unfresh}"
        )?;
    }
    Ok(())
}

/// What is known of the connections on the other router.
pub(super) fn write_replica(text: &mut String, report: &replica::Report) -> std::fmt::Result {
    let in_sync = match (report.state, report.in_sync) {
        (State::Telling, true) => format!(", which has all of {}", report.told),
        (State::Telling, false) => {
            let done = report.progress.map_or(String::new(), |percent| format!(", {percent} % done"));
            format!(", which has not all yet{done}")
        }
        (State::Told, true) => ", and has all".to_owned(),
        (State::Told, false) => ", and has not all yet".to_owned(),
        (State::Alone | State::Idle, _) => String::new(),
    };
    let heard = report.path.filter(|_| report.state != State::Alone);
    let by = heard.map_or(String::new(), |path| format!(" by the {path} path"));
    write!(text, "connections: {}{by}{in_sync}", report.state.name())?;
    if report.state == State::Telling {
        write!(text, "; behind by {} ms", report.lag_ms)?;
    }
    match report.differing {
        Some(0) => writeln!(text, "; equal when compared last")?,
        Some(parts) => writeln!(text, "; {parts} of 1024 parts differed when compared last")?,
        None => writeln!(text)?,
    }
    if heard.is_some() {
        for PathDown { path, since_ms } in &report.paths_down {
            writeln!(
                text,
                "  the {path} path has carried nothing about connections for {}",
                seconds(*since_ms)
            )?;
        }
    }
    let refused: Vec<String> =
        report.refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if !refused.is_empty() {
        writeln!(text, "  datagrams about connections refused: {}", refused.join(", "))?;
    }
    Ok(())
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
