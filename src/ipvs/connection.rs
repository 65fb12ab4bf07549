//! A connection: who talks to whom through which server, its state and its life. A million of them shall fit, so that what
//! few need is kept apart.

mod replicated;
mod synced;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use once_cell::race::OnceBox;
use sdd::Shared;

use crate::ipvs::edit::Forward;
use crate::ipvs::ends::Ends;
use crate::ipvs::helper::control::FtpControl;
use crate::ipvs::persistence::PersistenceTemplate;
use crate::ipvs::protocol::{Course, Direction, State, tcp};
use crate::ipvs::server::RealServer;
use crate::ipvs::timer::Life;
use crate::ipvs::view::ConnectionView;
use crate::net::addr::Protocol;
use crate::net::flow::{FlowKey, FlowWords};
use crate::net::time::Instant;

pub use replicated::Told;

/// Seconds that a connection has before its first packet gives it the time of a state.
const NEW: u32 = 3;

const STATE: u32 = 0xff;
const ACTIVE: u32 = 1 << 8;
const REMOVED: u32 = 1 << 9;
const NO_OUTPUT: u32 = 1 << 10;
const AWAITS_PORT: u32 = 1 << 11;
const UNANSWERED: u32 = 1 << 12;
const SYNCED: u32 = 1 << 13;
const BORROWED: u32 = 1 << 14;
/// The state in which it was last told of; one less than 16 there are.
const TOLD: u32 = 0xf << TOLD_SHIFT;
const TOLD_SHIFT: u32 = 16;
/// How often it had passed the threshold of the synchronisation then, modulo 256.
const ROUND: u32 = 0xff << ROUND_SHIFT;
const ROUND_SHIFT: u32 = 20;
const KNOWN: u64 = 1 << 32;

/// Of the loan: whether a direction's flow is with the shortcut, in whatever generation; whether it has been offered to it in
/// the generation that the other bits say.
const HELD: u32 = 0b0011;
const OFFERED: u32 = 0b1100;
const OFFERED_SHIFT: u32 = 2;
const GENERATION_SHIFT: u32 = 4;

/// How long a connection whose time is up lives on for its children's sake, again and again.
const CHILDREN_TIME: Duration = Duration::from_secs(60);

/// The directions that a loan holds.
fn lent(loan: u32) -> impl Iterator<Item = Direction> + use<> {
    [Direction::In, Direction::Out].into_iter().filter(move |direction| loan & 1 << *direction as u32 != 0)
}

/// A connection. What each packet needs comes first, next to each other: a connection begins anywhere in a cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    ends: Ends,
    status: AtomicU32,
    timeout: AtomicU32,
    packets_in: AtomicU32,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How its packets reach the server: the server's method when it was made, whatever that is now.
    pub forward: Forward,
    /// Deadline.
    pub life: Life,
    /// The real server.
    pub server: Arc<RealServer>,
    rare: OnceBox<Rare>,
    /// The persistence template it was made by, which it keeps alive.
    pub template: Option<Arc<PersistenceTemplate>>,
    loan: AtomicU32,
    lent_packets: AtomicU32,
}

/// What few connections have.
#[derive(Debug, Default)]
struct Rare {
    parent: Option<Shared<Connection>>,
    ftp: Option<Mutex<FtpControl>>,
    children: AtomicU32,
    /// Acknowledgment numbers, with a bit above them once there is one; kept only where [`Connection::note_acknowledged`]
    /// is called.
    acknowledged: [AtomicU64; 2],
    /// What is remembered of its last announcement; kept only where `sync_refresh_period` asks for it.
    told: AtomicU64,
}

impl Connection {
    /// A connection of `flow` (client to virtual address) to `server_address` at `server`, bound to server and template.
    pub fn new(
        flow: &FlowKey,
        server: Arc<RealServer>,
        server_address: SocketAddr,
        template: Option<Arc<PersistenceTemplate>>,
    ) -> Self {
        server.bind_connection();
        if let Some(template) = &template {
            template.add_child();
        }
        let forward = server.forward();
        let unheard = match (forward, flow.protocol) {
            (Forward::Masquerade, Protocol::TCP | Protocol::SCTP) => 0,
            (Forward::Masquerade, _) => UNANSWERED,
            _ => NO_OUTPUT,
        };
        Connection {
            ends: Ends::new(flow, &server, server_address),
            status: AtomicU32::new(unheard),
            timeout: AtomicU32::new(NEW),
            packets_in: AtomicU32::new(0),
            protocol: flow.protocol,
            forward,
            life: Life::default(),
            server,
            template,
            loan: AtomicU32::new(0),
            lent_packets: AtomicU32::new(0),
            rare: OnceBox::new(),
        }
    }

    /// A data connection of `parent`'s. With `awaits_port` the client's port is 0 and will be known by its first packet (the
    /// kernel's NO_CPORT flag).
    pub fn data(
        flow: &FlowKey,
        server_address: SocketAddr,
        parent: &Shared<Connection>,
        awaits_port: bool,
    ) -> Self {
        parent.rare().children.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(flow, Arc::clone(&parent.server), server_address, None);
        if awaits_port {
            connection.status.fetch_or(AWAITS_PORT, Ordering::Relaxed);
        }
        let rare = Box::new(Rare { parent: Some(parent.clone()), ..Rare::default() });
        Connection { rare: OnceBox::with_value(rare), ..connection }
    }

    /// The same data connection with the client's port, in the same state. One that a message told of has no control
    /// connection here.
    pub fn with_client_port(&self, port: u16) -> Self {
        let client = SocketAddr::new(self.client().ip(), port);
        let flow = FlowKey::new(self.protocol, client, self.virtual_address());
        let Some(parent) = self.parent() else {
            return self.rebound(&flow, Arc::clone(&self.server), !AWAITS_PORT);
        };
        let connection = Connection::data(&flow, self.server_address(), parent, false);
        connection.listen();
        connection
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Client.
    pub fn client(&self) -> SocketAddr {
        self.ends.client()
    }

    /// Virtual address and port that the client talks to.
    pub fn virtual_address(&self) -> SocketAddr {
        self.ends.virtual_address(&self.server)
    }

    /// Address and port at the real server.
    pub fn server_address(&self) -> SocketAddr {
        self.ends.server_address(&self.server)
    }

    /// What NAT puts in place of an end of packets of this direction, if all ends are IPv4.
    #[inline(always)]
    pub fn replacement_v4(&self, direction: Direction) -> Option<SocketAddrV4> {
        self.ends.replacement_v4(direction)
    }

    /// The control connection that made it as a data connection; it is kept alive until this one ends.
    pub fn parent(&self) -> Option<&Shared<Connection>> {
        self.rare.get()?.parent.as_ref()
    }

    /// Has the FTP helper read it.
    pub fn read_by_ftp(self) -> Self {
        let rare = Box::new(Rare { ftp: Some(Mutex::default()), ..Rare::default() });
        Connection { rare: OnceBox::with_value(rare), ..self }
    }

    /// What the FTP helper knows, if it reads this connection.
    pub fn ftp(&self) -> Option<&Mutex<FtpControl>> {
        self.rare.get()?.ftp.as_ref()
    }

    /// Whether it has nothing that few have, is in the table, and a packet in this direction is no news.
    #[inline]
    pub fn is_ordinary(&self, direction: Direction) -> bool {
        let news = match direction {
            Direction::In => REMOVED,
            Direction::Out => REMOVED | UNANSWERED | NO_OUTPUT,
        };
        self.rare.get().is_none() && self.status.load(Ordering::Relaxed) & news == 0
    }

    /// Whether its client's port is not known yet.
    pub fn awaits_port(&self) -> bool {
        self.status.load(Ordering::Relaxed) & AWAITS_PORT != 0
    }

    /// Whether data connections that it made are alive.
    pub fn has_children(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.children.load(Ordering::Relaxed) != 0)
    }

    /// Its time is up: while it has children it lives on in steps of 60 s (ipvs.md section 6.2). Returns whether it does.
    pub fn prolong(&self, now: Instant) -> bool {
        let needed = self.has_children();
        if needed {
            self.set_timeout(CHILDREN_TIME.as_secs() as u32);
            self.life.prolong(CHILDREN_TIME, now);
        }
        needed
    }

    /// Waits for the other side's first packet. Whether it counts as active stays as it is (golden `ftp-again`).
    pub fn listen(&self) {
        let set = |status: u32| Some((status & !STATE) | tcp::State::Listen as u32);
        let _ = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
    }

    /// What the client's packets look like.
    pub fn request_key(&self) -> FlowKey {
        FlowKey::new(self.protocol, self.client(), self.virtual_address())
    }

    /// What the server's packets look like: unless there is NAT, they come from the virtual address.
    pub fn reply_key(&self) -> FlowKey {
        let source = match self.forward {
            Forward::Masquerade => self.server_address(),
            Forward::Local | Forward::Tunnel | Forward::Route => self.virtual_address(),
        };
        FlowKey::new(self.protocol, source, self.client())
    }

    /// What its packets in one direction look like.
    #[inline]
    pub fn words(&self, direction: Direction) -> FlowWords {
        match direction {
            Direction::In => self.ends.request(self.protocol, &self.server),
            Direction::Out => {
                self.ends.reply(self.protocol, &self.server, self.forward == Forward::Masquerade)
            }
        }
    }

    /// Whether its packets in this direction look so.
    #[inline(always)]
    pub fn has(&self, words: &FlowWords, direction: Direction) -> bool {
        match direction {
            Direction::In => self.ends.are_of_request(self.protocol, &self.server, words),
            Direction::Out => {
                let translated = self.forward == Forward::Masquerade;
                self.ends.are_of_reply(self.protocol, &self.server, translated, words)
            }
        }
    }

    /// Reads a word of each cache line that a packet needs, so that they are on their way. The value means nothing.
    #[inline(always)]
    pub fn glance(&self) -> u64 {
        let first = u64::from(self.ends.glance());
        first ^ self.life.deadline().as_nanos() ^ u64::from(self.template.is_some())
    }

    /// What the packets of a direction look like when they come.
    pub fn key(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::In => self.request_key(),
            Direction::Out => self.reply_key(),
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        State::from_number(self.protocol, (self.status.load(Ordering::Relaxed) & STATE) as u8)
    }

    /// Whether it counts as active at its server.
    pub fn is_active(&self) -> bool {
        self.status.load(Ordering::Relaxed) & ACTIVE != 0
    }

    /// Seconds that its last packet gave it. A packet that does not concern its state gives it as many again.
    pub fn timeout(&self) -> u32 {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Notes what a packet gives it, in seconds.
    pub fn set_timeout(&self, timeout: u32) {
        if self.timeout() != timeout {
            self.timeout.store(timeout, Ordering::Relaxed);
        }
    }

    /// One more packet of the client. NICs keep those of a flow on one queue, so that one worker counts; an addition in one step
    /// would take as long as the rest of a packet's bookkeeping.
    #[inline]
    pub fn count_packet(&self) {
        self.packets_in.store(self.packets_in().wrapping_add(1), Ordering::Relaxed);
    }

    /// Packets of the client so far.
    pub fn packets_in(&self) -> u32 {
        self.packets_in.load(Ordering::Relaxed)
    }

    /// The sender of a packet in this direction expects this sequence number next.
    pub fn note_acknowledged(&self, direction: Direction, number: u32) {
        let noted = &self.rare().acknowledged[direction as usize];
        noted.store(KNOWN | u64::from(number), Ordering::Relaxed);
    }

    /// What has been noted last.
    pub fn acknowledged(&self, direction: Direction) -> Option<u32> {
        let noted = self.rare.get()?.acknowledged[direction as usize].load(Ordering::Relaxed);
        (noted & KNOWN != 0).then_some(noted as u32)
    }

    /// Whether only the client's packets are seen here so far (the kernel's NOOUTPUT flag).
    pub fn has_no_output(&self) -> bool {
        self.status.load(Ordering::Relaxed) & NO_OUTPUT != 0
    }

    /// Which table a packet is looked up in. The first one of the server shows that it answers through us after all.
    pub fn course(&self, direction: Direction) -> Course {
        match direction {
            Direction::In if self.has_no_output() => Course::InputOnly,
            Direction::In => Course::Input,
            Direction::Out => {
                if self.status.load(Ordering::Relaxed) & (NO_OUTPUT | UNANSWERED) != 0 {
                    self.status.fetch_and(!(NO_OUTPUT | UNANSWERED), Ordering::Relaxed);
                }
                Course::Output
            }
        }
    }

    /// Whether a direction has been offered to the shortcut in this generation.
    pub fn is_offered(&self, direction: Direction, generation: u32) -> bool {
        let loan = self.loan.load(Ordering::Relaxed);
        let offered = 1 << (direction as u32 + OFFERED_SHIFT);
        loan & offered != 0 && loan >> GENERATION_SHIFT == generation << GENERATION_SHIFT >> GENERATION_SHIFT
    }

    /// Notes that a direction is with the shortcut, in this generation. Returns whether it was not in any.
    pub fn lend(&self, direction: Direction, generation: u32) -> bool {
        let (held, offered) = (1 << direction as u32, 1 << (direction as u32 + OFFERED_SHIFT));
        let generation = generation << GENERATION_SHIFT;
        let after = |loan: u32| {
            let same = loan & !(HELD | OFFERED) == generation;
            let others = if same { loan & OFFERED } else { 0 };
            Some(generation | others | (loan & HELD) | offered | held)
        };
        let before = self.loan.fetch_update(Ordering::SeqCst, Ordering::SeqCst, after);
        before.is_ok_and(|before| before & held == 0)
    }

    /// The shortcut does not take the direction after all. With `again` it may be offered again. Returns whether it has to
    /// leave what it had of it.
    pub fn fail_to_lend(&self, direction: Direction, again: bool) -> bool {
        let held = 1 << direction as u32;
        let offered = if again { 1 << (direction as u32 + OFFERED_SHIFT) } else { 0 };
        self.loan.fetch_and(!(held | offered), Ordering::SeqCst) & held != 0
    }

    /// The directions that are with the shortcut.
    pub fn lent(&self) -> impl Iterator<Item = Direction> + use<> {
        lent(self.loan.load(Ordering::Relaxed))
    }

    /// Nothing is to be with the shortcut any more. Returns what was.
    pub fn end_loan(&self) -> impl Iterator<Item = Direction> + use<> {
        lent(self.loan.swap(0, Ordering::SeqCst))
    }

    /// The client's packets that the shortcut has forwarded so far, as far as that is known.
    pub fn lent_packets(&self) -> u32 {
        self.lent_packets.load(Ordering::Relaxed)
    }

    /// Takes note of them.
    pub fn count_lent_packets(&self, packets: u32) {
        let known = self.lent_packets.fetch_max(packets, Ordering::Relaxed);
        self.packets_in.fetch_add(packets.saturating_sub(known), Ordering::Relaxed);
    }

    /// Whether it has been taken out of the table.
    pub fn is_removed(&self) -> bool {
        self.status.load(Ordering::SeqCst) & REMOVED != 0
    }

    /// Goes from one state to the next by `step`; the server's count of active connections follows if it is another one (golden
    /// `sync-backup-inactive`). Returns the state.
    pub fn step(&self, step: impl Fn(State) -> State) -> State {
        let after = |status: u32| {
            let former = State::from_number(self.protocol, (status & STATE) as u8);
            let state = step(former);
            if state == former {
                return (state, status);
            }
            let active = if state.is_active() { ACTIVE } else { 0 };
            (state, (status & !(STATE | ACTIVE)) | u32::from(state.number()) | active)
        };
        let mut status = self.status.load(Ordering::Relaxed);
        loop {
            let (state, next) = after(status);
            if next == status || status & REMOVED != 0 {
                return state;
            }
            match self.status.compare_exchange_weak(status, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if (status ^ next) & ACTIVE != 0 {
                        self.server.count_active(next & ACTIVE != 0);
                    }
                    return state;
                }
                Err(other) => status = other,
            }
        }
    }

    /// Whether its handshake is not over, or, without handshakes, its server has not answered yet. Of servers that answer past
    /// us the latter cannot be told.
    pub fn is_half_open(&self) -> bool {
        self.is_half_open_as(self.status.load(Ordering::Relaxed))
    }

    fn is_half_open_as(&self, status: u32) -> bool {
        let state = State::from_number(self.protocol, (status & STATE) as u8);
        state.is_half_open() || status & UNANSWERED != 0
    }

    /// When its last packet came, if it may make room for another one: it is half open, and no control connection is
    /// concerned.
    pub fn expendable_since(&self) -> Option<Instant> {
        let expendable = self.is_half_open() && !self.has_children() && self.parent().is_none();
        let timeout = Duration::from_secs(u64::from(self.timeout())).as_nanos() as u64;
        expendable.then(|| Instant::from_nanos(self.life.deadline().as_nanos().saturating_sub(timeout)))
    }

    /// Whether it has been unbound.
    pub fn is_unbound(&self) -> bool {
        self.status.load(Ordering::Relaxed) & REMOVED != 0
    }

    /// Lets go of server and template. Only the first call does, and returns true.
    pub fn unbind(&self) -> bool {
        self.unbind_if(|_| true)
    }

    /// The same, but only if it is half open at that very moment.
    pub fn unbind_half_open(&self) -> bool {
        self.unbind_if(|status| self.is_half_open_as(status))
    }

    fn unbind_if(&self, may: impl Fn(u32) -> bool) -> bool {
        let removed = |status: u32| (status & REMOVED == 0 && may(status)).then_some(status | REMOVED);
        let Ok(status) = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, removed) else {
            return false;
        };
        self.server.unbind_connection(status & ACTIVE != 0);
        if let Some(template) = &self.template {
            template.remove_child();
        }
        if let Some(parent) = self.parent() {
            parent.rare().children.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// For a listing at `now`.
    pub fn view(&self, now: Instant) -> ConnectionView {
        ConnectionView {
            protocol: self.protocol,
            state: self.state().name().to_owned(),
            client: self.client(),
            virtual_address: self.virtual_address(),
            server: self.server_address(),
            expires: self.life.deadline().saturating_since(now).as_secs(),
            synced: self.is_synced(),
            call_id: None,
        }
    }
}
