//! The director's effects, carried out.

use std::sync::Arc;

use super::Daemon;
use crate::director::notices::Notice;
use crate::director::{Effect, Level};

impl Daemon {
    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(_, reply) => self.answer = Some(reply),
            Effect::Steer(steering) => {
                if let Err(error) = self.workers.steer(&steering) {
                    tracing::error!("{error}");
                }
            }
            Effect::AddAddress(address) => {
                let network = Arc::clone(&self.network.borrow());
                // What did not work has been logged.
                let _ = self.addresses.add(&network, &address).await;
            }
            Effect::RemoveAddress(address) => {
                let network = Arc::clone(&self.network.borrow());
                self.addresses.remove(&network, &address).await;
            }
            Effect::MoveAddress(from, to) => {
                let network = Arc::clone(&self.network.borrow());
                self.addresses.relocate(&network, &from, &to).await;
            }
            Effect::TrialEnded(kept) => self.trial_ended(kept),
            Effect::StartCheck(check) => self.checks.start(check),
            Effect::StopCheck(check) => self.checks.stop(&check),
            Effect::Resolve(neighbours) => {
                for (link, address) in neighbours {
                    if let Err(error) = self.netlink.resolve(link, address).await {
                        tracing::debug!("{error}");
                    }
                }
            }
            Effect::StartSync(running, buffer) => {
                let role = running.daemon.role;
                if let Err(text) = self.sync.start(&running, buffer) {
                    self.sync_failed = Some((role, text));
                }
            }
            Effect::StopSync(role) => self.sync.stop(role),
            Effect::PortGone(name) => self.gone = Some(name),
            Effect::ReadLoad { service, server, words, limit } => {
                self.programs.read_load(service, server, words, limit);
            }
            Effect::Run { key, words } => self.programs.run(key, words),
            Effect::KeepOverrides(records) => self.overrides.write(&records),
            Effect::Event(event) => {
                log(event.level(), &event.to_string());
                if let Some(notice) = Notice::of(&event) {
                    self.programs.notify(notice);
                }
                self.events.note(event);
            }
            Effect::ChangedByHand(text) => {
                tracing::warn!("{text}");
                self.changed_by_hand.push(text);
            }
            Effect::Log(level, text) => log(level, &text),
        }
    }
}

fn log(level: Level, text: &str) {
    match level {
        Level::Debug => tracing::debug!("{text}"),
        Level::Info => tracing::info!("{text}"),
        Level::Warn => tracing::warn!("{text}"),
        Level::Error => tracing::error!("{text}"),
    }
}
