//! The question before an address is put up: is it in use? (RFC 5227 section 2.1, RFC 4862 section 5.4, both in less time than
//! there, because clients wait.)

use std::net::IpAddr;
use std::time::Duration;

use crate::net::addr::MacAddr;
use crate::net::time::Instant;

/// How often one round asks.
pub const PROBES: u32 = 2;
/// How long it waits for an answer each time. A host on the link answers within a millisecond.
pub const PROBE_WAIT: Duration = Duration::from_millis(40);
/// The pause before the next round.
pub const RETRY: Duration = Duration::from_millis(100);

/// One address that is to be put up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    address: IpAddr,
    begun: Instant,
    patience: Duration,
    contender: Option<MacAddr>,
}

/// What to do after a round of probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody answered: put it up.
    Free,
    /// Somebody answered, who may be leaving: ask again after [`RETRY`]. The text, if any, is for the log.
    Wait(Option<String>),
    /// Somebody answered and is not the partner, or stays: put it up and go on announcing it. The text is for the log.
    Defend(String),
}

impl Claim {
    /// A claim that begins `now`. `patience` is how long an active partner is waited for.
    pub fn new(now: Instant, address: IpAddr, patience: Duration) -> Claim {
        Claim { address, begun: now, patience, contender: None }
    }

    /// What to do after a round that `contender` answered, or nobody. An active partner is about to give the address up: that
    /// is waited for. Nobody else is: an address of a service must be up somewhere, and a partner that is not heard cannot be
    /// asked.
    pub fn judge(&mut self, now: Instant, contender: Option<MacAddr>, partner_active: bool) -> Verdict {
        let Some(mac) = contender else { return Verdict::Free };
        let address = self.address;
        if partner_active && now.saturating_since(self.begun) < self.patience {
            let known = self.contender.replace(mac) == Some(mac);
            let text = format!("address {address} is in use by {mac}: waiting for the partner to give it up");
            return Verdict::Wait((!known).then_some(text));
        }
        Verdict::Defend(format!(
            "address {address} is in use by {mac}: it is put up all the same, and announced until the other is gone"
        ))
    }
}
