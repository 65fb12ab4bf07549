//! The values of options as text: numbers, addresses, masks, scheduler flags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::resolver::Resolver;
use super::usage::UsageError;
use crate::ipvs::edit::{FLAG_NAMES, SchedulerFlags, flag_names};
use crate::net::addr::Protocol;

/// A decimal number as C's `strtol` reads it (leading blanks and a sign are allowed, anything behind it is not), if it
/// lies in `range`.
pub fn number(text: &str, range: RangeInclusive<i64>) -> Option<i64> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    digits.parse().ok().filter(|value| range.contains(value))
}

/// Seconds for `-p` and `--set`: at most 31 days.
pub fn timeout(text: &str, least: i64) -> Result<u32, UsageError> {
    let seconds = number(text, least..=31 * 24 * 60 * 60).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| UsageError::Timeout(text.to_owned()))
}

/// `address[:port]` with names where numbers may stand; `None` if it is neither. A port that was not written is `None`.
/// As in the original a word of digits alone is refused, `[IPv6]` needs its port, and `[IPv4]:port` loses it.
pub fn endpoint(text: &str, protocol: Protocol, resolver: &dyn Resolver) -> Option<(IpAddr, Option<u16>)> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, bracket_port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").map(|(host, port)| (host, Some(port)))?,
        None => (text, None),
    };
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some((address.into(), port_if_any(bracket_port, protocol, resolver)?));
    }
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let address = ipv4(host, resolver)?;
    Some((address.into(), port_if_any(port, protocol, resolver)?))
}

fn port_if_any(port: Option<&str>, protocol: Protocol, resolver: &dyn Resolver) -> Option<Option<u16>> {
    let Some(text) = port else { return Some(None) };
    let number = number(text, 0..=i64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
    number.or_else(|| resolver.service_port(text, protocol)).map(Some)
}

/// An IPv4 address in any of the spellings of `inet_aton`, or a host name. Of numbers only what is before a blank counts, as in C.
pub fn ipv4(text: &str, resolver: &dyn Resolver) -> Option<Ipv4Addr> {
    if text.is_empty() {
        return None;
    }
    let number = text.split(|c: char| c.is_ascii_whitespace() || c == '\x0b').next().and_then(inet_aton);
    number.or_else(|| resolver.host_address(text))
}

/// One to four numbers, decimal, octal (`0`) or hexadecimal (`0x`), the last of which fills the remaining bytes.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let mut numbers = text.split('.').map(c_integer).collect::<Option<Vec<u32>>>()?;
    let last = numbers.pop()?;
    let high = numbers
        .iter()
        .try_fold(0u32, |high, &byte| u8::try_from(byte).ok().map(|byte| (high << 8) | u32::from(byte)))?;
    let free_bits = 32 - 8 * u32::try_from(numbers.len()).ok().filter(|&count| count < 4)?;
    if free_bits < 32 && last >> free_bits != 0 {
        return None;
    }
    Some(Ipv4Addr::from(high.checked_shl(free_bits).unwrap_or(0) | last))
}

fn c_integer(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

/// `-b`: a comma list for `scheduler`. `sh-` and `mh-` flags are only for those schedulers.
pub fn scheduler_flags(text: &str, scheduler: &str) -> Result<SchedulerFlags, UsageError> {
    let mut flags = SchedulerFlags::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let names = [flag_names(scheduler), &FLAG_NAMES];
        match names.iter().find_map(|names| names.iter().position(|name| *name == word)) {
            Some(0) => flags.flag1 = true,
            Some(1) => flags.flag2 = true,
            Some(_) => flags.flag3 = true,
            None if ["sh", "mh"].iter().any(|other| flag_names(other).contains(&word)) => {
                return Err(UsageError::ForeignSchedulerFlag(word.to_owned()));
            }
            None => return Err(UsageError::SchedulerFlag(word.to_owned())),
        }
    }
    Ok(flags)
}
