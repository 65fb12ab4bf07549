//! What this process may do, and whether the kernel is set up for a router.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
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

/// The most memory in bytes that this process may lock, and so share with a NIC; `None` if there is no limit.
pub fn locked_memory() -> Option<u64> {
    let exempt = caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false);
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (!exempt && limit != RLIM_INFINITY).then_some(limit)
}

/// The kernel's forwarding settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingSettings {
    /// `net.ipv4.ip_forward`; `None` if it cannot be read.
    pub ip_forward: Option<u32>,
    /// `net.ipv6.conf.all.forwarding`; `None` if it cannot be read.
    pub ipv6_forwarding: Option<u32>,
    /// Names of the interfaces by which the kernel tells senders of shorter ways: `conf.all` or their own says so.
    pub send_redirects: Vec<String>,
    /// Name and effective reverse-path filter of each interface: the larger of `conf.all` and its own.
    pub rp_filter: Vec<(String, u32)>,
}

impl ForwardingSettings {
    /// Reads the settings for `interfaces` in the network namespace of the calling thread.
    pub fn read(interfaces: &[&str]) -> Self {
        Self::read_below(Path::new("/proc/sys/net"), interfaces)
    }

    fn read_below(net: &Path, interfaces: &[&str]) -> Self {
        let ipv4 = net.join("ipv4");
        let of = |name: &str, setting: &str| number(&ipv4.join("conf").join(name).join(setting));
        let larger = |name: &str, setting: &str| of(name, setting).max(of("all", setting));
        let filter = |name: &&str| Some((name.to_string(), larger(name, "rp_filter")?));
        let redirects = |name: &&&str| larger(name, "send_redirects") > Some(0);
        ForwardingSettings {
            ip_forward: number(&ipv4.join("ip_forward")),
            ipv6_forwarding: number(&net.join("ipv6/conf/all/forwarding")),
            send_redirects: interfaces.iter().filter(redirects).map(|name| name.to_string()).collect(),
            rp_filter: interfaces.iter().filter_map(filter).collect(),
        }
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
    fn the_effective_setting_is_the_larger_one() -> std::io::Result<()> {
        let net = tempfile::tempdir()?;
        let ipv4 = net.path().join("ipv4");
        for (name, filter, redirects) in
            [("all", "1\n", "0\n"), ("eth0", "0\n", "1\n"), ("eth1", "2\n", "0\n")]
        {
            let directory = ipv4.join("conf").join(name);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("rp_filter"), filter)?;
            fs::write(directory.join("send_redirects"), redirects)?;
        }
        fs::write(ipv4.join("ip_forward"), "0\n")?;
        let settings = ForwardingSettings::read_below(net.path(), &["eth0", "eth1"]);
        assert_eq!(settings.rp_filter, [("eth0".to_owned(), 1), ("eth1".to_owned(), 2)]);
        assert_eq!(settings.send_redirects, ["eth0"]);
        assert_eq!((settings.ip_forward, settings.ipv6_forwarding), (Some(0), None));
        Ok(())
    }
}
