//! The settings beside the interfaces: how many queues are served, and in how many buffers a packet may lie.

use crate::xdp::error::XdpError;
use crate::xdp::ethtool::Queues;
use crate::xdp::inspect::room_for_packet;
use crate::xdp::steer::AttachedMode;
use crate::xdp::{Buffers, LARGEST_MTU, PortStatus, XdpConfig, interface, parts};

/// How many queues, and so workers, these settings give on these interfaces.
pub fn queues(config: &XdpConfig) -> Result<u32, XdpError> {
    survey(config).map(|survey| survey.queues)
}

/// What the settings give on these interfaces.
pub(super) struct Survey {
    /// How many queues to serve.
    pub(super) queues: u32,
    pub(super) longest: LongestPacket,
    /// With what there is to say so far.
    pub(super) status: Vec<PortStatus>,
}

/// The longest packet of all interfaces, and the interface that may receive it.
pub(super) struct LongestPacket {
    pub(super) interface: String,
    pub(super) mtu: u32,
    pub(super) frame_size: u32,
}

impl LongestPacket {
    /// Fails if an MTU is larger than [`LARGEST_MTU`].
    pub(super) fn of(config: &XdpConfig) -> Result<Self, XdpError> {
        let mut longest = LongestPacket { interface: String::new(), mtu: 0, frame_size: config.frame_size };
        for port in &config.ports {
            let mtu = checked_mtu(&port.name)?;
            if mtu > longest.mtu {
                longest.interface.clone_from(&port.name);
                longest.mtu = mtu;
            }
        }
        Ok(longest)
    }

    /// What a packet may lie in.
    pub(super) fn buffers(&self) -> Buffers {
        if self.mtu > room_for_packet(self.frame_size) { Buffers::Several } else { Buffers::One }
    }

    /// How many frames it takes.
    pub(super) fn frames(&self) -> u32 {
        match self.buffers() {
            Buffers::One => 1,
            Buffers::Several => parts::frames_for(self.mtu, self.frame_size),
        }
    }
}

/// Checks the settings against the interfaces.
pub(super) fn survey(config: &XdpConfig) -> Result<Survey, XdpError> {
    if config.ports.len() > usize::from(u8::MAX) {
        return Err(XdpError::TooManyPorts(config.ports.len()));
    }
    let mut present = Vec::new();
    for port in &config.ports {
        if !interface::is_ethernet(&port.name)? {
            return Err(XdpError::NotEthernet { interface: port.name.clone() });
        }
        present.push(interface::queues(&port.name)?);
    }
    let usable = present.iter().map(|queues| queues.receive.min(queues.transmit).max(1)).min();
    let usable = usable.ok_or(XdpError::NoPorts)?;
    let served = if config.queues == 0 { usable } else { config.queues };
    let mut status = Vec::new();
    for (port, queues) in config.ports.iter().zip(present) {
        let notes = check_queues(&port.name, queues, served, config.queues != 0)?;
        let name = port.name.clone();
        status.push(PortStatus { name, mode: AttachedMode::Skb, zero_copy: false, queues: served, notes });
    }
    Ok(Survey { queues: served, longest: LongestPacket::of(config)?, status })
}

fn checked_mtu(interface: &str) -> Result<u32, XdpError> {
    let mtu = interface::mtu(interface)?;
    if mtu > LARGEST_MTU {
        return Err(XdpError::MtuTooLarge { interface: interface.into(), mtu });
    }
    Ok(mtu)
}

fn check_queues(interface: &str, queues: Queues, served: u32, chosen: bool) -> Result<Vec<String>, XdpError> {
    let present = queues.receive.min(queues.transmit).max(1);
    if present < served {
        return Err(XdpError::TooFewQueues { interface: interface.into(), present, wanted: served });
    }
    if queues.receive <= served {
        return Ok(Vec::new());
    }
    if !chosen {
        return Err(XdpError::UnequalQueues { interface: interface.into(), present: queues.receive, served });
    }
    let note = format!("packets on receive queues {served} to {} do not come up", queues.receive - 1);
    Ok(vec![note])
}
