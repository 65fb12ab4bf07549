//! Changes of `xlvs.toml` while the daemon runs: what can be followed at once is, and what takes a restart is said.

use super::Daemon;
use crate::config::settings::Settings;
use crate::config::settings_change::{self, Needs};
use crate::director::Command;
use crate::director::protocol::Request;
use crate::ipvs::beyond;
use crate::ipvs::helper::FtpPorts;

impl Daemon {
    /// Follows the settings as they are now. Returns what to tell.
    pub(super) async fn take_settings(&mut self, mut settings: Settings) -> Vec<String> {
        let mut told = Vec::new();
        for change in settings_change::changes(&self.settings, &settings) {
            let settings_change::Change { key, before, now, needs } = change;
            told.push(match needs {
                Needs::Restart => {
                    format!("xlvs.toml: {key} = {now} takes a restart; until then it is {before}")
                }
                Needs::Nothing => format!("xlvs.toml: {key} is {now} now, it was {before}"),
            });
        }
        settings.keep_what_takes_a_restart(&self.settings);
        told.iter().for_each(|text| tracing::warn!("{text}"));
        let former = std::mem::replace(&mut self.settings, settings);
        self.log.follow(&self.settings);
        for (name, value) in settings_change::sysctls(&former, &self.settings) {
            // It was read, so it can be set.
            drop(self.ask(Request::Sysctl { name, value: Some(value) }).await);
        }
        let (before, now) = (former.beyond(), self.settings.beyond());
        for name in beyond::NAMES {
            if let (Ok(before), Ok(now)) = (before.switches.get(name), now.switches.get(name))
                && before != now
            {
                drop(self.ask(Request::Sysctl { name: name.into(), value: Some(now.to_string()) }).await);
            }
        }
        if before.services != now.services {
            self.command(Command::ServiceOptions(Box::new(now))).await;
        }
        if former.ftp_ports != self.settings.ftp_ports {
            self.command(Command::FtpPorts(FtpPorts(self.settings.ftp_ports.clone()))).await;
        }
        if former.watch != self.settings.watch {
            self.watch_files();
        }
        told
    }
}
