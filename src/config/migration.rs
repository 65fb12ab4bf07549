//! What Piranha got wrong, or left undone, and xlvs does otherwise: said once for each place of a file that meets it (reference
//! piranha.md, section 8).

use std::collections::HashMap;

use super::check::Warning;
use super::check_virtual::unknown_escape;
use super::lvs::{Protocol, VirtualServer};
use super::parse::{Block, Kind, Parsed};

/// Bytes of an answer that Piranha's checker looked at, and of a program's command line that it had room for.
const ROOM: usize = 254;

/// All notes by line, those about the whole file last. Meaningful only for a file without errors.
pub fn notes(parsed: &Parsed) -> Vec<Warning> {
    let mut notes = Notes { parsed, notes: Vec::new() };
    for (index, block) in parsed.config.virtuals.iter().enumerate() {
        let mut one = One { notes: &mut notes, block, place: Block::Virtual(Kind::Virtual, index) };
        one.program();
        one.texts();
        one.times();
        one.place();
        one.weights(index);
    }
    notes.marks();
    notes.whole();
    let mut notes = notes.notes;
    notes.sort_by_key(|note| note.line.unwrap_or(usize::MAX));
    notes
}

struct Notes<'a> {
    parsed: &'a Parsed,
    notes: Vec<Warning>,
}

impl Notes<'_> {
    fn line(&self, block: Block, key: &str) -> Option<usize> {
        let mut said = self.parsed.statements.iter().rev().filter(|said| said.block == block);
        said.find(|said| said.key == key).map(|said| said.line)
    }

    fn note(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.notes.push(Warning { line, text: text.into() });
    }

    /// Piranha told virtual servers apart by address, protocol and port alone.
    fn marks(&mut self) {
        let mut seen = HashMap::new();
        for (index, block) in self.parsed.config.virtuals.iter().enumerate().filter(|(_, block)| block.active)
        {
            let Some(address) = &block.address else { continue };
            let identity = (address.address, block.protocol, block.port);
            if let Some(first) = seen.insert(identity, (block.fwmark, &block.name))
                && first.0 != block.fwmark
            {
                let line = self.line(Block::Virtual(Kind::Virtual, index), "virtual");
                let text = format!(
                    "virtual {} differs from {} by its fwmark alone: Piranha mixed the two up at a reload, xlvs does not",
                    block.name, first.1
                );
                self.note(line, text);
            }
        }
    }

    /// What every file meets.
    fn whole(&mut self) {
        let config = &self.parsed.config;
        if self.parsed.crlf {
            self.note(
                Some(1),
                "the lines end with CR LF: Piranha ignored all but the first one, xlvs reads them",
            );
        }
        if !config.virtuals.iter().any(|block| block.active) {
            return;
        }
        if !config.backup_active {
            let text = format!(
                "a single director, too, listens for deadtime, {} s, before it is active, as Piranha's did; xlvs run \
                 --forceactive starts at once",
                config.deadtime
            );
            self.note(self.line(Block::Top, "deadtime"), text);
        }
        self.note(
            None,
            "a reload of Piranha's ignored changes of weight, scheduler, persistence and checks, brought no new address, and \
             deleted the virtual server whose real server was removed; xlvs follows every key, and connections of what is \
             removed go on for drain_removed seconds (xlvs.toml)",
        );
        self.note(
            None,
            "in Piranha the end of one health check ended all virtual servers; in xlvs it concerns its server alone",
        );
        self.note(
            None,
            "Piranha put addresses up beside building the table; in xlvs the table is there first, and goes last",
        );
    }
}

struct One<'n, 'a> {
    notes: &'n mut Notes<'a>,
    block: &'a VirtualServer,
    place: Block,
}

impl One<'_, '_> {
    fn note(&mut self, key: &str, text: impl Into<String>) {
        let header = || self.notes.line(self.place, "virtual");
        let line = self.notes.line(self.place, key).or_else(header);
        self.notes.note(line, text);
    }

    fn program(&mut self) {
        let Some(program) = &self.block.send_program else { return };
        if self.block.expect.is_some() {
            self.note(
                "send_program",
                "Piranha took a program that failed, or was not there, for a good answer; in xlvs another exit status than 0 is a \
                 failed check",
            );
        } else {
            self.note(
                "send_program",
                "without expect no server ever came up in Piranha; in xlvs the exit status of the program alone counts",
            );
        }
        let text = format!(
            "a program that hung kept Piranha's checker for ever; in xlvs it is killed after {} s, with all that it started, and \
             the check has failed",
            self.block.timeout.max(1)
        );
        self.note("send_program", text);
        if program.len() > ROOM {
            self.note(
                "send_program",
                "a command of more than 254 letters overflowed Piranha's checker; xlvs takes it",
            );
        }
    }

    fn texts(&mut self) {
        let VirtualServer { send, expect, send_program, use_regex, protocol, port, .. } = self.block;
        for (key, text) in [("send", send), ("expect", expect)] {
            if let Some(escape) = text.as_deref().and_then(unknown_escape) {
                let text = format!(
                    "{escape} sent Piranha's checker into an endless loop; xlvs takes it as it is written"
                );
                self.note(key, text);
            }
        }
        if send_program.is_some() {
            return;
        }
        let expected = expect.as_deref().unwrap_or_default();
        match (protocol, send, expect) {
            (Protocol::Udp, Some(_), None) => self.note(
                "send",
                "UDP with send and without expect crashed Piranha's checker, and that ended everything; in xlvs any answer is good",
            ),
            (Protocol::Tcp, None, None) if *port == 80 => self.note(
                "port",
                "with nothing to check by, port 80 is taken for a web server, as in Piranha: GET / is sent and HTTP expected",
            ),
            (Protocol::Tcp, _, Some(_)) if *use_regex || (expected.len() > 1 && expected != "*") => self.note(
                "expect",
                "an answer in several segments failed in Piranha; xlvs reads on until it can tell, or the time is up",
            ),
            _ => {}
        }
        if expected.len() > ROOM {
            self.note("expect", "of expect Piranha compared the first 254 bytes; xlvs compares all");
        }
    }

    fn times(&mut self) {
        if self.block.timeout <= 0 {
            self.note(
                "timeout",
                "timeout = 0 crashed Piranha's checker, and that ended everything; in xlvs it is 1",
            );
        }
        if self.block.reentry == 0 {
            self.note("reentry", "reentry = 0 means 180 seconds, as in Piranha");
        }
    }

    fn place(&mut self) {
        let VirtualServer { address, vip_nmask, fwmark, .. } = self.block;
        let Some(address) = address else { return };
        if !address.is_alias() {
            let text = format!(
                "Piranha replaced the address of {0}, and took {0} down at its end; xlvs adds the address beside it and takes \
                 nothing but that back",
                address.device
            );
            self.note("address", text);
        }
        if vip_nmask.is_none() {
            self.note(
                "address",
                "without vip_nmask Piranha took the netmask of the address class; xlvs takes that of the device's subnet that \
                 the address is in, else 255.255.255.255",
            );
        }
        if *fwmark != 0 {
            self.note(
                "fwmark",
                "all packets with the mark are the service, as in Piranha, whatever their protocol, address and port; what the \
                 block says of these is for the virtual address and the checks",
            );
        }
    }

    fn weights(&mut self, index: usize) {
        for (number, real) in self.block.servers.iter().enumerate().filter(|(_, real)| real.weight == 0) {
            let line = self.notes.line(Block::Server(Kind::Virtual, index, number), "weight");
            let text = format!(
                "weight = 0: Piranha gave server {} weight 1; in xlvs it gets no new connections",
                real.name
            );
            self.notes.note(line, text);
        }
    }
}
