//! Scenarios and goldens: what the files hold, and where they are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::support::dump::Dump;
use crate::support::ethernet::Neighbours;

/// A packet as a step words it: fields of a [`crate::support::packet::PacketSpec`], and references to earlier steps.
pub type Wish = Map<String, Value>;

/// One value, or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single one.
    One(T),
    /// Several, in order.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Runs command lines.
    Run(OneOrMany<String>),
    /// Sends packets back to back.
    Send(OneOrMany<Wish>),
    /// Lets seconds pass.
    Wait(f64),
    /// Asks for sections of the state.
    Dump(Vec<String>),
    /// Lets seconds pass and shows the sync messages sent meanwhile.
    Sync(f64),
}

/// One step of a scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Name by which later steps refer to it.
    pub label: Option<String>,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// A script of commands, packets and waits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name; that of the files too.
    pub name: String,
    /// What it is about, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Every server has a hardware address of its own, and the goldens show which one a packet went to.
    #[serde(default)]
    pub l2: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// Whether it looks at what a synchronisation daemon sends.
    pub fn looks_at_messages(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Sync(_)))
    }

    /// Whose hardware addresses there are.
    pub fn neighbours(&self) -> Neighbours {
        if self.l2 { Neighbours::Apart } else { Neighbours::Shared }
    }
}

/// A command line and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRecord {
    /// The command line.
    pub cmd: String,
    /// Exit code.
    pub rc: i32,
    /// Lines of standard output.
    #[serde(default)]
    pub out: Vec<String>,
    /// Lines of standard error.
    #[serde(default)]
    pub err: Vec<String>,
}

/// One step as it went, in a golden or here.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 0.
    pub i: usize,
    /// When it began, in seconds since the start, to a tenth. Some goldens do not tell.
    pub t: Option<f64>,
    /// Its label.
    pub label: Option<String>,
    /// Packets that went in, one line each.
    #[serde(rename = "in", default)]
    pub input: Vec<String>,
    /// Packets that came out, one line each.
    #[serde(default)]
    pub out: Vec<String>,
    /// Commands that ran.
    #[serde(default)]
    pub run: Vec<CommandRecord>,
    /// Seconds that it waited.
    pub wait: Option<f64>,
    /// Seconds that the dump itself took. Some goldens do not tell.
    pub lag: Option<f64>,
    /// The state.
    pub dump: Option<Dump>,
}

/// What the reference did with a scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// The steps, in order.
    pub steps: Vec<StepRecord>,
}

/// A scenario and the golden that belongs to it.
#[derive(Clone, Debug)]
pub struct Play {
    /// What to do.
    pub scenario: Scenario,
    /// What must come of it.
    pub golden: Golden,
}

/// All scenarios of `tests/ipvs` and of the directories in `XLVS_SCENARIOS` (separated by colons, each with `scenarios/`
/// and `goldens/`), by directory and name. A scenario without golden, or a file that does not parse, panics.
pub fn all() -> Vec<Play> {
    let more = std::env::var_os("XLVS_SCENARIOS").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    own().into_iter().chain(more.flat_map(|directory| of_directory(&directory))).collect()
}

/// The same but those that look at what a master sends: what takes the shortcut is told of later, and less often.
pub fn all_by_the_shortcut() -> Vec<Play> {
    all().into_iter().filter(|play| !play.scenario.looks_at_messages()).collect()
}

/// All scenarios of `tests/ipvs`, by name.
pub fn own() -> Vec<Play> {
    of_directory(&own_directory())
}

/// The one scenario of `tests/ipvs` with that name.
pub fn named(name: &str) -> Play {
    let directory = own_directory();
    load(&directory, &directory.join("scenarios").join(format!("{name}.json")))
}

/// `tests/ipvs`, also from a package further down in the tree.
pub fn own_directory() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = packages.map(|package| package.join("tests/ipvs")).find(|directory| directory.is_dir());
    found.expect("tests/ipvs")
}

fn of_directory(directory: &Path) -> Vec<Play> {
    let scenarios = directory.join("scenarios");
    let entries = fs::read_dir(&scenarios).unwrap_or_else(|error| panic!("{}: {error}", scenarios.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", scenarios.display())).path())
        .filter(|path| path.extension() == Some(OsStr::new("json")))
        .collect();
    paths.sort();
    paths.iter().map(|path| load(directory, path)).collect()
}

fn load(directory: &Path, path: &Path) -> Play {
    let scenario: Scenario = parse(path);
    let golden = directory.join("goldens").join(format!("{}.golden.json", scenario.name));
    Play { golden: parse(&golden), scenario }
}

fn parse<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Sections of a dump other than the connections, by name.
pub type Sections = BTreeMap<String, Vec<String>>;
