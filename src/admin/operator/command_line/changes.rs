//! The commands that change what is running, or say what a change would do.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use lexopt::prelude::*;

use super::{Task, UsageError, Words};
use crate::config::service_name::ServiceName;
use crate::ipvs::edit::{ServerId, ServiceId};

const DEADLINE: &str = "--deadline";
const CONFIRM: &str = "--confirm";

/// What to drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin::operator) enum Drained {
    /// A server of one service.
    One(ServiceId, ServerId),
    /// A server in all its services, by name or address.
    Everywhere(String),
}

/// Files in place of the site's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admin::operator) struct SiteFileNames {
    /// `lvs.cf`.
    pub(in crate::admin::operator) lvs: PathBuf,
    /// Saved iptables rules.
    pub(in crate::admin::operator) marks: Option<PathBuf>,
    /// Saved ip6tables rules.
    pub(in crate::admin::operator) marks6: Option<PathBuf>,
}

pub(super) fn parse_drain(parser: &mut Words) -> Result<Task, UsageError> {
    let (mut words, mut deadline, mut wait, mut undo) = (Vec::new(), None, false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => words.push(word.string()?),
            Long("deadline") => deadline = Some(time(DEADLINE, parser)?),
            Long("wait") => wait = true,
            Long("undo") => undo = true,
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let drained = match &words[..] {
        [server] => Drained::Everywhere(server.clone()),
        [kind, name, server] => {
            let ServiceName(service) = format!("{kind} {name}").try_into()?;
            Drained::One(service, server_of(server)?)
        }
        _ => return Err(UsageError::NoServer),
    };
    match (undo, deadline, wait) {
        (true, Some(_), _) => Err(UsageError::Contradiction("--undo", DEADLINE)),
        (true, _, true) => Err(UsageError::Contradiction("--undo", "--wait")),
        (true, None, false) => Ok(Task::UndoDrain(drained)),
        (false, deadline, wait) => Ok(Task::Drain { drained, deadline, wait }),
    }
}

/// Without a port the server keeps the packet's own.
fn server_of(word: &str) -> Result<ServerId, UsageError> {
    let place = word.parse().or_else(|_| word.parse().map(|address: IpAddr| SocketAddr::new(address, 0)));
    let place: SocketAddr = place.map_err(|_| UsageError::NoServer)?;
    Ok(ServerId { address: place.ip(), port: place.port() })
}

pub(super) fn parse_plan(parser: &mut Words) -> Result<Task, UsageError> {
    let (mut files, mut max_broken) = (SiteFileNames::default(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("max-broken") => {
                let text = parser.value()?.string()?;
                max_broken = Some(text.parse().map_err(|_| UsageError::Number(text))?);
            }
            Long("marks") => files.marks = Some(parser.value()?.into()),
            Long("marks6") => files.marks6 = Some(parser.value()?.into()),
            Value(file) if files.lvs.as_os_str().is_empty() => files.lvs = file.into(),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    match files.lvs.as_os_str().is_empty() {
        true => Err(UsageError::NoLvs("plan")),
        false => Ok(Task::Plan { files, max_broken }),
    }
}

pub(super) fn parse_apply(parser: &mut Words) -> Result<Task, UsageError> {
    let (mut files, mut confirm) = (SiteFileNames::default(), None);
    let (mut install, mut abort) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("confirm") => confirm = Some(time(CONFIRM, parser)?),
            Long("marks") => files.marks = Some(parser.value()?.into()),
            Long("marks6") => files.marks6 = Some(parser.value()?.into()),
            Long("install") => install = true,
            Long("abort") => abort = true,
            Value(file) if files.lvs.as_os_str().is_empty() => files.lvs = file.into(),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    match (abort, files.lvs.as_os_str().is_empty()) {
        (true, true) => Ok(Task::Abort),
        (true, false) => Err(UsageError::Contradiction("--abort", "a file")),
        (false, true) => Err(UsageError::NoLvs("apply")),
        (false, false) => Ok(Task::Apply { files, confirm, install }),
    }
}

pub(super) fn parse_upgrade(parser: &mut Words) -> Result<Task, UsageError> {
    let mut program = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("program") => program = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Task::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Task::Upgrade { program })
}

/// Seconds, or a number with s, m, h or d behind it.
fn time(option: &'static str, parser: &mut Words) -> Result<u32, UsageError> {
    let text = parser.value()?.string()?;
    seconds(&text).ok_or(UsageError::Time(option, text))
}

fn seconds(text: &str) -> Option<u32> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_units() {
        let table = [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("2h", Some(7200)),
            ("1d", Some(86400)),
            ("0", Some(0)),
            ("", None),
            ("m", None),
            ("5 m", None),
            ("1.5m", None),
            ("-1", None),
            ("5M", None),
            ("4294967295", Some(u32::MAX)),
            ("99999999h", None),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
