//! The packet's path, readable as a short list of questions (ipvs.md section 2).

mod admission;
mod announce;
mod backup;
mod direct;
mod expiry;
mod farewell;
mod file;
mod fragments;
mod ftp;
mod icmp;
mod limit;
mod local;
mod open;
mod originate;
mod plain;
mod shorten;
mod transmit;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use sdd::{Guard, Shared};

use crate::ipvs::connection::Connection;
use crate::ipvs::outbox::Outbox;
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::{Direction, State, ipsec, sctp, tcp};
use crate::ipvs::snapshot::{Snapshot, Tables};
use crate::ipvs::table::{Found, HashedKey};
use crate::ipvs::timer::{Fate, Life, Timed, Wheel};
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::addr::Family;
use crate::net::flow::FlowKey;
use crate::net::frame::Frame;
use crate::net::icmp::is_flow_error;
use crate::net::parse::{Fragment, Packet, ParseError, SctpChunk, Transport, parse_frame_into};
use crate::net::rewrite;
use crate::net::time::Instant;

use announce::{Announcer, Occasion};
use expiry::expire;
pub use farewell::is_believed;
use fragments::{FragmentIds, Origin};
use limit::RateLimit;
use shorten::is_lendable;

/// Frames that are looked at together.
const BURST: usize = 64;

/// Decides about packets: what an I/O loop calls.
pub trait Engine: Send {
    /// Decides about a burst of frames: `verdicts[i]` is about `frames[i]`, which has been rewritten accordingly.
    /// `verdicts` is cleared first. After [`Verdict::HandOver`] the IP packet starts at byte 14 and fills the frame.
    fn process(&mut self, now: Instant, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>);

    /// Fires the timers that are due. To be called at least every 100 ms, also when there is no traffic.
    fn advance(&mut self, now: Instant);

    /// Whether more frames wait than can be worked off soon: then new connections are refused, so that those that there are
    /// go on. Holds until it is said otherwise.
    fn set_pressed(&mut self, _pressed: bool) {}

    /// What is to be sent besides the frames that were given to the engine, and what became of those that it held
    /// ([`Verdict::Hold`]). To be emptied after each call of the others.
    fn outbox(&mut self) -> &mut Outbox;
}

impl Engine for Box<dyn Engine> {
    fn process(&mut self, now: Instant, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>) {
        (**self).process(now, frames, verdicts);
    }

    fn advance(&mut self, now: Instant) {
        (**self).advance(now);
    }

    fn set_pressed(&mut self, pressed: bool) {
        (**self).set_pressed(pressed);
    }

    fn outbox(&mut self) -> &mut Outbox {
        (**self).outbox()
    }
}

impl Timed for Shared<Connection> {
    fn life(&self) -> &Life {
        &self.life
    }
}

impl Timed for Arc<PersistenceTemplate> {
    fn life(&self) -> &Life {
        &self.life
    }
}

/// One worker's engine: the shared tables, its own timer wheel, its number for the counters.
#[derive(Debug)]
pub struct Datapath {
    tables: Arc<Tables>,
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    worker: usize,
    pressed: bool,
    wheel: Wheel<Shared<Connection>>,
    template_wheel: Wheel<Arc<PersistenceTemplate>>,
    icmp_limit: RateLimit,
    /// When it is worth while again to look for room in the connection table.
    next_search: Instant,
    next_id: u16,
    fragment_ids: FragmentIds,
    /// What a burst needs, so that it need not be allocated each time.
    seen: Box<[Seen]>,
    outbox: Outbox,
    announcer: Announcer,
}

/// What stays the same during a burst.
struct Burst<'a> {
    now: Instant,
    snapshot: &'a Snapshot,
    /// No connection that was found under it goes while it lasts.
    guard: &'a Guard,
}

/// A frame that has been looked at.
#[derive(Debug, Default)]
struct Seen {
    /// If it needs no closer look.
    verdict: Option<Verdict>,
    packet: Packet,
    /// The packet's flow, if it has one.
    flow: Option<HashedKey>,
}

/// A packet on its way through: the frame it is in, where its headers are, and the burst it came with.
struct Passage<'a, 'f> {
    burst: &'a Burst<'a>,
    frame: &'a mut Frame<'f>,
    packet: Packet,
    /// How the packet came, if it has been put together from fragments.
    origin: Option<Origin<'a>>,
}

impl Engine for Datapath {
    fn process(&mut self, now: Instant, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>) {
        let snapshot = Arc::clone(self.snapshot.load());
        let guard = Guard::new();
        let burst = Burst { now, snapshot: &snapshot, guard: &guard };
        verdicts.clear();
        for frames in frames.chunks_mut(BURST) {
            self.process_burst(&burst, frames, verdicts);
        }
    }

    fn advance(&mut self, now: Instant) {
        self.lapse_fragments(now);
        self.take_in_messages(now);
        self.file_installed();
        self.say_farewells();
        // One for all: those that are made under it cost next to nothing.
        let _guard = Guard::new();
        let Datapath { wheel, template_wheel, tables, snapshot, outbox, announcer, .. } = self;
        let snapshot = snapshot.load();
        let occasion = Occasion { tables, snapshot, now };
        for tick in wheel.due(now) {
            wheel.turn(tick, now, |connection| expire(&occasion, outbox, announcer, connection));
            // Of what ends in a tick templates are the last to be asked, so that they can end with their connections (golden
            // `persist-equal-timeouts`).
            template_wheel.turn(tick, now, |template| announcer.expire_template(&occasion, template));
        }
        announcer.advance(&occasion);
    }

    fn set_pressed(&mut self, pressed: bool) {
        self.pressed = pressed;
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

impl Datapath {
    /// The engine of worker number `worker` (from 0) of those that `tables` were made for.
    pub fn new(tables: Arc<Tables>, worker: usize, now: Instant) -> Self {
        let snapshot = Cache::new(Arc::clone(&tables.snapshot));
        let icmp_limit = RateLimit::new(now);
        Datapath {
            tables,
            snapshot,
            worker,
            pressed: false,
            wheel: Wheel::new(now),
            template_wheel: Wheel::new(now),
            icmp_limit,
            next_search: now,
            next_id: 0x8000,
            fragment_ids: FragmentIds::default(),
            seen: (0..BURST).map(|_| Seen::default()).collect(),
            outbox: Outbox::default(),
            announcer: Announcer::default(),
        }
    }

    /// First all frames are read, and their connections are on their way from memory, then each is decided about.
    fn process_burst(&mut self, burst: &Burst<'_>, frames: &mut [Frame<'_>], verdicts: &mut Vec<Verdict>) {
        let mut seen = std::mem::take(&mut self.seen);
        for (frame, seen) in frames.iter().zip(seen.iter_mut()) {
            seen.verdict = examine(burst, frame, &mut seen.packet);
            seen.flow = match seen.verdict {
                None => self.flow_of(frame, &seen.packet),
                Some(_) => None,
            };
        }
        let flows = seen[..frames.len()].iter().filter_map(|seen| seen.flow);
        std::hint::black_box(self.tables.connections.fetch(flows, burst.guard));
        for (frame, seen) in frames.iter_mut().zip(seen.iter()) {
            verdicts.push(seen.verdict.unwrap_or_else(|| self.decide(burst, frame, seen)));
        }
        self.seen = seen;
    }

    #[inline(always)]
    fn flow_of(&self, frame: &Frame<'_>, packet: &Packet) -> Option<HashedKey> {
        ipsec::words_of(frame.bytes(), packet).map(|words| self.tables.connections.hashed(words))
    }

    fn decide(&mut self, burst: &Burst<'_>, frame: &mut Frame<'_>, seen: &Seen) -> Verdict {
        if let Some(verdict) = self.plain_packet(burst, frame, seen) {
            return verdict;
        }
        let Seen { packet, flow, .. } = *seen;
        if packet.fragment != Fragment::Whole {
            return self.fragment(burst, frame, packet);
        }
        rewrite::complete_checksum(frame.bytes_mut(), &packet);
        self.packet(&mut Passage { burst, frame, packet, origin: None }, flow)
    }

    /// A packet that was not looked at before: it has been put together.
    fn whole_packet(&mut self, passage: &mut Passage<'_, '_>) -> Verdict {
        let flow = self.flow_of(passage.frame, &passage.packet);
        self.packet(passage, flow)
    }

    fn packet(&mut self, passage: &mut Passage<'_, '_>, flow: Option<HashedKey>) -> Verdict {
        match flow {
            _ if passage.frame.is_outgoing() => self.outgoing_packet(passage),
            Some(flow) => self.flow_packet(passage, &flow),
            None if is_flow_error(&passage.packet) => self.icmp_error(passage),
            None => Verdict::Pass,
        }
    }

    fn flow_packet(&mut self, passage: &mut Passage<'_, '_>, flow: &HashedKey) -> Verdict {
        let burst = passage.burst;
        match self.find(burst, flow).or_else(|| self.find_awaiting(burst, flow)) {
            Some((connection, Direction::Out)) => self.forward_reply(passage, connection),
            _ if burst.snapshot.is_passive() => Verdict::Pass,
            Some((connection, Direction::In)) => match self.fitness(passage, &connection) {
                Fitness::Good => {
                    let connection = self.settle(burst, flow, connection);
                    self.forward_request(passage, connection)
                }
                Fitness::Useless => Verdict::Drop(DropReason::ServerDeleted),
                Fitness::Over => self.reopen(passage, connection),
            },
            None if self.pressed => Verdict::Drop(DropReason::Overload),
            None => self.open(passage),
        }
    }

    /// A new connection in place of one that is over. That one ends only afterwards, so that schedulers still count it
    /// (golden `reuse-counts-former`), or hidden with its last child (golden `ftp-control-closed`). In a full table its place is
    /// the new one's.
    fn reopen(&mut self, passage: &mut Passage<'_, '_>, former: Found<'_>) -> Verdict {
        if self.is_full(passage.burst) && !former.has_children() {
            self.tables.connections.remove(&former);
        }
        let verdict = self.open(passage);
        if !former.has_children() {
            self.tables.connections.remove(&former);
        }
        verdict
    }

    /// The live connection of a flow; one whose time is up goes first. What a client sends from port 0 never finds its
    /// connection, its answers do (golden `source-port-0`).
    #[inline(always)]
    fn find<'b>(&mut self, burst: &Burst<'b>, flow: &HashedKey) -> Option<(Found<'b>, Direction)> {
        loop {
            let (connection, direction) = self.tables.connections.find(flow, burst.guard)?;
            if direction == Direction::In && flow.source_port() == 0 {
                return None;
            }
            if self.is_alive(burst, &connection) {
                return Some((connection, direction));
            }
        }
    }

    /// The same by a key that no packet of the burst has.
    fn find_key<'b>(&mut self, burst: &Burst<'b>, flow: &FlowKey) -> Option<(Found<'b>, Direction)> {
        let flow = self.tables.connections.hashed(flow.into());
        self.find(burst, &flow)
    }

    /// Whether a connection is alive; it goes if its time is up.
    fn is_alive(&mut self, burst: &Burst<'_>, connection: &Connection) -> bool {
        let occasion = Occasion { tables: &self.tables, snapshot: burst.snapshot, now: burst.now };
        !connection.life.is_over(burst.now)
            || expire(&occasion, &mut self.outbox, &mut self.announcer, connection) == Fate::Again
    }

    fn file(&mut self, connection: Found<'_>) {
        if connection.life.needs_filing()
            && let Some(connection) = connection.share()
        {
            self.wheel.file(connection);
        }
    }

    /// Whether a client's packet may go on with its connection (ipvs.md section 2.2, steps 4 and 5).
    fn fitness(&self, passage: &Passage<'_, '_>, connection: &Connection) -> Fitness {
        let sysctls = &passage.burst.snapshot.sysctls;
        let opening = match passage.packet.transport {
            Transport::Tcp { flags, .. } => flags.syn,
            Transport::Sctp { chunk, .. } => chunk.is_some_and(|chunk| chunk.kind == SctpChunk::INIT),
            _ => false,
        };
        let quiesced = sysctls.expire_nodest_conn != 0 && connection.server.weight() == 0;
        if opening && (quiesced || is_reusable(connection, sysctls.conn_reuse_mode)) {
            return Fitness::Over;
        }
        let present = connection.server.is_available() || connection.server.is_stranger();
        match (present, sysctls.expire_nodest_conn) {
            (true, _) => Fitness::Good,
            (false, 0) => Fitness::Useless,
            (false, _) => Fitness::Over,
        }
    }

    /// Advances the connection's state by a packet and starts its timer again.
    fn touch(&mut self, passage: &Passage<'_, '_>, connection: Found<'_>, way: Direction) {
        let Burst { now, snapshot, .. } = *passage.burst;
        let Packet { protocol, transport, .. } = passage.packet;
        let mut alive = false;
        if protocol == connection.protocol {
            self.note_acknowledged(passage, &connection, way);
            let (course, secure) = (connection.course(way), snapshot.sysctls.is_tcp_secure());
            let former = connection.state();
            let state = connection.step(|state| state.next(course, &transport, secure));
            if state != former && !state.is_half_open() {
                self.tables.connections.note(&connection);
            }
            let own = snapshot.beyond.timeouts(connection.server.service(), &snapshot.timeouts);
            connection.set_timeout(own.as_ref().unwrap_or(&snapshot.timeouts).of(state));
            alive = state.is_established() || (state == State::Udp && way == Direction::Out);
            if !is_lendable(state) {
                self.tables.connections.take_back(&connection);
            }
        }
        if alive && let Some(template) = &connection.template {
            template.assure();
        }
        connection.life.set_deadline(now + Duration::from_secs(u64::from(connection.timeout())));
        self.file(connection);
    }
}

/// Without any service of the packet's family IPVS has no hooks: even the connections that are left are not translated
/// (goldens `clear`, `one-family-left`). And it takes only what is addressed to this machine, which a promiscuous interface
/// does not guarantee.
#[inline]
fn examine(burst: &Burst<'_>, frame: &Frame<'_>, packet: &mut Packet) -> Option<Verdict> {
    let snapshot = burst.snapshot;
    let port_mac = snapshot.routes.port_mac(frame.port());
    if frame.is_outgoing() && frame.source() != port_mac {
        return Some(Verdict::Drop(DropReason::Stray));
    }
    if snapshot.services.is_empty() || (!frame.is_outgoing() && frame.destination() != port_mac) {
        return Some(Verdict::Pass);
    }
    match parse_frame_into(frame.bytes(), packet) {
        Ok(()) if snapshot.services.serve(Family::from(packet.source)) => None,
        Ok(()) | Err(ParseError::NotIp) => Some(Verdict::Pass),
        Err(error) => Some(Verdict::Drop(reason_of(error))),
    }
}

/// What a connection is worth to a client's packet.
enum Fitness {
    Good,
    Over,
    Useless,
}

/// Whether a SYN or INIT starts something new by `conn_reuse_mode`: the connection has ended and is not bound to a template
/// or a control connection. TCP in FIN_WAIT may have ended unseen if its server answers past us.
fn is_reusable(connection: &Connection, mode: i64) -> bool {
    let has_ended = match connection.state() {
        State::Tcp(tcp::State::TimeWait | tcp::State::Close) | State::Sctp(sctp::State::Closed) => true,
        State::Tcp(tcp::State::FinWait) => mode & 2 != 0 && connection.has_no_output(),
        _ => false,
    };
    mode != 0 && connection.template.is_none() && connection.parent().is_none() && has_ended
}

fn reason_of(error: ParseError) -> DropReason {
    match error {
        ParseError::Truncated => DropReason::Truncated,
        ParseError::NotIp | ParseError::Malformed => DropReason::Malformed,
        ParseError::BadIpChecksum => DropReason::BadIpChecksum,
    }
}
