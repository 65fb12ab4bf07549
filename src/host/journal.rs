//! systemd's journal behind the standard error (systemd.exec(5), `JOURNAL_STREAM`; sd-daemon(3)).

use nix::sys::stat::fstat;
use tracing::Level;

/// Whether what is written to the standard error becomes entries of the journal.
pub fn is_behind_standard_error() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(std::io::stderr()).is_ok_and(|it| stream == format!("{}:{}", it.st_dev, it.st_ino))
}

/// `text` as entries of this level: one each line, which the journal tells apart by the number of syslog(3) in front.
pub fn entries(level: Level, text: &str) -> String {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_entry() {
        assert_eq!(
            entries(Level::ERROR, "lvs.cf:3: what?\nlvs.cf:4: who?\n"),
            "<3>lvs.cf:3: what?\n<3>lvs.cf:4: who?\n"
        );
        assert_eq!(entries(Level::WARN, "one"), "<4>one\n");
        assert_eq!(entries(Level::INFO, ""), "");
    }
}
