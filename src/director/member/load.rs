//! `load_monitor`: how a server's load is asked for, read, and what it makes of the weight (reference/piranha.md 2.6).

use std::net::IpAddr;

/// A load lets the weight grow to so many times the configured one.
const GROWTH: i32 = 10;

/// What is run for a server, word by word; `None` if its load is not asked for. `rsh_command` is the program of that key.
pub fn command(monitor: Option<&str>, rsh_command: &str, server: IpAddr) -> Option<Vec<String>> {
    let monitor = monitor.filter(|monitor| *monitor != "none")?;
    let is_remote = monitor == "uptime";
    let program = if is_remote { rsh_command } else { monitor };
    let mut words: Vec<String> = program.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        return None;
    }
    words.push(server.to_string());
    if is_remote && ["rsh", "ssh"].contains(&rsh_command) {
        words.push("uptime".to_owned());
    }
    Some(words)
}

/// The load of the last minute out of what `uptime` or a program like it prints: the number behind `load` and the next colon,
/// as in `load average: 0.12, 0.10, 0.05`. `ruptime` has no colon there.
pub fn read(printed: &str) -> Option<f64> {
    let (_, rest) = printed.split_once("load")?;
    let number = rest.split_once(':').map_or(rest, |(_, number)| number);
    let number = number.trim_start().split(|letter: char| letter == ',' || letter.is_whitespace()).next()?;
    let is_plain = number.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.')
        && number.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    number.parse().ok().filter(|_| is_plain)
}

/// The weight that a load makes of `last`, for a server with the configured weight `full`: more for an idle server, less for a
/// busy one, never less than `full`, and unchanged if it would change by less than a quarter of that.
pub fn weight(last: i32, full: i32, load: f64) -> i32 {
    let share = f64::from(full / 2);
    let changed = if load < 1.0 {
        (f64::from(last) + share * (1.0 - load).cbrt()).min(f64::from(full) * f64::from(GROWTH))
    } else if load > 1.0 {
        (f64::from(last) - share * (load - 1.0).cbrt()).max(f64::from(full))
    } else {
        return last;
    };
    let changed = changed as i32;
    if changed.abs_diff(last) >= (full / 4).unsigned_abs() { changed } else { last }
}
