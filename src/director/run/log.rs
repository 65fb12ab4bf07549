//! The log: lines of the standard error, or entries of systemd's journal.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::settings::Settings;
use crate::host::journal;

type Follow = Box<dyn Fn(&Settings) + Send>;

/// How much is logged, to be changed.
pub struct LogFilter {
    set: Option<Follow>,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

impl LogFilter {
    /// Begins to log.
    pub fn start(settings: &Settings) -> Self {
        let filter = |settings: &Settings| EnvFilter::new(settings.log_level.word());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .event_format(Form::of_standard_error())
            .with_env_filter(filter(settings))
            .with_filter_reloading();
        let handle = subscriber.reload_handle();
        let set = move |settings: &Settings| {
            if let Err(error) = handle.reload(filter(settings)) {
                tracing::warn!("log_level stays as it was: {error}");
            }
        };
        // A second subscriber in one process (a test) is not an error: the first one goes on.
        let set: Option<Follow> = match subscriber.try_init() {
            Ok(()) => Some(Box::new(set)),
            Err(_) => None,
        };
        LogFilter { set }
    }

    /// Logs as much as the settings say now.
    pub fn follow(&self, settings: &Settings) {
        if let Some(set) = &self.set {
            set(settings);
        }
    }
}

/// What an event looks like.
enum Form {
    Line(Format),
    /// The journal knows the time and keeps the level.
    Entry(Format<Full, ()>),
}

impl Form {
    fn of_standard_error() -> Self {
        let line = Format::default().with_target(false);
        match journal::is_behind_standard_error() {
            true => Form::Entry(line.without_time().with_level(false)),
            false => Form::Line(line),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Form::Line(format) => format.format_event(context, writer, event),
            Form::Entry(format) => {
                let mut text = String::new();
                format.format_event(context, Writer::new(&mut text), event)?;
                writer.write_str(&journal::entries(*event.metadata().level(), &text))
            }
        }
    }
}
