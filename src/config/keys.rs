//! Every key of `lvs.cf`: what it takes, its default, and what it means here. The parser takes no other, and the manual page is
//! made from this table.

use self::Standing::{Ignored, NotYet, Obeyed};
use super::lvs::{Choice, Network, Protocol, ReservationConflict, Scheduler, Service};

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// A whole number of 32 bits.
    Number,
    /// A whole number of 64 bits.
    Long,
    /// A firewall mark.
    Mark,
    /// 0 or 1.
    Switch,
    /// A port, or the name of a TCP service.
    Port,
    /// A port.
    PortNumber,
    /// An IPv4 address or a host name.
    Host,
    /// An IPv4 address or a host name, not 0.0.0.0.
    Director,
    /// An IPv4 address.
    Address,
    /// An address and the device that is to have it.
    DeviceAddress,
    /// A netmask.
    Mask,
    /// One word, or more in quotes.
    Word,
    /// A text in double quotes.
    Text,
    /// One of some words.
    OneOf(fn() -> String),
    /// Words in brackets.
    List,
    /// A whole number from 1 to 1000.
    Count,
    /// Seconds, with decimals.
    Seconds,
    /// A share of a hundred.
    Percent,
    /// A path of a URL.
    UrlPath,
    /// A name of a host, as a server is asked for it.
    Name,
    /// Numbers and ranges of HTTP statuses.
    Statuses,
    /// Name of an HTTP header, and a regular expression for its value.
    Header,
    /// A regular expression.
    Pattern,
    /// How far a certificate is trusted.
    Trust,
    /// A whole number of days.
    Days,
}

impl Takes {
    /// For the reader.
    pub fn words(self) -> String {
        match self {
            Takes::Number => "a whole number from -2147483648 to 2147483647",
            Takes::Long => "a whole number",
            Takes::Mark => "a whole number from 0 to 4294967295",
            Takes::Switch => "0 or 1",
            Takes::Port => "a port, or the name of a TCP service",
            Takes::PortNumber => "a port; no name",
            Takes::Host => "an IPv4 address or a host name",
            Takes::Director => "an IPv4 address or a host name; not 0.0.0.0",
            Takes::Address => "an IPv4 address; no name",
            Takes::DeviceAddress => "an IPv4 address or a host name, and a device such as eth0:1",
            Takes::Mask => "a netmask",
            Takes::Word => "one word; in quotes if it has blanks",
            Takes::Text => "a text in double quotes",
            Takes::OneOf(words) => return format!("one of {}", words()),
            Takes::List => "[ word ... ], the brackets as words of their own",
            Takes::Count => "a whole number from 1 to 1000",
            Takes::Seconds => "seconds from 0.1 to 86400, with decimals if need be",
            Takes::Percent => "a whole number from 0 to 50",
            Takes::UrlPath => "a path that begins with /; no blanks",
            Takes::Name => "a name in ASCII; no blanks",
            Takes::Statuses => "statuses such as 200 or 200-299,401; no blanks",
            Takes::Header => "\"NAME: PATTERN\", the pattern an extended regular expression",
            Takes::Pattern => "an extended regular expression",
            Takes::Trust => "none, system, or the absolute path of a PEM file",
            Takes::Days => "a whole number from 1 to 3650",
        }
        .to_owned()
    }
}

/// What xlvs does about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it says.
    Obeyed,
    /// Nothing in this version.
    NotYet,
    /// Nothing: there is no use for it here, or there was none in Piranha.
    Ignored,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands behind the equal sign.
    pub takes: Takes,
    /// The value that it has without a line; `None` if it has none then.
    pub default: Option<&'static str>,
    /// What xlvs does about it.
    pub standing: Standing,
    /// What it is for.
    pub meaning: &'static str,
}

pub(super) const fn key(
    name: &'static str,
    takes: Takes,
    default: Option<&'static str>,
    standing: Standing,
    meaning: &'static str,
) -> Key {
    Key { name, takes, default, standing, meaning }
}

/// Keys of the top level.
pub const GLOBAL: [Key; 31] = [
    key("serial_no", Takes::Long, Some("0"), Ignored, "Edition of the file, which the web tool counts up."),
    key("primary", Takes::Director, None, Obeyed, "Address of the first of two directors."),
    key("primary_private", Takes::Director, None, Obeyed, "Its address on a second path for heartbeats."),
    key("primary_shared", Takes::Word, None, Ignored, "Its shared disk, for `service = fos`."),
    key("backup", Takes::Host, None, Obeyed, "Address of the second director."),
    key(
        "backup_private",
        Takes::Host,
        None,
        Obeyed,
        "Its address on the second path; without `primary_private` it is not looked at.",
    ),
    key("backup_shared", Takes::Word, None, Ignored, "Its shared disk, for `service = fos`."),
    key(
        "backup_active",
        Takes::Switch,
        Some("0"),
        Obeyed,
        "Whether there are two directors. Even with 0 a director waits for `deadtime` before it becomes active, unless \
         it is started with `--forceactive`.",
    ),
    key(
        "heartbeat",
        Takes::Switch,
        Some("0"),
        Ignored,
        "Had none in Piranha either, where `backup_active` alone decided.",
    ),
    key("heartbeat_port", Takes::Port, Some("539"), Obeyed, "UDP port of the heartbeats."),
    key("keepalive", Takes::Number, Some("2"), Obeyed, "Seconds from one heartbeat to the next."),
    key(
        "deadtime",
        Takes::Number,
        Some("5"),
        Obeyed,
        "Seconds without a heartbeat until the other takes over.",
    ),
    key(
        "network",
        Takes::OneOf(Network::words),
        Some("nat"),
        Obeyed,
        "How packets reach the real servers of all virtual servers: with addresses rewritten, by their \
         hardware address, or inside other packets. With the latter two the servers answer past the router \
         and listen on the virtual server's port.",
    ),
    key(
        "nat_router",
        Takes::DeviceAddress,
        None,
        Obeyed,
        "The address that the real servers have as their gateway. With `network = nat` it is put on the \
         device and announced.",
    ),
    key(
        "nat_nmask",
        Takes::Mask,
        None,
        Obeyed,
        "Its netmask; else that of a subnet that the device is in, else 255.255.255.255.",
    ),
    key(
        "service",
        Takes::OneOf(Service::words),
        Some("lvs"),
        Obeyed,
        "Which blocks are run: `lvs` the virtual ones. Those of `fos` (failover of programs on the \
         directors) are read and not run.",
    ),
    key("rsh_command", Takes::Word, Some("rsh"), Obeyed, "Program for `load_monitor = uptime`: rsh or ssh."),
    key("debug_level", Takes::Word, Some("NONE"), Ignored, "Had none in Piranha either."),
    key(
        "reservation_conflict_action",
        Takes::OneOf(ReservationConflict::words),
        None,
        Ignored,
        "About shared disks, for `service = fos`.",
    ),
    key(
        "monitor_links",
        Takes::Number,
        Some("0"),
        Obeyed,
        "Not 0: a director whose link is down leaves the work to the other.",
    ),
    key(
        "syncdaemon",
        Takes::Switch,
        Some("0"),
        NotYet,
        "Whether the second director is told of connections.",
    ),
    key("syncd_iface", Takes::Word, Some("eth0"), NotYet, "By which interface it is told."),
    key(
        "syncd_id",
        Takes::Number,
        Some("0"),
        NotYet,
        "Number of the pair in that; only the low 8 bits count.",
    ),
    key(
        "tcp_timeout",
        Takes::Number,
        Some("0"),
        Obeyed,
        "Seconds after which an idle TCP connection is forgotten; 0 leaves what is set, 900 at the start.",
    ),
    key("tcpfin_timeout", Takes::Number, Some("0"), Obeyed, "The same after a FIN; 120 at the start."),
    key("udp_timeout", Takes::Number, Some("0"), Obeyed, "The same for UDP; 300 at the start."),
    key(
        "active_cmd",
        Takes::Word,
        None,
        Obeyed,
        "Program to run when the director becomes active: an absolute path, with arguments in the same quotes. \
         There is no shell, and nobody waits for it, but it is killed after a minute.",
    ),
    key("inactive_cmd", Takes::Word, None, Obeyed, "The same when it ceases to be."),
    key(
        "hard_shutdown",
        Takes::Switch,
        Some("1"),
        Ignored,
        "Whether the death of a health check ended everything. In xlvs it never does.",
    ),
    key("ipvsadm", Takes::Word, Some("/sbin/ipvsadm"), Ignored, "Path of a program that xlvs does not need."),
    key("sync", Takes::Switch, Some("0"), Ignored, "Had none in Piranha either."),
];

/// Keys of a `virtual` or `failover` block.
pub const VIRTUAL: [Key; 23] = [
    key("active", Takes::Switch, Some("0"), Obeyed, "Whether the virtual server is run. Mind the default."),
    key(
        "address",
        Takes::DeviceAddress,
        None,
        Obeyed,
        "The virtual address. It is put on the device and announced.",
    ),
    key(
        "vip_nmask",
        Takes::Mask,
        None,
        Obeyed,
        "Its netmask; else that of a subnet that the device is in, else 255.255.255.255.",
    ),
    key(
        "sorry_server",
        Takes::Address,
        None,
        Obeyed,
        "Where connections go while no real server is up: in the table with weight 1, at the virtual port. \
         It is not checked.",
    ),
    key(
        "fwmark",
        Takes::Mark,
        Some("0"),
        Obeyed,
        "Not 0: packets with this firewall mark are the service, whatever their address, port and \
         protocol. The marks are those of the saved iptables rules. Several ports under one mark need \
         `persistent`.",
    ),
    key("protocol", Takes::OneOf(Protocol::words), Some("tcp"), Obeyed, "Transport protocol."),
    key(
        "port",
        Takes::Port,
        Some("80"),
        Obeyed,
        "Port of the service; 0 is any port and needs `persistent`.",
    ),
    key(
        "scheduler",
        Takes::OneOf(Scheduler::words),
        Some("wlc"),
        Obeyed,
        "Which server takes the next new connection; see SCHEDULERS in `ipvsadm`(8).",
    ),
    key(
        "persistent",
        Takes::Number,
        Some("0"),
        Obeyed,
        "Seconds for which a client stays with its server; 0 or less: it does not.",
    ),
    key(
        "pmask",
        Takes::Mask,
        None,
        Obeyed,
        "Clients under one mask count as one client. What is no mask is ignored, with a warning.",
    ),
    key(
        "send",
        Takes::Text,
        None,
        Obeyed,
        "What the health check sends. \\n \\r \\t \\\\ \\' and \\\" are escapes. Single quotes around the \
         text become part of it.",
    ),
    key(
        "expect",
        Takes::Text,
        None,
        Obeyed,
        "What the answer begins with; * is any answer. With neither `send` nor `expect` a connection is \
         enough, but on port 80 a web page is asked for.",
    ),
    key(
        "use_regex",
        Takes::Switch,
        Some("0"),
        Obeyed,
        "1: `expect` is an extended regular expression, found anywhere in the answer.",
    ),
    key(
        "send_program",
        Takes::Text,
        None,
        Obeyed,
        "A program in place of `send`, run without a shell: it must exit with 0 and print what `expect` \
         says, no more; without `expect` the exit status alone counts. %h and %p, as words of their own, stand for the server's address and port.",
    ),
    key(
        "timeout",
        Takes::Number,
        Some("10"),
        Obeyed,
        "Seconds from one health check to the next, and for each step of one; at least 1. One failed check \
         takes a server out.",
    ),
    key(
        "reentry",
        Takes::Number,
        Some("180"),
        Obeyed,
        "Seconds of good checks until a server that was out gets connections again; 0 is 180.",
    ),
    key(
        "quiesce_server",
        Takes::Switch,
        Some("0"),
        Obeyed,
        "1: a server that fails gets weight 0 and keeps its connections, instead of being removed.",
    ),
    key(
        "load_monitor",
        Takes::Word,
        None,
        Obeyed,
        "none, uptime, rup, ruptime or a program that tells the load of a server, whose address it is given. \
         The weight of an idle server grows up to ten times the configured one. With weight = 1 it changes \
         nothing.",
    ),
    key(
        "client_monitor",
        Takes::Word,
        Some("/usr/sbin/nanny"),
        Ignored,
        "Path of the program that checked servers. xlvs checks them itself.",
    ),
    key("start_cmd", Takes::Text, None, Ignored, "For `failover` blocks only."),
    key("stop_cmd", Takes::Text, None, Ignored, "For `failover` blocks only."),
    key("master", Takes::Host, None, Ignored, "Had none in Piranha either."),
    key("dirs", Takes::List, None, Ignored, "Had none in Piranha either."),
];

/// Keys of a `server` block.
pub const SERVER: [Key; 4] = [
    key("address", Takes::Host, None, Obeyed, "Address of the real server."),
    key("active", Takes::Switch, Some("0"), Obeyed, "Whether it is used. Mind the default."),
    key(
        "weight",
        Takes::Number,
        Some("1"),
        Obeyed,
        "Its share of the work beside those of the others. With 0 it gets no new connections.",
    ),
    key(
        "port",
        Takes::PortNumber,
        None,
        Obeyed,
        "Its port. Without this line it is the virtual server's, as far as that stands above the block, \
         else 80.",
    ),
];

/// Whether a key of that name is in a table.
pub fn has(table: &[Key], name: &str) -> bool {
    table.iter().any(|key| key.name == name)
}
