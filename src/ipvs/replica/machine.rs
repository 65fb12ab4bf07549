//! One of two routers that keep the same connections: the active one tells, the other one is told.

use std::time::Duration;

use super::message::{Kind, Message, OVERHEAD, Refusal, Side, Standing, Wire};
use super::mirror::Buckets;
use super::paths::{Path, Paths};
use super::receiver::{Receiver, Store};
use super::record::{Key, LONGEST, Record};
use super::report::{Counts, Partner, Report, State};
use super::sender::Sender;
use super::stream::{Acknowledgement, BATCH_HEAD, Batch};
use crate::net::time::Instant;

/// What both ends know.
#[derive(Clone)]
pub struct Settings {
    /// Which one this is.
    pub side: Side,
    /// The pair's key.
    pub key: Vec<u8>,
    /// Whether there is a private path besides the public one.
    pub private: bool,
    /// Longest datagram in bytes, headers of IP and UDP not counted; [`LEAST_LIMIT`] or more.
    pub limit: usize,
    /// Silence that means that the other end is not there.
    pub silence: Duration,
    /// Time from one comparison of all that there is to the next.
    pub compare: Duration,
}

/// What any record fits into.
pub const LEAST_LIMIT: usize = 1400;
const _: () = assert!(LONGEST <= LEAST_LIMIT - BATCH_OVERHEAD - BATCH_HEAD, "any record fits");
/// What a batch's datagram has besides the batch: the generation that it is for comes first.
const BATCH_OVERHEAD: usize = OVERHEAD + size_of::<u32>();
/// How often each end shows that it is there.
const HELLO: Duration = Duration::from_millis(500);
/// In the first byte of a hello: the sender has been told of all by its present partner.
const IN_SYNC: u8 = 1 << 0;
/// Likewise: it knows what there is, or was.
const INFORMED: u8 = 1 << 1;

/// A datagram that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// By this path.
    pub path: Path,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What there is to tell of, and what has changed of it.
pub trait Source {
    /// The next key of which something has changed.
    fn next_changed(&self) -> Option<Key>;

    /// Buckets in which changes have been lost since this was asked last.
    fn lost(&self) -> Buckets;

    /// What has become of a key; `known` says whether the other end has been told of it.
    fn current(&self, key: Key, known: bool, now: Instant) -> Vec<Record>;

    /// All of a part of what there is, with a number below [`PARTS`](super::PARTS).
    fn part(&self, number: usize, now: Instant) -> Vec<Record>;
}

/// One end. Time is passed in; datagrams come by [`Replica::receive`] and go by [`Replica::take_outgoing`]. What is told
/// of comes from a [`Source`], by [`Replica::pump`]; what comes is installed in a [`Store`].
pub struct Replica {
    settings: Settings,
    wire: Wire,
    active: bool,
    /// Whether this end knows what there is, or was: it has been active, or has been told of all.
    informed: bool,
    /// How often this end has become a standby.
    generation: u32,
    streams: u32,
    sender: Option<Sender>,
    /// The session and generation of the other end that the stream is for.
    bound: Option<(u64, u32)>,
    receiver: Receiver,
    partner: Option<Partner>,
    next_hello: Instant,
    paths: Paths,
    /// By which paths the next acknowledgement goes, in the order of [`Path::ALL`].
    acknowledge: [bool; 2],
    outgoing: Vec<Datagram>,
    counts: Counts,
}

impl Replica {
    /// A standby that knows nobody; `session` is random and not 0.
    pub fn new(now: Instant, settings: Settings, session: u64) -> Self {
        let wire = Wire::new(settings.side, &settings.key, session);
        let paths = Paths::new(settings.private);
        Replica {
            settings,
            wire,
            paths,
            active: false,
            informed: false,
            generation: 1,
            streams: 0,
            sender: None,
            bound: None,
            receiver: Receiver::default(),
            partner: None,
            next_hello: now,
            acknowledge: [false; 2],
            outgoing: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Who does the work: this end, or not.
    pub fn set_active(&mut self, now: Instant, active: bool) {
        if self.active == active {
            return;
        }
        self.active = active;
        if active {
            self.informed = true;
            self.receiver.reset();
        } else {
            self.generation += 1;
            self.end_stream();
        }
        self.hello(now);
        self.bind(now);
    }

    /// Whether this end does the work.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Takes other settings; the side stays.
    pub fn set_timing(&mut self, silence: Duration, compare: Duration) {
        (self.settings.silence, self.settings.compare) = (silence, compare);
    }

    /// Takes a datagram that came by this path.
    pub fn receive(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
        store: &mut impl Store,
    ) -> Result<(), Refusal> {
        let message = self.wire.receive(path, bytes);
        match message.inspect_err(|refusal| self.refuse(*refusal)) {
            Ok(message) => {
                self.counts.received += 1;
                self.hear(now, path, &message, store);
                Ok(())
            }
            Err(refusal) => {
                if refusal == Refusal::Unfresh {
                    let bytes = self.wire.answer(path, &self.standing(), &self.hello_content());
                    self.put(now, path, bytes);
                }
                Err(refusal)
            }
        }
    }

    /// Counts a datagram that was refused before it came here.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.counts.refused[refusal as usize] += 1;
    }

    fn hear(&mut self, now: Instant, path: Path, message: &Message<'_>, store: &mut impl Store) {
        if message.anew {
            self.end_stream();
            self.receiver.reset();
            self.partner = None;
            self.paths.forget(now);
        }
        self.paths.note_arrived(now, message.arrived);
        let partner = self.partner.get_or_insert_with(Partner::default);
        partner.last = now;
        // One that has been overtaken says what was.
        if message.newest {
            (partner.active, partner.generation) = (message.sender.active, message.sender.generation);
            self.paths.note_there(now, message.sender.broken);
            self.bind(now);
        }
        match message.kind {
            Kind::Hello if message.newest => self.hear_hello(message.content),
            Kind::Hello => {}
            Kind::Batch => self.hear_batch(path, message.content, store),
            Kind::Acknowledgement => {
                let acknowledgement = Acknowledgement::read(message.content);
                match (&mut self.sender, acknowledgement) {
                    (Some(sender), Ok(acknowledgement)) => sender.take_acknowledgement(&acknowledgement),
                    (None, Ok(_)) => {}
                    (_, Err(_)) => self.refuse(Refusal::Malformed),
                }
            }
        }
    }

    fn hear_batch(&mut self, path: Path, content: &[u8], store: &mut impl Store) {
        let generation = content.split_first_chunk().map(|(first, rest)| (u32::from_be_bytes(*first), rest));
        let batch = generation.and_then(|(generation, rest)| Some((generation, Batch::read(rest).ok()?)));
        let Some((generation, batch)) = batch else { return self.refuse(Refusal::Malformed) };
        if self.active || generation != self.generation {
            return;
        }
        let new = self.receiver.take(&batch, store);
        self.informed |= self.receiver.is_complete();
        // Of one that comes again the acknowledgement may have been lost where it went.
        match new && !self.paths.is_broken(path) {
            true => self.acknowledge[path as usize] = true,
            false => self.acknowledge = [true; 2],
        }
    }

    fn hear_hello(&mut self, content: &[u8]) {
        let [standing] = *content else {
            return self.refuse(Refusal::Malformed);
        };
        if let Some(partner) = &mut self.partner {
            partner.in_sync = standing & IN_SYNC != 0;
            partner.informed = standing & INFORMED != 0;
        }
    }

    /// Streams are for a standby's present generation.
    fn bind(&mut self, now: Instant) {
        let standby = self.partner.as_ref().filter(|partner| !partner.active);
        let wanted = standby.filter(|_| self.active).zip(self.wire.peer());
        let wanted = wanted.map(|(partner, session)| (session, partner.generation));
        if wanted == self.bound {
            return;
        }
        self.end_stream();
        self.bound = wanted;
        if wanted.is_some() {
            self.streams += 1;
            let limit = self.settings.limit.max(LEAST_LIMIT) - BATCH_OVERHEAD;
            self.sender = Some(Sender::new(self.streams, limit, self.settings.compare, now));
        }
    }

    fn end_stream(&mut self) {
        self.bound = None;
        if let Some(sender) = self.sender.take() {
            self.counts.repeated += sender.repeated;
            self.counts.anew += sender.anew;
        }
    }

    fn hello_content(&self) -> Vec<u8> {
        let standing = [(self.receiver.is_complete(), IN_SYNC), (self.informed, INFORMED)];
        vec![standing.iter().filter(|(is, _)| *is).fold(0, |bits, (_, bit)| bits | bit)]
    }

    fn standing(&self) -> Standing {
        Standing { active: self.active, generation: self.generation, broken: self.paths.broken() }
    }

    fn hello(&mut self, now: Instant) {
        self.next_hello = now + HELLO;
        let content = self.hello_content();
        for path in self.paths.all() {
            self.send(now, path, Kind::Hello, &content);
        }
    }

    fn send(&mut self, now: Instant, path: Path, kind: Kind, content: &[u8]) {
        let bytes = self.wire.make(path, kind, &self.standing(), content);
        self.put(now, path, bytes);
    }

    /// What has been made last leaves.
    fn put(&mut self, now: Instant, path: Path, bytes: Vec<u8>) {
        self.paths.note_sent(now, path, self.wire.number());
        self.outgoing.push(Datagram { path, bytes });
    }

    /// Tells of as much as there is room for.
    pub fn pump(&mut self, now: Instant, source: &impl Source) {
        let Some(sender) = &mut self.sender else { return };
        sender.lose(&source.lost());
        if sender.has_room() {
            // Before the changes, which then are not told twice.
            sender.begin_pass(now);
        }
        while self.has_room() {
            if let Some(key) = source.next_changed() {
                let known = self.knows(&key);
                source.current(key, known, now).iter().for_each(|record| self.tell(now, record));
            } else if let Some(part) = self.sender.as_ref().and_then(Sender::next_part) {
                self.tell_part(now, &source.part(part, now));
            } else {
                break;
            }
        }
    }

    /// Whether there is somebody to tell of changes, so that they have to be noted.
    pub fn is_telling(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether changes may be told of now. If not, they wait.
    pub fn has_room(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::has_room)
    }

    fn knows(&self, key: &Key) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.knows(key))
    }

    fn tell(&mut self, now: Instant, record: &Record) {
        self.sender.iter_mut().for_each(|sender| sender.tell(now, record));
    }

    fn tell_part(&mut self, now: Instant, records: &[Record]) {
        self.sender.iter_mut().for_each(|sender| sender.tell_part(now, records));
    }

    /// Whether a standby has something to look through still; see [`Replica::work`].
    pub fn has_work(&self) -> bool {
        self.receiver.has_work()
    }

    /// Looks through a part of what the other end has told of, to compare it with what that has, or to end what is over.
    pub fn work(&mut self, store: &mut impl Store) {
        if self.receiver.work(store) {
            self.acknowledge = [true; 2];
        }
    }

    /// Ends at once what is over, before this end does the work.
    pub fn finish(&mut self, store: &mut impl Store) {
        self.receiver.finish_sweep(store);
    }

    /// The datagrams that are to be sent now.
    pub fn take_outgoing(&mut self, now: Instant) -> Vec<Datagram> {
        self.paths.update(now);
        if self.next_hello <= now {
            self.hello(now);
        }
        self.acknowledge(now);
        if self.hears_partner(now)
            && let (Some(sender), Some((_, generation))) = (&mut self.sender, self.bound)
        {
            for batch in sender.due(now) {
                let content = [&generation.to_be_bytes()[..], &batch.content].concat();
                let paths = if batch.again { self.paths.all() } else { self.paths.usual() };
                for path in paths {
                    self.send(now, path, Kind::Batch, &content);
                }
            }
        }
        self.counts.sent += self.outgoing.len() as u64;
        std::mem::take(&mut self.outgoing)
    }

    fn acknowledge(&mut self, now: Instant) {
        let wanted = std::mem::take(&mut self.acknowledge);
        if wanted == [false; 2] {
            return;
        }
        let mut content = Vec::new();
        self.receiver.acknowledgement().put(&mut content);
        for path in self.paths.all() {
            if wanted[path as usize] {
                self.send(now, path, Kind::Acknowledgement, &content);
            }
        }
    }

    /// When [`Replica::take_outgoing`] has something again at the latest, or what [`Replica::is_holding`] says may change.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let sender = self.sender.as_ref().filter(|_| self.hears_partner(now)).and_then(Sender::next_deadline);
        let last = self.partner.as_ref().map(|partner| partner.last + self.settings.silence);
        let silent = last.filter(|at| *at > now);
        let paths = self.paths.next_deadline();
        [sender, silent, paths].into_iter().flatten().fold(self.next_hello, Instant::min)
    }

    fn hears_partner(&self, now: Instant) -> bool {
        let last = self.partner.as_ref().map(|partner| partner.last);
        last.is_some_and(|last| now.saturating_since(last) < self.settings.silence)
    }

    /// Whether the other end says when something ends that it has told of.
    pub fn is_holding(&self, now: Instant) -> bool {
        let told = self.partner.as_ref().is_some_and(|partner| partner.active) && self.receiver.has_begun();
        !self.active && told && self.hears_partner(now)
    }

    /// Whether this end would be active with less than the other end has: that does the work and has still to tell of
    /// something, or waits and knows what there was, which this one does not. So it is as well before anything is known of
    /// the other end.
    pub fn is_joining(&self, now: Instant) -> bool {
        !self.active
            && match self.partner.as_ref().filter(|_| self.hears_partner(now)) {
                Some(partner) if partner.active => !self.receiver.is_complete(),
                Some(partner) => partner.informed && !self.informed,
                None => self.partner.is_none(),
            }
    }

    /// Whether this standby has been told of all.
    pub fn is_complete(&self) -> bool {
        !self.active && self.receiver.is_complete()
    }

    /// The session of the other end, once it has been heard.
    pub fn partner_session(&self) -> Option<u64> {
        self.wire.peer()
    }

    /// The session of the other end that is told.
    pub fn told_session(&self) -> Option<u64> {
        self.bound.map(|(session, _)| session)
    }

    /// Whether the other end has acknowledged all that there is; changes that wait do not count.
    pub fn is_settled(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_settled)
    }

    /// For the administrator.
    pub fn report(&self, now: Instant) -> Report {
        let heard = self.hears_partner(now);
        let sender = self.sender.as_ref();
        let mut counts = self.counts;
        sender.iter().for_each(|sender| {
            counts.repeated += sender.repeated;
            counts.anew += sender.anew;
        });
        let state = match (sender, heard) {
            (_, false) => State::Alone,
            (Some(_), true) => State::Telling,
            (None, true) if self.is_holding(now) || self.is_joining(now) => State::Told,
            (None, true) => State::Idle,
        };
        let in_sync = match state {
            State::Telling => sender.is_some_and(Sender::is_in_sync),
            State::Told => self.receiver.is_complete(),
            State::Alone | State::Idle => false,
        };
        let compared = sender.map_or_else(|| self.receiver.compared(), Sender::compared);
        Report::new(state, in_sync, &counts, &self.receiver.taken)
            .with_sender(
                sender.map(|sender| (sender.told(), sender.lag(now), sender.progress())),
                compared.map(|(_, differing)| differing),
            )
            .with_paths(&self.paths, now)
            .with_partner(self.partner.as_ref(), now)
    }
}
