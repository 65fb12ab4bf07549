//! Who is active: the state machine of reference/piranha.md 4.3, with the repairs that docs/pulse.md lists.

use serde::{Deserialize, Serialize};

use crate::net::time::Instant;
use crate::pulse::report::{Partner, Report, State};
use crate::pulse::wire::{Path, Role, Word};
use crate::pulse::{Action, Event, Hook, Level, Settings, Wish};

/// How often the last word of an ending director is sent: nobody sends it again.
const FAREWELLS: usize = 3;

/// One of two directors. All durations are of its own clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pulse {
    settings: Settings,
    state: State,
    since: Instant,
    why: String,
    partner: Partner,
    /// From when on silence counts.
    quiet_from: Instant,
    next_beat: Instant,
    /// By path.
    down: [bool; 2],
    failed: bool,
    /// An operator has put this one on standby.
    standby_from: Option<Instant>,
    /// The partner has connections of which this one has not been told; it is not waited for longer than until then.
    joining: Option<Instant>,
    /// While this one is active: since when the partner says the same.
    rivalry: Option<Instant>,
    last_resent: Option<Instant>,
    #[serde(skip)]
    actions: Vec<Action>,
}

impl Pulse {
    /// A director that has just started; `forced` makes it active at once. The actions are what comes first.
    pub fn start(now: Instant, settings: Settings, forced: bool) -> (Pulse, Vec<Action>) {
        let name = match settings.role {
            Role::Primary => "MASTER",
            Role::Backup => "BACKUP",
        };
        let mut pulse = Pulse {
            settings,
            state: State::Inactive,
            since: now,
            why: "started".to_owned(),
            partner: Partner::default(),
            quiet_from: now,
            next_beat: now,
            down: [false; 2],
            failed: false,
            standby_from: None,
            joining: None,
            rivalry: None,
            last_resent: None,
            actions: Vec::new(),
        };
        pulse.join(now, !pulse.settings.wait.is_zero());
        pulse.log(Level::Info, format!("STARTING PULSE AS {name}"));
        pulse.actions.push(Action::Run(Hook::Inactive));
        if forced {
            pulse.activate(now, "Forced active on startup: activating lvs");
        }
        pulse.beat(now);
        let actions = std::mem::take(&mut pulse.actions);
        (pulse, actions)
    }

    /// The same in another process, by its settings. The actions are what comes first: how fencing went is not known there.
    pub fn go_on(self, settings: Settings) -> (Pulse, Vec<Action>) {
        let first = (self.state == State::Fencing).then_some(Action::Fence);
        (Pulse { settings, ..self }, Vec::from_iter(first))
    }

    /// When [`Event::Tick`] is due; `None` if nothing is waited for.
    pub fn next_deadline(&self) -> Option<Instant> {
        let Settings { pair, deadtime, .. } = self.settings;
        let beat = (pair && self.state != State::Ended).then_some(self.next_beat);
        let dead = self.may_activate().then(|| self.quiet_from + deadtime);
        let released = self.standby_from.map(|from| from + deadtime);
        [beat, dead, released].into_iter().flatten().min()
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Heartbeat(path, word) => self.hear(now, path, word),
            Event::Tick => {}
            Event::Link(path, up) => self.take_link(now, path, up),
            Event::LocalFailure => self.fail(now),
            Event::Activated => self.finish_activation(now),
            Event::Deactivated => self.finish_deactivation(now),
            Event::Joining(joining) => self.join(now, joining),
            Event::Fenced(outcome) => self.take_fenced(now, outcome),
            Event::Wish(wish) => {
                let answer = match wish {
                    Wish::Takeover => self.take_over(now),
                    Wish::Standby => self.stand_by(now),
                };
                self.actions.push(Action::Answer(answer));
            }
            Event::Settings(settings) => self.change(now, settings),
            Event::Terminate(signal) => self.terminate(now, signal),
        }
        // A late tick must not make a difference.
        self.look_at_time(now);
        std::mem::take(&mut self.actions)
    }

    /// Whether packets are taken, or are about to be.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Activating | State::Active)
    }

    /// What this one tells its partner now.
    pub fn word(&self) -> Word {
        match self.state {
            // As long as there are addresses to take away.
            State::Activating | State::Active | State::Deactivating | State::Ending => Word::Running,
            State::Inactive | State::Fencing | State::Ended => Word::Stopped,
        }
    }

    /// Whether the partner has said that it is active, and has been heard since.
    pub fn partner_is_active(&self, now: Instant) -> bool {
        self.partner.word == Some(Word::Running) && self.hears_partner(now)
    }

    /// For the administrator.
    pub fn report(&self, now: Instant) -> Report {
        Report::new(&self.settings, self.state, now.saturating_since(self.since), &self.why, &self.down)
            .with_partner(self.settings.pair, &self.partner, self.hears_partner(now), now)
    }

    /// A partner that is silent tells nothing more.
    fn is_joining(&self, now: Instant) -> bool {
        self.joining.is_some_and(|until| now < until) && self.hears_partner(now)
    }

    fn join(&mut self, now: Instant, joining: bool) {
        let until = now + self.settings.wait;
        let joined = self.joining.is_some() && !joining;
        self.joining = joining.then(|| self.joining.unwrap_or(until));
        if joined && self.partner.word == Some(Word::Stopped) && self.hears_partner(now) {
            self.hear_stopped(now, self.partner.word);
        }
    }

    /// Whether the partner has been heard within deadtime.
    pub fn hears_partner(&self, now: Instant) -> bool {
        self.partner.last_heard().is_some_and(|heard| now.saturating_since(heard) < self.settings.deadtime)
    }

    fn may_activate(&self) -> bool {
        self.state == State::Inactive && self.is_fit() && self.standby_from.is_none()
    }

    fn is_fit(&self) -> bool {
        !self.failed && !self.has_lost_link()
    }

    fn has_lost_link(&self) -> bool {
        self.settings.monitor_links && self.settings.pair && self.down.contains(&true)
    }

    fn hear(&mut self, now: Instant, path: Path, word: Word) {
        if !self.settings.pair {
            return;
        }
        if !self.hears_partner(now) {
            self.rivalry = None;
        }
        let former = self.partner.hear(now, path, word);
        self.quiet_from = now;
        match word {
            Word::Running => self.hear_running(now),
            Word::Stopped => self.hear_stopped(now, former),
            Word::Hold | Word::Held => {}
        }
    }

    fn hear_running(&mut self, now: Instant) {
        self.failed = false;
        self.standby_from = None;
        match (self.state, self.settings.role) {
            (State::Fencing, _) => {
                self.enter(now, State::Inactive, "the partner is active");
                self.log(Level::Warn, "partner active: its fencing is not waited for");
            }
            (State::Activating | State::Active, Role::Backup) => {
                self.actions.push(Action::Send(Word::Running));
                self.deactivate(now, "partner active: deactivating LVS", State::Deactivating);
            }
            (State::Activating | State::Active, Role::Primary) => self.face_rival(now),
            _ => {}
        }
    }

    /// A backup that hears this primary gives way at once. One that has not done so within deadtime does not hear it: then
    /// only the primary can end it.
    fn face_rival(&mut self, now: Instant) {
        if *self.rivalry.get_or_insert(now) + self.settings.deadtime <= now {
            let text = "partner active and does not hear this router: deactivating LVS";
            return self.deactivate(now, text, State::Deactivating);
        }
        self.resend(now, "partner active: resending arps");
    }

    /// At most once a keepalive: two paths say the same.
    fn resend(&mut self, now: Instant, text: &str) {
        let recently = |last: Instant| now.saturating_since(last) < self.settings.keepalive / 2;
        if self.last_resent.is_some_and(recently) {
            return;
        }
        self.last_resent = Some(now);
        self.log(Level::Info, text);
        self.actions.extend([Action::Run(Hook::Active), Action::AnnounceAgain]);
    }

    fn hear_stopped(&mut self, now: Instant, former: Option<Word>) {
        if self.is_active() && self.rivalry.take().is_some() {
            self.resend(now, "partner inactive again: resending arps");
        }
        if !self.may_activate() || self.is_joining(now) {
            return;
        }
        match self.settings.role {
            Role::Primary => self.activate(now, "backup inactive: activating lvs"),
            // When both start, the primary goes first.
            Role::Backup
                if former == Some(Word::Running) || self.partner.stays_stopped(now, &self.settings) =>
            {
                self.activate(now, "primary inactive: activating lvs");
            }
            Role::Backup => {}
        }
    }

    fn take_link(&mut self, now: Instant, path: Path, up: bool) {
        let known = std::mem::replace(&mut self.down[path as usize], !up);
        if known != up || !self.settings.monitor_links || !self.settings.pair {
            return;
        }
        let nic = match path {
            Path::Public => "Primary NIC",
            Path::Private => "Private NIC",
        };
        if up {
            self.log(Level::Info, format!("{nic}: link up"));
            if !self.has_lost_link() {
                self.log(Level::Info, "Local NIC link(s) restored: Pulse enabled");
                // Nothing could be heard meanwhile.
                self.quiet_from = now;
            }
            return;
        }
        self.log(Level::Warn, format!("{nic}: link down"));
        self.log(Level::Warn, "Local NIC link failure: Pulse disabled");
        if self.is_active() {
            self.deactivate(now, "local link failure: deactivating LVS", State::Deactivating);
        } else if self.state == State::Fencing {
            self.enter(now, State::Inactive, "local link failure");
        }
    }

    fn fail(&mut self, now: Instant) {
        self.failed = true;
        self.log(Level::Error, "packet processing has failed on this router");
        if self.is_active() {
            self.deactivate(now, "local failure: deactivating lvs", State::Deactivating);
        } else if self.state == State::Fencing {
            self.enter(now, State::Inactive, "local failure");
        }
    }

    fn take_over(&mut self, now: Instant) -> Result<String, String> {
        match self.state {
            State::Activating | State::Active => return Ok("this router is active already".to_owned()),
            State::Inactive | State::Fencing => {}
            _ => return Err("this router is just becoming inactive; ask again".to_owned()),
        }
        if self.failed {
            return Err("packet processing has failed on this router; restart xlvs".to_owned());
        }
        if self.has_lost_link() {
            return Err("a monitored link of this router is down".to_owned());
        }
        if self.is_joining(now) {
            let text = "the partner has connections of which this router has not been told yet; ask again";
            return Err(text.to_owned());
        }
        if self.settings.role == Role::Backup && self.partner_is_active(now) {
            let text = "the primary is active and would keep the work; run `xlvs standby' there";
            return Err(text.to_owned());
        }
        self.standby_from = None;
        self.activate(now, "Forced active by the operator: activating lvs");
        Ok("becoming active".to_owned())
    }

    fn stand_by(&mut self, now: Instant) -> Result<String, String> {
        if !self.settings.pair {
            return Err("there is no partner (backup_active = 0); stop xlvs instead".to_owned());
        }
        if !self.is_active() {
            return Ok("this router is inactive already".to_owned());
        }
        if !self.hears_partner(now) {
            return Err("the partner is not heard, so nobody would take over; stop xlvs instead".to_owned());
        }
        self.standby_from = Some(now);
        self.deactivate(now, "standby asked for by the operator: deactivating lvs", State::Deactivating);
        Ok("becoming inactive; the partner takes over".to_owned())
    }

    fn change(&mut self, now: Instant, settings: Settings) {
        if settings.role != self.settings.role || settings.pair != self.settings.pair {
            self.partner = Partner::default();
            self.quiet_from = now;
            self.rivalry = None;
        }
        self.settings = settings;
        self.next_beat = now;
    }

    fn terminate(&mut self, now: Instant, signal: i32) {
        self.log(Level::Info, format!("Terminating due to signal {signal}"));
        match self.state {
            State::Activating | State::Active => {
                self.deactivate(now, "shutting down: deactivating lvs", State::Ending);
            }
            State::Deactivating => self.state = State::Ending,
            State::Inactive | State::Fencing => {
                self.actions.push(Action::Run(Hook::Inactive));
                self.end(now);
            }
            State::Ending | State::Ended => {}
        }
    }

    fn activate(&mut self, now: Instant, why: &str) {
        self.log(Level::Warn, why);
        self.enter(now, State::Activating, why);
        // When this one comes back, it waits anew.
        (self.rivalry, self.last_resent, self.joining) = (None, None, None);
        self.send(Word::Running, now);
        self.actions.extend([Action::Activate, Action::Run(Hook::Active)]);
    }

    fn finish_activation(&mut self, now: Instant) {
        if self.state == State::Activating {
            self.state = State::Active;
            let took = now.saturating_since(self.since).as_millis();
            self.log(Level::Info, format!("active: all addresses are up after {took} ms"));
        }
    }

    /// `through` is the state until the addresses are gone.
    fn deactivate(&mut self, now: Instant, why: &str, through: State) {
        self.log(Level::Warn, why);
        self.enter(now, through, why);
        self.rivalry = None;
        self.actions.extend([Action::Run(Hook::Inactive), Action::Deactivate]);
    }

    fn finish_deactivation(&mut self, now: Instant) {
        match self.state {
            State::Deactivating => {
                self.state = State::Inactive;
                self.send(Word::Stopped, now);
            }
            State::Ending => self.end(now),
            _ => {}
        }
    }

    fn end(&mut self, now: Instant) {
        for _ in 0..FAREWELLS {
            self.send(Word::Stopped, now);
        }
        self.state = State::Ended;
        self.actions.push(Action::Exit);
    }

    fn take_fenced(&mut self, now: Instant, outcome: Result<(), String>) {
        if self.state != State::Fencing {
            return;
        }
        match outcome {
            Ok(()) => self.log(Level::Info, "partner fenced"),
            Err(why) if self.settings.fence_required => {
                self.log(Level::Error, format!("{why}; lvs stays inactive, and fencing is tried again"));
                self.enter(now, State::Inactive, "the partner is silent, and cannot be fenced");
                self.quiet_from = now;
                return;
            }
            Err(why) => self.log(Level::Error, format!("{why}; lvs is activated all the same")),
        }
        self.activate(now, "partner dead: activating lvs");
    }

    /// What comes by itself.
    fn look_at_time(&mut self, now: Instant) {
        let deadtime = self.settings.deadtime;
        if self.standby_from.is_some_and(|from| from + deadtime <= now) {
            self.standby_from = None;
            self.log(Level::Warn, "the partner has not taken over: standby ends");
        }
        if self.may_activate() && self.quiet_from + deadtime <= now {
            if self.settings.fence && self.settings.pair {
                self.log(Level::Warn, "partner dead: fencing it");
                self.enter(now, State::Fencing, "the partner is silent");
                self.actions.push(Action::Fence);
            } else {
                self.activate(now, "partner dead: activating lvs");
            }
        }
        self.beat(now);
    }

    fn beat(&mut self, now: Instant) {
        if self.settings.pair && self.state != State::Ended && self.next_beat <= now {
            self.send(self.word(), now);
        }
    }

    fn send(&mut self, word: Word, now: Instant) {
        if self.settings.pair {
            self.actions.push(Action::Send(word));
            self.next_beat = now + self.settings.keepalive;
        }
    }

    fn enter(&mut self, now: Instant, state: State, why: &str) {
        (self.state, self.since) = (state, now);
        why.clone_into(&mut self.why);
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.actions.push(Action::Log(level, text.into()));
    }
}
