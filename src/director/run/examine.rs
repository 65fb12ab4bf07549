//! Looking at the machine for `xlvs doctor`, and for the advice at the daemon's start.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::files::{self, Files};
use super::workers::{Workers, xdp_config};
use super::{RunError, RunOptions, ports};
use crate::config::settings::Settings;
use crate::director::Port;
use crate::director::doctor::{Facts, Finding, Grade, PortFacts, judge};
use crate::director::protocol::PortStatus;
use crate::director::wanted::Wanted;
use crate::host::interrupts::{are_deferred, interrupts};
use crate::host::kernel::bystanders;
use crate::host::memory::huge_pages;
use crate::host::netlink::{CableEnd, LinkKind, Netlink};
use crate::host::privilege::{self, ForwardingSettings};
use crate::xdp::{self, XdpError};

/// Looks at the interfaces `names`, or else at those of the running daemon, or else at those that the files give.
/// `running` is what a daemon has got of its ports; empty if none runs.
pub async fn examine(
    options: &RunOptions,
    names: &[String],
    running: &[PortStatus],
) -> Result<Vec<Finding>, RunError> {
    let settings = files::read_settings(options)?;
    let netlink = Netlink::open()?;
    let served: Vec<String> = running.iter().map(|port| port.name.clone()).collect();
    let named = [names, &served, &settings.ports].into_iter().find(|names| !names.is_empty());
    let wanted = match named {
        Some(_) => Wanted::default(),
        None => {
            let configuration =
                Files::new(options.clone(), &settings).read().map_err(RunError::Configuration)?;
            Wanted::new(&configuration.lvs)
        }
    };
    let ports = ports::choose(named.unwrap_or_default(), &wanted, &netlink.read().await?)?;
    Ok(judge(&facts(&settings, &ports, running, &netlink).await?))
}

/// What is to be seen of these ports and of the machine.
pub(super) async fn facts(
    settings: &Settings,
    ports: &[Port],
    running: &[PortStatus],
    netlink: &Netlink,
) -> Result<Facts, RunError> {
    let kinds = netlink.link_kinds().await?;
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let seen: Result<Vec<_>, XdpError> = ports.iter().map(|port| port_facts(port, &kinds, running)).collect();
    Ok(Facts {
        ports: seen?,
        settings: settings.clone(),
        packet_memory: xdp::packet_memory(&xdp_config(settings, ports)).ok(),
        forwarding: ForwardingSettings::read(&names),
        huge_pages: huge_pages(),
        locked_memory: privilege::locked_memory(),
        unprivileged: privilege::require().err().map(|error| error.to_string()),
        cpus: cpus(),
        bystanders: bystanders(),
    })
}

fn port_facts(port: &Port, kinds: &[LinkKind], running: &[PortStatus]) -> Result<PortFacts, XdpError> {
    let cable = kinds.iter().find(|kind| kind.index == port.index).and_then(|kind| kind.cable.clone());
    let peer = kinds.iter().find(|kind| cable == Some(CableEnd::Here(kind.name.clone())));
    let peer = peer.map(|peer| xdp::inspect(&peer.name, peer.index)).transpose()?;
    Ok(PortFacts {
        name: port.name.clone(),
        inspection: xdp::inspect(&port.name, port.index)?,
        cable,
        cable_offload: peer.and_then(|peer| peer.offloads.transmit_checksum),
        interrupts: interrupts(&port.name),
        deferred: are_deferred(&port.name),
        running: running.iter().find(|status| status.name == port.name).cloned(),
    })
}

/// The CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect()
}

/// Logs what the administrator should not overlook; `xlvs doctor` says the rest.
pub(super) async fn advise(settings: &Settings, ports: &[Port], workers: &Workers, netlink: &Netlink) {
    match facts(settings, ports, &workers.ports(), netlink).await {
        Ok(facts) => judge(&facts)
            .iter()
            .filter(|finding| finding.grade == Grade::Bad)
            .for_each(|finding| tracing::warn!("{}", finding.line())),
        Err(error) => tracing::debug!("{error}"),
    }
}
