//! Warnings about `virtual` blocks and their servers. `failover` blocks are not run, so they are not looked at.

use std::collections::HashMap;

use super::check::{Checker, contiguous};
use super::escape::decode;
use super::health::CheckKind;
use super::lvs::{Network, RealServer, VirtualServer, port_number};
use super::parse::{Block, Kind};
use super::posix;

/// Adds the warnings of all virtual blocks.
pub(super) fn blocks(checker: &mut Checker<'_>) {
    let parsed = checker.parsed;
    for (index, server) in parsed.config.virtuals.iter().enumerate() {
        let mut one = One { checker, server, block: Block::Virtual(Kind::Virtual, index) };
        one.activity();
        one.address();
        one.identity();
        one.persistence();
        one.health_texts();
        one.health_program();
        one.health_times();
        one.health_answers();
        one.health_words();
        one.load();
        one.stand_ins();
        one.leftovers();
        for (number, real) in server.servers.iter().enumerate() {
            one.real_server(Block::Server(Kind::Virtual, index, number), real);
        }
        one.real_duplicates();
    }
    duplicates(checker);
    devices(checker);
}

/// One block.
pub(super) struct One<'c, 'a> {
    pub(super) checker: &'c mut Checker<'a>,
    pub(super) server: &'a VirtualServer,
    pub(super) block: Block,
}

impl One<'_, '_> {
    fn line(&self, key: &str) -> Option<usize> {
        self.checker.said(self.block, key).map(|said| said.line)
    }

    /// Warns at the line of a key, else at the head of the block.
    pub(super) fn warn(&mut self, key: &str, text: impl Into<String>) {
        let line = self.line(key).or_else(|| self.checker.header(self.block));
        self.checker.warn(line, text);
    }

    fn activity(&mut self) {
        let name = &self.server.name;
        if self.line("active").is_none() {
            self.warn("active", format!("virtual {name} has no active line, which means 0; add active = 1"));
        }
        if self.server.active && !self.server.servers.iter().any(|real| real.active) {
            self.warn(
                "active",
                format!("virtual {name} has no active server; put active = 1 in a server block"),
            );
        }
    }

    fn address(&mut self) {
        let name = &self.server.name;
        match &self.server.address {
            Some(address) if !address.address.is_unspecified() => {
                if !address.is_alias() {
                    let text = format!(
                        "address on {0} without an alias: Piranha replaced the address of {0}; xlvs adds the \
                         address beside it; write {0}:1",
                        address.device
                    );
                    self.warn("address", text);
                }
                if self.server.vip_nmask.is_none() {
                    self.warn(
                        "address",
                        "vip_nmask is missing: Piranha took the netmask of the address class (A /8, B /16, C /24); \
                         add vip_nmask = 255.255.255.255",
                    );
                }
            }
            _ => {
                self.warn("address", format!("virtual {name} has no address; add address = ADDRESS DEVICE:1"))
            }
        }
        for (key, mask) in [("vip_nmask", self.server.vip_nmask), ("pmask", self.server.pmask)] {
            if let Some(mask) = mask.filter(|mask| !contiguous(*mask)) {
                self.warn(key, format!("{mask} is not a netmask: its bits are not contiguous"));
            }
        }
    }

    fn identity(&mut self) {
        let server = self.server;
        if port_number(server.port).is_none() {
            self.warn("port", format!("port {} is not from 0 to 65535; the service is not run", server.port));
        }
        if server.port == 0 && server.persistent <= 0 && server.fwmark == 0 {
            self.warn("port", "port 0 means any port, which needs persistence; add persistent = SECONDS");
        }
        if server.fwmark != 0 && server.persistent <= 0 {
            self.warn(
                "fwmark",
                "fwmark without persistence: every packet with the mark goes to the server's own port, whatever \
                 port the client asked for; add persistent = SECONDS if the mark covers several ports",
            );
        }
    }

    fn persistence(&mut self) {
        let server = self.server;
        if server.persistent < 0 {
            self.warn("persistent", "persistent is negative, which is no persistence; use 0 or seconds");
        }
        let Some(said) = self.checker.said(self.block, "pmask") else { return };
        let known = super::lex::ipv4(&said.value);
        if known.is_none() {
            self.warn("pmask", format!("pmask '{}' is not a netmask and is ignored; correct it", said.value));
        } else if server.persistent <= 0 && server.pmask.is_some() {
            self.warn("pmask", "pmask has no effect without persistent; add persistent = SECONDS");
        }
    }

    fn health_texts(&mut self) {
        let server = self.server;
        for (key, text) in
            [("send", &server.send), ("expect", &server.expect), ("send_program", &server.send_program)]
        {
            let Some(text) = text else { continue };
            if text.starts_with('\'') {
                self.warn(
                    key,
                    format!("the single quotes are part of {key}, so it will not match; use double quotes"),
                );
            }
            if let Some(escape) = unknown_escape(text).filter(|_| key != "send_program") {
                let text = format!(
                    "{escape} is not an escape of {key} (\\n \\r \\t \\\\ \\' \\\" are) and is kept as it is; \
                     double the backslash if it is meant literally"
                );
                self.warn(key, text);
            }
        }
        let pattern = server.expect.as_deref().filter(|_| server.use_regex && server.send_program.is_none());
        let pattern = pattern.map(decode);
        if let Some(reason) = pattern.as_deref().and_then(|pattern| posix::checked(pattern).err()) {
            let text = format!(
                "expect is not a regular expression that can be used ({reason}), and the service is not run; \
                 correct it, or use use_regex = 0"
            );
            self.warn("expect", text);
        }
        if let Some(letter) = pattern.as_deref().and_then(posix::misleading_escape) {
            let text = format!(
                "\\{letter} is the character {letter} in an extended regular expression, as it was in Piranha; \
                 write a class such as [[:digit:]] or [[:alpha:]] if one is meant"
            );
            self.warn("expect", text);
        }
        if server.use_regex && server.expect.is_none() {
            self.warn("use_regex", "use_regex has no effect without expect");
        }
        if server.use_regex && server.send_program.is_some() {
            self.warn("use_regex", "use_regex has no effect on the output of send_program");
        }
    }

    fn health_program(&mut self) {
        let server = self.server;
        let Some(program) = &server.send_program else {
            let keys = server.health.within(&self.checker.parsed.config.health);
            let is_silent = server.send.as_deref().is_none_or(str::is_empty);
            if keys.kind(server) == CheckKind::Udp && is_silent {
                self.warn(
                    "protocol",
                    "a UDP check needs send and expect, or send_program; without send the virtual server is not run",
                );
            }
            return;
        };
        if server.send.is_some() {
            self.warn("send", "send is ignored because send_program is given; delete one of them");
        }
        if super::escape::strip_quotes(program).trim().is_empty() {
            self.warn("send_program", "send_program is empty, and the service is not run; delete the line");
        }
        let glued = |word: &str| word.len() > 2 && (word.contains("%h") || word.contains("%p"));
        if let Some(word) = program.split_whitespace().find(|word| glued(word.trim_matches('\''))) {
            let text =
                format!("'{word}' is passed as it is: %h and %p are replaced only as words of their own");
            self.warn("send_program", text);
        }
    }

    fn health_times(&mut self) {
        let server = self.server;
        if server.timeout <= 0 {
            self.warn("timeout", "timeout must be at least 1 second; 1 is used (Piranha crashed)");
        }
        if server.reentry == 0 {
            self.warn(
                "reentry",
                "reentry = 0 is taken as 180 seconds; use 1 for re-entry after one good check",
            );
        }
        if server.reentry < 0 {
            self.warn("reentry", "reentry is negative: a server is used again after one good check");
        }
    }

    fn stand_ins(&mut self) {
        let server = self.server;
        let is_sorry = |real: &RealServer| real.active && real.address == server.sorry_server;
        if server.sorry_server.is_some()
            && server.servers.iter().any(|real| is_sorry(real) && real.port == server.port)
        {
            let text = "sorry_server is one of the servers, and is not used; name another machine";
            self.warn("sorry_server", text);
        }
        let monitor = server.load_monitor.as_deref().filter(|monitor| *monitor != "none");
        if let Some(monitor) = monitor
            && server.servers.iter().any(|real| real.active && (0..2).contains(&real.weight))
        {
            let text = format!(
                "load_monitor = {monitor} changes nothing for a server with weight 1 or 0; give it more, such as 100"
            );
            self.warn("load_monitor", text);
        }
    }

    fn leftovers(&mut self) {
        for key in ["master", "dirs"] {
            self.checker.warn_if_said(self.block, key, format!("{key} has no effect; delete the line"));
        }
        for key in ["start_cmd", "stop_cmd"] {
            let text = format!("{key} has no effect in a virtual block; delete the line");
            self.checker.warn_if_said(self.block, key, text);
        }
        let text = "client_monitor has no effect: xlvs checks the servers itself; use send_program";
        self.checker.warn_if_said(self.block, "client_monitor", text);
    }

    fn real_server(&mut self, block: Block, real: &RealServer) {
        let header = self.checker.header(block);
        let line = |key: &str| self.checker.said(block, key).map(|said| said.line);
        let (active, weight, port) = (line("active"), line("weight"), line("port"));
        let name = &real.name;
        let mut warnings = Vec::new();
        if active.is_none() {
            warnings
                .push((header, format!("server {name} has no active line, which means 0; add active = 1")));
        }
        if real.address.is_none() {
            warnings.push((header, format!("server {name} has no address; add address = ADDRESS")));
        }
        if real.weight == 0 {
            let text = "weight = 0: the server gets no new connections (Piranha used 1); \
                        use active = 0 to take it out";
            warnings.push((weight, text.to_owned()));
        }
        if !(0..=65535).contains(&real.weight) {
            warnings.push((
                weight,
                format!("weight {} is not from 0 to 65535; the server is not used", real.weight),
            ));
        }
        if port_number(real.port).is_none() && port.is_some() {
            warnings
                .push((port, format!("port {} is not from 0 to 65535; the server is not used", real.port)));
        }
        if port.is_none() && header < self.line("port") && real.port != self.server.port {
            let text = format!(
                "server {name} stands before the port line of its virtual block and gets port {}; \
                 move the port line up or give the server a port",
                real.port
            );
            warnings.push((header, text));
        }
        if port.is_some()
            && real.port != self.server.port
            && self.checker.parsed.config.network != Network::Nat
        {
            warnings.push((port, "a server's port has an effect only with network = nat".to_owned()));
        }
        for (line, text) in warnings {
            self.checker.warn(line, text);
        }
    }

    fn real_duplicates(&mut self) {
        let mut seen = HashMap::new();
        let Block::Virtual(kind, index) = self.block else { return };
        for (number, real) in self.server.servers.iter().enumerate().filter(|(_, real)| real.active) {
            let Some(address) = real.address else { continue };
            if let Some(first) = seen.insert((address, real.port), &real.name) {
                let text = format!(
                    "server {} has the address and port of server {first}; only one of them is used",
                    real.name
                );
                let line = self.checker.header(Block::Server(kind, index, number));
                self.checker.warn(line, text);
            }
        }
    }
}

/// The first backslash sequence that is none of the original's escapes. A text of one character is not converted.
pub(super) fn unknown_escape(text: &str) -> Option<String> {
    text.chars().nth(1)?;
    let mut rest = text.chars();
    while let Some(first) = rest.next() {
        if first != '\\' {
            continue;
        }
        match rest.next() {
            Some('n' | 'r' | 't' | '\\' | '\'' | '"') => {}
            Some(other) => return Some(format!("\\{other}")),
            None => return Some("a backslash at the end".to_owned()),
        }
    }
    None
}

fn duplicates(checker: &mut Checker<'_>) {
    let mut seen = HashMap::new();
    let virtuals = &checker.parsed.config.virtuals;
    for (index, server) in virtuals.iter().enumerate().filter(|(_, server)| server.active) {
        let identity = match (server.fwmark, &server.address) {
            (0, Some(address)) => {
                format!("{} {}:{}", server.protocol.word(), address.address, server.port)
            }
            (0, None) => continue,
            (mark, _) => format!("fwmark {mark}"),
        };
        let line = checker.header(Block::Virtual(Kind::Virtual, index));
        if let Some(first) = seen.get(&identity) {
            let text = format!(
                "virtual {} is {identity}, as virtual {first} is; only the first one is run",
                server.name
            );
            checker.warn(line, text);
        } else {
            seen.insert(identity, &server.name);
        }
    }
}

fn devices(checker: &mut Checker<'_>) {
    let mut seen = HashMap::new();
    let virtuals = &checker.parsed.config.virtuals;
    for (index, server) in virtuals.iter().enumerate().filter(|(_, server)| server.active) {
        let Some(address) = &server.address else { continue };
        let carried = (&address.device, server.vip_nmask);
        let first = *seen.entry(address.address).or_insert(carried);
        if first != carried {
            let line = checker.said(Block::Virtual(Kind::Virtual, index), "address").map(|said| said.line);
            let text = format!(
                "{} is already on {} for an earlier virtual server; this device and netmask are not used",
                address.address, first.0
            );
            checker.warn(line, text);
        }
    }
}
