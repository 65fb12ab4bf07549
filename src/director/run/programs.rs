//! Programs that are run and not waited for: what tells a server's load, the notify command, `active_cmd` and `inactive_cmd`.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::director::notices::{Notice, Notices, ROOM, Subject};
use crate::ipvs::edit::{ServerId, ServiceId};
use crate::nanny::{Leftovers, run_program};

/// So many loads are read at once.
const LOADS_AT_ONCE: usize = 16;
/// How long the notify command may take.
const NOTICE_TIME: Duration = Duration::from_secs(10);
/// How long `active_cmd` and `inactive_cmd` may take.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// How long all of them may take once the daemon has nothing else to do any more.
const LAST_TIME: Duration = Duration::from_secs(5);

/// What a program said of a server's load, or why it said nothing.
#[derive(Debug)]
pub struct LoadReport {
    /// The service.
    pub service: ServiceId,
    /// Its server.
    pub server: ServerId,
    /// What it printed.
    pub printed: Result<String, String>,
}

/// Runs programs.
#[derive(Debug)]
pub struct Programs {
    loads: mpsc::Sender<LoadReport>,
    load_permits: Arc<Semaphore>,
    notices: Option<mpsc::Sender<Notice>>,
    commands: Option<mpsc::UnboundedSender<(&'static str, Vec<String>)>>,
    lost: Arc<AtomicU64>,
    running: JoinSet<()>,
}

impl Programs {
    /// `notify` is the notify command, empty if there is none; loads are reported to `loads`.
    pub fn new(notify: &str, loads: mpsc::Sender<LoadReport>) -> Self {
        let mut running = JoinSet::new();
        let lost = Arc::new(AtomicU64::new(0));
        let words: Vec<String> = notify.split_whitespace().map(str::to_owned).collect();
        let notices = (!words.is_empty()).then(|| {
            let (sender, inbox) = mpsc::channel(ROOM);
            running.spawn(Notifier::new(words, Arc::clone(&lost)).run(inbox));
            sender
        });
        let (commands, inbox) = mpsc::unbounded_channel();
        running.spawn(run_commands(inbox));
        let load_permits = Arc::new(Semaphore::new(LOADS_AT_ONCE));
        Programs { loads, load_permits, notices, commands: Some(commands), lost, running }
    }

    /// Has a server's load told; the report comes in any case.
    pub fn read_load(&mut self, service: ServiceId, server: ServerId, words: Vec<String>, limit: Duration) {
        let (loads, permits) = (self.loads.clone(), Arc::clone(&self.load_permits));
        self.forget_ended();
        self.running.spawn(async move {
            let _permit = permits.acquire().await;
            let printed = read_load(words, limit).await;
            // Nobody listening means nobody to tell.
            let _ = loads.send(LoadReport { service, server, printed }).await;
        });
    }

    /// Runs a command of `lvs.cf`, after those before it. What it leaves running when it ends goes on.
    pub fn run(&self, key: &'static str, words: Vec<String>) {
        // The task lasts as long as this.
        let _ = self.commands.as_ref().map(|commands| commands.send((key, words)));
    }

    /// Has the notify command told.
    pub fn notify(&mut self, notice: Notice) {
        if let Some(notices) = &self.notices
            && notices.try_send(notice).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs of the notify command that were left out so far.
    pub fn notices_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn forget_ended(&mut self) {
        while self.running.try_join_next().is_some() {}
    }

    /// Lets them end, for some seconds; what still runs then is killed.
    pub async fn stop(mut self) {
        drop((self.notices.take(), self.commands.take()));
        let ended = async { while self.running.join_next().await.is_some() {} };
        if timeout(LAST_TIME, ended).await.is_err() {
            tracing::warn!("programs that have not ended are killed");
        }
    }
}

/// One after the other: the last one says how things are.
async fn run_commands(mut inbox: mpsc::UnboundedReceiver<(&'static str, Vec<String>)>) {
    while let Some((key, words)) = inbox.recv().await {
        tracing::info!("{key}: running {}", words.join(" "));
        if let Some(problem) = run_command(words, COMMAND_TIME, Leftovers::GoOn).await {
            tracing::warn!("{key}: {problem}");
        }
    }
}

/// Runs a program; returns what went wrong, if anything did.
pub async fn run_command(words: Vec<String>, limit: Duration, leftovers: Leftovers) -> Option<String> {
    problem(&words, run_program(words.clone(), Stdio::null(), limit, leftovers).await)
}

async fn read_load(words: Vec<String>, limit: Duration) -> Result<String, String> {
    let line = words.join(" ");
    match run_program(words, Stdio::piped(), limit, Leftovers::Killed).await {
        Ok((printed, status)) if printed.is_empty() => Err(format!("{line} printed nothing ({status})")),
        Ok((printed, _)) => Ok(String::from_utf8_lossy(&printed).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(format!("{line} took longer than {} s", limit.as_secs()))
        }
        Err(error) => Err(format!("cannot run {line}: {error}")),
    }
}

/// What went wrong with a program, if anything did.
fn problem(words: &[String], outcome: io::Result<(Vec<u8>, ExitStatus)>) -> Option<String> {
    let program = words.first().map_or("", String::as_str);
    match outcome {
        Ok((_, status)) if status.success() => None,
        Ok((_, status)) => Some(format!("{program} exited abnormally: {status}")),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Some(format!("{program} took too long and was killed"))
        }
        Err(error) => Some(format!("cannot run {program}: {error}")),
    }
}

/// Runs the notify command for one notice after the other.
struct Notifier {
    words: Vec<String>,
    lost: Arc<AtomicU64>,
    notices: Notices,
    running: JoinSet<(Subject, Option<String>)>,
    /// What went wrong the last time; only a change of it is told.
    trouble: Option<String>,
}

impl Notifier {
    fn new(words: Vec<String>, lost: Arc<AtomicU64>) -> Self {
        Notifier { words, lost, notices: Notices::default(), running: JoinSet::new(), trouble: None }
    }

    /// Until nobody has anything to tell any more, and all has been told.
    async fn run(mut self, mut inbox: mpsc::Receiver<Notice>) {
        let mut is_open = true;
        while is_open || !self.running.is_empty() {
            tokio::select! {
                notice = inbox.recv(), if is_open => match notice {
                    Some(notice) => self.take(notice),
                    None => is_open = false,
                },
                Some(ended) = self.running.join_next() => {
                    if let Ok((subject, trouble)) = ended {
                        self.end(&subject, trouble);
                    }
                }
            }
            while let Some(notice) = self.notices.start() {
                self.running.spawn(tell(self.words.clone(), notice));
            }
        }
    }

    fn take(&mut self, notice: Notice) {
        if !self.notices.push(notice) && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("notify: {ROOM} runs are waiting, so that further ones are left out");
        }
    }

    fn end(&mut self, subject: &Subject, trouble: Option<String>) {
        self.notices.end(subject);
        if self.notices.is_drained() {
            match self.notices.take_lost() {
                0 => {}
                lost => tracing::warn!("notify: {lost} runs were left out because too many were waiting"),
            }
        }
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("notify: {trouble}"),
                None => tracing::info!("notify: {} works again", self.words.join(" ")),
            }
            self.trouble = trouble;
        }
    }
}

async fn tell(mut words: Vec<String>, notice: Notice) -> (Subject, Option<String>) {
    words.extend(notice.arguments);
    let outcome = run_program(words.clone(), Stdio::null(), NOTICE_TIME, Leftovers::Killed).await;
    (notice.subject, problem(&words, outcome))
}
