//! Which connection is told of when (ipvs.md section 7.4).

use std::time::Duration;

use crate::ipvs::protocol::{State, sctp, tcp};
use crate::ipvs::sysctl::Sysctls;
use crate::net::time::Instant;

/// The refresh of something that lives for less than this counts as of twice as long.
const LEAST_LIFE: Duration = Duration::from_secs(10);

/// How things stand with a connection or template.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The state; `None` of a template.
    pub state: Option<State>,
    /// Number of the state in which it was last told of.
    pub told_state: u8,
    /// Packets of its client.
    pub packets: u32,
    /// Seconds that it has after a packet.
    pub timeout: u32,
    /// What was kept when it was last told of.
    pub told: Announced,
    /// Whether a template made it, or its control connection.
    pub persistent: bool,
}

/// What is remembered of the last announcement where `sync_refresh_period` asks for it: the end of life that it told of in
/// milliseconds, with the number of repetitions in the two lowest bits. 0 if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced(pub u64);

const RETRIES: u64 = 0b11;

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl Announced {
    /// The end `timeout` seconds from now, told for the first time.
    fn now(now: Instant, timeout: u32) -> Self {
        let end = now + Duration::from_secs(u64::from(timeout));
        Announced((end.as_nanos() / 1_000_000) & !RETRIES)
    }
}

/// Whether a state is ever told of, and if so whether that it is new must not wait.
fn tells(state: State) -> Option<bool> {
    match state {
        State::Tcp(tcp::State::Established) | State::Sctp(sctp::State::Established) | State::Udp => {
            Some(false)
        }
        State::Tcp(
            tcp::State::FinWait | tcp::State::Close | tcp::State::CloseWait | tcp::State::TimeWait,
        )
        | State::Sctp(
            sctp::State::ShutdownSent
            | sctp::State::ShutdownReceived
            | sctp::State::ShutdownAckSent
            | sctp::State::Closed,
        ) => Some(true),
        State::Tcp(_) | State::Sctp(_) => None,
    }
}

/// Whether it is to be told of, and what to remember then.
pub fn needs_telling(standing: &Standing, sysctls: &Sysctls, now: Instant) -> Option<Announced> {
    let end = Announced::now(now, standing.timeout);
    if let Some(state) = standing.state {
        if standing.persistent && sysctls.sync_persist_mode != 0 {
            return None;
        }
        if tells(state)? && state.number() != standing.told_state {
            return Some(end);
        }
    }
    let end = refreshed(standing, sysctls, now, end)?;
    let [threshold, period] = sysctls.sync_threshold;
    let due = match standing.state {
        None if period > 0 => true,
        _ if period <= 0 && sysctls.sync_refresh_period > 0 => true,
        _ => is_due(standing.packets, [threshold, period]),
    };
    due.then_some(end)
}

/// Whether so many packets are the number that is told of.
#[inline]
pub fn is_due(packets: u32, [threshold, period]: [i64; 2]) -> bool {
    let packets = i64::from(packets);
    if period > 0 { packets % period == threshold } else { packets == threshold }
}

/// How often that number has been passed after so many packets.
pub fn round(packets: u32, [threshold, period]: [i64; 2]) -> u8 {
    let beyond = i64::from(packets) - threshold;
    let passed = match period {
        _ if beyond < 0 => 0,
        1.. => beyond / period + 1,
        _ => 1,
    };
    passed as u8
}

/// What to remember if `sync_refresh_period` lets it be told of again.
fn refreshed(standing: &Standing, sysctls: &Sysctls, now: Instant, end: Announced) -> Option<Announced> {
    let Ok(period @ 1..) = u64::try_from(sysctls.sync_refresh_period) else { return Some(end) };
    let Announced(told) = standing.told;
    let (period, timeout) = (Duration::from_secs(period), Duration::from_secs(u64::from(standing.timeout)));
    let enough = period.min((timeout / 2).max(LEAST_LIFE));
    if told == 0 || end.0.abs_diff(told) >= millis(enough) {
        return Some(end);
    }
    let retries = told & RETRIES;
    let again = (told + millis(period) / 8).saturating_sub(millis(timeout));
    if retries as i64 >= sysctls.sync_retries || now.as_nanos() / 1_000_000 < again {
        return None;
    }
    Some(Announced(end.0 | (retries + 1)))
}
