//! The `net.ipv4.vs` settings: names, defaults and ranges as in the kernel (ipvs.md section 6.8).

use std::fmt;

use thiserror::Error;

use crate::ipvs::edit::Errno;

/// The kernel keeps seconds in ticks of an `int`; with 1000 ticks a second these are what it takes.
const SECONDS: i64 = i32::MAX as i64 / 1000;

/// Which numbers a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// Both ends included.
    Within(i64, i64),
    /// A power of two from 1 to this.
    PowerOfTwo(i64),
}

const INT: Range = Range::Within(i32::MIN as i64, i32::MAX as i64);
const MODE: Range = Range::Within(0, 3);
const TIME: Range = Range::Within(-SECONDS, SECONDS);

impl Range {
    fn takes(self, number: i64) -> bool {
        match self {
            Range::Within(least, most) => (least..=most).contains(&number),
            Range::PowerOfTwo(most) => (1..=most).contains(&number) && number & (number - 1) == 0,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Within(least, most) => write!(f, "a whole number from {least} to {most}"),
            Range::PowerOfTwo(most) => write!(f, "a power of two from 1 to {most}"),
        }
    }
}

/// One setting that is a number.
struct Setting {
    name: &'static str,
    range: Range,
    read: fn(&Sysctls) -> i64,
    write: fn(&mut Sysctls, i64),
}

macro_rules! sysctls {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $range:expr;)*) => {
        /// Values of one snapshot; the names are the kernel's.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Sysctls {
            $($(#[$doc])* pub $name: i64,)*
            /// Kept for listings: rates are estimated by the control thread.
            pub est_cpulist: String,
            /// Packets after which a connection is synchronised, and after how many it is again.
            pub sync_threshold: [i64; 2],
        }

        impl Default for Sysctls {
            fn default() -> Self {
                Sysctls { $($name: $default,)* est_cpulist: String::new(), sync_threshold: [3, 50] }
            }
        }

        const NUMBERS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            range: $range,
            read: |sysctls| sysctls.$name,
            write: |sysctls, value| sysctls.$name = value,
        },)*];
    };
}

sysctls! {
    /// In mode 3 of `drop_packet`, one packet of so many is dropped.
    am_droprate = 10, INT;
    /// Free pages of memory below which the automatic modes of the defence are active.
    amemthresh = 1024, INT;
    /// Not 0: nothing is balanced while a backup synchronisation daemon runs.
    backup_only = 0, INT;
    /// Kept for listings: it concerns packets to foreign addresses, and only those to this machine's own are balanced.
    cache_bypass = 0, INT;
    /// Bit 0: a SYN on a connection in TIME_WAIT or CLOSE is scheduled anew. Bit 1: also in FIN_WAIT when the server answers
    /// past us.
    conn_reuse_mode = 1, INT;
    /// Kept for listings: there is no netfilter connection to keep.
    conntrack = 0, INT;
    /// Kept for listings.
    debug_level = 0, INT;
    /// Mode of the defence that ends connections.
    drop_entry = 0, MODE;
    /// Mode of the defence that drops packets which would open connections.
    drop_packet = 0, MODE;
    /// Kept for listings: rates are estimated by the control thread.
    est_nice = 0, Range::Within(-20, 19);
    /// Not 0: connections of a deleted server end at their next packet instead of losing it; a SYN on a connection of a
    /// server of weight 0 is scheduled anew.
    expire_nodest_conn = 0, INT;
    /// Not 0: a template of a server of weight 0 no longer counts.
    expire_quiescent_template = 0, INT;
    /// Kept for listings: what the kernel takes out of a tunnel is never seen here.
    ignore_tunneled = 0, INT;
    /// Seconds without use after which `lblc` forgets an address.
    lblc_expiration = 86_400, TIME;
    /// Seconds without use after which `lblcr` forgets an address, and without change after which a set shrinks.
    lblcr_expiration = 86_400, TIME;
    /// Not 0: a packet of a real server without a connection is answered by a port unreachable.
    nat_icmp_send = 0, INT;
    /// Not 0: a tunnelled packet that is too large is told to the client; 0: it is fragmented.
    pmtu_disc = 1, INT;
    /// 0: rates and shown counters stay as they are.
    run_estimation = 1, INT;
    /// Not 0: an ICMP error about an unknown flow is scheduled like the flow's packet.
    schedule_icmp = 0, INT;
    /// Mode of the defence that follows the `secure_tcp` state tables.
    secure_tcp = 0, MODE;
    /// Not 0: any SCTP packet but an ABORT may create a connection.
    sloppy_sctp = 0, INT;
    /// Not 0: any TCP packet but a RST may create a connection.
    sloppy_tcp = 0, INT;
    /// Kept for listings: routes depend on the destination alone.
    snat_reroute = 1, INT;
    /// Not 0: of persistent services only templates are synchronised.
    sync_persist_mode = 0, INT;
    /// How many ports synchronisation is spread over; more than 64 count as 64.
    sync_ports = 1, Range::PowerOfTwo(1 << 30);
    /// How many synchronisation messages may wait. The kernel starts with a 32nd of its memory's pages.
    sync_qlen_max = 16_384, Range::Within(0, i64::MAX);
    /// Seconds after which an unchanged connection is synchronised again.
    sync_refresh_period = 0, TIME;
    /// How often a synchronisation message is repeated.
    sync_retries = 0, MODE;
    /// Bytes of the synchronisation socket's buffers; 0: the system's default.
    sync_sock_size = 0, INT;
    /// Version of the synchronisation protocol.
    sync_version = 1, Range::Within(0, 1);
}

const EST_CPULIST: &str = "est_cpulist";
const SYNC_THRESHOLD: &str = "sync_threshold";
const THRESHOLDS: &str =
    "two whole numbers: the first not negative, and less than the second unless that is 0";
const CPUS: &str = "a list of processors such as 0-2,4";

/// Why a sysctl could not be read or set; worded as by sysctl(8), with what is missed in a second line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SysctlError {
    /// No such name.
    #[error(
        "sysctl: cannot stat /proc/sys/net/ipv4/vs/{0}: No such file or directory\nknown are {names}",
        names = names().join(", ")
    )]
    Unknown(String),
    /// A value that the setting does not take, and what it does.
    #[error("sysctl: setting key \"net.ipv4.vs.{name}\": {errno}\nit takes {wanted}, not `{value}'", errno = Errno::EINVAL)]
    Refused {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What can be given.
        wanted: String,
    },
}

/// The names of all settings without `net.ipv4.vs.`, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        NUMBERS.iter().map(|setting| setting.name).chain([EST_CPULIST, SYNC_THRESHOLD]).collect();
    names.sort_unstable();
    names
}

fn setting(name: &str) -> Result<&'static Setting, SysctlError> {
    let known = NUMBERS.iter().find(|setting| setting.name == name);
    known.ok_or_else(|| SysctlError::Unknown(name.to_owned()))
}

impl Sysctls {
    /// The value of a setting by its name without `net.ipv4.vs.`, as sysctl(8) shows it.
    pub fn get(&self, name: &str) -> Result<String, SysctlError> {
        Ok(match name {
            EST_CPULIST => self.est_cpulist.clone(),
            SYNC_THRESHOLD => format!("{}\t{}", self.sync_threshold[0], self.sync_threshold[1]),
            name => (setting(name)?.read)(self).to_string(),
        })
    }

    /// Sets it. As in the kernel words after those that are needed do not matter, and of `sync_threshold` the second number
    /// may be missing.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let refusal = |wanted: String| SysctlError::Refused {
            name: name.to_owned(),
            value: value.trim().to_owned(),
            wanted,
        };
        match name {
            EST_CPULIST if is_cpu_list(value.trim()) => self.est_cpulist = value.trim().to_owned(),
            EST_CPULIST => return Err(refusal(CPUS.to_owned())),
            SYNC_THRESHOLD => match thresholds(value, self.sync_threshold) {
                Some(thresholds) => self.sync_threshold = thresholds,
                None => return Err(refusal(THRESHOLDS.to_owned())),
            },
            name => {
                let setting = setting(name)?;
                let number = value.split_whitespace().next().and_then(number);
                let number = number.filter(|number| setting.range.takes(*number));
                (setting.write)(self, number.ok_or_else(|| refusal(setting.range.to_string()))?);
            }
        }
        Ok(())
    }

    /// Whether any mode of the defence against floods is on.
    pub fn has_defence(&self) -> bool {
        self.drop_entry != 0 || self.drop_packet != 0 || self.secure_tcp != 0
    }

    /// Whether the `secure_tcp` state tables apply (ipvs.md section 6.6).
    pub fn is_tcp_secure(&self) -> bool {
        self.secure_tcp > 1
    }
}

/// A number in C's notation, as the kernel reads it: no plus sign, hexadecimal behind `0x`, octal behind `0`.
fn number(word: &str) -> Option<i64> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word),
    };
    let (digits, radix) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (digits, 10),
    };
    let plain = digits.starts_with(|first: char| first.is_digit(radix));
    i64::from_str_radix(digits, radix).ok().filter(|_| plain).map(|number| sign * number)
}

fn thresholds(value: &str, former: [i64; 2]) -> Option<[i64; 2]> {
    let mut words = value.split_whitespace();
    let threshold = number(words.next()?)?;
    let period = words.next().map_or(Some(former[1]), number)?;
    let in_range = threshold >= 0 && INT.takes(period) && INT.takes(threshold);
    (in_range && (threshold < period || period == 0)).then_some([threshold, period])
}

/// `0-2,4`, or nothing.
fn is_cpu_list(value: &str) -> bool {
    let is_cpu = |text: &str| text.len() <= 5 && text.parse::<u16>().is_ok();
    value.is_empty() || value.split(',').all(|range| range.splitn(2, '-').all(is_cpu))
}
