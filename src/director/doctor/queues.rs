//! How packets meet workers: queues, the NIC's hash, interrupts.

use super::port::noted;
use super::{Facts, Finding, PortFacts};
use crate::xdp::Spreading;

/// How many queues the workers serve, and what comes by the others.
pub(super) fn served(port: &PortFacts, facts: &Facts) -> Finding {
    let topic = "queues";
    let name = &port.name;
    let queues = port.inspection.queues;
    let served = facts.served();
    let present = queues.receive.min(queues.transmit);
    let counts = format!("{} receive, {} transmit", queues.receive, queues.transmit);
    if present < served {
        let found = format!("{counts}, fewer than the {served} that `queues` in xlvs.toml asks for");
        return Finding::bad(
            topic,
            found,
            format!("{}, or set queues = 0 in xlvs.toml", channels(port, served)),
        );
    }
    let reached = port.inspection.spreading.as_ref().and_then(|spreading| spreading.table.iter().max());
    if queues.receive > served && reached.is_none_or(|last| *last >= served) {
        let found =
            format!("{counts}, but only {served} served: what comes by the others passes the balancer by");
        let spread = reached.map(|_| format!(", or: ethtool -X {name} equal {served}")).unwrap_or_default();
        return Finding::bad(topic, found, channels(port, served) + &spread);
    }
    if served == 1 && facts.cpus.len() > 1 {
        let found = format!("{counts}: one worker, though there are {} CPUs", facts.cpus.len());
        return Finding::fair(topic, found, more_queues(port, facts.cpus.len() as u32));
    }
    Finding::good(topic, format!("{counts}; {} served, a worker each", counted(served, "queue")))
}

/// How to have as many queues as there are CPUs, or as the driver can.
fn more_queues(port: &PortFacts, cpus: u32) -> String {
    match (port.inspection.queues.most, &port.cable) {
        (2.., _) => {
            let wanted = port.inspection.queues.most.min(cpus);
            format!("on every interface: {}", channels(port, wanted))
        }
        (_, Some(_)) => {
            format!("make the cables anew, with: numrxqueues {cpus} numtxqueues {cpus} type veth")
        }
        (_, None) => "use NICs with several queues; every interface needs as many".into(),
    }
}

fn channels(port: &PortFacts, wanted: u32) -> String {
    let name = &port.name;
    match port.cable {
        Some(_) => format!("ethtool -L {name} rx {wanted} tx {wanted}"),
        None => format!("ethtool -L {name} combined {wanted}"),
    }
}

/// Whether every worker gets its share, and what the hash is good for.
pub(super) fn spreading(port: &PortFacts, facts: &Facts) -> Vec<Finding> {
    let topic = "receive-side scaling";
    let served = facts.served();
    if served < 2 {
        return Vec::new();
    }
    let Some(spreading) = &port.inspection.spreading else {
        let found = "the driver does not say how it spreads packets; xlvs is right however that is";
        return vec![Finding::good(topic, found)];
    };
    let idle: Vec<String> =
        (0..served).filter(|queue| !spreading.table.contains(queue)).map(|queue| queue.to_string()).collect();
    if !spreading.table.is_empty() && !idle.is_empty() {
        let found = format!("no packet is spread to queue {}", idle.join(", "));
        return vec![Finding::fair(topic, found, format!("ethtool -X {} equal {served}", port.name))];
    }
    vec![Finding::good(topic, format!("all {served} queues; {}", symmetry(spreading)))]
}

/// NAT changes the addresses, so that no hash of both ends keeps a connection on one queue.
fn symmetry(spreading: &Spreading) -> &'static str {
    match (spreading.is_symmetric(), spreading.toeplitz) {
        (true, _) => "the hash is symmetric (not needed: NAT changes the addresses in between)",
        (false, true) => "the hash is not symmetric, nor need it be: NAT changes the addresses in between",
        (false, false) => "the hash cannot be made symmetric by its key, nor need it be",
    }
}

/// Whether the interrupts of the queues leave the workers their CPUs.
pub(super) fn interrupts(port: &PortFacts, facts: &Facts) -> Option<Finding> {
    let topic = "interrupts";
    let served = facts.served() as usize;
    let first = port.interrupts.first()?;
    let workers: Vec<usize> = facts.cpus.iter().copied().cycle().take(served).collect();
    let cpu_lists = workers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let only =
        port.interrupts.iter().all(|interrupt| interrupt.cpus.len() == 1 && interrupt.cpus == first.cpus);
    if only && served > 1 {
        let cpu = first.cpus[0];
        let found =
            format!("all {} on CPU {cpu}, while the workers are on {cpu_lists}", port.interrupts.len());
        let spread = "stop irqbalance, then one interrupt per worker's CPU: echo CPU >/proc/irq/NUMBER/smp_affinity_list";
        return Some(Finding::fair(topic, found, spread));
    }
    let numbers: Vec<u32> = port.interrupts.iter().map(|interrupt| interrupt.number).collect();
    let range = format!("{} to {}", numbers.first()?, numbers.last()?);
    Some(Finding::good(topic, format!("{} ({range}); workers on CPU {cpu_lists}", numbers.len())))
}

/// Whether busy polling is what it is meant to be.
pub(super) fn polling(port: &PortFacts, facts: &Facts) -> Option<Finding> {
    let topic = "busy polling";
    if !facts.settings.busy_poll {
        return None;
    }
    let name = &port.name;
    Some(match (noted(port, "busy polling"), port.deferred) {
        (Some(note), _) => Finding::fair(topic, note, "set busy_poll = false in xlvs.toml"),
        (None, Some(false)) => Finding::fair(
            topic,
            "interrupts come all the same, since nobody told them to stay away meanwhile",
            format!(
                "cd /sys/class/net/{name} && echo 2 >napi_defer_hard_irqs && echo 200000 >gro_flush_timeout"
            ),
        ),
        (None, _) => Finding::good(topic, "asked for"),
    })
}

fn counted(number: u32, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
