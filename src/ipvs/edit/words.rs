//! Services and servers in the words of ipvsadm.

use super::{ClientMask, Forward, SchedulerFlags, ServerSpec, ServiceSpec};
use crate::net::tunnel::{Encapsulation, GueChecksum};

/// The flags of a scheduler as `-b` takes them, the first to the third; sh and mh have two, of names of their own.
pub fn flag_names(scheduler: &str) -> &'static [&'static str] {
    match scheduler {
        "sh" => &["sh-fallback", "sh-port"],
        "mh" => &["mh-fallback", "mh-port"],
        _ => &FLAG_NAMES,
    }
}

/// The names that every scheduler's flags have.
pub const FLAG_NAMES: [&str; 3] = ["flag-1", "flag-2", "flag-3"];

impl Forward {
    /// As listings name the method.
    pub fn word(self) -> &'static str {
        match self {
            Forward::Masquerade => "Masq",
            Forward::Local => "Local",
            Forward::Tunnel => "Tunnel",
            Forward::Route => "Route",
        }
    }
}

impl SchedulerFlags {
    /// The flags as `-b` takes them; a third of `sh` and `mh` has no name and is not shown.
    pub fn names(self, scheduler: &str) -> Vec<&'static str> {
        let set = [self.flag1, self.flag2, self.flag3];
        flag_names(scheduler).iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| *name).collect()
    }
}

impl ClientMask {
    /// As `-M` takes it, unless every client is one for itself.
    pub fn unless_full(self) -> Option<String> {
        match self {
            ClientMask::V4(u32::MAX) | ClientMask::V6(128) => None,
            ClientMask::V4(mask) => Some(std::net::Ipv4Addr::from(mask).to_string()),
            ClientMask::V6(prefix) => Some(prefix.to_string()),
        }
    }
}

impl ServiceSpec {
    /// Everything but the identity, as listings show it behind that.
    pub fn terms(&self) -> String {
        let mut text = self.scheduler.clone();
        let flags = self.flags.names(&self.scheduler);
        if !flags.is_empty() {
            text += &format!(" ({})", flags.join(","));
        }
        if let Some(persistence) = self.persistence {
            text += &format!(" persistent {}", persistence.timeout);
            if let Some(mask) = persistence.mask.unless_full() {
                text += &format!(" mask {mask}");
            }
            if let Some(engine) = &self.engine {
                text += &format!(" pe {engine}");
            }
        }
        text + if self.one_packet { " ops" } else { "" }
    }
}

impl ServerSpec {
    /// How packets are wrapped, as `--tun-info` shows it.
    pub fn tunnel_word(&self) -> String {
        match (self.forward, self.tunnel) {
            (Forward::Tunnel, Encapsulation::Ipip) => "ipip".to_owned(),
            (Forward::Tunnel, Encapsulation::Gre { checksum }) => {
                format!("gre:{}", if checksum { "+c" } else { "-c" })
            }
            (Forward::Tunnel, Encapsulation::Gue { port, checksum }) => {
                let checksum = match checksum {
                    GueChecksum::None => "-c",
                    GueChecksum::Udp => "+c",
                    GueChecksum::Remote => "r+c",
                };
                format!("gue:{port}:{checksum}")
            }
            _ => "n/a".to_owned(),
        }
    }

    /// Everything but the identity, in one line.
    pub fn terms(&self) -> String {
        let mut text = self.forward.word().to_owned();
        if self.forward == Forward::Tunnel && self.tunnel != Encapsulation::Ipip {
            text += &format!(" {}", self.tunnel_word());
        }
        text += &format!(" weight {}", self.weight);
        match self.upper_threshold {
            0 => text,
            upper => format!("{text} thresholds {upper} {}", self.lower_threshold),
        }
    }
}
