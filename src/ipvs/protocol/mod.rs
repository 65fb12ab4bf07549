//! Protocol state tables, and the timeouts of their states.

pub mod tcp;
pub mod udp;

use crate::net::addr::Protocol;

/// Which way a packet goes through the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    In,
    /// Server to client.
    Out,
}

/// Which of a protocol's tables a packet is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// From the client, of a connection both of whose ways lead through here.
    Input,
    /// From the server.
    Output,
    /// From the client, of a connection whose server answers past us (direct routing, tunnels).
    InputOnly,
}

/// Timeouts in seconds: one a TCP state, one for UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    tcp: [u32; tcp::STATES],
    udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { tcp: tcp::TIMEOUTS, udp: udp::TIMEOUT }
    }
}

impl Timeouts {
    /// The timeout of a TCP state.
    pub fn tcp(&self, state: tcp::State) -> u32 {
        self.tcp[state as usize]
    }

    /// The timeout of UDP.
    pub fn udp(&self) -> u32 {
        self.udp
    }

    /// `--set`: established TCP, FIN_WAIT and UDP in seconds; 0 leaves a value as it is.
    pub fn set(&mut self, tcp: u32, tcp_fin: u32, udp: u32) {
        let slots = [(tcp, &mut self.tcp[tcp::State::Established as usize]), (udp, &mut self.udp)];
        for (value, slot) in slots {
            if value != 0 {
                *slot = value;
            }
        }
        if tcp_fin != 0 {
            self.tcp[tcp::State::FinWait as usize] = tcp_fin;
        }
    }
}

/// The kernel's name of a state number of a protocol, as listings show it.
pub fn state_name(protocol: Protocol, state: u8) -> &'static str {
    match protocol {
        Protocol::TCP => tcp::State::from_number(state).name(),
        _ => "UDP",
    }
}
