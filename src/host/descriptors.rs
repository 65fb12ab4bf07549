//! How many descriptors this process may have open.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Raises the soft limit to `wanted`, or as far as the hard one lets it; returns what it is then. It is never lowered.
pub fn allow(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let aim = if hard == RLIM_INFINITY { wanted } else { wanted.min(hard) };
    if soft == RLIM_INFINITY || aim <= soft {
        return soft;
    }
    // Refused: it stays as it is.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, aim, hard).is_ok();
    if raised { aim } else { soft }
}
