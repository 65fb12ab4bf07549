//! The site's files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RunError, RunOptions, watcher};
use crate::config::check::check;
use crate::config::lvs::LvsConfig;
use crate::config::marks::parse_marks_of;
use crate::config::names::Names;
use crate::config::parse::parse;
use crate::config::report;
use crate::config::settings::{self, Settings};
use crate::config::text::{self, ReadError};
use crate::director::names::with_system_names;
use crate::director::protocol::{FileText, SiteFiles};
use crate::ipvs::mark::MarkRules;
use crate::net::addr::Family;

/// Where `xlvs.toml` is if nobody says otherwise; it need not exist.
const SETTINGS: &str = "/etc/xlvs/xlvs.toml";

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    lvs: Option<PathBuf>,
    marks: PathBuf,
    marks6: PathBuf,
    options: RunOptions,
}

/// What was in other files.
#[derive(Debug)]
pub struct Others {
    /// `lvs.cf`.
    pub lvs: LvsConfig,
    /// Marks, if they are among the files.
    pub marks: Option<Arc<MarkRules>>,
    /// Warnings, for the log.
    pub warnings: Vec<String>,
    /// All of it as it was written; without marks those are to be left out.
    pub texts: SiteTexts,
}

/// The site's files, by what was in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTexts {
    /// `lvs.cf`, if the site has one.
    pub lvs: Option<FileText>,
    /// Saved iptables rules, if there are any.
    pub marks: Option<FileText>,
    /// Saved ip6tables rules, if there are any.
    pub marks6: Option<FileText>,
}

/// What was in them.
#[derive(Debug)]
pub struct Configuration {
    /// `lvs.cf`.
    pub lvs: LvsConfig,
    /// Marks.
    pub marks: Arc<MarkRules>,
    /// Warnings about both, for the log.
    pub warnings: Vec<String>,
    /// All of it as it was written.
    pub texts: SiteTexts,
}

/// What was read again. What is in the files is looked at before they are read: a change between the two is news then.
#[derive(Debug)]
pub struct Renewed {
    /// `xlvs.toml`.
    pub settings: Settings,
    /// Where the files are by it.
    pub files: Files,
    /// What is in them, in short.
    pub seen: HashMap<PathBuf, Option<u64>>,
    /// What is in them.
    pub configuration: Configuration,
}

/// Why files are not followed.
#[derive(Debug)]
pub struct Refused {
    /// For a person.
    pub report: String,
    /// What is in them, in short.
    pub seen: HashMap<PathBuf, Option<u64>>,
}

/// Reads `xlvs.toml`: the one asked for, else the usual one if it exists, else nothing but defaults.
pub fn read_settings(options: &RunOptions) -> Result<Settings, RunError> {
    let path = options.settings.as_deref().unwrap_or(Path::new(SETTINGS));
    let file = path.display().to_string();
    match text::read(path) {
        Ok(text) => Ok(settings::parse(&file, &text)?),
        Err(ReadError::Missing) if options.settings.is_none() => Ok(Settings::default()),
        Err(error) => Err(RunError::Configuration(format!("{file}: error: {error}"))),
    }
}

impl Files {
    /// The files that options and settings name.
    pub fn new(options: RunOptions, settings: &Settings) -> Self {
        let lvs = options.lvs.clone().unwrap_or_else(|| settings.lvs_cf.clone());
        let marks = options.marks.clone().unwrap_or_else(|| settings.marks.clone());
        let marks6 = options.marks6.clone().unwrap_or_else(|| settings.marks6.clone());
        Files { lvs: (!options.bare).then_some(lvs), marks, marks6, options }
    }

    /// The same with `xlvs.toml` as it is now.
    pub fn renewed(&self) -> Result<(Settings, Files), String> {
        let settings = read_settings(&self.options).map_err(|error| error.to_string())?;
        let files = Files::new(self.options.clone(), &settings);
        Ok((settings, files))
    }

    /// What was asked for on the command line.
    pub fn options(&self) -> &RunOptions {
        &self.options
    }

    /// The site's `lvs.cf`, if it has one.
    pub fn lvs(&self) -> Option<&Path> {
        self.lvs.as_deref()
    }

    /// All files but the settings.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.lvs().into_iter().chain([self.marks.as_path(), self.marks6.as_path()])
    }

    /// The site's files with others in their place, or what is wrong with those; marks only if there are others of them.
    pub fn read_others(&self, others: &SiteFiles) -> Result<Others, String> {
        with_system_names(|names| {
            let (lvs, warnings) = parse_lvs(&others.lvs.name, &others.lvs.text, names)?;
            let mut texts = SiteTexts { lvs: Some(others.lvs.clone()), ..SiteTexts::default() };
            if others.marks.is_none() && others.marks6.is_none() {
                return Ok(Others { lvs, marks: None, warnings, texts });
            }
            let or_site = |file: &Option<FileText>, path| match file {
                Some(file) => Ok(Some(file.clone())),
                None => optional(path),
            };
            texts.marks = or_site(&others.marks, &self.marks)?;
            texts.marks6 = or_site(&others.marks6, &self.marks6)?;
            let marks6 = rules(&texts.marks6, Family::V6, names)?;
            let marks = rules(&texts.marks, Family::V4, names)?.with_ipv6(marks6);
            Ok(Others { lvs, marks: Some(Arc::new(marks)), warnings, texts })
        })
    }

    /// Reads all files, or reports everything that is wrong with them.
    pub fn read(&self) -> Result<Configuration, String> {
        let texts =
            (self.lvs.as_deref().map(required).transpose(), optional(&self.marks), optional(&self.marks6));
        match texts {
            (Ok(lvs), Ok(marks), Ok(marks6)) => understand(SiteTexts { lvs, marks, marks6 }),
            (lvs, marks, marks6) => {
                Err([lvs.err(), marks.err(), marks6.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Reads everything again, `xlvs.toml` first. A `lvs.cf` that looks half written is refused if it was only found changed, and
    /// nobody asked for it to be read.
    pub fn read_again(&self, is_watched: bool) -> Result<Box<Renewed>, Refused> {
        let refused = |files: &Files, report| Refused { report, seen: watcher::contents(files) };
        let (settings, files) = self.renewed().map_err(|report| refused(self, report))?;
        let seen = watcher::contents(&files);
        if is_watched && files.ends_too_early() {
            let file = files.lvs().unwrap_or(Path::new("lvs.cf")).display();
            let report = format!(
                "{file}: the file has changed and ends within a block, as if it were half written (xlvs reload follows it all the \
                 same)"
            );
            return Err(Refused { report, seen });
        }
        if is_watched {
            tracing::info!("the files have changed");
        }
        match files.read() {
            Ok(configuration) => Ok(Box::new(Renewed { settings, files, seen, configuration })),
            Err(report) => Err(Refused { report, seen }),
        }
    }

    /// Whether `lvs.cf` ends within a block, as a file does that is half written.
    fn ends_too_early(&self) -> bool {
        let text = self.lvs().and_then(|path| text::read(path).ok());
        text.is_some_and(|text| with_system_names(|names| parse(&text, names).unclosed != 0))
    }
}

/// What these texts say, or everything that is wrong with them.
pub fn understand(texts: SiteTexts) -> Result<Configuration, String> {
    with_system_names(|names| {
        let lvs = match &texts.lvs {
            Some(FileText { name, text }) => parse_lvs(name, text, names),
            None => Ok(Default::default()),
        };
        let marks = rules(&texts.marks, Family::V4, names);
        let marks6 = rules(&texts.marks6, Family::V6, names);
        match (lvs, marks, marks6) {
            (Ok((lvs, warnings)), Ok(marks), Ok(marks6)) => {
                let marks = Arc::new(marks.with_ipv6(marks6));
                Ok(Configuration { lvs, marks, warnings, texts })
            }
            (lvs, marks, marks6) => {
                Err([lvs.err(), marks.err(), marks6.err()].into_iter().flatten().collect())
            }
        }
    })
}

fn required(path: &Path) -> Result<FileText, String> {
    let name = path.display().to_string();
    match text::read(path) {
        Ok(text) => Ok(FileText { name, text }),
        Err(error) => Err(format!("{name}: error: {error}\n")),
    }
}

/// Nothing if there is no such file.
fn optional(path: &Path) -> Result<Option<FileText>, String> {
    let name = path.display().to_string();
    match text::read(path) {
        Ok(text) => Ok(Some(FileText { name, text })),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(format!("{name}: error: {error}\n")),
    }
}

fn parse_lvs(file: &str, text: &str, names: Names<'_>) -> Result<(LvsConfig, Vec<String>), String> {
    let parsed = parse(text, names);
    if !parsed.errors.is_empty() {
        return Err(report::render_errors(file, &parsed.errors));
    }
    let warnings = check(&parsed).into_iter().map(|warning| match warning.line {
        Some(line) => format!("{file}:{line}: {}", warning.text),
        None => format!("{file}: {}", warning.text),
    });
    Ok((parsed.config, warnings.collect()))
}

/// No rules if there is no such file.
fn rules(file: &Option<FileText>, family: Family, names: Names<'_>) -> Result<MarkRules, String> {
    match file {
        Some(FileText { name, text }) => parse_marks(name, text, family, names),
        None => Ok(MarkRules::default()),
    }
}

fn parse_marks(file: &str, text: &str, family: Family, names: Names<'_>) -> Result<MarkRules, String> {
    parse_marks_of(family, text, names).map_err(|_| report::check_marks_of(family, file, text, names).text)
}
