//! The machine as a whole.

use super::port::noted;
use super::{Facts, Finding};
use crate::config::settings::HugePagesSetting;
use crate::host::memory::HugePages;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![privileges(facts), forwarding(facts)];
    findings.extend(forwarding_ipv6(facts));
    findings.extend(redirects(facts));
    findings.extend(locked_memory(facts));
    findings.extend(huge_pages(facts));
    findings.extend(kernel_ipvs(facts));
    findings.extend(netfilter(facts));
    findings
}

fn privileges(facts: &Facts) -> Finding {
    match &facts.unprivileged {
        None => Finding::good("privileges", "all that are needed"),
        Some(what) => Finding::bad("privileges", what.clone(), "run this as root, as the daemon is"),
    }
}

fn forwarding(facts: &Facts) -> Finding {
    match facts.forwarding.ip_forward {
        Some(0) => Finding::bad(
            "ip_forward",
            "0: packets that xlvs leaves to the kernel are not forwarded",
            "sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.conf",
        ),
        _ => Finding::good("ip_forward", "IPv4 is forwarded"),
    }
}

fn forwarding_ipv6(facts: &Facts) -> Option<Finding> {
    (facts.forwarding.ipv6_forwarding? == 0).then(|| {
        Finding::fair(
            "IPv6 forwarding",
            "off: IPv6 packets that xlvs leaves to the kernel are not forwarded",
            "if there are IPv6 services: sysctl -w net.ipv6.conf.all.forwarding=1",
        )
    })
}

/// Only where clients and servers are on the same interface has the kernel a shorter way to tell of.
fn redirects(facts: &Facts) -> Option<Finding> {
    let [only] = &facts.ports[..] else { return None };
    facts.forwarding.send_redirects.contains(&only.name).then(|| {
        Finding::fair(
            "send_redirects",
            format!(
                "on, and {} is the only interface: the kernel may tell servers of a way past the router",
                only.name
            ),
            format!(
                "sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{}.send_redirects=0",
                only.name
            ),
        )
    })
}

/// Packet memory of all workers in bytes.
fn needed(facts: &Facts) -> Option<u64> {
    Some(facts.packet_memory? * u64::from(facts.served()))
}

fn locked_memory(facts: &Facts) -> Option<Finding> {
    let needed = needed(facts)?;
    let limit = facts.locked_memory?;
    (limit < needed).then(|| {
        Finding::bad(
            "locked memory",
            format!("{} may be locked, packet memory takes {}", size(limit), size(needed)),
            "set LimitMEMLOCK=infinity in the systemd unit, or give CAP_IPC_LOCK",
        )
    })
}

fn huge_pages(facts: &Facts) -> Option<Finding> {
    let topic = "huge pages";
    let needed = needed(facts)?;
    let setting = facts.settings.huge_pages;
    if setting == HugePagesSetting::Off {
        return Some(Finding::good(topic, "switched off; packet memory is on ordinary pages"));
    }
    let pages = facts.huge_pages.unwrap_or_default();
    // The daemon that runs has taken its own already, unless it says otherwise.
    if facts.ports.iter().any(|port| port.running.is_some()) {
        let note = facts.ports.iter().find_map(|port| noted(port, "ordinary pages"))?;
        return Some(Finding::fair(
            topic,
            note,
            reserve(pages, needed) + "; it counts from the next start on",
        ));
    }
    if pages.size != 0 && pages.free * pages.size >= needed {
        return Some(Finding::good(
            topic,
            format!("{} free, {} needed", pages.free, needed.div_ceil(pages.size)),
        ));
    }
    let found = format!("{} free, packet memory of {} takes more", pages.free, size(needed));
    let advice = reserve(pages, needed);
    Some(match setting {
        HugePagesSetting::On => Finding::bad(topic, found, advice),
        _ => Finding::fair(topic, found + ": ordinary pages are used", advice),
    })
}

fn reserve(pages: HugePages, needed: u64) -> String {
    if pages.size == 0 {
        return "set huge_pages = \"off\" in xlvs.toml: this kernel has none".into();
    }
    let short = needed.div_ceil(pages.size).saturating_sub(pages.free);
    format!("sysctl -w vm.nr_hugepages={}, or set huge_pages = \"off\" in xlvs.toml", pages.all + short)
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

fn kernel_ipvs(facts: &Facts) -> Option<Finding> {
    let services = facts.bystanders.ipvs_services;
    (services > 0).then(|| {
        Finding::bad(
            "IPVS in the kernel",
            format!(
                "has {services} services too: what xlvs passes to the kernel is balanced there once more"
            ),
            "clear it with the ipvsadm that it was made with: ipvsadm -C",
        )
    })
}

fn netfilter(facts: &Facts) -> Option<Finding> {
    let bystanders = &facts.bystanders;
    let mut present = bystanders.iptables.clone();
    present.extend(bystanders.conntrack.then(|| "connection tracking".to_owned()));
    (!present.is_empty()).then(|| {
        Finding::good(
            "netfilter",
            format!(
                "in use ({}): balanced packets pass it by; what xlvs leaves or hands to the kernel goes through it",
                present.join(", ")
            ),
        )
    })
}
