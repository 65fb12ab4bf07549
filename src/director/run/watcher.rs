//! Tells of changes of files by inotify. The directories are watched, since a file can be replaced by another one; also those
//! that links lead to.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::files::Files;
use crate::director::watch::FileEvent;

/// Something that happened to a file.
#[derive(Clone, Debug)]
pub struct Change {
    /// The file.
    pub file: PathBuf,
    /// What.
    pub event: FileEvent,
}

/// How often the kernel's queue is looked into; files have to be left alone for longer anyway.
const PERIOD: Duration = Duration::from_millis(200);

/// Watches files.
#[derive(Debug)]
pub struct Watcher {
    queue: Inotify,
    period: Interval,
    folders: HashMap<WatchDescriptor, PathBuf>,
    files: Vec<PathBuf>,
    /// Those of which nothing is noticed.
    unwatched: Vec<PathBuf>,
}

impl Watcher {
    /// Watches these files, which need not exist; where their directory does not either, nothing is noticed, and that is said, unless
    /// it was so with the former watcher.
    pub fn new<'a>(files: impl Iterator<Item = &'a Path>, former: Option<Watcher>) -> io::Result<Self> {
        let queue = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let wanted = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let mut folders = HashMap::new();
        let mut places = Vec::new();
        let (known, mut unwatched) = (former.map(|former| former.unwatched).unwrap_or_default(), Vec::new());
        for file in files {
            places.extend(way_to(file)?);
        }
        for file in &places {
            let folder = file.parent().unwrap_or(Path::new("/"));
            match queue.add_watch(folder, wanted) {
                Ok(descriptor) => drop(folders.insert(descriptor, folder.to_owned())),
                Err(error) => {
                    if !known.contains(file) {
                        tracing::warn!(
                            "{}: changes are not noticed ({error}); after one say xlvs reload",
                            file.display()
                        );
                    }
                    unwatched.push(file.clone());
                }
            }
        }
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watcher { queue, period, folders, files: places, unwatched })
    }

    async fn changes(&mut self) -> io::Result<Vec<Change>> {
        loop {
            self.period.tick().await;
            match self.queue.read_events() {
                Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
                Ok(events) => {
                    let changes: Vec<Change> = events.iter().flat_map(|event| self.meaning(event)).collect();
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
            }
        }
    }

    fn meaning(&self, event: &InotifyEvent) -> Vec<Change> {
        let of_all = AddWatchFlags::IN_Q_OVERFLOW
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT;
        if event.mask.intersects(of_all) {
            let files = self.files.iter().cloned();
            return files.map(|file| Change { file, event: FileEvent::Complete }).collect();
        }
        let Some(folder) = self.folders.get(&event.wd) else { return Vec::new() };
        let file = event.name.as_ref().map(|name| folder.join(name));
        let Some(file) = file.filter(|file| self.files.contains(file)) else { return Vec::new() };
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        let event = match event.mask {
            mask if mask.intersects(gone) => FileEvent::Gone,
            mask if mask.contains(AddWatchFlags::IN_MODIFY) => FileEvent::Written,
            mask if mask.contains(AddWatchFlags::IN_CREATE) && is_being_written(&file) => FileEvent::Written,
            _ => FileEvent::Complete,
        };
        vec![Change { file, event }]
    }
}

/// Every link on the way to a file, and the file that they lead to; none has links before its own name.
fn way_to(file: &Path) -> io::Result<Vec<PathBuf>> {
    // As many as the kernel follows.
    const LINKS: usize = 40;
    let names = |path: &Path| path.components().map(|name| name.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut way, mut here) = (Vec::new(), PathBuf::new());
    let mut ahead: VecDeque<OsString> = names(&std::path::absolute(file)?).into();
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(name);
        match fs::read_link(&next) {
            Ok(target) if way.len() < LINKS => {
                names(&target).into_iter().rev().for_each(|name| ahead.push_front(name));
                way.push(next);
            }
            _ => here = next,
        }
    }
    way.push(here);
    Ok(way)
}

/// Whether whoever has made a file is still to close it. A link, of whatever kind, is complete at once.
fn is_being_written(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok_and(|made| made.is_file() && made.nlink() == 1)
}

/// The next changes; for ever nothing without a watcher. One that fails is said and given up.
pub async fn next(watcher: &mut Option<Watcher>) -> Option<Vec<Change>> {
    let Some(present) = watcher else { return std::future::pending().await };
    match present.changes().await {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!(
                "changes of the files are not noticed any more ({error}); after one say xlvs reload"
            );
            *watcher = None;
            None
        }
    }
}

/// What the files are, in short.
pub fn contents(files: &Files) -> HashMap<PathBuf, Option<u64>> {
    let hash = |path: &Path| {
        let mut hasher = DefaultHasher::new();
        fs::read(path).ok()?.hash(&mut hasher);
        Some(hasher.finish())
    };
    files.paths().map(|path| (path.to_owned(), hash(path))).collect()
}
