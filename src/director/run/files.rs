//! The site's files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RunError, RunOptions};
use crate::config::check::check;
use crate::config::lvs::LvsConfig;
use crate::config::marks::parse_marks;
use crate::config::names::Names;
use crate::config::parse::parse;
use crate::config::report;
use crate::config::settings::{self, Settings};
use crate::config::text::{self, ReadError};
use crate::director::names::with_system_names;
use crate::ipvs::mark::MarkRules;

/// Where `xlvs.toml` is if nobody says otherwise; it need not exist.
const SETTINGS: &str = "/etc/xlvs/xlvs.toml";

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    lvs: Option<PathBuf>,
    marks: PathBuf,
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
    pub fn new(options: &RunOptions, settings: &Settings) -> Self {
        let lvs = options.lvs.clone().unwrap_or_else(|| settings.lvs_cf.clone());
        let marks = options.marks.clone().unwrap_or_else(|| settings.marks.clone());
        Files { lvs: (!options.bare).then_some(lvs), marks }
    }

    /// Reads all files, or reports everything that is wrong with them.
    pub fn read(&self) -> Result<Configuration, String> {
        with_system_names(|names| {
            let lvs = self.read_lvs(names);
            let marks = self.read_marks(names);
            let ((lvs, warnings), marks) = match (lvs, marks) {
                (Ok(lvs), Ok(marks)) => (lvs, marks),
                (lvs, marks) => return Err(lvs.err().into_iter().chain(marks.err()).collect()),
            };
            Ok(Configuration { lvs, marks: Arc::new(marks.unwrap_or_default()), warnings })
        })
    }

    fn read_lvs(&self, names: Names<'_>) -> Result<(LvsConfig, Vec<String>), String> {
        let Some(path) = &self.lvs else { return Ok(Default::default()) };
        let file = path.display().to_string();
        let text = text::read(path).map_err(|error| format!("{file}: error: {error}\n"))?;
        let parsed = parse(&text, names);
        if !parsed.errors.is_empty() {
            return Err(report::render_errors(&file, &parsed.errors));
        }
        let warnings = check(&parsed).into_iter().map(|warning| match warning.line {
            Some(line) => format!("{file}:{line}: {}", warning.text),
            None => format!("{file}: {}", warning.text),
        });
        Ok((parsed.config, warnings.collect()))
    }

    /// `None` if there is no such file.
    fn read_marks(&self, names: Names<'_>) -> Result<Option<MarkRules>, String> {
        let file = self.marks.display().to_string();
        let text = match text::read(&self.marks) {
            Ok(text) => text,
            Err(ReadError::Missing) => return Ok(None),
            Err(error) => return Err(format!("{file}: error: {error}\n")),
        };
        match parse_marks(&text, names) {
            Ok(marks) => Ok(Some(marks)),
            Err(_) => Err(report::check_marks(&file, &text, names).text),
        }
    }
}
