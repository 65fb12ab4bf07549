//! The part of `xlvs.toml` that goes beyond IPVS.

use serde::{Deserialize, Serialize};

use crate::config::service_name::ServiceName;
use crate::ipvs::beyond::{Beyond, ServiceOptions, Switches};

/// The longest timeout, as `ipvsadm --set` has it: 31 days.
const TIMEOUT_MAX: u32 = 2_678_400;

/// `[beyond_ipvs]`: for all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeyondSettings {
    /// See [`Switches::tcp_reset_no_destination`].
    pub tcp_reset_no_destination: bool,
    /// See [`Switches::drop_untranslated`].
    pub drop_untranslated: bool,
    /// See [`Switches::reset_on_expiry`].
    pub reset_on_expiry: bool,
    /// See [`Switches::drain_quiesced`].
    pub drain_quiesced: bool,
    /// See [`Switches::drain_deadline`].
    pub drain_deadline: u32,
    /// See [`Switches::drain_removed`].
    pub drain_removed: u32,
    /// See [`Switches::conn_max`]; 0: as many as a quarter of the memory has room for.
    pub conn_max: u32,
    /// See [`Switches::source_rate`].
    pub source_rate: u32,
    /// See [`Switches::source_burst`].
    pub source_burst: u32,
}

impl Default for BeyondSettings {
    fn default() -> Self {
        let Switches {
            tcp_reset_no_destination,
            drop_untranslated,
            reset_on_expiry,
            drain_quiesced,
            drain_deadline,
            drain_removed,
            conn_max,
            source_rate,
            source_burst,
        } = Switches::default();
        BeyondSettings {
            tcp_reset_no_destination,
            drop_untranslated,
            reset_on_expiry,
            drain_quiesced,
            drain_deadline,
            drain_removed,
            conn_max,
            source_rate,
            source_burst,
        }
    }
}

/// `[[service]]`: for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Which one. It need not exist.
    #[serde(rename = "match")]
    pub service: ServiceName,
    /// Seconds; absent or 0: as for all.
    #[serde(default)]
    pub tcp: u32,
    /// Seconds; absent or 0: as for all.
    #[serde(default)]
    pub tcp_fin: u32,
    /// Seconds; absent or 0: as for all.
    #[serde(default)]
    pub udp: u32,
    /// In place of that for all.
    pub tcp_reset_no_destination: Option<bool>,
    /// In place of that for all.
    pub reset_on_expiry: Option<bool>,
}

/// In the words of the engine.
pub fn beyond(common: &BeyondSettings, services: &[ServiceSettings]) -> Beyond {
    let options = |settings: &ServiceSettings| ServiceOptions {
        tcp: settings.tcp,
        tcp_fin: settings.tcp_fin,
        udp: settings.udp,
        tcp_reset_no_destination: settings.tcp_reset_no_destination,
        reset_on_expiry: settings.reset_on_expiry,
    };
    Beyond {
        switches: Switches {
            tcp_reset_no_destination: common.tcp_reset_no_destination,
            drop_untranslated: common.drop_untranslated,
            reset_on_expiry: common.reset_on_expiry,
            drain_quiesced: common.drain_quiesced,
            drain_deadline: common.drain_deadline,
            drain_removed: common.drain_removed,
            conn_max: common.conn_max,
            source_rate: common.source_rate,
            source_burst: common.source_burst,
        },
        services: services.iter().map(|settings| (settings.service.0, options(settings))).collect(),
    }
}

/// The first key that cannot be used, and why.
pub(super) fn fault(services: &[ServiceSettings]) -> Option<(&'static str, String)> {
    for (index, settings) in services.iter().enumerate() {
        if services[..index].iter().any(|earlier| earlier.service == settings.service) {
            let name = String::from(settings.service);
            return Some(("match", format!("\"{name}\" is matched twice; join the two")));
        }
        let timeouts = [("tcp", settings.tcp), ("tcp_fin", settings.tcp_fin), ("udp", settings.udp)];
        if let Some((key, seconds)) = timeouts.into_iter().find(|(_, seconds)| *seconds > TIMEOUT_MAX) {
            return Some((key, format!("{seconds} is more than {TIMEOUT_MAX} seconds (31 days)")));
        }
    }
    None
}
