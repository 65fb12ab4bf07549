//! `xlvs drain`, with its progress.

use std::time::Duration;

use super::command_line::Drained;
use super::{Answer, ask, message, say, text, unexpected};
use crate::admin::print::json;
use crate::director::protocol::{DrainStatus, Reply, Request};

/// How often it is asked how far it is.
const PERIOD: Duration = Duration::from_secs(1);
/// Exit code after an interrupt, as shells have it.
const INTERRUPTED: u8 = 130;

/// Drains, and waits until nothing is left where asked.
pub(super) fn drain(
    drained: Drained,
    deadline: Option<u32>,
    wait: bool,
    as_json: bool,
) -> Result<Answer, String> {
    if let Drained::One(service, server) = drained
        && !wait
    {
        return Ok(message(text(Request::Drain { service, server, deadline })?, as_json).into());
    }
    let (server, service) = named(drained);
    let begun = listed(Request::DrainServer { server, service, deadline })?;
    let told: String = begun.iter().map(|drain| format!("draining {}\n", line(drain))).collect();
    if !wait {
        let text = if as_json { json::line(&serde_json::json!({ "drains": begun })) } else { told };
        return Ok(text.into());
    }
    say(&mut std::io::stderr(), &told);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("xlvs: cannot start the runtime: {error}"))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = follow(&begun) => ended.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })?;
    match ended {
        Some(text) => Ok(message(text, as_json).into()),
        None => {
            say(&mut std::io::stderr(), "interrupted: the drain goes on; xlvs drain --undo ends it\n");
            Ok(Answer { text: String::new(), code: INTERRUPTED })
        }
    }
}

/// Takes back into service.
pub(super) fn undo(drained: Drained) -> Request {
    let (server, service) = named(drained);
    Request::UndoDrain { server, service }
}

fn named(drained: Drained) -> (String, Option<crate::ipvs::edit::ServiceId>) {
    match drained {
        Drained::One(service, server) => (server.to_string(), Some(service)),
        Drained::Everywhere(name) => (name, None),
    }
}

fn line(drain: &DrainStatus) -> String {
    format!("{} of {}: {}", drain.server, drain.service, drain.progress())
}

fn listed(request: Request) -> Result<Vec<DrainStatus>, String> {
    match ask(request)? {
        Reply::Drains(drains) => Ok(drains),
        other => Err(unexpected(other)),
    }
}

/// Shows how far it is until nothing is left.
async fn follow(begun: &[DrainStatus]) -> Result<String, String> {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut shown = String::new();
    loop {
        ticks.tick().await;
        let drains = listed(Request::ListDrains)?;
        let is_ours = |drain: &&DrainStatus| {
            begun.iter().any(|ours| (ours.service, ours.server) == (drain.service, drain.server))
        };
        let going: Vec<&DrainStatus> = drains.iter().filter(is_ours).collect();
        let left: Vec<&&DrainStatus> = going.iter().filter(|drain| drain.left != 0).collect();
        if going.is_empty() {
            return Err("xlvs: the drain was undone, or the server is no longer there".into());
        }
        if left.is_empty() {
            return Ok("drained: no connection is left\n".into());
        }
        let progress: String = left.iter().map(|drain| line(drain) + "\n").collect();
        if progress != shown {
            say(&mut std::io::stderr(), &progress);
            shown = progress;
        }
    }
}
