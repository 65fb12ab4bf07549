//! How often schedules have come to what is worth being seen: a promise that nothing has put to the test is worth nothing.

use std::collections::BTreeMap;

/// What is said when something has been decided, and what that is.
const SAID: [(&str, &str); 10] = [
    ("partner dead: activating lvs", "takeover after silence"),
    ("backup inactive: activating lvs", "takeover by the primary when told"),
    ("primary inactive: activating lvs", "takeover by the backup when told"),
    ("Forced active by the operator", "takeover by an operator"),
    ("Forced active on startup", "forced start"),
    ("partner active: deactivating LVS", "backup gives way"),
    ("partner active and does not hear this router", "primary gives way"),
    ("partner active: its fencing is not waited for", "fencing not waited for"),
    ("the partner has not taken over", "standby that nobody has taken over from"),
    ("local link failure: deactivating LVS", "active router loses its link"),
];

/// Counts of what has been seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Notes what a line of the log says.
    pub fn hear(&mut self, line: &str) {
        let said = SAID.iter().filter(|(beginning, _)| line.starts_with(beginning));
        said.for_each(|(_, what)| self.note(what));
    }

    pub fn add(&mut self, other: &Seen) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    /// Prints all, and panics if something has been seen less often than it is to be.
    pub fn require(&self, least: &[(&'static str, u64)]) {
        for (what, count) in &self.0 {
            println!("{count:>9}  {what}");
        }
        for (what, least) in least {
            let count = self.0.get(what).copied().unwrap_or_default();
            assert!(
                count >= *least,
                "{what}: {count}, less than {least}: the schedules do not come to it any more"
            );
        }
    }
}
