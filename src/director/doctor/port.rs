//! One interface, its queues apart.

use super::{Facts, Finding, PortFacts, queues};
use crate::config::settings::{Settings, XdpMode, ZeroCopy};
use crate::host::netlink::CableEnd;
use crate::xdp::{INJECTABLE_MTU, Inspection, LARGEST_MTU, room_for_packet};

/// Frame sizes of the settings, largest last.
const FRAME_SIZES: [u32; 2] = [2048, 4096];

pub(super) fn judge(port: &PortFacts, facts: &Facts) -> Vec<Finding> {
    let inspection = &port.inspection;
    if !inspection.ethernet {
        let found = "is not an Ethernet interface: its frames have no addresses to rewrite";
        return vec![Finding::bad("link", found, "leave it out of `ports` in xlvs.toml")];
    }
    let mut findings = vec![queues::served(port, facts)];
    findings.extend(queues::spreading(port, facts));
    findings.extend(queues::interrupts(port, facts));
    findings.extend(queues::polling(port, facts));
    findings.push(native(port, facts.settings.xdp_mode));
    findings.push(zero_copy(port, facts.settings.zero_copy));
    findings.extend(program(port));
    findings.push(mtu(port, &facts.settings));
    findings.extend(checksums(port));
    findings.extend(merging(port, facts.settings.xdp_mode));
    findings.extend(tags(port));
    findings.extend(reverse_path(port, facts));
    findings
}

fn driver(inspection: &Inspection) -> String {
    inspection.driver.as_ref().map_or("the driver".into(), |name| format!("the driver ({name})"))
}

/// What the daemon noted about a port at its start, if it says something of this.
pub(super) fn noted<'a>(port: &'a PortFacts, word: &str) -> Option<&'a str> {
    let notes = &port.running.as_ref()?.notes;
    notes.iter().find(|note| note.contains(word)).map(String::as_str)
}

/// Whether the program runs, or would run, in the driver.
fn is_native(port: &PortFacts, setting: XdpMode) -> bool {
    match &port.running {
        Some(status) => status.mode == "native",
        None => setting != XdpMode::Skb && port.inspection.features.is_none_or(|features| features.native),
    }
}

fn native(port: &PortFacts, setting: XdpMode) -> Finding {
    let topic = "native XDP";
    let driver = driver(&port.inspection);
    if is_native(port, setting) {
        let sure = port.running.is_some() || port.inspection.features.is_some();
        let unsure = if sure { "" } else { ", as far as can be told before it is tried" };
        return Finding::good(topic, format!("the program runs in {driver}{unsure}"));
    }
    let slow = "packets take the way through the kernel's generic hook, which costs about as much again";
    match (setting, noted(port, "native")) {
        (XdpMode::Skb, _) => Finding::fair(
            topic,
            format!("switched off, so that {slow}"),
            "set xdp_mode = \"auto\" in xlvs.toml",
        ),
        (_, Some(note)) => Finding::fair(topic, format!("refused ({note}), so that {slow}"), OTHER_NIC),
        (XdpMode::Native, None) => Finding::bad(
            topic,
            format!("{driver} has none, and xdp_mode = \"native\" in xlvs.toml demands it"),
            "set xdp_mode = \"auto\" in xlvs.toml",
        ),
        (XdpMode::Auto, None) => {
            Finding::fair(topic, format!("{driver} has none, so that {slow}"), OTHER_NIC)
        }
    }
}

const OTHER_NIC: &str =
    "use a NIC whose driver has native XDP, such as those of ice, i40e, ixgbe, igb, mlx5, bnxt or virtio_net";

fn zero_copy(port: &PortFacts, setting: ZeroCopy) -> Finding {
    let topic = "zero-copy";
    let driver = driver(&port.inspection);
    let copied = "each packet is copied once in and once out";
    if let Some(status) = &port.running {
        return match (status.copy == "zero-copy", noted(port, "zero-copy")) {
            (true, _) => Finding::good(topic, format!("granted by {driver}")),
            (false, Some(note)) => Finding::fair(topic, format!("{note}; {copied}"), ZERO_COPY_NIC),
            (false, None) => Finding::fair(topic, format!("switched off; {copied}"), ZERO_COPY_AUTO),
        };
    }
    match (setting, port.inspection.features.map(|features| features.zero_copy)) {
        (ZeroCopy::Off, _) => Finding::fair(topic, format!("switched off; {copied}"), ZERO_COPY_AUTO),
        (_, Some(true)) => Finding::good(topic, format!("{driver} can")),
        (ZeroCopy::On, Some(false)) => Finding::bad(
            topic,
            format!("{driver} cannot, and zero_copy = \"on\" in xlvs.toml demands it"),
            ZERO_COPY_AUTO,
        ),
        (_, Some(false)) => Finding::fair(topic, format!("{driver} cannot; {copied}"), ZERO_COPY_NIC),
        (_, None) => Finding::good(topic, "not known before it is tried: this kernel does not tell"),
    }
}

const ZERO_COPY_AUTO: &str = "set zero_copy = \"auto\" in xlvs.toml";
const ZERO_COPY_NIC: &str = "use NICs whose drivers have AF_XDP zero-copy; all interfaces must have it";

/// Another program in the place of the steering program.
fn program(port: &PortFacts) -> Option<Finding> {
    let topic = "XDP program";
    let occupant = port.inspection.occupant.as_ref()?;
    let (name, id) = (&occupant.name, occupant.id);
    Some(match (occupant.ours, port.running.is_some()) {
        // Nobody else can attach where the daemon has, and the name of what it has is not for every process to see.
        (_, true) => Finding::good(topic, format!("the daemon's own is attached (id {id})")),
        (true, false) => Finding::fair(
            topic,
            format!("an xlvs program is attached (id {id}), and the daemon that was asked is not its owner"),
            "nothing, if its process has ended: `xlvs run` replaces it",
        ),
        (false, false) => Finding::bad(
            topic,
            format!("another one is attached ({name}, id {id}), so that xlvs cannot be"),
            format!("stop what attached it, or: ip link set dev {} {}", port.name, occupant.off),
        ),
    })
}

fn mtu(port: &PortFacts, settings: &Settings) -> Finding {
    let topic = "MTU";
    let (name, mtu, frame_size) = (&port.name, port.inspection.mtu, settings.frame_size);
    let room = room_for_packet(frame_size);
    if mtu > LARGEST_MTU {
        let found = format!("{mtu}, but packets over {LARGEST_MTU} bytes are not supported");
        return Finding::bad(topic, found, format!("ip link set dev {name} mtu {LARGEST_MTU}"));
    }
    if let Some(lost) = noted(port, "may be lost unless they are balanced") {
        let advice = format!("give the daemon /dev/net/tun, or: ip link set dev {name} mtu {INJECTABLE_MTU}");
        return Finding::fair(topic, lost, advice);
    }
    if mtu <= room {
        return Finding::good(
            topic,
            format!("{mtu}, and a frame of {frame_size} bytes holds packets of {room}"),
        );
    }
    let several = format!("{mtu}: packets over {room} bytes come in several frames of {frame_size}");
    let able = port.inspection.features.map(|features| features.many_buffers);
    match (port.running.is_some(), able) {
        (true, _) | (false, Some(true)) => Finding::good(topic, several),
        (false, Some(false)) if is_native(port, settings.xdp_mode) => {
            let driver = driver(&port.inspection);
            let found = format!("{several}, which {driver} does not receive in native mode");
            Finding::fair(topic, found, shorter(port, room))
        }
        (false, _) => Finding::good(topic, format!("{several}, which takes Linux 6.6 or newer")),
    }
}

/// How a packet fits a frame.
fn shorter(port: &PortFacts, room: u32) -> String {
    let lower = format!("ip link set dev {} mtu {room}", port.name);
    let larger = FRAME_SIZES.into_iter().find(|size| port.inspection.mtu <= room_for_packet(*size));
    larger.map_or(lower.clone(), |size| format!("{lower}, or set frame_size = {size} in xlvs.toml"))
}

/// What comes over a virtual cable has had no hardware to make its checksum.
fn checksums(port: &PortFacts) -> Option<Finding> {
    let topic = "checksums";
    let finding = match (port.cable.as_ref()?, port.cable_offload) {
        (_, Some(false)) => Finding::good(topic, "the other end of the cable makes them whole"),
        (CableEnd::Here(peer), _) => Finding::fair(
            topic,
            format!("half-made by {peer}, the other end of the cable; xlvs completes them packet by packet"),
            format!("ethtool -K {peer} tx off"),
        ),
        (CableEnd::Elsewhere, _) => Finding::fair(
            topic,
            "the other end of the cable is in another network namespace and may leave them half-made; xlvs \
             completes them packet by packet",
            "there: ethtool -K INTERFACE tx off",
        ),
    };
    Some(finding)
}

/// Received segments that are joined are longer than a frame.
fn merging(port: &PortFacts, setting: XdpMode) -> Vec<Finding> {
    let offloads = port.inspection.offloads;
    let name = &port.name;
    let mut findings = Vec::new();
    if offloads.large_receive == Some(true) {
        findings.push(Finding::bad(
            "large receive offload",
            "on: joined segments are longer than a frame and are lost",
            format!("ethtool -K {name} lro off"),
        ));
    }
    if offloads.generic_receive == Some(true) && !is_native(port, setting) {
        findings.push(Finding::bad(
            "generic receive offload",
            "on, and the generic hook comes behind it: joined segments are longer than a frame and are lost",
            format!("ethtool -K {name} gro off"),
        ));
    }
    findings
}

fn tags(port: &PortFacts) -> Option<Finding> {
    // On a virtual cable the tag stays in the frame whatever the setting says.
    (port.inspection.offloads.tags_stripped? && port.cable.is_none()).then(|| {
        Finding::fair(
            "VLAN tags",
            "are taken off by the NIC, so that the balancer does not see them",
            format!("if frames have any: ethtool -K {} rxvlan off", port.name),
        )
    })
}

fn reverse_path(port: &PortFacts, facts: &Facts) -> Option<Finding> {
    const STRICT: u32 = 1;
    let name = &port.name;
    let (_, filter) = facts.forwarding.rp_filter.iter().find(|(interface, _)| interface == name)?;
    if *filter != STRICT {
        return Some(Finding::good("reverse-path filter", "not strict"));
    }
    Some(Finding::fair(
        "reverse-path filter",
        "strict: packets that xlvs leaves to the kernel are dropped when their way back is another interface",
        format!(
            "if routing is asymmetric: sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2"
        ),
    ))
}
