//! Warnings about answers that cannot come, or that are read otherwise than they seem to be (reference piranha.md, section 2).

use super::check_virtual::One;
use super::check_words::{for_a_shell, without_shell};
use super::health::CheckKind;

/// Ports whose servers wait to be spoken to.
const SILENT: [i32; 2] = [80, 443];
/// What a request of HTTP begins with.
const REQUESTS: [&str; 4] = ["GET ", "HEAD ", "POST ", "OPTIONS "];

impl One<'_, '_> {
    /// Whether the answer can be what is expected.
    pub(super) fn health_answers(&mut self) {
        let server = self.server;
        let keys = server.health.within(&self.checker.parsed.config.health);
        if server.send_program.is_some() || keys.kind(server) != CheckKind::Tcp {
            return;
        }
        let Some(expect) = server.expect.as_deref() else { return };
        let send = server.send.as_deref().unwrap_or_default();
        if send.is_empty() && SILENT.contains(&server.port) {
            self.warn(
                "expect",
                "expect without send waits for a server that speaks first, which a web server does not; add send",
            );
        }
        let is_prefix = !server.use_regex && expect != "*" && !expect.is_empty();
        let asks_web = REQUESTS.iter().any(|request| send.starts_with(request));
        if is_prefix && asks_web && !expect.starts_with("HTTP") && !"HTTP".starts_with(expect) {
            self.warn(
                "expect",
                "the answer has to begin with expect, and that of a web server begins with HTTP; use use_regex = 1 to \
                 look for it anywhere",
            );
        }
    }

    /// What is passed on as it is.
    pub(super) fn health_words(&mut self) {
        let server = self.server;
        if let Some(letter) = server.send_program.as_deref().and_then(for_a_shell) {
            self.warn("send_program", without_shell("send_program", letter));
        }
        let counts = server.health.within(&self.checker.parsed.config.health).check_rise.is_none();
        if counts && server.reentry > 0 && server.timeout > 0 && server.reentry < server.timeout {
            self.warn(
                "reentry",
                "reentry is shorter than timeout: a server is used again after one good check",
            );
        }
    }

    /// A load that is not asked for as it seems to be.
    pub(super) fn load(&mut self) {
        let server = self.server;
        let Some(monitor) = server.load_monitor.as_deref().filter(|monitor| *monitor != "none") else {
            return;
        };
        let command = self.checker.parsed.config.rsh_command.clone();
        if monitor == "uptime" && !["rsh", "ssh"].contains(&command.as_str()) {
            self.warn(
                "load_monitor",
                format!("load_monitor = uptime takes rsh_command = rsh or ssh; {command} is run without uptime behind it"),
            );
        }
    }
}
