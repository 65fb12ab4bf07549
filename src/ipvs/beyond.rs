//! What goes beyond IPVS. All of it is off unless asked for; `docs/beyond-ipvs.md` says what it replaces.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use thiserror::Error;

use crate::ipvs::edit::ServiceId;
use crate::ipvs::protocol::Timeouts;

/// The settings of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// What holds for every service that does not say otherwise.
    pub switches: Switches,
    /// What single services say.
    pub services: HashMap<ServiceId, ServiceOptions, RandomState>,
}

/// The settings that concern all services, by the names of `xlvs.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// A TCP segment that no server may take is answered by a reset.
    pub tcp_reset_no_destination: bool,
    /// A real server's packet of no connection is dropped.
    pub drop_untranslated: bool,
    /// Both ends of an established TCP connection that expires are sent a reset.
    pub reset_on_expiry: bool,
    /// A server whose weight becomes 0 is drained.
    pub drain_quiesced: bool,
    /// Seconds after which a server that is drained by [`Switches::drain_quiesced`] loses its connections; 0 for never.
    pub drain_deadline: u32,
}

/// What one service says; `None`, or 0 seconds, where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Timeout of established TCP connections in seconds.
    pub tcp: u32,
    /// Timeout of TCP connections after a FIN in seconds.
    pub tcp_fin: u32,
    /// Timeout of UDP in seconds.
    pub udp: u32,
    /// See [`Switches::tcp_reset_no_destination`].
    pub tcp_reset_no_destination: Option<bool>,
    /// See [`Switches::reset_on_expiry`].
    pub reset_on_expiry: Option<bool>,
}

/// Why a switch could not be read or set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// No such name.
    #[error("{0}: no such setting; known are {known}", known = NAMES.join(", "))]
    Unknown(String),
    /// Not 0 or 1.
    #[error("{0}: `{1}' is neither 0 nor 1")]
    NotABit(String, String),
    /// Not a number of seconds.
    #[error("{0}: `{1}' is not a number of seconds")]
    NotSeconds(String, String),
}

/// The names of the switches at run time.
pub const NAMES: [&str; 5] = [
    "xlvs.tcp_reset_no_destination",
    "xlvs.drop_untranslated",
    "xlvs.reset_on_expiry",
    "xlvs.drain_quiesced",
    "xlvs.drain_deadline",
];

/// What the names of the switches begin with at run time.
pub const PREFIX: &str = "xlvs.";

impl Beyond {
    fn options(&self, service: &ServiceId) -> Option<&ServiceOptions> {
        if self.services.is_empty() { None } else { self.services.get(service) }
    }

    /// The service's timeouts, where it has its own.
    pub fn timeouts(&self, service: &ServiceId, common: &Timeouts) -> Option<Timeouts> {
        let ServiceOptions { tcp, tcp_fin, udp, .. } = *self.options(service)?;
        let mut own = *common;
        own.set(tcp, tcp_fin, udp);
        Some(own)
    }

    /// [`Switches::tcp_reset_no_destination`] for one service.
    pub fn resets_without_destination(&self, service: &ServiceId) -> bool {
        let own = self.options(service).and_then(|options| options.tcp_reset_no_destination);
        own.unwrap_or(self.switches.tcp_reset_no_destination)
    }

    /// [`Switches::reset_on_expiry`] for one service.
    pub fn resets_on_expiry(&self, service: &ServiceId) -> bool {
        let own = self.options(service).and_then(|options| options.reset_on_expiry);
        own.unwrap_or(self.switches.reset_on_expiry)
    }
}

impl Switches {
    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "tcp_reset_no_destination" => &mut self.tcp_reset_no_destination,
            "drop_untranslated" => &mut self.drop_untranslated,
            "reset_on_expiry" => &mut self.reset_on_expiry,
            "drain_quiesced" => &mut self.drain_quiesced,
            _ => return None,
        })
    }

    /// The value of a setting by its name with [`PREFIX`]; switches are 0 or 1.
    pub fn get(mut self, name: &str) -> Result<u32, SwitchError> {
        match name.strip_prefix(PREFIX) {
            Some("drain_deadline") => Some(self.drain_deadline),
            Some(short) => self.switch(short).map(|switch| u32::from(*switch)),
            None => None,
        }
        .ok_or_else(|| SwitchError::Unknown(name.to_owned()))
    }

    /// Sets it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SwitchError> {
        let unknown = || SwitchError::Unknown(name.to_owned());
        let short = name.strip_prefix(PREFIX).ok_or_else(unknown)?;
        let value = value.trim();
        if short == "drain_deadline" {
            let wrong = |_| SwitchError::NotSeconds(name.to_owned(), value.to_owned());
            self.drain_deadline = value.parse().map_err(wrong)?;
            return Ok(());
        }
        *self.switch(short).ok_or_else(unknown)? = match value {
            "0" => false,
            "1" => true,
            _ => return Err(SwitchError::NotABit(name.to_owned(), value.to_owned())),
        };
        Ok(())
    }
}
