//! The commands of `xlvs` with their options. The command line is held to this table, and the help, the manual page and the
//! completion are made from it: a new command needs an entry here.

use super::manual;

/// What a word can be, for the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Anything.
    Nothing,
    /// A file.
    File,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A network interface.
    Interface,
    /// A file of the kernel's IPVS.
    ProcFile,
    /// An IPVS setting or a switch beyond IPVS.
    Setting,
    /// A running service of the kind that the first word names.
    Service,
    /// A server of the service that the first two words name.
    Server,
}

/// An option of a command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// As it is typed: `--config`, `-a`.
    pub name: &'static str,
    /// What its value is called, and what it can be; `None` if it takes none.
    pub value: Option<(&'static str, Offer)>,
    /// A line without a full stop.
    pub brief: &'static str,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Subcommand {
    /// Its name.
    pub name: &'static str,
    /// What may follow it, options apart, as the usage shows it.
    pub words: &'static str,
    /// What each of these words can be; further ones are like the last.
    pub offers: &'static [Offer],
    /// Its options.
    pub flags: &'static [Flag],
    /// Whether `--json` may stand behind it.
    pub json: bool,
    /// A line without a full stop, two in the help if there is a line end in it.
    pub brief: &'static str,
    /// Further sentences for the manual page, in its markup; may be empty.
    pub detail: &'static str,
}

impl Subcommand {
    /// Whether it takes an option; all take a request for help.
    pub fn takes(&self, option: &str) -> bool {
        ["-h", "--help"].contains(&option)
            || (option == JSON && self.json)
            || self.flags.iter().any(|flag| flag.name == option)
    }
}

/// The option that many commands have.
pub const JSON: &str = "--json";

/// What it does.
pub const JSON_BRIEF: &str = "the answer for programs, as one line of JSON";

/// A command without options and words.
const fn plain(name: &'static str, brief: &'static str, detail: &'static str) -> Subcommand {
    Subcommand { name, words: "", offers: &[], flags: &[], json: false, brief, detail }
}

const CONFIG: Flag = Flag {
    name: "--config",
    value: Some(("FILE", Offer::File)),
    brief: "lvs.cf (default /etc/sysconfig/ha/lvs.cf)",
};

const SETTINGS: Flag = Flag {
    name: "--settings",
    value: Some(("FILE", Offer::File)),
    brief: "xlvs.toml (default /etc/xlvs/xlvs.toml, which need not exist)",
};

const MARKS: Flag = Flag {
    name: "--marks",
    value: Some(("FILE", Offer::File)),
    brief: "saved iptables rules; without it the marks stay as they are",
};

const MARKS6: Flag =
    Flag { name: "--marks6", value: Some(("FILE", Offer::File)), brief: "saved ip6tables rules, likewise" };

/// Every command, in the order of the help.
pub const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        flags: &[
            CONFIG,
            Flag {
                name: "--marks",
                value: Some(("FILE", Offer::File)),
                brief: "saved iptables rules (default /etc/sysconfig/iptables)",
            },
            Flag {
                name: "--marks6",
                value: Some(("FILE", Offer::File)),
                brief: "saved ip6tables rules (default /etc/sysconfig/ip6tables)",
            },
            SETTINGS,
            Flag {
                name: "--bare",
                value: None,
                brief: "no lvs.cf: start with empty tables, for ipvsadm to fill",
            },
            Flag {
                name: "--forceactive",
                value: None,
                brief: "become active at once, whatever the other router of the pair does",
            },
            Flag {
                name: "--take-over",
                value: None,
                brief: "take over from the daemon that starts this one for xlvs upgrade; nothing to be typed",
            },
            Flag {
                name: "--apart",
                value: None,
                brief: "do so as no child of that daemon's; nothing to be typed",
            },
        ],
        ..plain(
            "run",
            "balance until SIGTERM; SIGHUP reads the files again",
            "Puts the virtual addresses on their devices and announces them, checks the servers, and takes \
             the addresses back at the end. As Piranha did, it first listens for the other router of the pair for \
             deadtime seconds (5 if lvs.cf says nothing), also if there is none.",
        )
    },
    Subcommand { json: true, ..plain("status", "what the daemon does: pair, ports, packets, servers", "") },
    Subcommand {
        json: true,
        ..plain(
            "takeover",
            "have this router of the pair become active",
            "The primary may do that at any time; the backup only while the primary is not active, since the primary \
             would keep the work: put that on standby instead.",
        )
    },
    Subcommand {
        json: true,
        ..plain(
            "standby",
            "have this router of the pair leave the work to the other, if that is heard",
            "It stays inactive until the other has become active; if that does not happen within deadtime, it becomes \
             active again.",
        )
    },
    Subcommand {
        words: "[INTERFACE...]",
        offers: &[Offer::Interface],
        flags: &[CONFIG, SETTINGS],
        json: true,
        ..plain(
            "doctor",
            "look for what stands in the way or slows down: NICs, queues, offloads, kernel settings, memory; \
             exit code 1 if something is bad",
            "Each finding is good, fair (it works, and could be better) or bad (packets are lost, or the \
             daemon cannot run), with what to do. It looks at the interfaces named, else at those of the \
             running daemon, else at those that the files give. Nothing is changed, and no daemon is needed. \
             The daemon logs what is bad when it starts.",
        )
    },
    Subcommand {
        words: "FILE...",
        offers: &[Offer::File],
        json: true,
        ..plain(
            "check",
            "say what is wrong with an lvs.cf, saved iptables or ip6tables rules or an xlvs.toml",
            "Errors with the lines that they are in, and warnings of what is accepted and does other than \
             it seems to.",
        )
    },
    Subcommand {
        json: true,
        ..plain(
            "reload",
            "have the daemon read its files again; says what it undoes of what was changed by hand",
            "The difference is applied; connections that it does not concern go on. If a file has an \
             error, nothing changes.",
        )
    },
    Subcommand {
        json: true,
        ..plain(
            "diff",
            "in what the table differs from lvs.cf: what was changed by hand; exit code 1 if there is \
             anything",
            "",
        )
    },
    Subcommand {
        words: "NAME",
        offers: &[Offer::ProcFile],
        ..plain(
            "proc",
            "what the kernel would show in /proc/net/NAME: ip_vs, ip_vs_conn, ip_vs_conn_sync, \
             ip_vs_stats, ip_vs_stats_percpu, ip_vs_app",
            "",
        )
    },
    Subcommand {
        words: "[SERVICE] SERVER",
        offers: &[Offer::OneOf(&["tcp", "udp", "sctp", "fwmark", "fwmark6"]), Offer::Service, Offer::Server],
        flags: &[
            Flag {
                name: "--deadline",
                value: Some(("TIME", Offer::Nothing)),
                brief: "end its connections then, such as 300, 300s or 5m; without it they may stay",
            },
            Flag { name: "--wait", value: None, brief: "show how many are left until none is" },
            Flag { name: "--undo", value: None, brief: "take it back into service" },
        ],
        json: true,
        ..plain(
            "drain",
            "weight 0, end its templates, and its connections at the deadline; such as\nxlvs drain web-3 \
             --deadline 5m, or xlvs drain fwmark 80 10.8.8.33:80",
            "A SERVER is the name of one in `lvs.cf`, or an address with or without a port; it is drained in \
             all its services. With a SERVICE (tcp, udp or sctp and ADDRESS:PORT, fwmark or fwmark6 and a \
             mark) it is drained in that one. At the deadline both ends of TCP connections are told by \
             resets. The drain outlives reloads and the server's going and coming, until `--undo` or a \
             weight by hand. `--wait` ends with 0 when nothing is left; interrupted, it leaves the drain \
             going on.",
        )
    },
    Subcommand {
        words: "down|up|auto SERVER",
        offers: &[Offer::OneOf(&["down", "up", "auto"]), Offer::Nothing],
        flags: &[Flag {
            name: "--virtual",
            value: Some(("NAME", Offer::Nothing)),
            brief: "of this virtual server of lvs.cf only, not of all that have the server",
        }],
        json: true,
        ..plain(
            "server",
            "decide about a server in place of its checks: down takes it out, up puts it in with its full \
             weight, auto leaves it to the checks again",
            "SERVER is its name in lvs.cf, its address, or its address and port. It holds on over changes \
             of its health, reloads, and restarts of the daemon, until the machine is restarted. `xlvs \
             status` shows it. With `up`, what was edited by hand is undone.",
        )
    },
    Subcommand {
        flags: &[
            Flag { name: "--follow", value: None, brief: "go on with those that are still to come" },
            Flag { name: "-f", value: None, brief: "the same" },
        ],
        json: true,
        ..plain(
            "events",
            "what has happened to servers and virtual servers: the last 1,000 changes of state; with --json \
             one line each",
            "What changes oftener than four times in a minute is counted and told as a number.",
        )
    },
    Subcommand {
        words: "FILE",
        offers: &[Offer::File],
        flags: &[
            MARKS,
            MARKS6,
            Flag {
                name: "--max-broken",
                value: Some(("NUMBER", Offer::Nothing)),
                brief: "exit code 1 if more connections would be broken at once",
            },
        ],
        json: true,
        ..plain(
            "plan",
            "say what another lvs.cf would do to the running table: what comes, changes and goes, and how \
             many connections are kept, drained or broken",
            "Nothing is changed. Without `--marks` the firewall marks are taken to stay as they are. Exit \
             code 2 if there is no plan: a file is wrong, or no daemon answers.",
        )
    },
    Subcommand {
        words: "FILE",
        offers: &[Offer::File],
        flags: &[
            Flag {
                name: "--confirm",
                value: Some(("TIME", Offer::Nothing)),
                brief: "go back by itself after so long, unless xlvs confirm comes",
            },
            MARKS,
            MARKS6,
            Flag {
                name: "--install",
                value: None,
                brief: "put FILE in the place of the site's lvs.cf once it counts for good",
            },
            Flag { name: "--abort", value: None, brief: "without FILE: go back at once" },
        ],
        json: true,
        ..plain(
            "apply",
            "follow another lvs.cf, on trial with --confirm 60s",
            "On trial what is removed only rests: its connections go on without a deadline, and the way \
             back, which needs no client, brings everything back as it was, changes by hand included. \
             Meanwhile a reload and another apply are refused. A daemon that is started anew reads the \
             site's `lvs.cf`, with or without a trial. Without `--confirm` FILE counts for good at once. \
             Without `--install` the site's `lvs.cf` is not touched, and a reload follows it again. Saved \
             rules are never installed.",
        )
    },
    Subcommand {
        json: true,
        ..plain("confirm", "keep what xlvs apply has put on trial", "What it removed is drained from now on.")
    },
    Subcommand {
        words: "[NAME[=VALUE]]",
        offers: &[Offer::Setting],
        flags: &[
            Flag { name: "-a", value: None, brief: "list all of IPVS" },
            Flag { name: "-w", value: None, brief: "accepted, for those used to sysctl(8)" },
            Flag { name: "-q", value: None, brief: "accepted, for those used to sysctl(8)" },
        ],
        json: true,
        ..plain(
            "sysctl",
            "read or set an IPVS setting, such as net.ipv4.vs.expire_nodest_conn, or a switch beyond IPVS, \
             such as xlvs.drop_untranslated; without NAME: list all of IPVS",
            "It holds until the daemon ends; xlvs.toml says what to start with.",
        )
    },
    Subcommand {
        flags: &[Flag {
            name: "--program",
            value: Some(("FILE", Offer::File)),
            brief: "the xlvs to run; this one if absent",
        }],
        json: true,
        ..plain(
            "upgrade",
            "have a new process take over from the daemon, with all connections",
            "The daemon starts the program as it was started itself, gives it everything that it knows and has, and ends when \
             that one serves; packets that come meanwhile are dropped for a fraction of a second, which TCP makes good. \
             Files and settings that have changed are followed, also those that take a restart otherwise, but for \
             `control_socket`, and `xdp_mode` if the interfaces would have to be attached anew. Whatever goes wrong, the daemon goes on, \
             and what went wrong is told.",
        )
    },
    Subcommand {
        words: "PAGE",
        offers: &[Offer::OneOf(&manual::NAMES)],
        ..plain(
            "man",
            "print a manual page: ipvsadm, xlvs or lvs.cf; to read it: xlvs man xlvs | man -l -",
            "",
        )
    },
    Subcommand {
        words: "SHELL PROGRAM",
        offers: &[Offer::OneOf(&["bash"]), Offer::OneOf(&super::completion::PROGRAMS)],
        ..plain("completion", "print the completion of ipvsadm or xlvs for a shell: bash", "")
    },
    plain("help", "this text", ""),
    plain("version", "the version", ""),
];

/// The command of a name.
pub fn find(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name)
}

const ENVIRONMENT: &str = "The table is listed and edited with ipvsadm. Both find the daemon by its \
     socket: the environment variable XLVS_SOCKET,
or /run/xlvs/control.sock. Exit code 0: done; 1: it did \
     not work; 2: the command line is wrong.
";

/// Where the descriptions begin, and where lines end.
const COLUMN: usize = 24;
const WIDTH: usize = 118;

/// What `xlvs help` prints.
pub fn help() -> String {
    let mut text =
        "xlvs: Linux Virtual Server without the kernel module\n\nusage: xlvs COMMAND\n\n".to_owned();
    for subcommand in SUBCOMMANDS {
        text += &entry(&format!("  {}", usage(subcommand)), subcommand.brief);
        for flag in subcommand.flags {
            text += &entry(&format!("      {}", typed(flag)), flag.brief);
        }
    }
    text += "\n";
    text += &entry(&format!("  {JSON}"), &format!("behind {}: {JSON_BRIEF}", with_json()));
    text + "\n" + ENVIRONMENT
}

/// The commands that have `--json`.
pub fn with_json() -> String {
    let names = SUBCOMMANDS.iter().filter(|subcommand| subcommand.json).map(|subcommand| subcommand.name);
    names.collect::<Vec<_>>().join(", ")
}

/// A command with all that may follow it.
pub fn usage(subcommand: &Subcommand) -> String {
    let words = Some(subcommand.words).filter(|words| !words.is_empty()).map(str::to_owned);
    let flags = subcommand.flags.iter().map(|flag| format!("[{}]", typed(flag)));
    let name = subcommand.name.to_owned();
    [name].into_iter().chain(words).chain(flags).collect::<Vec<_>>().join(" ")
}

/// An option with what its value is called.
pub fn typed(flag: &Flag) -> String {
    flag.value.map_or(flag.name.to_owned(), |(value, _)| format!("{} {value}", flag.name))
}

/// What is described on the left, its description on the right or below.
fn entry(left: &str, about: &str) -> String {
    let mut text = left.to_owned();
    let mut column = if left.len() < COLUMN { left.len() } else { WIDTH };
    for line in about.split('\n') {
        for word in line.split(' ') {
            if column + 1 + word.len() > WIDTH {
                text += "\n";
                column = 0;
            }
            let blanks = COLUMN.saturating_sub(column).max(1);
            text += &format!("{:blanks$}{word}", "");
            column += blanks + word.len();
        }
        column = WIDTH;
    }
    text + "\n"
}
