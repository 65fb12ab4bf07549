//! By which path datagrams go, where there are two.
//!
//! Each datagram says up to which number the other end's have come by each path. So an end knows whether what it sends by a path
//! arrives, whichever path the news takes. A path is broken if two datagrams sent by it some time apart have not arrived, though
//! one that the other path took after them has.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::time::Instant;

/// The second of two tries, if it is to say something: what a batch that is sent again is.
const AGAIN: Duration = Duration::from_millis(100);
/// By so much one path may be slower than the other.
const SLOWER: Duration = Duration::from_millis(100);
/// So long the preferred path must have been whole before it is taken again.
const STEADY: Duration = Duration::from_secs(2);

/// One of two ways between the routers; the first one is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Between `primary_private` and `backup_private`.
    Private,
    /// Between `primary` and `backup`.
    Public,
}

impl Path {
    /// Both.
    pub const ALL: [Path; 2] = [Path::Private, Path::Public];

    fn other(self) -> Path {
        match self {
            Path::Private => Path::Public,
            Path::Public => Path::Private,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Private => "private",
            Path::Public => "public",
        })
    }
}

/// What is known of one path.
#[derive(Clone, Copy, Debug, Default)]
struct Trail {
    sent: u64,
    /// The highest number that has arrived.
    arrived: u64,
    /// When the first of what has not arrived was sent.
    waiting: Option<Instant>,
    tried_again: bool,
    /// What went by the other path after the second try.
    witness: Option<u64>,
    /// When the witness was known to have arrived.
    doubted: Option<Instant>,
    /// Since when nothing has arrived.
    broken: Option<Instant>,
    /// Since when the other end says that of what it sends.
    broken_there: Option<Instant>,
    /// When neither was so the last time.
    mended: Instant,
}

impl Trail {
    fn note_sent(&mut self, now: Instant, number: u64) {
        self.sent = number;
        let since = *self.waiting.get_or_insert(now);
        self.tried_again |= now.saturating_since(since) >= AGAIN;
    }

    fn note_arrived(&mut self, now: Instant, number: u64) {
        if number <= self.arrived {
            return;
        }
        if self.broken.is_some() {
            self.mended = now;
        }
        let waiting = (number < self.sent).then_some(now);
        let Trail { sent, broken_there, mended, .. } = *self;
        *self = Trail { sent, arrived: number, waiting, broken_there, mended, ..Trail::default() };
    }

    fn note_there(&mut self, now: Instant, broken: bool) {
        if broken {
            self.broken_there.get_or_insert(now);
        } else if self.broken_there.take().is_some() {
            self.mended = now;
        }
    }

    /// The worse, the greater.
    fn faults(&self) -> (bool, bool) {
        (self.broken.is_some(), self.broken_there.is_some())
    }
}

/// The paths that there are, and which one is taken.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The one that is taken comes first.
    order: Vec<Path>,
    trails: [Trail; 2],
}

impl Paths {
    /// Both, or the public one alone.
    pub(super) fn new(both: bool) -> Self {
        let order = if both { Path::ALL.to_vec() } else { vec![Path::Public] };
        Paths { order, trails: Default::default() }
    }

    /// The one that is taken.
    pub(super) fn current(&self) -> Path {
        self.order[0]
    }

    /// All, the one that is taken first.
    pub(super) fn all(&self) -> Vec<Path> {
        self.order.clone()
    }

    /// Those for what has not been sent yet: both, while it is not known yet whether the present one is broken.
    pub(super) fn usual(&self) -> Vec<Path> {
        let doubted = self.trails[self.current() as usize].doubted.is_some();
        if doubted { self.all() } else { vec![self.current()] }
    }

    /// Whether what this end sends by a path does not arrive.
    pub(super) fn is_broken(&self, path: Path) -> bool {
        self.trails[path as usize].broken.is_some()
    }

    /// The same of all, in the order of [`Path::ALL`].
    pub(super) fn broken(&self) -> [bool; 2] {
        Path::ALL.map(|path| self.is_broken(path))
    }

    /// The paths that are broken in one direction or both, and since when.
    pub(super) fn faults(&self) -> impl Iterator<Item = (Path, Instant)> {
        self.order.iter().filter_map(|path| {
            let Trail { broken, broken_there, .. } = self.trails[*path as usize];
            Some((*path, broken.into_iter().chain(broken_there).min()?))
        })
    }

    /// The other end is another one: of its paths nothing is known yet.
    pub(super) fn forget(&mut self, now: Instant) {
        for trail in &mut self.trails {
            let Trail { sent, arrived, .. } = *trail;
            *trail = Trail { sent, arrived, mended: now, ..Trail::default() };
        }
    }

    /// A datagram with this number is sent.
    pub(super) fn note_sent(&mut self, now: Instant, path: Path, number: u64) {
        self.trails[path as usize].note_sent(now, number);
        let other = &mut self.trails[path.other() as usize];
        if other.tried_again {
            other.witness.get_or_insert(number);
        }
    }

    /// The other end says what has arrived there.
    pub(super) fn note_arrived(&mut self, now: Instant, arrived: [u64; 2]) {
        for (trail, number) in self.trails.iter_mut().zip(arrived) {
            trail.note_arrived(now, number);
        }
        for path in Path::ALL {
            let latest = self.trails[path.other() as usize].arrived;
            let trail = &mut self.trails[path as usize];
            if trail.witness.is_some_and(|number| number <= latest) {
                trail.doubted.get_or_insert(now);
            }
        }
    }

    /// The other end says by which paths what it sends does not arrive here.
    pub(super) fn note_there(&mut self, now: Instant, broken: [bool; 2]) {
        for (trail, broken) in self.trails.iter_mut().zip(broken) {
            trail.note_there(now, broken);
        }
    }

    /// Takes another path if that is better.
    pub(super) fn update(&mut self, now: Instant) {
        for trail in &mut self.trails {
            if trail.doubted.is_some_and(|since| since + SLOWER <= now) {
                trail.broken = trail.waiting;
            }
        }
        let [current, other] = self.order[..] else { return };
        let [present, better] = [current, other].map(|path| self.trails[path as usize]);
        let is_whole = better.faults() == (false, false);
        let preferred = other == Path::Private && is_whole && better.mended + STEADY <= now;
        if better.faults() < present.faults() || preferred {
            self.order.swap(0, 1);
        }
    }

    /// When [`Paths::update`] may change something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let doubted = self.trails.iter().filter(|trail| trail.broken.is_none());
        let doubted = doubted.filter_map(|trail| Some(trail.doubted? + SLOWER)).min();
        let private = &self.trails[Path::Private as usize];
        let returns = self.order.last() == Some(&Path::Private) && private.faults() == (false, false);
        doubted.into_iter().chain(returns.then_some(private.mended + STEADY)).min()
    }
}
