//! The grammar of `lvs.cf` (reference piranha.md, section 1). All errors of a file are collected; the original stops
//! at the first one. CRLF line ends are accepted, which the original truncates.

use super::complaint::{Complaints, Fault, ParseError, Reason};
use super::health::HealthKeys;
use super::health_keys::{HEALTH, MARKER};
use super::keys;
use super::lex::{self, MOST_WORDS, Word};
use super::lvs::{LvsConfig, RealServer, VirtualServer};
use super::names::Names;
use super::recover::{self, Level, is_key_of};
use super::value::{self, Read, Value};

/// `virtual` or `failover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Index into [`LvsConfig::virtuals`].
    Virtual,
    /// Index into [`LvsConfig::failovers`].
    Failover,
}

/// The block that a statement stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Block {
    /// The top level.
    Top,
    /// A `virtual` or `failover` block by its index.
    Virtual(Kind, usize),
    /// A `server` block by both indices.
    Server(Kind, usize, usize),
}

/// One line that was understood: a key with its value, or the header of a block under the block's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// 1-based line.
    pub line: usize,
    /// The block it stands in; for a header, the block it opens.
    pub block: Block,
    /// Key.
    pub key: String,
    /// Words of the value without quotes, joined by blanks.
    pub value: String,
}

/// A file as far as it was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The values; complete only without errors.
    pub config: LvsConfig,
    /// Where each came from, in file order.
    pub statements: Vec<Statement>,
    /// Lines with words after a closing brace, which the original ignores.
    pub after_brace: Vec<usize>,
    /// Comments that look as if xlvs should read them.
    pub near_markers: Vec<usize>,
    /// Whether its lines end with CR LF.
    pub crlf: bool,
    /// Blocks that the end of the file closed.
    pub unclosed: usize,
    /// All errors in file order.
    pub errors: Complaints<ParseError>,
}

/// Reads a whole file. A byte order mark at its start is skipped.
pub fn parse(text: &str, names: Names<'_>) -> Parsed {
    let mut parser = Parser { names, parsed: Parsed::default(), place: Place::default() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.is_empty() {
        let fault = Fault::absent(Reason::Empty, "at least primary and one virtual block");
        parser.parsed.errors.push(ParseError { line: 0, text: String::new(), fault });
    }
    parser.parsed.crlf = text.contains("\r\n");
    for (index, line) in text.lines().enumerate() {
        if let Err(fault) = parser.line(index + 1, line) {
            let text = line.trim().to_owned();
            parser.parsed.errors.push(ParseError { line: index + 1, text, fault });
        }
    }
    parser.finish()
}

/// Reads a whole file, or says everything that is wrong with it.
pub fn load(text: &str, names: Names<'_>) -> Result<LvsConfig, Complaints<ParseError>> {
    let parsed = parse(text, names);
    if parsed.errors.is_empty() { Ok(parsed.config) } else { Err(parsed.errors) }
}

#[derive(Default)]
struct Place {
    open: Option<(Kind, usize)>,
    server: Option<usize>,
    /// Depth inside of a block that is not understood.
    skipped: usize,
    /// The line before was a header that lacked its brace, so a brace may follow alone.
    brace_due: bool,
    /// The open block had been closed already, so a key of the top level closes it again.
    reopened: bool,
}

struct Parser<'a> {
    names: Names<'a>,
    parsed: Parsed,
    place: Place,
}

impl Parser<'_> {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Fault> {
        if let Some(rest) = line.trim_start_matches(lex::BLANKS).strip_prefix(MARKER) {
            return self.health_line(number, rest);
        }
        if nearly_marked(line) {
            self.parsed.near_markers.push(number);
        }
        let words = match lex::words(line) {
            Ok(words) => words,
            Err(mismatch) => return Err(self.mismatch(number, line, mismatch.0)),
        };
        let Some(first) = words.first() else { return Ok(()) };
        let brace_due = std::mem::take(&mut self.place.brace_due);
        if self.place.skipped > 0 {
            self.skip(&words);
            return Ok(());
        }
        match first.text {
            "{" if brace_due && words.len() == 1 => Ok(()),
            "}" => self.close(number, &words),
            "virtual" => self.open_virtual(number, Kind::Virtual, &words),
            "failover" => self.open_virtual(number, Kind::Failover, &words),
            "server" => self.open_server(number, &words),
            _ if words.len() > MOST_WORDS => {
                Err(value::unexpected(words[MOST_WORDS].text, "at most 99 words on a line"))
            }
            _ => self.key(number, &words),
        }
    }

    /// A header with an odd quote still opens its block.
    fn mismatch(&mut self, number: usize, line: &str, rest: &str) -> Fault {
        let plain: Vec<Word> = line.split_whitespace().map(|text| Word { text, quote: None }).collect();
        let header = matches!(plain.first(), Some(Word { text: "virtual" | "failover" | "server", .. }));
        if header && self.place.skipped == 0 {
            let opened = match plain[0].text {
                "virtual" => self.open_virtual(number, Kind::Virtual, &plain),
                "failover" => self.open_virtual(number, Kind::Failover, &plain),
                _ => self.open_server(number, &plain),
            };
            drop(opened);
        }
        Fault::word(Reason::Quotation, rest, "a closing quote, at the end of its word")
    }

    fn skip(&mut self, words: &[Word<'_>]) {
        if words[0].text == "}" {
            self.place.skipped -= 1;
        } else if words.last().is_some_and(|last| last.text == "{") {
            self.place.skipped += 1;
        }
    }

    fn close(&mut self, number: usize, words: &[Word<'_>]) -> Result<(), Fault> {
        if words.len() > 1 {
            self.parsed.after_brace.push(number);
        }
        if self.place.server.take().is_some() || self.place.open.take().is_some() {
            return Ok(());
        }
        Err(recover::unknown("}", Level::Top))
    }

    fn open_virtual(&mut self, number: usize, kind: Kind, words: &[Word<'_>]) -> Result<(), Fault> {
        let word = words[0].text;
        let nested = self.place.open.is_some() && !self.place.reopened;
        let level = self.level();
        let fault = header_fault(words);
        let blocks = self.blocks(kind);
        let index = blocks.len();
        blocks.push(VirtualServer::named(header_name(words)));
        self.record(number, Block::Virtual(kind, index), words);
        let closed = words.len() > 3 && words.last().is_some_and(|last| last.text == "}");
        self.place = Place {
            open: (!closed).then_some((kind, index)),
            brace_due: fault.as_ref().is_some_and(|fault| fault.reason == Reason::MissingArguments),
            ..Place::default()
        };
        match nested {
            true => Err(recover::unknown(word, level)),
            false => fault.map_or(Ok(()), Err),
        }
    }

    fn open_server(&mut self, number: usize, words: &[Word<'_>]) -> Result<(), Fault> {
        let level = self.level();
        if level == Level::Top && !self.reopen() {
            self.place.skipped = 1;
            return Err(recover::unknown("server", level));
        }
        let Some((kind, index)) = self.place.open else { return Ok(()) };
        let fault = header_fault(words);
        let block = &mut self.blocks(kind)[index];
        let server = block.servers.len();
        let port = block.port;
        let name = header_name(words).to_owned();
        block.servers.push(RealServer {
            name,
            address: None,
            active: false,
            weight: 1,
            port,
            health: HealthKeys::default(),
        });
        self.record(number, Block::Server(kind, index, server), words);
        let closed = words.len() > 3 && words.last().is_some_and(|last| last.text == "}");
        self.place.server = (!closed).then_some(server);
        self.place.brace_due = fault.as_ref().is_some_and(|fault| fault.reason == Reason::MissingArguments);
        match level {
            Level::Virtual => fault.map_or(Ok(()), Err),
            _ => Err(recover::unknown("server", level)),
        }
    }

    fn key(&mut self, number: usize, words: &[Word<'_>]) -> Result<(), Fault> {
        let key = words[0].text;
        if self.place.reopened && self.place.server.is_none() && !is_key_of(key, Level::Virtual) {
            self.place = Place::default();
        }
        let value = Value { words: words.get(2..).unwrap_or_default(), names: self.names };
        let level = self.level();
        let known = match words.get(1) {
            _ if !is_key_of(key, level) => false,
            Some(equal) if equal.text == "=" && equal.quote.is_none() => true,
            second => return Err(equal_expected(key, second)),
        };
        let block = self.block();
        let assigned = known && self.assign(key, block, value)?;
        if assigned {
            self.record(number, block, words);
            return Ok(());
        }
        if words.last().is_some_and(|last| last.text == "{") {
            self.place.skipped = 1;
        } else if level == Level::Top && is_key_of(key, Level::Virtual) {
            self.reopen();
        }
        Err(recover::unknown(key, level))
    }

    /// What Piranha takes for a comment: no block begins or ends by it.
    fn health_line(&mut self, number: usize, rest: &str) -> Result<(), Fault> {
        if self.place.skipped > 0 {
            return Ok(());
        }
        let expected = "a closing quote, at the end of its word";
        let words =
            lex::words(rest).map_err(|mismatch| Fault::word(Reason::Quotation, mismatch.0, expected))?;
        let Some(first) = words.first() else {
            return Err(Fault::absent(Reason::MissingArguments, format!("{MARKER} KEY = VALUE")));
        };
        let key = first.text;
        if !keys::has(&HEALTH, key) {
            return Err(recover::unknown_beyond(key));
        }
        if !words.get(1).is_some_and(|equal| equal.text == "=" && equal.quote.is_none()) {
            return Err(equal_expected(key, words.get(1)));
        }
        let value = Value { words: words.get(2..).unwrap_or_default(), names: self.names };
        let block = self.block();
        self.health(block).assign(key, value)?;
        self.record(number, block, &words);
        Ok(())
    }

    fn health(&mut self, block: Block) -> &mut HealthKeys {
        match block {
            Block::Top => &mut self.parsed.config.health,
            Block::Virtual(kind, index) => &mut self.blocks(kind)[index].health,
            Block::Server(kind, index, server) => &mut self.blocks(kind)[index].servers[server].health,
        }
    }

    fn assign(&mut self, key: &str, block: Block, value: Value<'_>) -> Read<bool> {
        match block {
            Block::Top => assign_global(&mut self.parsed.config, key, value),
            Block::Virtual(kind, index) => assign_virtual(&mut self.blocks(kind)[index], key, value),
            Block::Server(kind, index, server) => {
                assign_server(&mut self.blocks(kind)[index].servers[server], key, value)
            }
        }
    }

    /// Goes back into the last block, which a brace too many seems to have closed.
    fn reopen(&mut self) -> bool {
        let last = self.parsed.statements.iter().rev().find_map(|statement| match statement.block {
            Block::Top => None,
            Block::Virtual(kind, index) | Block::Server(kind, index, _) => Some((kind, index)),
        });
        self.place.open = last;
        self.place.reopened = last.is_some();
        last.is_some()
    }

    fn record(&mut self, line: usize, block: Block, words: &[Word<'_>]) {
        let value = words.iter().skip(1).filter(|word| word.text != "=" && word.text != "{");
        let value = value.map(|word| word.text).collect::<Vec<_>>().join(" ");
        self.parsed.statements.push(Statement { line, block, key: words[0].text.to_owned(), value });
    }

    fn blocks(&mut self, kind: Kind) -> &mut Vec<VirtualServer> {
        match kind {
            Kind::Virtual => &mut self.parsed.config.virtuals,
            Kind::Failover => &mut self.parsed.config.failovers,
        }
    }

    fn block(&self) -> Block {
        match (self.place.open, self.place.server) {
            (Some((kind, index)), Some(server)) => Block::Server(kind, index, server),
            (Some((kind, index)), None) => Block::Virtual(kind, index),
            (None, _) => Block::Top,
        }
    }

    fn level(&self) -> Level {
        match self.block() {
            Block::Top => Level::Top,
            Block::Virtual(..) => Level::Virtual,
            Block::Server(..) => Level::Server,
        }
    }

    /// Without a private address of the primary both are forced to the public ones, which is no second path.
    fn finish(mut self) -> Parsed {
        if self.parsed.config.primary_private.is_none() {
            self.parsed.config.backup_private = None;
        }
        let place = &self.place;
        self.parsed.unclosed = place.skipped
            + usize::from(place.server.is_some())
            + usize::from(place.open.is_some() && !place.reopened);
        self.parsed
    }
}

/// `# xlvs: KEY = VALUE`, `#XLVS:` and the like.
fn nearly_marked(line: &str) -> bool {
    let Some(comment) = line.trim_start_matches(lex::BLANKS).strip_prefix('#') else { return false };
    let is_between = |letter: char| lex::BLANKS.contains(&letter) || letter == '#' || letter == ':';
    let mut words = comment.split(is_between).filter(|word| !word.is_empty());
    let marked = words.next().is_some_and(|word| word.eq_ignore_ascii_case("xlvs"));
    marked && words.next().is_some_and(|word| keys::has(&HEALTH, word.split('=').next().unwrap_or(word)))
}

fn equal_expected(key: &str, second: Option<&Word<'_>>) -> Fault {
    let expected = format!("an equal sign between blanks: {key} = VALUE");
    match second {
        Some(second) => Fault::word(Reason::EqualExpected, second.text, expected),
        None => Fault::absent(Reason::EqualExpected, expected),
    }
}

fn header_name<'a>(words: &[Word<'a>]) -> &'a str {
    words.get(1).map(|name| name.text).filter(|name| *name != "{").unwrap_or_default()
}

fn header_fault(words: &[Word<'_>]) -> Option<Fault> {
    let word = words[0].text;
    let expected = format!("{word} NAME {{ with blanks before the brace, and nothing after it");
    match words {
        [_, _, brace] if brace.text == "{" => None,
        [_, _, brace, extra, ..] if brace.text == "{" => Some(value::unexpected(extra.text, &expected)),
        [_, _, other, ..] => Some(value::unexpected(other.text, &expected)),
        _ => Some(Fault::absent(Reason::MissingArguments, expected)),
    }
}

/// `Ok(false)`: not a key of the top level.
fn assign_global(config: &mut LvsConfig, key: &str, value: Value<'_>) -> Read<bool> {
    match key {
        "serial_no" => config.serial_no = value.long()?,
        "primary" => config.primary = value.director()?,
        "primary_private" => config.primary_private = value.director()?,
        "primary_shared" => config.primary_shared = Some(value.string()?),
        "backup" => config.backup = value.optional_host()?,
        "backup_private" => config.backup_private = value.optional_host()?,
        "backup_shared" => config.backup_shared = Some(value.string()?),
        "backup_active" => config.backup_active = value.boolean()?,
        "heartbeat" => config.heartbeat = value.boolean()?,
        "heartbeat_port" => config.heartbeat_port = value.port()?,
        "keepalive" => config.keepalive = value.integer()?,
        "deadtime" => config.deadtime = value.integer()?,
        "network" => config.network = value.choice()?,
        "nat_router" => config.nat_router = value.device_address()?,
        "nat_nmask" => config.nat_nmask = value.mask()?,
        "service" => config.service = value.choice()?,
        "rsh_command" => config.rsh_command = value.string()?,
        "debug_level" => config.debug_level = value.string()?,
        "reservation_conflict_action" => config.reservation_conflict_action = Some(value.choice()?),
        "monitor_links" => config.monitor_links = value.integer()?,
        "syncdaemon" => config.syncdaemon = value.boolean()?,
        "syncd_iface" => config.syncd_iface = value.string()?,
        "syncd_id" => config.syncd_id = value.integer()?.to_le_bytes()[0],
        "tcp_timeout" => config.tcp_timeout = value.integer()?,
        "tcpfin_timeout" => config.tcpfin_timeout = value.integer()?,
        "udp_timeout" => config.udp_timeout = value.integer()?,
        "active_cmd" => config.active_cmd = Some(value.string()?),
        "inactive_cmd" => config.inactive_cmd = Some(value.string()?),
        "hard_shutdown" => config.hard_shutdown = value.boolean()?,
        "ipvsadm" => config.ipvsadm = value.string()?,
        "sync" => config.sync = value.boolean()?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn assign_virtual(block: &mut VirtualServer, key: &str, value: Value<'_>) -> Read<bool> {
    match key {
        "active" => block.active = value.boolean()?,
        "address" => block.address = value.device_address()?,
        "vip_nmask" => block.vip_nmask = value.mask()?,
        "sorry_server" => block.sorry_server = value.address()?,
        "fwmark" => block.fwmark = value.mark()?,
        "protocol" => block.protocol = value.choice()?,
        "port" => block.port = value.port()?,
        "scheduler" => block.scheduler = value.choice()?,
        "persistent" => block.persistent = value.integer()?,
        "pmask" => block.pmask = value.client_mask()?,
        "send" => block.send = value.text()?,
        "expect" => block.expect = value.text()?,
        "use_regex" => block.use_regex = value.boolean()?,
        "send_program" => block.send_program = value.text()?,
        "timeout" => block.timeout = value.integer()?,
        "reentry" => block.reentry = value.integer()?,
        "quiesce_server" => block.quiesce_server = value.boolean()?,
        "load_monitor" => block.load_monitor = Some(value.string()?),
        "client_monitor" => block.client_monitor = value.string()?,
        "start_cmd" => block.start_cmd = value.text()?,
        "stop_cmd" => block.stop_cmd = value.text()?,
        "master" => drop(value.host()?),
        "dirs" => value.list()?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn assign_server(server: &mut RealServer, key: &str, value: Value<'_>) -> Read<bool> {
    match key {
        "address" => server.address = value.optional_host()?,
        "active" => server.active = value.boolean()?,
        "weight" => server.weight = value.integer()?,
        "port" => server.port = value.port_number()?,
        _ => return Ok(false),
    }
    Ok(true)
}
