//! What else of this machine's kernel works on the same packets.

use std::fs;
use std::path::Path;

/// Parts of the kernel that balance, track or translate packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bystanders {
    /// Lines of services in the kernel's own IPVS.
    pub ipvs_services: usize,
    /// Whether connections are tracked.
    pub conntrack: bool,
    /// Names of the iptables tables in use, of both families.
    pub iptables: Vec<String>,
}

/// Those of the network namespace of the calling thread.
pub fn bystanders() -> Bystanders {
    read_below(Path::new("/proc"))
}

fn read_below(proc: &Path) -> Bystanders {
    let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let is_service =
        |line: &&str| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|start| line.starts_with(start));
    let tables = read("net/ip_tables_names") + &read("net/ip6_tables_names");
    let mut iptables: Vec<String> = tables.split_whitespace().map(str::to_owned).collect();
    iptables.sort();
    iptables.dedup();
    Bystanders {
        ipvs_services: read("net/ip_vs").lines().filter(is_service).count(),
        conntrack: read("sys/net/netfilter/nf_conntrack_count").trim().parse().unwrap_or(0) > 0,
        iptables,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_the_kernel_are_counted_without_their_servers() -> std::io::Result<()> {
        let proc = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let path = proc.path().join(name);
            fs::create_dir_all(path.parent().expect("below the root"))?;
            fs::write(path, text)
        };
        assert_eq!(read_below(proc.path()), Bystanders::default());
        write(
            "net/ip_vs",
            "Prot LocalAddress:Port\n  -> RemoteAddress:Port\nTCP  0A000001:0050 wlc\n  -> 0A000002:0050 Masq 1 0 0\n",
        )?;
        write("net/ip_tables_names", "nat\nmangle\n")?;
        write("net/ip6_tables_names", "mangle\n")?;
        write("sys/net/netfilter/nf_conntrack_count", "3\n")?;
        let expected = Bystanders {
            ipvs_services: 1,
            conntrack: true,
            iptables: vec!["mangle".to_owned(), "nat".to_owned()],
        };
        assert_eq!(read_below(proc.path()), expected);
        Ok(())
    }
}
