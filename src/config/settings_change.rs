//! What differs between two versions of `xlvs.toml`, and what it takes to follow it.

use super::settings::Settings;

/// What it takes to follow a change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// It is followed at a reload.
    Nothing,
    /// The daemon has to be started anew.
    Restart,
}

/// Every key with what its change takes.
pub const KEYS: [(&str, Needs); 24] = [
    ("lvs_cf", Needs::Nothing),
    ("marks", Needs::Nothing),
    ("marks6", Needs::Nothing),
    ("watch", Needs::Nothing),
    ("control_socket", Needs::Restart),
    ("ports", Needs::Restart),
    ("queues", Needs::Restart),
    ("frame_size", Needs::Restart),
    ("frames", Needs::Restart),
    ("xdp_mode", Needs::Restart),
    ("zero_copy", Needs::Restart),
    ("huge_pages", Needs::Restart),
    ("busy_poll", Needs::Restart),
    ("shortcut", Needs::Restart),
    ("shortcut_flows", Needs::Restart),
    ("shortcut_after", Needs::Restart),
    ("ftp_ports", Needs::Nothing),
    ("slow_start", Needs::Restart),
    ("notify", Needs::Restart),
    ("log_level", Needs::Nothing),
    ("service", Needs::Nothing),
    ("pulse", Needs::Restart),
    ("beyond_ipvs", Needs::Nothing),
    ("sysctl", Needs::Nothing),
];

/// A key that has another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; of a table also the key in it, behind a dot.
    pub key: String,
    /// As in the file.
    pub before: String,
    /// As in the file.
    pub now: String,
    /// What it takes.
    pub needs: Needs,
}

/// What it takes to follow a change of a key of the top level; a restart if nobody knows it.
pub fn needs(key: &str) -> Needs {
    KEYS.iter().find(|(name, _)| *name == key).map_or(Needs::Restart, |(_, needs)| *needs)
}

/// All keys that differ, in alphabetical order.
pub fn changes(before: &Settings, now: &Settings) -> Vec<Change> {
    let (before, now) = (table(before), table(now));
    let keys = before.keys().chain(now.keys()).collect::<std::collections::BTreeSet<_>>();
    let mut changes = Vec::new();
    for key in keys {
        match (before.get(key), now.get(key)) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(now))) => {
                let inner = before.keys().chain(now.keys()).collect::<std::collections::BTreeSet<_>>();
                let inner = inner.into_iter().filter(|inner| before.get(*inner) != now.get(*inner));
                changes.extend(inner.map(|inner| {
                    let name = format!("{key}.{inner}");
                    change(name, before.get(inner), now.get(inner), needs(key))
                }));
            }
            (before, now) if before != now => changes.push(change(key.clone(), before, now, needs(key))),
            _ => {}
        }
    }
    changes
}

/// The IPVS settings that differ, with their new values.
pub fn sysctls(before: &Settings, now: &Settings) -> Vec<(String, String)> {
    let (before, now) = (before.sysctls(), now.sysctls());
    let names = crate::ipvs::sysctl::names().into_iter();
    let changed = names.filter_map(|name| {
        let value = now.get(name).ok()?;
        (before.get(name).ok()? != value).then(|| (name.to_owned(), value.replace('\t', " ")))
    });
    changed.collect()
}

fn change(key: String, before: Option<&toml::Value>, now: Option<&toml::Value>, needs: Needs) -> Change {
    let text = |value: Option<&toml::Value>| value.map_or("absent".to_owned(), ToString::to_string);
    Change { key, before: text(before), now: text(now), needs }
}

/// With the IPVS settings that the file does not name.
fn table(settings: &Settings) -> toml::Table {
    let mut settings = settings.clone();
    for (name, value) in Settings::default().sysctl {
        settings.sysctl.entry(name).or_insert(value);
    }
    // Settings were read from such a table.
    toml::Table::try_from(settings).unwrap_or_default()
}

impl Settings {
    /// Takes over from `running` what cannot change while the daemon runs.
    pub fn keep_what_takes_a_restart(&mut self, running: &Settings) {
        let Settings {
            control_socket,
            ports,
            queues,
            frame_size,
            frames,
            xdp_mode,
            zero_copy,
            huge_pages,
            busy_poll,
            shortcut,
            shortcut_flows,
            shortcut_after,
            slow_start,
            notify,
            pulse,
            ..
        } = running.clone();
        *self = Settings {
            control_socket,
            ports,
            queues,
            frame_size,
            frames,
            xdp_mode,
            zero_copy,
            huge_pages,
            busy_poll,
            shortcut,
            shortcut_flows,
            shortcut_after,
            slow_start,
            notify,
            pulse,
            ..self.clone()
        };
    }
}
