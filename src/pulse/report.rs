//! The pair as an administrator sees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::time::Instant;
use crate::pulse::Settings;
use crate::pulse::account::{Account, SyncReport};
use crate::pulse::wire::{Path, Refused, Role, Word};

/// Where a director is between inactive and active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It leaves the work to its partner, or waits for the moment to take it.
    #[default]
    Inactive,
    /// It is about to become active once its partner is fenced.
    Fencing,
    /// It has taken the work; not all addresses are up yet.
    Activating,
    /// It does the work.
    Active,
    /// It takes its addresses away.
    Deactivating,
    /// The same, and ends then.
    Ending,
    /// It has said its last word.
    Ended,
}

impl State {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            State::Inactive => "inactive",
            State::Fencing => "fencing the partner",
            State::Activating => "becoming active",
            State::Active => "active",
            State::Deactivating => "becoming inactive",
            State::Ending | State::Ended => "ending",
        }
    }
}

/// What is known of the other director.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// Its last word.
    pub word: Option<Word>,
    /// When it was heard last, by path.
    pub heard: [Option<Instant>; 2],
    stopped_from: Option<Instant>,
}

impl Partner {
    /// When it was heard last.
    pub fn last_heard(&self) -> Option<Instant> {
        self.heard.into_iter().flatten().max()
    }

    /// Notes a heartbeat; returns the word before it.
    pub(super) fn hear(&mut self, now: Instant, path: Path, word: Word) -> Option<Word> {
        self.heard[path as usize] = Some(now);
        if matches!(word, Word::Hold | Word::Held) {
            return self.word;
        }
        if word == Word::Running {
            self.stopped_from = None;
        } else {
            self.stopped_from.get_or_insert(now);
        }
        self.word.replace(word)
    }

    /// Whether it has been inactive for so long that it has heard this one, and might have gone first.
    pub(super) fn stays_stopped(&self, now: Instant, settings: &Settings) -> bool {
        self.stopped_from.is_some_and(|from| now.saturating_since(from) > settings.keepalive * 3 / 2)
    }
}

/// A director of a pair, or a single one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By the configuration.
    pub role: Role,
    /// What it does.
    pub state: State,
    /// Milliseconds for which it has done that.
    pub since_ms: u64,
    /// Why it does that, in the words of the log.
    pub why: String,
    /// Paths whose link is down, if links are monitored.
    pub links_down: Vec<Path>,
    /// Its synchronisation; absent if there is none.
    #[serde(default)]
    pub sync: Option<SyncReport>,
    /// The other director; `None` of a single one.
    pub partner: Option<PartnerReport>,
}

/// What is known of the other director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerReport {
    /// Whether it has been heard within deadtime.
    pub heard: bool,
    /// Its last word.
    pub word: Option<Word>,
    /// Milliseconds since it was heard on the public path.
    pub public_ms: Option<u64>,
    /// Milliseconds since it was heard on the private path.
    pub private_ms: Option<u64>,
    /// Whether heartbeats prove who sent them.
    pub authenticated: bool,
    /// Datagrams that were refused.
    pub refused: Refused,
    /// What it says of itself, which takes a key.
    #[serde(default)]
    pub account: Option<Account>,
    /// Milliseconds since it said that.
    #[serde(default)]
    pub account_ms: Option<u64>,
}

impl Report {
    pub(super) fn new(
        settings: &Settings,
        state: State,
        since: Duration,
        why: &str,
        down: &[bool; 2],
    ) -> Self {
        let down = Path::ALL.into_iter().filter(|path| settings.monitor_links && down[*path as usize]);
        Report {
            role: settings.role,
            state,
            since_ms: millis(since),
            why: why.to_owned(),
            links_down: down.collect(),
            sync: None,
            partner: None,
        }
    }

    pub(super) fn with_partner(mut self, pair: bool, partner: &Partner, heard: bool, now: Instant) -> Self {
        let ago = |path: Path| partner.heard[path as usize].map(|then| millis(now.saturating_since(then)));
        self.partner = pair.then(|| PartnerReport {
            heard,
            word: partner.word,
            public_ms: ago(Path::Public),
            private_ms: ago(Path::Private),
            ..PartnerReport::default()
        });
        self
    }

    /// The same for the partner.
    pub fn account(self, sync: Option<SyncReport>) -> Account {
        let Report { state, since_ms, why, .. } = self;
        Account { version: env!("CARGO_PKG_VERSION").to_owned(), state, since_ms, why, sync }
    }

    /// With what is known of the synchronisation here, and what the partner has said of itself and when.
    pub fn with_accounts(
        mut self,
        sync: Option<SyncReport>,
        partner: Option<&(Instant, Account)>,
        now: Instant,
    ) -> Self {
        self.sync = sync;
        if let (Some(report), Some((then, account))) = (&mut self.partner, partner) {
            report.account = Some(account.clone());
            report.account_ms = Some(millis(now.saturating_since(*then)));
        }
        self
    }

    /// With what the wire knows.
    pub fn with_wire(mut self, authenticated: bool, refused: &Refused) -> Self {
        if let Some(partner) = &mut self.partner {
            (partner.authenticated, partner.refused) = (authenticated, *refused);
        }
        self
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
