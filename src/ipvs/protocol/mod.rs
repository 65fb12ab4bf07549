//! Protocol state tables, and the timeouts of their states.

pub mod ipsec;
pub mod sctp;
pub mod tcp;
pub mod udp;

use crate::net::addr::Protocol;
use crate::net::parse::Transport;

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

/// A connection's state, which is one of its protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP.
    Tcp(tcp::State),
    /// SCTP.
    Sctp(sctp::State),
    /// UDP has but one.
    Udp,
}

impl State {
    /// The state that has this number among those of `protocol`; 0 is a new connection's.
    pub fn from_number(protocol: Protocol, number: u8) -> State {
        match protocol {
            Protocol::TCP => State::Tcp(tcp::State::from_number(number)),
            Protocol::SCTP => State::Sctp(sctp::State::from_number(number)),
            _ => State::Udp,
        }
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            State::Tcp(state) => state as u8,
            State::Sctp(state) => state as u8,
            State::Udp => 0,
        }
    }

    /// The state after a packet; `secure` is whether TCP follows the `secure_tcp` tables. A packet that says nothing about
    /// the state (SCTP without a chunk, or ESP beside its UDP connection) leaves it as it is.
    pub fn next(self, course: Course, transport: &Transport, secure: bool) -> State {
        match (self, transport) {
            (State::Tcp(state), Transport::Tcp { flags, .. }) => {
                State::Tcp(state.next(tcp::StateTables::new(secure), course, *flags))
            }
            (State::Sctp(state), Transport::Sctp { chunk: Some(chunk), .. }) => {
                State::Sctp(state.next(course, *chunk))
            }
            _ => self,
        }
    }

    /// Whether a connection in this state counts as active.
    pub fn is_active(self) -> bool {
        match self {
            State::Tcp(state) => state.is_active(),
            State::Sctp(state) => state == sctp::State::Established,
            State::Udp => false,
        }
    }

    /// Whether both ends of a TCP connection or SCTP association have agreed on it.
    pub fn is_established(self) -> bool {
        matches!(self, State::Tcp(tcp::State::Established) | State::Sctp(sctp::State::Established))
    }

    /// Whether the handshake of a TCP connection or SCTP association has begun and is not over.
    pub fn is_half_open(self) -> bool {
        match self {
            State::Tcp(state) => state.is_half_open(),
            State::Sctp(state) => state.is_half_open(),
            State::Udp => false,
        }
    }

    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Tcp(state) => state.name(),
            State::Sctp(state) => state.name(),
            State::Udp => "UDP",
        }
    }
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
    /// The timeout of a state.
    pub fn of(&self, state: State) -> u32 {
        match state {
            State::Tcp(state) => self.tcp(state),
            State::Sctp(state) => sctp::TIMEOUTS[state as usize],
            State::Udp => self.udp,
        }
    }

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
