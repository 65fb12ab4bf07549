//! Any text as an `lvs.cf`: it is read, checked and reported, and if it has no errors a director runs it.

use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::config::report::check_lvs;

use crate::router::Fuzzed;

/// Plays an input.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let outcome = check_lvs("lvs.cf", &text, Names::NONE);
    assert!(!outcome.text.is_empty(), "a check always says something");
    if let Ok(config) = load(&text, Names::NONE) {
        let mut router = Fuzzed::new();
        router.configure(config);
        router.finish();
    }
}
