//! What this process may do, and whether the kernel is set up for a router.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};
use thiserror::Error;

/// The process lacks a privilege.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PrivilegeError {
    /// Capabilities are missing from the effective set.
    #[error(
        "xlvs may not do its work: {} missing; start it as root, or give its systemd unit \
         AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON",
        .0.join(", ")
    )]
    Missing(Vec<String>),
    /// The kernel did not tell.
    #[error("cannot read the capabilities of this process: {0}")]
    Unreadable(String),
}

/// Checks that the calling thread has what attaching XDP programs, netlink changes and raw sockets need.
pub fn require() -> Result<(), PrivilegeError> {
    let effective =
        caps::read(None, CapSet::Effective).map_err(|error| PrivilegeError::Unreadable(error.to_string()))?;
    let missing = missing(|capability| effective.contains(&capability));
    if missing.is_empty() { Ok(()) } else { Err(PrivilegeError::Missing(missing)) }
}

fn missing(has: impl Fn(Capability) -> bool) -> Vec<String> {
    // Without CAP_PERFMON the kernel loads no program that looks behind a header of variable length.
    const OF_PROGRAMS: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    let needed = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW].into_iter().chain(OF_PROGRAMS);
    // Before Linux 5.8 there were neither; CAP_SYS_ADMIN has contained them ever since.
    let held =
        |capability| has(capability) || (OF_PROGRAMS.contains(&capability) && has(Capability::CAP_SYS_ADMIN));
    needed.filter(|capability| !held(*capability)).map(|it| it.to_string()).collect()
}

/// The kernel's forwarding settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingSettings {
    /// `net.ipv4.ip_forward`; `None` if it cannot be read.
    pub ip_forward: Option<u32>,
    /// Name and effective reverse-path filter of each interface: the larger of `conf.all` and its own.
    pub rp_filter: Vec<(String, u32)>,
}

impl ForwardingSettings {
    /// Reads the settings for `interfaces` in the network namespace of the calling thread.
    pub fn read(interfaces: &[&str]) -> Self {
        Self::read_below(Path::new("/proc/sys/net/ipv4"), interfaces)
    }

    fn read_below(ipv4: &Path, interfaces: &[&str]) -> Self {
        let filter = |name: &str| number(&ipv4.join("conf").join(name).join("rp_filter"));
        let all = filter("all");
        let effective = |name: &&str| Some((name.to_string(), filter(name).max(all)?));
        ForwardingSettings {
            ip_forward: number(&ipv4.join("ip_forward")),
            rp_filter: interfaces.iter().filter_map(effective).collect(),
        }
    }

    /// What the administrator should be told, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        const STRICT: u32 = 1;
        let forward = (self.ip_forward == Some(0)).then(|| {
            "net.ipv4.ip_forward is 0: packets that xlvs leaves to the kernel are not forwarded; \
             set net.ipv4.ip_forward = 1 in /etc/sysctl.conf"
                .to_owned()
        });
        let strict = self.rp_filter.iter().filter(|(_, filter)| *filter == STRICT).map(|(name, _)| {
            format!(
                "reverse-path filtering is strict on {name}: packets that xlvs leaves to the kernel are \
                 dropped when their way back is another interface; set net.ipv4.conf.{name}.rp_filter = 2 \
                 if routing is asymmetric"
            )
        });
        forward.into_iter().chain(strict).collect()
    }
}

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_misses_nothing_and_a_plain_user_everything() {
        assert_eq!(missing(|_| true), Vec::<String>::new());
        assert_eq!(missing(|_| false), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf() {
        let has = |capability| capability != Capability::CAP_BPF;
        assert_eq!(missing(has), Vec::<String>::new());
        assert_eq!(missing(|it| has(it) && it != Capability::CAP_SYS_ADMIN), ["CAP_BPF"]);
    }

    #[test]
    fn the_message_names_what_is_missing_and_what_to_do() {
        let text = PrivilegeError::Missing(vec!["CAP_NET_RAW".into(), "CAP_BPF".into()]).to_string();
        assert!(text.contains("CAP_NET_RAW, CAP_BPF missing; start it as root"), "{text}");
    }

    #[test]
    fn the_effective_filter_is_the_larger_one() -> std::io::Result<()> {
        let ipv4 = tempfile::tempdir()?;
        fs::write(ipv4.path().join("ip_forward"), "0\n")?;
        for (name, value) in [("all", "1\n"), ("eth0", "0\n"), ("eth1", "2\n")] {
            fs::create_dir_all(ipv4.path().join("conf").join(name))?;
            fs::write(ipv4.path().join("conf").join(name).join("rp_filter"), value)?;
        }
        let settings = ForwardingSettings::read_below(ipv4.path(), &["eth0", "eth1"]);
        assert_eq!(settings.rp_filter, [("eth0".to_owned(), 1), ("eth1".to_owned(), 2)]);
        let warnings = settings.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:#?}");
        assert!(warnings[0].starts_with("net.ipv4.ip_forward is 0"), "{warnings:#?}");
        assert!(warnings[1].contains("strict on eth0"), "{warnings:#?}");
        Ok(())
    }
}
