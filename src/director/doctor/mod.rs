//! What about this machine, its NICs and its settings stands in the way of balancing, or slows it down. A pure function
//! of what was seen: [`judge`].

mod machine;
mod port;
mod queues;

use serde::Serialize;

use crate::config::settings::Settings;
use crate::director::protocol::PortStatus;
use crate::host::interrupts::Interrupt;
use crate::host::kernel::Bystanders;
use crate::host::memory::HugePages;
use crate::host::netlink::CableEnd;
use crate::host::privilege::ForwardingSettings;
use crate::xdp::Inspection;

/// What was seen of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFacts {
    /// Interface name.
    pub name: String,
    /// What it says about itself.
    pub inspection: Inspection,
    /// The other end, if it is a virtual cable.
    pub cable: Option<CableEnd>,
    /// Whether that end leaves checksums to hardware; `None` if it cannot be seen.
    pub cable_offload: Option<bool>,
    /// The interrupts of the card.
    pub interrupts: Vec<Interrupt>,
    /// Whether the interrupts stay away while the card is polled.
    pub deferred: Option<bool>,
    /// What the running daemon has got of it.
    pub running: Option<PortStatus>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The interfaces to serve.
    pub ports: Vec<PortFacts>,
    /// What is wished for.
    pub settings: Settings,
    /// Bytes of packet memory of one worker; `None` if the settings give none.
    pub packet_memory: Option<u64>,
    /// The kernel's settings for routers.
    pub forwarding: ForwardingSettings,
    /// The machine's huge pages.
    pub huge_pages: Option<HugePages>,
    /// The most memory in bytes that may be locked; `None` if there is no limit.
    pub locked_memory: Option<u64>,
    /// What the process lacks to do its work, in words.
    pub unprivileged: Option<String>,
    /// The CPUs that the process may use.
    pub cpus: Vec<usize>,
    /// What else works on the packets.
    pub bystanders: Bystanders,
}

/// How good a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Fair,
    /// It loses packets, or keeps the daemon from running.
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The interface; absent if it is about the whole machine.
    pub interface: Option<String>,
    /// What was looked at, such as `queues`.
    pub topic: &'static str,
    /// How good it is.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do: a command, or a sentence.
    pub advice: Option<String>,
}

impl Finding {
    fn good(topic: &'static str, found: impl Into<String>) -> Self {
        Finding { interface: None, topic, grade: Grade::Good, found: found.into(), advice: None }
    }

    fn fair(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { grade: Grade::Fair, advice: Some(advice.into()), ..Finding::good(topic, found) }
    }

    fn bad(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { grade: Grade::Bad, ..Finding::fair(topic, found, advice) }
    }

    /// For the log: all of it on one line.
    pub fn line(&self) -> String {
        let subject = self.interface.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let advice = self.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{subject}{}: {}{advice}", self.topic, self.found)
    }
}

impl Facts {
    /// Queues that are or would be served on each interface.
    fn served(&self) -> u32 {
        let of_port = |port: &PortFacts| {
            let queues = port.inspection.queues;
            queues.receive.min(queues.transmit).max(1)
        };
        let running = self.ports.iter().find_map(|port| port.running.as_ref()).map(|status| status.queues);
        let ports = self.ports.iter().filter(|port| port.inspection.ethernet);
        let shared = ports.map(of_port).min().unwrap_or(1);
        running.unwrap_or(if self.settings.queues == 0 { shared } else { self.settings.queues })
    }
}

/// Judges all that was seen, interface by interface, then the machine.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let of_port = |port: &PortFacts| {
        let findings = port::judge(port, facts);
        let name = port.name.clone();
        findings.into_iter().map(move |finding| Finding { interface: Some(name.clone()), ..finding })
    };
    facts.ports.iter().flat_map(of_port).chain(machine::judge(facts)).collect()
}

#[cfg(test)]
mod tests;
