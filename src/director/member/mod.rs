//! One real server of one virtual server: whether it serves, and what the table is to have of it (reference/piranha.md 2.6).
//!
//! Pure. What is known of a server comes in as [`Input`]s; [`Member::place`] says what the table is to have, and whoever keeps
//! the table brings it there. Three have a say, and the last word of a hand counts: the checks, an operator's override, and edits
//! by `ipvsadm`.

pub mod calm;
pub mod course;
pub mod group;
pub mod load;
pub mod slow_start;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ipvs::edit::ServerSpec;
use crate::net::time::Instant;

/// What the configuration says of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// As it is in the table at full weight.
    pub spec: ServerSpec,
    /// A server that fails stays in the table with weight 0.
    pub quiesce: bool,
    /// Time from one adjustment of the weight to the next.
    pub step: Duration,
    /// Whether a server that enters gets its weight by and by.
    pub slow_start: bool,
    /// Whether its load is asked for.
    pub load_monitor: bool,
}

/// Whether an operator decides in place of the checks (Piranha's nanny obeys SIGUSR1, SIGUSR2 and SIGHUP so).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Override {
    /// The checks decide.
    #[default]
    Auto,
    /// In, with its full weight.
    Up,
    /// Out.
    Down,
}

impl Override {
    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Override::Auto => "auto",
            Override::Up => "up",
            Override::Down => "down",
        }
    }
}

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No check has ended yet.
    #[default]
    Unknown,
    /// It serves.
    Up,
    /// It does not.
    Down,
}

impl State {
    /// For a person.
    pub fn word(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

/// What a [`Member`] is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// What its checks say, and why.
    Health {
        /// Whether it is well.
        up: bool,
        /// For a person.
        reason: String,
    },
    /// An operator decides, or leaves it to the checks again.
    Override(Override),
    /// Its load, as asked for; `None` if there was no telling.
    Load(Option<f64>),
    /// Somebody has put it into the table like this.
    Edited(ServerSpec),
    /// Somebody has deleted it from the table.
    Deleted,
    /// Somebody has deleted its service while it was not in the table.
    Forgotten,
    /// The configuration has been read again, which undoes what was edited by hand.
    Terms(Terms),
    /// It is again what it was, as far as its state is.
    Restored(Kept),
    /// [`Member::next_step`] has come.
    Step,
}

/// What has come of an [`Input`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It came or went.
    pub turn: Option<Turn>,
    /// Its slow start has ended: it has its full weight.
    pub is_full: bool,
    /// Its load is to be read, and brought by [`Input::Load`].
    pub read_load: bool,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The former state.
    pub from: State,
    /// The present one.
    pub to: State,
    /// How long the former one lasted.
    pub lasted: Duration,
}

/// What the table is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Absent,
    /// The server, like this.
    Present(ServerSpec),
}

/// What hands have done to the table since the configuration was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Hand {
    /// Nothing.
    #[default]
    Still,
    /// This, and so it stays until the server comes or goes.
    Holds(ServerSpec),
    /// This, before the server came or went: it enters like this now, in place of what the configuration says.
    Remembered(ServerSpec),
    /// Deleted it.
    Deleted,
}

/// What a member was like, to be brought back by [`Input::Restored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    hand: Hand,
    /// Its state at that time: a hand's place, and a weight on its way, end when the server comes or goes.
    state: State,
    weight: i32,
    is_climbing: bool,
    is_placed: bool,
}

impl Kept {
    /// Whether hands have made something of it.
    pub fn is_by_hand(&self) -> bool {
        self.hand != Hand::Still
    }
}

/// A real server of a virtual server.
#[derive(Clone, Debug)]
pub struct Member {
    terms: Terms,
    health: State,
    reason: String,
    forced: Override,
    hand: Hand,
    /// While it serves, and nobody holds it.
    weight: i32,
    is_climbing: bool,
    /// Whether its load has been asked for, and is not there yet.
    is_reading: bool,
    /// Whether the table was to have it before the present input.
    is_placed: bool,
    state: State,
    since: Instant,
    next_step: Option<Instant>,
}

impl Member {
    /// One of which nothing is known yet.
    pub fn new(now: Instant, terms: Terms) -> Self {
        Member {
            weight: terms.spec.weight,
            terms,
            health: State::Unknown,
            reason: String::new(),
            forced: Override::Auto,
            hand: Hand::Still,
            is_climbing: false,
            is_reading: false,
            is_placed: false,
            state: State::Unknown,
            since: now,
            next_step: None,
        }
    }

    /// The same of a server that is in the table already, with connections: it needs no slow start.
    pub fn found_in_table(self) -> Self {
        Member { is_placed: true, ..self }
    }

    /// What it is like now.
    pub fn kept(&self) -> Kept {
        Kept {
            hand: self.hand.clone(),
            state: self.state,
            weight: self.weight,
            is_climbing: self.is_climbing,
            is_placed: self.is_placed,
        }
    }

    /// What the table is to have.
    pub fn place(&self) -> Place {
        if self.hand == Hand::Deleted {
            return Place::Absent;
        }
        if let Hand::Holds(spec) = &self.hand {
            return Place::Present(spec.clone());
        }
        match self.state {
            State::Up => self.with_weight(self.weight),
            State::Down if self.terms.quiesce && self.is_placed => self.with_weight(0),
            State::Down | State::Unknown => Place::Absent,
        }
    }

    /// What the table would have if no hand and no override had a say.
    pub fn place_by_file(&self) -> Place {
        let is_steered = self.hand == Hand::Still && self.forced == Override::Auto;
        let weight = if is_steered { self.weight } else { self.terms.spec.weight };
        match self.health {
            State::Up => Place::Present(ServerSpec { weight, ..self.terms.spec.clone() }),
            State::Down if self.terms.quiesce && self.is_placed => {
                Place::Present(ServerSpec { weight: 0, ..self.terms.spec.clone() })
            }
            State::Down | State::Unknown => Place::Absent,
        }
    }

    fn with_weight(&self, weight: i32) -> Place {
        Place::Present(ServerSpec { weight, ..self.full().clone() })
    }

    /// As it is at full weight.
    pub fn full(&self) -> &ServerSpec {
        match &self.hand {
            Hand::Holds(spec) | Hand::Remembered(spec) => spec,
            Hand::Still | Hand::Deleted => &self.terms.spec,
        }
    }

    /// Whether it serves.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What its checks say, whether or not they decide.
    pub fn health(&self) -> State {
        self.health
    }

    /// Why they say so; empty before the first one has ended.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether an operator decides.
    pub fn forced(&self) -> Override {
        self.forced
    }

    /// Whether its place in the table is one that somebody has edited.
    pub fn is_by_hand(&self) -> bool {
        self.hand != Hand::Still
    }

    /// Whether somebody has deleted it.
    pub fn is_deleted(&self) -> bool {
        self.hand == Hand::Deleted
    }

    /// Whether it is on its way to its full weight.
    pub fn is_climbing(&self) -> bool {
        self.state == State::Up && self.is_climbing && !matches!(self.hand, Hand::Holds(_) | Hand::Deleted)
    }

    /// When [`Input::Step`] is due.
    pub fn next_step(&self) -> Option<Instant> {
        self.next_step
    }

    /// Takes an input; [`Member::place`] is another one then, perhaps.
    pub fn handle(&mut self, now: Instant, input: Input) -> Outcome {
        let mut outcome = Outcome::default();
        match input {
            Input::Health { up, reason } => {
                self.health = if up { State::Up } else { State::Down };
                self.reason = reason;
            }
            Input::Override(forced) => self.force(forced),
            Input::Load(load) => self.take_load(load),
            Input::Edited(spec) => self.hand = Hand::Holds(spec),
            Input::Deleted => self.hand = Hand::Deleted,
            Input::Forgotten if self.hand != Hand::Deleted => self.hand = Hand::Still,
            Input::Forgotten => {}
            Input::Terms(terms) => self.adopt(terms),
            Input::Restored(kept) => self.restore(kept),
            Input::Step => self.step(now, &mut outcome),
        }
        outcome.turn = self.turn(now);
        self.is_placed = self.place() != Place::Absent;
        self.plan_step(now);
        outcome
    }

    fn force(&mut self, forced: Override) {
        self.forced = forced;
        match forced {
            Override::Auto => {}
            Override::Up => {
                self.hand = Hand::Still;
                self.fill();
            }
            Override::Down => self.release(),
        }
    }

    /// It comes, goes, or neither.
    fn turn(&mut self, now: Instant) -> Option<Turn> {
        let to = match self.forced {
            Override::Auto => self.health,
            Override::Up => State::Up,
            Override::Down => State::Down,
        };
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return None;
        }
        self.next_step = None;
        match to {
            State::Up if self.forced == Override::Up => self.fill(),
            State::Up if from == State::Unknown && self.is_placed => self.fill(),
            State::Up => self.enter(),
            State::Down | State::Unknown => {
                self.release();
                self.fill();
            }
        }
        let since = std::mem::replace(&mut self.since, now);
        Some(Turn { from, to, lasted: now.saturating_since(since) })
    }

    /// What somebody has made of it is what it enters as the next time.
    fn release(&mut self) {
        if let Hand::Holds(spec) = &self.hand {
            self.hand = Hand::Remembered(spec.clone());
        }
    }

    fn enter(&mut self) {
        let full = self.full().weight;
        self.weight = if self.terms.slow_start { slow_start::first(full) } else { full };
        self.is_climbing = self.weight < full;
    }

    fn fill(&mut self) {
        self.weight = self.full().weight;
        self.is_climbing = false;
    }

    /// A server that stays keeps its place in the slow start, and the weight that its load gave it, unless it is to have another.
    fn adopt(&mut self, terms: Terms) {
        let hand = std::mem::take(&mut self.hand);
        let former = std::mem::replace(&mut self.terms, terms);
        let full = self.terms.spec.weight;
        match hand {
            Hand::Deleted if self.is_adjusted() => self.enter(),
            Hand::Still if self.is_climbing && self.terms.slow_start && self.weight < full => {}
            Hand::Still if !self.is_climbing && former.spec.weight == full && self.terms.load_monitor => {}
            _ => self.fill(),
        }
    }

    fn restore(&mut self, kept: Kept) {
        let Kept { hand, state, weight, is_climbing, is_placed } = kept;
        self.hand = hand;
        self.is_placed |= is_placed;
        if state != self.state {
            self.release();
        }
        if self.is_by_hand() {
            self.fill();
        } else if state == self.state && self.forced == Override::Auto {
            (self.weight, self.is_climbing) = (weight, is_climbing);
        }
    }

    fn step(&mut self, now: Instant, outcome: &mut Outcome) {
        if self.next_step.is_none_or(|due| now < due) {
            return;
        }
        self.next_step = None;
        let full = self.full().weight;
        if self.is_climbing {
            self.weight = slow_start::next(self.weight, full);
            self.is_climbing = self.weight < full;
            outcome.is_full = !self.is_climbing;
        } else {
            self.is_reading = true;
            outcome.read_load = true;
        }
    }

    /// Full weight comes first, and a hand's is not touched.
    fn take_load(&mut self, load: Option<f64>) {
        self.is_reading = false;
        if let Some(load) = load.filter(|_| self.follows_load()) {
            self.weight = load::weight(self.weight, self.terms.spec.weight, load);
        }
    }

    fn follows_load(&self) -> bool {
        self.terms.load_monitor && self.is_adjusted() && self.hand == Hand::Still && !self.is_climbing
    }

    /// Whether its weight is one that changes by itself.
    fn is_adjusted(&self) -> bool {
        self.state == State::Up && self.forced == Override::Auto
    }

    fn plan_step(&mut self, now: Instant) {
        let climbs = self.is_adjusted() && self.is_climbing();
        let wants = climbs || (self.follows_load() && !self.is_reading);
        self.next_step = wants.then(|| self.next_step.unwrap_or(now + self.terms.step));
    }
}
