//! The pair for a person.

use std::fmt::Write as _;

use crate::pulse::wire::Refused;
use crate::pulse::{PartnerReport, Report, Word};

/// Role, state, since when and why; and what is known of the partner.
pub(super) fn write_report(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { role, state, since_ms, why, links_down, partner } = report;
    let state = state.name();
    let since = seconds(*since_ms);
    match partner {
        None => writeln!(text, "{state} for {since}, without a partner: {why}")?,
        Some(_) => writeln!(text, "{role}: {state} for {since}: {why}")?,
    }
    for path in links_down {
        writeln!(text, "  the link of the {path} path is down")?;
    }
    partner.iter().try_for_each(|partner| write_partner(text, partner))
}

fn write_partner(text: &mut String, partner: &PartnerReport) -> std::fmt::Result {
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
    let Refused { stranger, malformed, incompatible, unlike, forged, repeated, unfresh } = partner.refused;
    if partner.refused.total() != 0 {
        writeln!(
            text,
            "  heartbeats refused: from strangers {stranger}, malformed {malformed}, incompatible {incompatible}, \
             on one side without a key {unlike}, forged {forged}, repeated {repeated}, from before a start {unfresh}"
        )?;
    }
    Ok(())
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
