//! `xlvs.toml`: what `lvs.cf` cannot say. Every key has a default, and the file may be missing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::beyond::{self, BeyondSettings, ServiceSettings};
use crate::config::pair::PulseSettings;
use crate::ipvs::beyond::Beyond;
use crate::ipvs::helper::FtpPorts;
use crate::ipvs::sysctl::{self, SysctlError, Sysctls};

/// As many as the kernel's helper takes.
const FTP_PORTS_MAX: usize = 8;
const SHORTCUT_FLOWS_MAX: u32 = 1 << 24;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The `lvs.cf` to follow.
    pub lvs_cf: PathBuf,
    /// The saved iptables rules to take marks from.
    pub marks: PathBuf,
    /// The saved ip6tables rules to take marks of IPv6 packets from.
    pub marks6: PathBuf,
    /// Whether a change of `lvs.cf` or of the saved rules is followed by itself.
    pub watch: bool,
    /// Control socket, created with mode 0600.
    pub control_socket: PathBuf,
    /// Interfaces to attach to; empty: work out from `lvs.cf` and the routes.
    pub ports: Vec<String>,
    /// Queues of each interface to serve; 0: as many as the interfaces share.
    pub queues: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames of each queue, a power of two.
    pub frames: u32,
    /// How the program is attached.
    pub xdp_mode: XdpMode,
    /// Whether frames are shared with the driver.
    pub zero_copy: ZeroCopy,
    /// Whether packet memory is on huge pages.
    pub huge_pages: HugePagesSetting,
    /// Whether workers poll their NICs instead of waiting for interrupts.
    pub busy_poll: bool,
    /// Whether the XDP program forwards plain packets of established connections by itself.
    pub shortcut: Shortcut,
    /// How many connections may have that at once.
    pub shortcut_flows: u32,
    /// Packets of its client after which a connection gets it.
    pub shortcut_after: u32,
    /// Virtual ports whose connections the FTP helper reads, at most 8.
    pub ftp_ports: Vec<u16>,
    /// Whether a server that enters gets its weight by and by.
    pub slow_start: bool,
    /// Program to run when a server changes, with arguments; empty for none.
    pub notify: String,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Services that have something of their own.
    pub service: Vec<ServiceSettings>,
    /// The failover pair.
    pub pulse: PulseSettings,
    /// What goes beyond IPVS.
    pub beyond_ipvs: BeyondSettings,
    /// IPVS settings to start with, by their names without `net.ipv4.vs.`.
    pub sysctl: BTreeMap<String, SysctlValue>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lvs_cf: "/etc/sysconfig/ha/lvs.cf".into(),
            marks: "/etc/sysconfig/iptables".into(),
            marks6: "/etc/sysconfig/ip6tables".into(),
            watch: false,
            control_socket: "/run/xlvs/control.sock".into(),
            ports: Vec::new(),
            queues: 0,
            frame_size: 2048,
            frames: 8192,
            xdp_mode: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            huge_pages: HugePagesSetting::Auto,
            busy_poll: false,
            shortcut: Shortcut::Word(Auto::Auto),
            shortcut_flows: 131_072,
            shortcut_after: 6,
            ftp_ports: FtpPorts::default().0,
            slow_start: true,
            notify: String::new(),
            log_level: LogLevel::Info,
            service: Vec::new(),
            pulse: PulseSettings::default(),
            beyond_ipvs: BeyondSettings::default(),
            sysctl: default_sysctls(),
        }
    }
}

/// The value of a setting under `sysctl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SysctlValue {
    /// One number.
    Number(i64),
    /// Anything else, as sysctl(8) would show it.
    Text(String),
}

impl fmt::Display for SysctlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SysctlValue::Number(number) => number.fmt(f),
            SysctlValue::Text(text) => text.fmt(f),
        }
    }
}

fn default_sysctls() -> BTreeMap<String, SysctlValue> {
    let defaults = Sysctls::default();
    let value = |name: &str| {
        let text = defaults.get(name).unwrap_or_default().replace('\t', " ");
        text.parse().map_or(SysctlValue::Text(text), SysctlValue::Number)
    };
    sysctl::names().into_iter().map(|name| (name.to_owned(), value(name))).collect()
}

/// `xdp_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if it can, else in the kernel's generic hook.
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's generic hook.
    Skb,
}

/// `zero_copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// If the driver can.
    Auto,
    /// Or fail.
    On,
    /// Never.
    Off,
}

/// `huge_pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePagesSetting {
    /// If enough are free.
    Auto,
    /// Or fail.
    On,
    /// Never.
    Off,
}

/// `shortcut`: a switch, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shortcut {
    /// On or off.
    Switch(bool),
    /// On where frames are not shared with the driver.
    Word(Auto),
}

/// The word of settings that decide by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// `"auto"`.
    Auto,
}

/// `log_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And changes of state.
    Info,
    /// And what a developer asks for.
    Debug,
    /// And every step.
    Trace,
}

impl LogLevel {
    /// The word in the file, which is also tracing's name of the level.
    pub fn word(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// What is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}{}: error: {reason}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct SettingsError {
    /// The file's name as given.
    pub file: String,
    /// 1-based line, if known.
    pub line: Option<usize>,
    /// The key and what it needs.
    pub reason: String,
}

/// Reads the text of an `xlvs.toml`; `file` is its name for messages.
pub fn parse(file: &str, text: &str) -> Result<Settings, SettingsError> {
    let refuse = |line, reason| SettingsError { file: file.to_owned(), line, reason };
    let settings: Settings = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        refuse(line, described(error.message(), line, text))
    })?;
    match settings.fault() {
        None => Ok(settings),
        Some((key, reason)) => Err(refuse(line_of_key(text, key), format!("{key}: {reason}"))),
    }
}

impl Settings {
    /// What goes beyond IPVS, in the words of the engine.
    pub fn beyond(&self) -> Beyond {
        beyond::beyond(&self.beyond_ipvs, &self.service)
    }

    /// The IPVS settings to start with.
    pub fn sysctls(&self) -> Sysctls {
        let mut sysctls = Sysctls::default();
        for (name, value) in &self.sysctl {
            // What cannot be used was refused when the file was read.
            let _ = sysctls.set(name, &value.to_string());
        }
        sysctls
    }

    /// The first IPVS setting that cannot be used, and why.
    fn sysctl_fault(&self) -> Option<(&str, String)> {
        let mut sysctls = Sysctls::default();
        self.sysctl.iter().find_map(|(name, value)| match sysctls.set(name, &value.to_string()) {
            Ok(()) => None,
            Err(SysctlError::Unknown(_)) => {
                let names = sysctl::names().join(", ");
                Some((name.as_str(), format!("there is no such IPVS setting; they are {names}")))
            }
            Err(SysctlError::Refused { wanted, .. }) => Some((name.as_str(), format!("expected {wanted}"))),
        })
    }

    /// The first key whose value cannot be used, and why.
    fn fault(&self) -> Option<(&str, String)> {
        let paths = [
            ("lvs_cf", &self.lvs_cf),
            ("marks", &self.marks),
            ("marks6", &self.marks6),
            ("control_socket", &self.control_socket),
        ];
        if let Some((key, path)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return Some((key, format!("'{}' is not an absolute path", path.display())));
        }
        if let Some(port) = self.ports.iter().find(|port| !interface_name(port)) {
            return Some(("ports", format!("'{port}' is not the name of an interface")));
        }
        if self.ports.len() > 255 {
            return Some(("ports", "at most 255 interfaces can be attached".to_owned()));
        }
        if (1..self.ports.len()).any(|index| self.ports[..index].contains(&self.ports[index])) {
            return Some(("ports", "an interface is named twice".to_owned()));
        }
        if self.queues > 1024 {
            return Some(("queues", "at most 1024 queues".to_owned()));
        }
        if ![2048, 4096].contains(&self.frame_size) {
            return Some(("frame_size", format!("{} is neither 2048 nor 4096", self.frame_size)));
        }
        if !self.frames.is_power_of_two() || !(512..=1 << 20).contains(&self.frames) {
            return Some(("frames", format!("{} is not a power of two from 512 to 1048576", self.frames)));
        }
        if !(1..=SHORTCUT_FLOWS_MAX).contains(&self.shortcut_flows) {
            return Some((
                "shortcut_flows",
                format!("{} is not from 1 to {SHORTCUT_FLOWS_MAX}", self.shortcut_flows),
            ));
        }
        if self.ftp_ports.len() > FTP_PORTS_MAX || self.ftp_ports.contains(&0) {
            return Some(("ftp_ports", format!("at most {FTP_PORTS_MAX} ports, none of them 0")));
        }
        if !self.notify.is_empty() && !self.notify.starts_with('/') {
            return Some(("notify", format!("'{}' does not begin with an absolute path", self.notify)));
        }
        self.sysctl_fault().or_else(|| beyond::fault(&self.service)).or_else(|| self.pulse.fault())
    }
}

/// What the kernel takes as the name of an interface.
fn interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.contains(|letter: char| letter.is_whitespace() || letter == '/' || letter == ':')
}

/// What a key takes, for whoever has never seen a type of Rust.
fn wanted(key: &str) -> Option<&'static str> {
    Some(match key {
        "lvs_cf" | "marks" | "marks6" | "control_socket" | "key_file" => {
            "an absolute path in quotes such as \"/etc/xlvs/file\""
        }
        "ports" => "a list of names such as [\"eth0\", \"eth1\"]",
        "queues" => "a number from 0 to 1024",
        "frame_size" => "2048 or 4096",
        "frames" => "a power of two from 512 to 1048576",
        "xdp_mode" => "one of \"auto\", \"native\", \"skb\"",
        "zero_copy" | "huge_pages" => "one of \"auto\", \"on\", \"off\"",
        "match" => {
            "a service such as \"tcp 192.0.2.1:80\", \"udp [2001:db8::1]:53\", \"fwmark 80\" or \"fwmark6 80\""
        }
        "tcp" | "tcp_fin" | "udp" | "drain_deadline" | "drain_removed" | "fence_timeout" => {
            "a number of seconds"
        }
        "fence" => "a program's absolute path and its arguments in quotes",
        "fence_required"
        | "tcp_reset_no_destination"
        | "drop_untranslated"
        | "reset_on_expiry"
        | "drain_quiesced"
        | "slow_start"
        | "watch"
        | "busy_poll" => "true or false",
        "shortcut" => "true, false or \"auto\"",
        "shortcut_flows" => "a number from 1 to 16777216",
        "shortcut_after" => "a number of packets",
        "conn_max" => "a number of connections",
        "source_rate" | "source_burst" => "a number of new connections",
        "notify" => "a program by its absolute path, with its arguments, in quotes",
        "ftp_ports" => "a list of at most 8 port numbers such as [21, 2121]",
        "log_level" => "one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        _ => return None,
    })
}

/// The parser speaks of types and of its grammar; what the key takes is put in its place.
fn described(message: &str, line: Option<usize>, text: &str) -> String {
    let message = message.trim().replace('\n', "; ");
    if let Some((key, keys)) =
        message.strip_prefix("unknown field ").and_then(|unknown| unknown.split_once(", expected one of "))
    {
        return format!("there is no key {key}; the keys are {keys}");
    }
    if let Some(key) = message.strip_prefix("missing field ").map(|key| key.trim_matches('`')) {
        return format!("{key} is missing: expected {}", wanted(key).unwrap_or("a value"));
    }
    let key = line.and_then(|line| key_at(text, line));
    match key.and_then(|key| wanted(key).map(|wanted| (key, wanted))) {
        Some((key, _)) if message == "duplicate key" => format!("{key}: is given twice; delete one of them"),
        Some((key, wanted)) => format!("{key}: expected {wanted}"),
        None if message.starts_with("key with no value") => "expected KEY = VALUE".to_owned(),
        // No other value may be of more than one type.
        None if message.contains("untagged enum") => {
            format!("{}: expected a number, or text in quotes", key.unwrap_or("sysctl"))
        }
        None => message,
    }
}

/// The key that a line belongs to; a list may go over several lines.
fn key_at(text: &str, line: usize) -> Option<&str> {
    let mut upwards = text.lines().take(line).collect::<Vec<_>>().into_iter().rev().peekable();
    let named = match upwards.peek()?.contains('=') {
        true => upwards.next()?,
        false => upwards
            .find(|line| line.contains(['=', ']']))
            .filter(|line| line.contains('[') && !line.contains(']'))?,
    };
    let (key, _) = named.split_once(['=', '.'])?;
    Some(key.trim().trim_matches('"'))
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let names_key =
        |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim().trim_matches('"') == key);
    text.lines().position(names_key).map(|index| index + 1)
}
