//! What an unknown word was probably meant to be, so that one bad line is one error.

use super::complaint::{Fault, Reason};

/// Keys of the top level.
pub const GLOBAL_KEYS: [&str; 31] = [
    "serial_no",
    "primary",
    "primary_private",
    "primary_shared",
    "backup",
    "backup_private",
    "backup_shared",
    "backup_active",
    "heartbeat",
    "heartbeat_port",
    "keepalive",
    "deadtime",
    "network",
    "nat_router",
    "nat_nmask",
    "service",
    "rsh_command",
    "debug_level",
    "reservation_conflict_action",
    "monitor_links",
    "syncdaemon",
    "syncd_iface",
    "syncd_id",
    "tcp_timeout",
    "tcpfin_timeout",
    "udp_timeout",
    "active_cmd",
    "inactive_cmd",
    "hard_shutdown",
    "ipvsadm",
    "sync",
];

/// Keys of a `virtual` or `failover` block.
pub const VIRTUAL_KEYS: [&str; 23] = [
    "active",
    "address",
    "vip_nmask",
    "sorry_server",
    "fwmark",
    "protocol",
    "port",
    "scheduler",
    "persistent",
    "pmask",
    "send",
    "expect",
    "use_regex",
    "send_program",
    "timeout",
    "reentry",
    "quiesce_server",
    "load_monitor",
    "client_monitor",
    "start_cmd",
    "stop_cmd",
    "master",
    "dirs",
];

/// Keys of a `server` block.
pub const SERVER_KEYS: [&str; 4] = ["address", "active", "weight", "port"];

/// Where a line stands, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Outside of all blocks.
    Top,
    /// In a `virtual` or `failover` block.
    Virtual,
    /// In a `server` block.
    Server,
}

/// The fault of a first word that is not a key here.
pub fn unknown(word: &str, level: Level) -> Fault {
    Fault::word(Reason::UnknownCommand, word, belongs(word, level))
}

fn belongs(word: &str, level: Level) -> String {
    if let Some((key, _)) = word.split_once('=').filter(|(key, _)| is_key(key)) {
        return format!("blanks around the equal sign: {key} = VALUE");
    }
    match word {
        "}" => return "no closing brace here: no block is open".to_owned(),
        "debug" => return "debug_level, the key's real name".to_owned(),
        "expect_program" => {
            return "this line to be deleted: only the web tool writes it, and nothing reads it".to_owned();
        }
        "virtual" | "failover" => {
            return format!("the closing brace of the open block before a {word} block");
        }
        "server" if level == Level::Server => {
            return "the closing brace of the server block above".to_owned();
        }
        "server" => {
            return "a server block inside of a virtual block; is a closing brace too many above?".to_owned();
        }
        _ => {}
    }
    let homes = homes(word);
    match homes.is_empty() {
        true => format!("a key of {}", place(level)),
        false => format!("{word} to stand {}", homes.join(" or ")),
    }
}

fn homes(word: &str) -> Vec<&'static str> {
    let tables: [(&[&str], Level); 3] =
        [(&GLOBAL_KEYS, Level::Top), (&VIRTUAL_KEYS, Level::Virtual), (&SERVER_KEYS, Level::Server)];
    tables.iter().filter(|(keys, _)| keys.contains(&word)).map(|(_, level)| home(*level)).collect()
}

/// Whether a word is a key of this level.
pub fn is_key_of(word: &str, level: Level) -> bool {
    match level {
        Level::Top => GLOBAL_KEYS.contains(&word),
        Level::Virtual => VIRTUAL_KEYS.contains(&word),
        Level::Server => SERVER_KEYS.contains(&word),
    }
}

fn is_key(word: &str) -> bool {
    !homes(word).is_empty()
}

fn place(level: Level) -> &'static str {
    match level {
        Level::Top => "the top level",
        Level::Virtual => "a virtual block",
        Level::Server => "a server block",
    }
}

fn home(level: Level) -> &'static str {
    match level {
        Level::Top => "outside of all blocks",
        Level::Virtual => "in a virtual block",
        Level::Server => "in a server block",
    }
}
