//! Other configurations: the site's files read again, or files that somebody brings.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::files::{Configuration, Others, Refused, Renewed};
use super::pair_plan::PairPlan;
use super::watchdog::{notify, notify_reloading};
use super::{Daemon, Watcher, ports, watcher};
use crate::config::lvs::LvsConfig;
use crate::config::settings::Settings;
use crate::director::protocol::{Reply, Request, SiteFiles};
use crate::director::wanted::Wanted;
use crate::director::watch::FileEvent;
use crate::director::{ClientId, Command};

/// A file that is to become the site's `lvs.cf`.
#[derive(Clone, Debug)]
pub struct Install {
    text: String,
    /// Whether it is that file already, so that there is nothing to write.
    is_site: bool,
    wanted: bool,
}

/// Who waits for the answer to a request.
type Answer = oneshot::Sender<Reply>;

/// Files that have been read, and what for. That is done beside the director: to look up the names in them may take long.
#[derive(Debug)]
pub enum Read {
    /// The site's, read again; for a watcher if nobody asked.
    Site {
        /// Clients that wait.
        asked: Vec<Answer>,
        /// What was read.
        outcome: Result<Box<Renewed>, Refused>,
    },
    /// Others, to tell what they would do.
    Plan {
        /// What was read.
        outcome: Result<Box<Others>, String>,
        /// Who waits.
        answer: Answer,
    },
    /// Others, to be followed.
    Apply {
        /// What is wanted.
        apply: Box<Apply>,
        /// What was read.
        outcome: Result<Box<Others>, String>,
        /// Who waits.
        answer: Answer,
    },
}

/// What somebody wants to be followed.
#[derive(Debug)]
pub struct Apply {
    /// The files.
    pub files: SiteFiles,
    /// Seconds in which that is to be confirmed; for good at once if absent.
    pub confirm: Option<u32>,
    /// Whether the first of them is to take the place of the site's.
    pub install: bool,
}

/// Whether the site's files are being read.
#[derive(Debug, Default)]
pub enum Reloading {
    /// They are not.
    #[default]
    No,
    /// They are.
    Now,
    /// They are, and once more after that, for these clients.
    Again(Vec<Answer>),
}

impl Daemon {
    /// Reads the files again. A fault in them, or something in them that cannot be run, changes nothing.
    pub(super) fn reload(&mut self, asked: Vec<Answer>) {
        match &mut self.reloading {
            Reloading::Again(waiting) => waiting.extend(asked),
            Reloading::Now => self.reloading = Reloading::Again(asked),
            Reloading::No => {
                notify_reloading();
                self.reloading = Reloading::Now;
                let (files, is_watched) = (self.files.clone(), asked.is_empty() && self.is_followed);
                self.is_followed = false;
                self.reading
                    .spawn_blocking(move || Read::Site { asked, outcome: files.read_again(is_watched) });
            }
        }
    }

    /// Goes on once files have been read.
    pub(super) async fn take_read(&mut self, read: Result<Read, JoinError>) {
        match read {
            Ok(Read::Site { asked, outcome }) => {
                let reply = self.reloaded(outcome).await;
                // Clients that have gone need no answer.
                asked.into_iter().for_each(|answer| drop(answer.send(reply.clone())));
                self.end_reload();
            }
            Ok(Read::Plan { outcome, answer }) => self.planned(outcome, answer),
            Ok(Read::Apply { apply, outcome, answer }) => {
                drop(answer.send(self.applied(*apply, outcome).await))
            }
            Err(error) => {
                tracing::error!("the files could not be read: {error}");
                self.end_reload();
            }
        }
    }

    fn end_reload(&mut self) {
        notify(&[NotifyState::Ready]);
        if let Reloading::Again(waiting) = std::mem::take(&mut self.reloading) {
            self.reload(waiting);
        }
    }

    async fn reloaded(&mut self, outcome: Result<Box<Renewed>, Refused>) -> Reply {
        match outcome.and_then(|renewed| self.judge_site(renewed)) {
            Ok(renewed) => {
                let Renewed { settings, files, seen, configuration } = *renewed;
                let moved = !files.paths().eq(self.files.paths());
                self.files = files;
                self.watch.has_read(seen);
                let mut lines = vec!["reloaded".to_owned()];
                lines.extend(self.take_settings(settings).await);
                if moved {
                    self.watch_files();
                }
                self.configure(configuration).await;
                tracing::info!("configuration reloaded");
                lines.append(&mut self.changed_by_hand);
                Reply::Text(lines.join("\n"))
            }
            Err(Refused { report, seen }) => {
                // A trial that ends looks again.
                if self.director.on_trial(self.clock.now()).is_none() {
                    self.watch.has_read(seen);
                }
                tracing::error!("reload refused, the present configuration stays:\n{report}");
                Reply::Failed(format!("reload refused, the present configuration stays:\n{report}"))
            }
        }
    }

    fn judge_site(&self, renewed: Box<Renewed>) -> Result<Box<Renewed>, Refused> {
        let Configuration { lvs, marks, .. } = &renewed.configuration;
        let trial = self.director.on_trial(self.clock.now());
        let objection = trial.or_else(|| self.director.objection(lvs, marks));
        let objection = objection.or_else(|| self.check_ports(lvs).err());
        match objection.or_else(|| self.check_pair(lvs, &renewed.settings).err()) {
            Some(report) => Err(Refused { report, seen: renewed.seen }),
            None => Ok(renewed),
        }
    }

    fn check_ports(&self, lvs: &LvsConfig) -> Result<(), String> {
        let Some(served) = &self.found_ports else { return Ok(()) };
        ports::check(served, &Wanted::new(lvs), &self.network.borrow()).map_err(|error| error.to_string())
    }

    fn check_pair(&self, lvs: &LvsConfig, settings: &Settings) -> Result<(), String> {
        match self.heart {
            Some(_) => PairPlan::new(lvs, &settings.pulse, &self.network.borrow()).map(drop),
            None => Ok(()),
        }
    }

    pub(super) async fn configure(&mut self, configuration: Configuration) {
        let Configuration { lvs, marks, warnings, texts } = configuration;
        self.texts = texts;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.follow(&lvs);
        self.command(Command::Configure { lvs: Box::new(lvs), marks }).await;
        self.report_sync().await;
    }

    /// Foretells; the counting is done elsewhere, since it takes a while and needs no director.
    pub(super) fn plan(&mut self, files: SiteFiles, answer: Answer) {
        let site = self.files.clone();
        self.reading
            .spawn_blocking(move || Read::Plan { outcome: site.read_others(&files).map(Box::new), answer });
    }

    fn planned(&self, outcome: Result<Box<Others>, String>, answer: Answer) {
        match outcome.and_then(|others| self.judge(*others)) {
            Ok(Others { lvs, marks, .. }) => {
                let forecast = self.director.forecast(&lvs, marks.as_deref());
                let tables = Arc::clone(self.director.tables());
                tokio::task::spawn_blocking(move || {
                    // A client that has gone needs no answer.
                    let _ = answer.send(Reply::Plan(Box::new(forecast.count(&tables))));
                });
            }
            Err(report) => drop(answer.send(Reply::Failed(report))),
        }
    }

    fn judge(&self, others: Others) -> Result<Others, String> {
        let objection = match &others.marks {
            Some(marks) => self.director.objection(&others.lvs, marks),
            None => self.director.objection_to(&others.lvs),
        };
        match objection {
            Some(objection) => Err(objection),
            None => {
                self.check_ports(&others.lvs)?;
                self.check_pair(&others.lvs, &self.settings).map(|()| others)
            }
        }
    }

    /// Reads files to follow them.
    pub(super) fn apply(&mut self, apply: Apply, answer: Answer) {
        let (site, apply) = (self.files.clone(), Box::new(apply));
        self.reading.spawn_blocking(move || {
            let outcome = site.read_others(&apply.files).map(Box::new);
            Read::Apply { apply, outcome, answer }
        });
    }

    async fn applied(&mut self, apply: Apply, outcome: Result<Box<Others>, String>) -> Reply {
        let Apply { files, confirm, install } = apply;
        let others = match outcome.and_then(|others| self.judge(*others)) {
            Ok(others) => others,
            Err(report) => {
                return Reply::Failed(format!("refused, the present configuration stays:\n{report}"));
            }
        };
        for warning in &others.warnings {
            tracing::warn!("{warning}");
        }
        let source = files.lvs.name.clone();
        let confirm = confirm.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let Others { lvs, marks, mut texts, .. } = others;
        if marks.is_none() {
            (texts.marks, texts.marks6) = (self.texts.marks.clone(), self.texts.marks6.clone());
        }
        let plan_before = self.follow(&lvs);
        self.plan_before = plan_before.filter(|_| confirm.is_some());
        let command = Command::Apply {
            client: ClientId(0),
            lvs: Box::new(lvs),
            marks,
            source: source.clone(),
            confirm,
        };
        self.command(command).await;
        self.report_sync().await;
        let reply = self.answer.take().unwrap_or_else(|| Reply::Failed("no answer".into()));
        let Reply::Text(text) = reply else { return reply };
        let former = std::mem::replace(&mut self.texts, texts);
        self.former_texts = confirm.map(|_| former);
        let is_site = self.files.lvs().is_some_and(|site| is_same(site, Path::new(&source)));
        self.install = Some(Install { text: files.lvs.text, is_site, wanted: install });
        let mut lines = vec![text];
        if confirm.is_none() {
            lines.extend(self.install().await);
        }
        lines.append(&mut self.changed_by_hand);
        Reply::Text(lines.join("\n"))
    }

    pub(super) async fn confirm(&mut self) -> Reply {
        match self.ask(Request::Confirm).await {
            Reply::Text(text) => {
                Reply::Text([text].into_iter().chain(self.install().await).collect::<Vec<_>>().join("\n"))
            }
            reply => reply,
        }
    }

    /// What counts for good becomes the site's file, if that is wanted. Returns what to tell.
    async fn install(&mut self) -> Option<String> {
        let Install { text, is_site, wanted } = self.install.take()?;
        let site = self.files.lvs()?.to_owned();
        if is_site {
            self.command(Command::Installed).await;
            return None;
        }
        if !wanted {
            let text = format!("{} is as it was: a reload or a restart follows that one", site.display());
            tracing::warn!("{text}");
            return Some(text);
        }
        let told = match replace(&site, &text) {
            Ok(()) => {
                self.command(Command::Installed).await;
                self.watch.has_read(watcher::contents(&self.files));
                format!("installed as {}", site.display())
            }
            Err(error) => format!("{} stays as it was: {error}; copy the file yourself", site.display()),
        };
        tracing::info!("{told}");
        Some(told)
    }

    pub(super) fn trial_ended(&mut self, kept: bool) {
        if let Some(former) = self.former_texts.take().filter(|_| !kept) {
            self.texts = former;
        }
        if !kept && self.install.take().is_some_and(|install| install.is_site) {
            let site = self.files.lvs().unwrap_or(Path::new("lvs.cf")).display().to_string();
            tracing::warn!("{site} still has what was on trial: a reload or a restart follows it");
        }
        if let (Some(heart), Some(plan)) = (&mut self.heart, self.plan_before.take().filter(|_| !kept)) {
            heart.follow(plan);
        }
        // What has changed meanwhile had to wait.
        let now = self.clock.now();
        if self.settings.watch && self.watch.next_deadline().is_none() {
            self.watch.happened(now, PathBuf::new(), FileEvent::Complete);
        }
    }

    /// Begins to watch the files, or ceases to, as the settings say. What has happened to them since they were read is looked at.
    pub(super) fn watch_files(&mut self) {
        self.watch_anew();
        if self.watcher.is_some() {
            self.watch.happened(self.clock.now(), PathBuf::new(), FileEvent::Complete);
        }
    }

    fn watch_anew(&mut self) {
        let former = self.watcher.take();
        if self.settings.watch {
            let watcher = Watcher::new(self.files.paths(), former);
            self.watcher = watcher.inspect_err(|error| tracing::warn!("{error}")).ok();
        }
    }

    pub(super) fn files_changed(&mut self, changes: Vec<watcher::Change>) {
        let now = self.clock.now();
        for watcher::Change { file, event } in changes {
            self.watch.happened(now, file, event);
        }
    }

    /// The files have been left alone for a while: are they others?
    pub(super) fn look_at_files(&mut self) {
        let now = self.clock.now();
        if !self.watch.is_time(now) {
            return;
        }
        // A trial that ends looks again.
        if let Some(why) = self.director.on_trial(now) {
            return tracing::warn!("the files have changed, but {why}");
        }
        // Links may lead elsewhere now, and folders may be others.
        self.watch_anew();
        if !self.watch.is_news(watcher::contents(&self.files)) {
            return;
        }
        self.is_followed = true;
        self.reload(Vec::new());
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Puts a file in another one's place, at once and with its owner and mode. Of a link what it points at is replaced.
fn replace(site: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(site).unwrap_or_else(|_| site.to_owned());
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let beside = folder.join(format!(".{name}.xlvs"));
    let written =
        write(&beside, fs::metadata(&target).ok(), text).and_then(|()| fs::rename(&beside, &target));
    if written.is_err() {
        // It may not have come into being.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write(beside: &Path, like: Option<fs::Metadata>, text: &str) -> io::Result<()> {
    let mut file = File::create(beside)?;
    if let Some(like) = like {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
        file.set_permissions(Permissions::from_mode(like.mode()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
