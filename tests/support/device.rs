//! The device under test, as the scenario runner sees it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// Which interface of the router: that of the clients (`c`, 10.10.1.0/24) or that of the servers (`s`, 10.8.8.0/24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Side {
    /// `c`: eth0.
    #[serde(rename = "c")]
    Client,
    /// `s`: eth1.
    #[serde(rename = "s")]
    Server,
}

impl Side {
    /// The side that a line of a golden begins with.
    pub fn from_letter(letter: &str) -> Option<Side> {
        match letter {
            "c" => Some(Side::Client),
            "s" => Some(Side::Server),
            _ => None,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "c",
            Side::Server => "s",
        })
    }
}

/// What a command line printed, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Exit code.
    pub code: i32,
    /// Standard output, line ends included.
    pub stdout: String,
    /// Standard error, line ends included.
    pub stderr: String,
}

/// An IP packet that left the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// By which interface.
    pub side: Side,
    /// To which hardware address.
    pub to: [u8; 6],
    /// The packet.
    pub packet: Vec<u8>,
}

/// A router with a load balancer in it, in the topology of the scenarios, without services at first.
pub trait Device {
    /// Runs one command line: `ipvsadm …`, `iptables -t mangle …`, `sysctl -qw net.ipv4.vs.X=N`,
    /// `ip link set dev eth1 mtu 1400`.
    fn run(&mut self, command: &str) -> CommandOutput;

    /// Delivers one IP packet on `side`; returns the IP packets that leave in consequence, in their order.
    fn deliver(&mut self, side: Side, packet: &[u8]) -> Vec<Departure>;

    /// Delivers several on the same side, back to back.
    fn deliver_all(&mut self, side: Side, packets: &[Vec<u8>]) -> Vec<Departure> {
        packets.iter().flat_map(|packet| self.deliver(side, packet)).collect()
    }

    /// What leaves after one packet, where it does not matter who gets it.
    fn send(&mut self, side: Side, packet: &[u8]) -> Vec<(Side, Vec<u8>)> {
        self.deliver(side, packet).into_iter().map(|left| (left.side, left.packet)).collect()
    }

    /// What the device's clock shows, from any start. In virtual time only [`Device::advance`] moves it.
    fn now(&self) -> Duration;

    /// Lets time pass; returns the IP packets that leave meanwhile, in their order.
    fn advance(&mut self, by: Duration) -> Vec<Departure>;

    /// The asked sections of the state (`conns`, `Ln`, `stats`, `thresholds`, `persistent-conn`, `timeout`), each a
    /// heading `== NAME` (`== Lnc` for `conns`) and below it what that `ipvsadm` listing prints.
    fn dump(&mut self, sections: &[String]) -> String;
}
