//! Tables: what ipvsadm 1.31 understands, what its messages call it, and which command takes which option.

/// A command of ipvsadm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`.
    AddService,
    /// `-E`.
    EditService,
    /// `-D`.
    DeleteService,
    /// `-C`.
    Flush,
    /// `-L`, `-l`.
    List,
    /// `-a`.
    AddServer,
    /// `-d`.
    DeleteServer,
    /// `-e`.
    EditServer,
    /// `--set`.
    Set,
    /// `--start-daemon`.
    StartDaemon,
    /// `--stop-daemon`.
    StopDaemon,
    /// `-R`.
    Restore,
    /// `-S`.
    Save,
    /// `-Z`.
    Zero,
    /// `-h`.
    Help,
    /// `-v`.
    Version,
}

impl Command {
    /// Name inside messages.
    pub fn name(self) -> &'static str {
        match self {
            Command::AddService => "add-service",
            Command::EditService => "edit-service",
            Command::DeleteService => "delete-service",
            Command::Flush => "flush",
            Command::List => "list",
            Command::AddServer => "add-server",
            Command::DeleteServer => "delete-server",
            Command::EditServer => "edit-server",
            Command::Set => "set",
            Command::StartDaemon => "start-daemon",
            Command::StopDaemon => "stop-daemon",
            Command::Restore => "restore",
            Command::Save => "save",
            Command::Zero => "zero",
            Command::Help => "help",
            Command::Version => "version",
        }
    }

    /// What the command says to an option (reference 9.1).
    pub fn rule(self, option: Choice) -> Rule {
        use Choice as C;
        let optional: &[Choice] = match self {
            Command::AddService | Command::EditService => {
                &[C::Scheduler, C::Persistent, C::Netmask, C::OnePacket, C::Engine, C::SchedulerFlags]
            }
            Command::AddServer | Command::EditServer => SERVER_OPTIONS,
            Command::List => LIST_OPTIONS,
            Command::StartDaemon => DAEMON_OPTIONS,
            Command::StopDaemon => &[C::SyncId],
            Command::Save => &[C::Numeric],
            Command::Restore => &[C::Compat],
            Command::Zero => &[C::ServiceAddress],
            _ => &[],
        };
        match option {
            _ if self.requires(option) => Rule::Required,
            _ if self == Command::List && EXCLUSIVE_IN_LIST.contains(&option) => Rule::Exclusive,
            _ if optional.contains(&option) => Rule::Optional,
            _ => Rule::Illegal,
        }
    }

    fn requires(self, option: Choice) -> bool {
        match option {
            Choice::ServiceAddress => matches!(
                self,
                Command::AddService
                    | Command::EditService
                    | Command::DeleteService
                    | Command::AddServer
                    | Command::EditServer
                    | Command::DeleteServer
            ),
            Choice::RealServer => {
                matches!(self, Command::AddServer | Command::EditServer | Command::DeleteServer)
            }
            _ => false,
        }
    }
}

/// What a command says to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Must be given.
    Required,
    /// May be given.
    Optional,
    /// May be given, but only one of its kind.
    Exclusive,
    /// Must not be given.
    Illegal,
}

/// An option as the messages know it: `-t`, `-u` and `-f` are one, `-g`, `-i` and `-m` are one. The order is the one in
/// which ipvsadm looks for faults, so it decides which of several is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "the names are those of CHOICES, and section 9.1 of the reference explains them"
)]
pub enum Choice {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Forwarding,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Json,
    Compat,
}

/// All options with their names inside messages, in the order in which faults are looked for.
pub const CHOICES: [(Choice, &str); 36] = [
    (Choice::Numeric, "numeric"),
    (Choice::Connection, "connection"),
    (Choice::ServiceAddress, "service-address"),
    (Choice::Scheduler, "scheduler"),
    (Choice::Persistent, "persistent"),
    (Choice::Netmask, "netmask"),
    (Choice::RealServer, "real-server"),
    (Choice::Forwarding, "forwarding-method"),
    (Choice::Weight, "weight"),
    (Choice::UpperThreshold, "u-threshold"),
    (Choice::LowerThreshold, "l-threshold"),
    (Choice::McastInterface, "mcast-interface"),
    (Choice::Timeout, "timeout"),
    (Choice::Daemon, "daemon"),
    (Choice::Stats, "stats"),
    (Choice::Rate, "rate"),
    (Choice::Thresholds, "thresholds"),
    (Choice::PersistentConn, "persistent-conn"),
    (Choice::NoSort, "nosort"),
    (Choice::SyncId, "syncid"),
    (Choice::Exact, "exact"),
    (Choice::OnePacket, "ops"),
    (Choice::Engine, "pe"),
    (Choice::SchedulerFlags, "sched-flags"),
    (Choice::McastGroup, "mcast-group"),
    (Choice::McastPort, "mcast-port"),
    (Choice::McastTtl, "mcast-ttl"),
    (Choice::SyncMaxlen, "sync-maxlen"),
    (Choice::TunInfo, "tun-info"),
    (Choice::TunType, "tun-type"),
    (Choice::TunPort, "tun-port"),
    (Choice::TunNocsum, "tun-nocsum"),
    (Choice::TunCsum, "tun-csum"),
    (Choice::TunRemcsum, "tun-remcsum"),
    (Choice::Json, "json"),
    (Choice::Compat, "compat"),
];

impl Choice {
    /// Name inside messages.
    pub fn name(self) -> &'static str {
        CHOICES[self as usize].1
    }
}

const SERVER_OPTIONS: &[Choice] = &[
    Choice::Forwarding,
    Choice::Weight,
    Choice::UpperThreshold,
    Choice::LowerThreshold,
    Choice::TunType,
    Choice::TunPort,
    Choice::TunNocsum,
    Choice::TunCsum,
    Choice::TunRemcsum,
];

const LIST_OPTIONS: &[Choice] = &[
    Choice::Numeric,
    Choice::Stats,
    Choice::Rate,
    Choice::Thresholds,
    Choice::PersistentConn,
    Choice::NoSort,
    Choice::SyncId,
    Choice::Exact,
    Choice::TunInfo,
    Choice::Json,
];

const EXCLUSIVE_IN_LIST: &[Choice] =
    &[Choice::Connection, Choice::ServiceAddress, Choice::Timeout, Choice::Daemon];

const DAEMON_OPTIONS: &[Choice] = &[
    Choice::McastInterface,
    Choice::SyncId,
    Choice::SyncMaxlen,
    Choice::McastGroup,
    Choice::McastPort,
    Choice::McastTtl,
];

/// Whether a switch takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value.
    Nothing,
    /// The next word or the rest of this one.
    Value,
    /// The rest of this word, or the next one unless that starts with `-`.
    MaybeValue,
}

/// What a switch stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A command.
    Command(Command),
    /// An option that says all with its presence or whose value is read by its name alone.
    Option(Choice),
    /// `-t`.
    Tcp,
    /// `-u`.
    Udp,
    /// `--sctp-service`.
    Sctp,
    /// `-f`.
    FwMark,
    /// `-6`.
    Ipv6,
    /// `-g`.
    Route,
    /// `-i`.
    Tunnel,
    /// `-m`.
    Masquerade,
    /// `--sort`: accepted and without effect.
    Sort,
}

impl Meaning {
    /// The option that it is one of, whose rule decides where it may be given.
    pub fn choice(self) -> Option<Choice> {
        Some(match self {
            Meaning::Command(_) => return None,
            Meaning::Option(choice) => choice,
            Meaning::Tcp | Meaning::Udp | Meaning::Sctp | Meaning::FwMark | Meaning::Ipv6 => {
                Choice::ServiceAddress
            }
            Meaning::Route | Meaning::Tunnel | Meaning::Masquerade => Choice::Forwarding,
            Meaning::Sort => Choice::NoSort,
        })
    }
}

/// A way to type something: long name (empty if there is none), short name, value, meaning.
pub type Switch = (&'static str, Option<char>, Takes, Meaning);

/// Every switch.
pub const SWITCHES: &[Switch] = &[
    ("add-service", Some('A'), Takes::Nothing, Meaning::Command(Command::AddService)),
    ("edit-service", Some('E'), Takes::Nothing, Meaning::Command(Command::EditService)),
    ("delete-service", Some('D'), Takes::Nothing, Meaning::Command(Command::DeleteService)),
    ("clear", Some('C'), Takes::Nothing, Meaning::Command(Command::Flush)),
    ("list", Some('L'), Takes::Nothing, Meaning::Command(Command::List)),
    ("list", Some('l'), Takes::Nothing, Meaning::Command(Command::List)),
    ("zero", Some('Z'), Takes::Nothing, Meaning::Command(Command::Zero)),
    ("add-server", Some('a'), Takes::Nothing, Meaning::Command(Command::AddServer)),
    ("edit-server", Some('e'), Takes::Nothing, Meaning::Command(Command::EditServer)),
    ("delete-server", Some('d'), Takes::Nothing, Meaning::Command(Command::DeleteServer)),
    ("set", None, Takes::Nothing, Meaning::Command(Command::Set)),
    ("start-daemon", None, Takes::Value, Meaning::Command(Command::StartDaemon)),
    ("stop-daemon", None, Takes::Value, Meaning::Command(Command::StopDaemon)),
    ("restore", Some('R'), Takes::Nothing, Meaning::Command(Command::Restore)),
    ("save", Some('S'), Takes::Nothing, Meaning::Command(Command::Save)),
    ("help", Some('h'), Takes::Nothing, Meaning::Command(Command::Help)),
    ("version", Some('v'), Takes::Nothing, Meaning::Command(Command::Version)),
    ("tcp-service", Some('t'), Takes::Value, Meaning::Tcp),
    ("udp-service", Some('u'), Takes::Value, Meaning::Udp),
    ("sctp-service", None, Takes::Value, Meaning::Sctp),
    ("fwmark-service", Some('f'), Takes::Value, Meaning::FwMark),
    ("ipv6", Some('6'), Takes::Nothing, Meaning::Ipv6),
    ("scheduler", Some('s'), Takes::Value, Meaning::Option(Choice::Scheduler)),
    ("persistent", Some('p'), Takes::MaybeValue, Meaning::Option(Choice::Persistent)),
    ("netmask", Some('M'), Takes::Value, Meaning::Option(Choice::Netmask)),
    ("real-server", Some('r'), Takes::Value, Meaning::Option(Choice::RealServer)),
    ("gatewaying", Some('g'), Takes::Nothing, Meaning::Route),
    ("ipip", Some('i'), Takes::Nothing, Meaning::Tunnel),
    ("masquerading", Some('m'), Takes::Nothing, Meaning::Masquerade),
    ("weight", Some('w'), Takes::Value, Meaning::Option(Choice::Weight)),
    ("u-threshold", Some('x'), Takes::Value, Meaning::Option(Choice::UpperThreshold)),
    ("l-threshold", Some('y'), Takes::Value, Meaning::Option(Choice::LowerThreshold)),
    ("numeric", Some('n'), Takes::Nothing, Meaning::Option(Choice::Numeric)),
    ("connection", Some('c'), Takes::Nothing, Meaning::Option(Choice::Connection)),
    ("mcast-interface", None, Takes::Value, Meaning::Option(Choice::McastInterface)),
    ("mcast-group", None, Takes::Value, Meaning::Option(Choice::McastGroup)),
    ("mcast-port", None, Takes::Value, Meaning::Option(Choice::McastPort)),
    ("mcast-ttl", None, Takes::Value, Meaning::Option(Choice::McastTtl)),
    ("sync-maxlen", None, Takes::Value, Meaning::Option(Choice::SyncMaxlen)),
    ("syncid", None, Takes::Value, Meaning::Option(Choice::SyncId)),
    ("timeout", None, Takes::Nothing, Meaning::Option(Choice::Timeout)),
    ("daemon", None, Takes::Nothing, Meaning::Option(Choice::Daemon)),
    ("stats", None, Takes::Nothing, Meaning::Option(Choice::Stats)),
    ("rate", None, Takes::Nothing, Meaning::Option(Choice::Rate)),
    ("thresholds", None, Takes::Nothing, Meaning::Option(Choice::Thresholds)),
    ("persistent-conn", None, Takes::Nothing, Meaning::Option(Choice::PersistentConn)),
    ("tun-info", None, Takes::Nothing, Meaning::Option(Choice::TunInfo)),
    ("nosort", None, Takes::Nothing, Meaning::Option(Choice::NoSort)),
    ("sort", None, Takes::Nothing, Meaning::Sort),
    ("exact", Some('X'), Takes::Nothing, Meaning::Option(Choice::Exact)),
    ("ops", Some('o'), Takes::Nothing, Meaning::Option(Choice::OnePacket)),
    ("pe", None, Takes::Value, Meaning::Option(Choice::Engine)),
    ("sched-flags", Some('b'), Takes::Value, Meaning::Option(Choice::SchedulerFlags)),
    ("tun-type", None, Takes::Value, Meaning::Option(Choice::TunType)),
    ("tun-port", None, Takes::Value, Meaning::Option(Choice::TunPort)),
    ("tun-nocsum", None, Takes::Nothing, Meaning::Option(Choice::TunNocsum)),
    ("tun-csum", None, Takes::Nothing, Meaning::Option(Choice::TunCsum)),
    ("tun-remcsum", None, Takes::Nothing, Meaning::Option(Choice::TunRemcsum)),
    ("json", None, Takes::Nothing, Meaning::Option(Choice::Json)),
    ("compat", None, Takes::Nothing, Meaning::Option(Choice::Compat)),
];
