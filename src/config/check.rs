//! What the original ignored, got wrong or left to the reader in a file that has no errors
//! (reference piranha.md, sections 1.3 to 4 and 8).

use std::collections::HashMap;

use super::lvs::{LvsConfig, Network, Service, port_number};
use super::parse::{Block, Kind, Parsed, Statement};
use super::{check_health, check_virtual, check_words};

/// Something to know about a file that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// 1-based line, if it is about one.
    pub line: Option<usize>,
    /// What happens and what to do.
    pub text: String,
}

/// All warnings by line, those about the whole file last. Meaningful only for a file without errors.
pub fn check(parsed: &Parsed) -> Vec<Warning> {
    let mut checker = Checker::new(parsed);
    checker.layout();
    checker.repetitions();
    checker.services();
    checker.pair();
    checker.addresses();
    checker.without_effect();
    checker.times_and_commands();
    check_words::words(&mut checker);
    check_virtual::blocks(&mut checker);
    check_health::blocks(&mut checker);
    let mut warnings = checker.warnings;
    warnings.sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
    warnings
}

/// Collects warnings; knows where each key was said.
pub(super) struct Checker<'a> {
    pub(super) parsed: &'a Parsed,
    last: HashMap<(Block, &'a str), &'a Statement>,
    warnings: Vec<Warning>,
}

impl<'a> Checker<'a> {
    fn new(parsed: &'a Parsed) -> Self {
        let last = parsed.statements.iter().map(|said| ((said.block, said.key.as_str()), said)).collect();
        Checker { parsed, last, warnings: Vec::new() }
    }

    /// The statement that counts for a key of a block.
    pub(super) fn said(&self, block: Block, key: &str) -> Option<&'a Statement> {
        self.last.get(&(block, key)).copied()
    }

    /// Line of the header of a block.
    pub(super) fn header(&self, block: Block) -> Option<usize> {
        let word = match block {
            Block::Top => return None,
            Block::Virtual(Kind::Virtual, _) => "virtual",
            Block::Virtual(Kind::Failover, _) => "failover",
            Block::Server(..) => "server",
        };
        self.said(block, word).map(|said| said.line)
    }

    pub(super) fn warn(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.warnings.push(Warning { line, text: text.into() });
    }

    /// Warns at the line of a key, if the key is there.
    pub(super) fn warn_if_said(&mut self, block: Block, key: &str, text: impl Into<String>) {
        if let Some(said) = self.said(block, key) {
            self.warn(Some(said.line), text);
        }
    }

    fn config(&self) -> &'a LvsConfig {
        &self.parsed.config
    }

    fn top(&self, key: &str) -> Option<usize> {
        self.said(Block::Top, key).map(|said| said.line)
    }

    fn layout(&mut self) {
        for line in &self.parsed.after_brace {
            self.warn(
                Some(*line),
                "words after a closing brace are ignored; move them to a line of their own",
            );
        }
        if self.parsed.unclosed > 0 {
            let count = self.parsed.unclosed;
            self.warn(
                None,
                format!("{count} closing brace(s) missing; the end of the file closes the blocks"),
            );
        }
    }

    fn repetitions(&mut self) {
        let mut seen: HashMap<(Block, &str), &Statement> = HashMap::new();
        for said in &self.parsed.statements {
            if let Some(earlier) = seen.insert((said.block, &said.key), said) {
                let text = format!(
                    "{} is given again at line {}, and the last one counts; delete this one",
                    said.key, said.line
                );
                self.warn(Some(earlier.line), text);
            }
        }
    }

    fn services(&mut self) {
        let config = self.config();
        match config.service {
            Service::Fos => self.warn(
                self.top("service"),
                "service = fos is not run by xlvs: no failover block is started; use service = lvs",
            ),
            Service::Lvs if !config.failovers.is_empty() => self.warn(
                self.header(Block::Virtual(Kind::Failover, 0)),
                "failover blocks are not run, only virtual blocks are; delete them",
            ),
            Service::Lvs => {}
        }
        if !config.virtuals.iter().any(|block| block.active) {
            self.warn(
                None,
                "no virtual server is active, so nothing is balanced; put active = 1 in a virtual block",
            );
        }
    }

    fn pair(&mut self) {
        let config = self.config();
        if config.backup_active && config.backup.is_none() {
            self.warn(
                self.top("backup_active"),
                "backup_active = 1 without a backup address is treated as 0; add backup = ADDRESS",
            );
        }
        if config.backup.is_some() && self.top("backup_active").is_none() {
            self.warn(
                self.top("backup"),
                "backup is named but backup_active is missing, which means 0: there is no failover; \
                 add backup_active = 1",
            );
        }
        if config.backup_active && !config.heartbeat && self.top("heartbeat").is_some() {
            self.warn(
                self.top("heartbeat"),
                "heartbeat = 0 has no effect: heartbeats run while backup_active = 1; set backup_active = 0 \
                 to stop them",
            );
        }
        if config.monitor_links != 0 && !config.backup_active {
            self.warn(self.top("monitor_links"), "monitor_links has no effect while backup_active = 0");
        }
        if config.keepalive <= 0 {
            self.warn(self.top("keepalive"), "keepalive must be at least 1 second; 1 is used");
        }
        if config.deadtime <= config.keepalive {
            self.warn(
                self.top("deadtime").or(self.top("keepalive")),
                "deadtime is not longer than keepalive, so one late heartbeat is a takeover; use three times \
                 keepalive",
            );
        }
        self.private_path();
    }

    fn private_path(&mut self) {
        let config = self.config();
        if config.primary_private.is_none() && self.top("backup_private").is_some() {
            self.warn(
                self.top("backup_private"),
                "backup_private is ignored without primary_private; add primary_private",
            );
        }
        if config.primary_private.is_some() && config.backup_private.is_none() && config.backup_active {
            self.warn(
                self.top("primary_private"),
                "primary_private without backup_private gives no second heartbeat path; add backup_private",
            );
        }
    }

    fn addresses(&mut self) {
        let config = self.config();
        if config.primary.is_none() {
            self.warn(
                None,
                "primary is missing, so the director cannot know its role; add primary = ADDRESS of this machine",
            );
        }
        if port_number(config.heartbeat_port).is_none_or(|port| port == 0) {
            self.warn(self.top("heartbeat_port"), "heartbeat_port must be from 1 to 65535; 539 is used");
        }
        if let Some(mask) = config.nat_nmask.filter(|mask| !contiguous(*mask)) {
            self.warn(self.top("nat_nmask"), format!("{mask} is not a netmask: its bits are not contiguous"));
        }
        let Some(router) = &config.nat_router else { return };
        if config.network == Network::Nat && config.nat_nmask.is_none() {
            self.warn(
                self.top("nat_router"),
                "nat_nmask is missing: Piranha took the netmask of the address class (A /8, B /16, C /24); add \
                 nat_nmask = 255.255.255.0, or whatever it is",
            );
        }
        if config.network != Network::Nat {
            self.warn(self.top("nat_router"), "nat_router has no effect unless network = nat");
        }
        if !router.is_alias() {
            let text = format!(
                "nat_router on {0} without an alias: Piranha replaced the address of {0}; xlvs adds the address \
                 beside it; write {0}:0",
                router.device
            );
            self.warn(self.top("nat_router"), text);
        }
    }

    fn without_effect(&mut self) {
        let config = self.config();
        if self.top("sync").is_some() {
            self.warn(self.top("sync"), "sync has no effect; delete the line");
        }
        for key in ["primary_shared", "backup_shared", "reservation_conflict_action"] {
            self.warn_if_said(
                Block::Top,
                key,
                format!("{key} is about service = fos only, which xlvs does not run"),
            );
        }
        self.warn_if_said(
            Block::Top,
            "ipvsadm",
            "ipvsadm has no effect: xlvs keeps the tables itself; delete it",
        );
        if config.debug_level != "NONE" {
            self.warn(
                self.top("debug_level"),
                "debug_level has no effect; log_level of xlvs.toml says how much is logged",
            );
        }
        if config.syncdaemon {
            self.warn(
                self.top("syncdaemon"),
                "syncdaemon = 1: this version of xlvs tells no other director of connections",
            );
        }
        if !config.hard_shutdown {
            self.warn(
                self.top("hard_shutdown"),
                "hard_shutdown = 0 had no effect in Piranha; in xlvs a failed health check never stops the rest",
            );
        }
        let identity =
            self.said(Block::Top, "syncd_id").filter(|said| said.value != config.syncd_id.to_string());
        if let Some(said) =
            identity.filter(|said| super::lex::integer(&said.value) != Some(config.syncd_id.into()))
        {
            self.warn(Some(said.line), format!("only the low 8 bits of syncd_id count: {}", config.syncd_id));
        }
    }

    fn times_and_commands(&mut self) {
        let config = self.config();
        for (key, seconds) in [
            ("tcp_timeout", config.tcp_timeout),
            ("tcpfin_timeout", config.tcpfin_timeout),
            ("udp_timeout", config.udp_timeout),
        ] {
            if seconds < 0 {
                self.warn(
                    self.top(key),
                    format!("{key} is negative and left alone; use 0 or a number of seconds"),
                );
            }
        }
        for (key, command) in [("active_cmd", &config.active_cmd), ("inactive_cmd", &config.inactive_cmd)] {
            if command.as_ref().is_some_and(|command| !command.starts_with('/')) {
                self.warn(self.top(key), format!("{key} is not run: it must begin with an absolute path"));
            }
            if let Some(letter) = command.as_deref().and_then(check_words::for_a_shell) {
                self.warn(self.top(key), check_words::without_shell(key, letter));
            }
        }
    }
}

/// Whether a mask is ones followed by zeros.
pub(super) fn contiguous(mask: std::net::Ipv4Addr) -> bool {
    let bits = u32::from(mask);
    bits.leading_ones() + bits.trailing_zeros().min(32 - bits.leading_ones()) == 32
}
