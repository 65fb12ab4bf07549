//! The site's files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RunError, RunOptions};
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
            let rules = |file: &Option<FileText>, path: &Path, family| match file {
                Some(FileText { name, text }) => parse_marks(name, text, family, names),
                None => read_marks(path, family, names),
            };
            let marks = match (&others.marks, &others.marks6) {
                (None, None) => None,
                (marks, marks6) => {
                    let marks6 = rules(marks6, &self.marks6, Family::V6)?;
                    Some(Arc::new(rules(marks, &self.marks, Family::V4)?.with_ipv6(marks6)))
                }
            };
            Ok(Others { lvs, marks, warnings })
        })
    }

    /// Reads all files, or reports everything that is wrong with them.
    pub fn read(&self) -> Result<Configuration, String> {
        with_system_names(|names| {
            let lvs = self.read_lvs(names);
            let marks = read_marks(&self.marks, Family::V4, names);
            let marks6 = read_marks(&self.marks6, Family::V6, names);
            match (lvs, marks, marks6) {
                (Ok((lvs, warnings)), Ok(marks), Ok(marks6)) => {
                    Ok(Configuration { lvs, marks: Arc::new(marks.with_ipv6(marks6)), warnings })
                }
                (lvs, marks, marks6) => {
                    Err([lvs.err(), marks.err(), marks6.err()].into_iter().flatten().collect())
                }
            }
        })
    }

    fn read_lvs(&self, names: Names<'_>) -> Result<(LvsConfig, Vec<String>), String> {
        let Some(path) = &self.lvs else { return Ok(Default::default()) };
        let file = path.display().to_string();
        let text = text::read(path).map_err(|error| format!("{file}: error: {error}\n"))?;
        parse_lvs(&file, &text, names)
    }

    /// Whether `lvs.cf` ends within a block, as a file does that is half written.
    pub fn ends_too_early(&self) -> bool {
        let text = self.lvs().and_then(|path| text::read(path).ok());
        text.is_some_and(|text| with_system_names(|names| parse(&text, names).unclosed != 0))
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
fn read_marks(path: &Path, family: Family, names: Names<'_>) -> Result<MarkRules, String> {
    let file = path.display().to_string();
    let text = match text::read(path) {
        Ok(text) => text,
        Err(ReadError::Missing) => return Ok(MarkRules::default()),
        Err(error) => return Err(format!("{file}: error: {error}\n")),
    };
    parse_marks(&file, &text, family, names)
}

fn parse_marks(file: &str, text: &str, family: Family, names: Names<'_>) -> Result<MarkRules, String> {
    parse_marks_of(family, text, names).map_err(|_| report::check_marks_of(family, file, text, names).text)
}
