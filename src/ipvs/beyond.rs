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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Seconds for which connections go on of what is no longer in the configuration.
    pub drain_removed: u32,
    /// Connections that may be in the table; 0 for any number.
    pub conn_max: u32,
    /// New connections a second that a source may open; 0 for any number.
    pub source_rate: u32,
    /// New connections that a source may open at once; 0 for as many as in a second.
    pub source_burst: u32,
}

/// Seconds of [`Switches::drain_removed`] unless somebody says otherwise.
pub const DRAIN_REMOVED: u32 = 300;

impl Default for Switches {
    fn default() -> Self {
        Switches {
            tcp_reset_no_destination: false,
            drop_untranslated: false,
            reset_on_expiry: false,
            drain_quiesced: false,
            drain_deadline: 0,
            drain_removed: DRAIN_REMOVED,
            conn_max: 0,
            source_rate: 0,
            source_burst: 0,
        }
    }
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
    /// Not a number.
    #[error("{0}: `{1}' is not a number from 0 to {max}", max = u32::MAX)]
    NotANumber(String, String),
}

/// The names of the switches at run time.
pub const NAMES: [&str; 9] = [
    "xlvs.tcp_reset_no_destination",
    "xlvs.drop_untranslated",
    "xlvs.reset_on_expiry",
    "xlvs.drain_quiesced",
    "xlvs.drain_deadline",
    "xlvs.drain_removed",
    "xlvs.conn_max",
    "xlvs.source_rate",
    "xlvs.source_burst",
];

/// Bytes of a connection, all told.
const CONNECTION_SIZE: u64 = 160;
/// One part in so many of the machine's memory is for connections.
const MEMORY_SHARE: u64 = 4;

/// As many connections as a quarter of this memory, in bytes, has room for.
pub fn conn_max_of(memory: u64) -> u32 {
    u32::try_from(memory / MEMORY_SHARE / CONNECTION_SIZE).unwrap_or(u32::MAX)
}

/// What the names of the switches begin with at run time.
pub const PREFIX: &str = "xlvs.";

impl Beyond {
    #[inline]
    fn options(&self, service: &ServiceId) -> Option<&ServiceOptions> {
        if self.services.is_empty() { None } else { self.services.get(service) }
    }

    /// The service's timeouts, where it has its own.
    #[inline]
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
    #[inline]
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

    fn number(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "drain_deadline" => &mut self.drain_deadline,
            "drain_removed" => &mut self.drain_removed,
            "conn_max" => &mut self.conn_max,
            "source_rate" => &mut self.source_rate,
            "source_burst" => &mut self.source_burst,
            _ => return None,
        })
    }

    /// The value of a setting by its name with [`PREFIX`]; switches are 0 or 1.
    pub fn get(mut self, name: &str) -> Result<u32, SwitchError> {
        let unknown = || SwitchError::Unknown(name.to_owned());
        let short = name.strip_prefix(PREFIX).ok_or_else(unknown)?;
        if let Some(number) = self.number(short) {
            return Ok(*number);
        }
        self.switch(short).map(|switch| u32::from(*switch)).ok_or_else(unknown)
    }

    /// Sets it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SwitchError> {
        let unknown = || SwitchError::Unknown(name.to_owned());
        let short = name.strip_prefix(PREFIX).ok_or_else(unknown)?;
        let value = value.trim();
        if let Some(number) = self.number(short) {
            let is_time = ["drain_deadline", "drain_removed"].contains(&short);
            let wrong = if is_time { SwitchError::NotSeconds } else { SwitchError::NotANumber };
            *number = value.parse().map_err(|_| wrong(name.to_owned(), value.to_owned()))?;
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
