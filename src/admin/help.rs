//! `-v` and `-h`.

use super::options::{Choice, Command, Meaning, Rule, SWITCHES, Switch, Takes};

/// The version line. Scripts read it, so it is the one of the ipvsadm that this program stands in for.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// The ways to call it.
pub const SYNOPSIS: &[&str] = &[
    "ipvsadm -A|-E SERVICE [-s SCHEDULER] [-b FLAGS] [-p [SECONDS]] [-M MASK] [--pe NAME] [-o]",
    "ipvsadm -D SERVICE",
    "ipvsadm -a|-e SERVICE -r HOST[:PORT] [-m|-g|-i] [-w WEIGHT] [-x UPPER] [-y LOWER] [TUNNEL]",
    "ipvsadm -d SERVICE -r HOST[:PORT]",
    "ipvsadm -L|-l [SERVICE] [-n] [--nosort] [--exact] [--json] [COLUMNS]",
    "ipvsadm -L -c | --timeout | --daemon",
    "ipvsadm -Z [SERVICE]",
    "ipvsadm -C",
    "ipvsadm -S [-n]",
    "ipvsadm -R [--compat]",
    "ipvsadm --set TCP TCPFIN UDP",
    "ipvsadm --start-daemon master|backup [DAEMON]",
    "ipvsadm --stop-daemon master|backup",
    "ipvsadm -h | -v",
];

/// What the words in capitals stand for that are no single value.
pub const SYNOPSIS_WORDS: &str = "SERVICE is -t, -u, --sctp-service or -f; TUNNEL, COLUMNS and DAEMON are \
     options with which a tunnel is made, what is listed is chosen, and a daemon is told where to send.";

/// Options that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Which service.
    Service,
    /// What a service is like.
    ServiceSettings,
    /// What a server is like.
    ServerSettings,
    /// Of the synchronisation daemons.
    Daemons,
    /// What is listed.
    Listing,
    /// How is restored.
    Restoring,
}

impl Group {
    /// All of them in the order of the page.
    pub const ALL: [Group; 6] = [
        Group::Service,
        Group::ServiceSettings,
        Group::ServerSettings,
        Group::Daemons,
        Group::Listing,
        Group::Restoring,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Service => "SERVICE",
            Group::ServiceSettings => "Options of a service",
            Group::ServerSettings => "Options of a server",
            Group::Daemons => "Options of a daemon",
            Group::Listing => "Options of listings",
            Group::Restoring => "Options of -R",
        }
    }

    /// The group of a switch by the first command that takes it; `None` for commands.
    pub fn of(switch: &Switch) -> Option<Group> {
        let choice = switch.3.choice()?;
        let takes = |command: Command| command.rule(choice) != Rule::Illegal;
        Some(match choice {
            Choice::ServiceAddress => Group::Service,
            _ if takes(Command::AddService) => Group::ServiceSettings,
            _ if takes(Command::AddServer) => Group::ServerSettings,
            _ if takes(Command::StartDaemon) => Group::Daemons,
            _ if takes(Command::List) => Group::Listing,
            _ => Group::Restoring,
        })
    }

    /// Its switches.
    pub fn switches(self) -> impl Iterator<Item = &'static Switch> {
        SWITCHES.iter().filter(move |switch| Group::of(switch) == Some(self))
    }
}

/// The commands, each with its first switch: -L and -l are one.
pub fn commands() -> impl Iterator<Item = (&'static Switch, Command)> {
    let is_first = |switch: &Switch| SWITCHES.iter().find(|other| other.0 == switch.0) == Some(switch);
    SWITCHES.iter().filter_map(move |switch| match switch.3 {
        Meaning::Command(command) if is_first(switch) => Some((switch, command)),
        _ => None,
    })
}

/// The ways to type a switch, short ones first.
pub fn ways(switch: &Switch) -> Vec<String> {
    let short = SWITCHES.iter().filter(|other| other.0 == switch.0).filter_map(|other| other.1);
    short.map(|letter| format!("-{letter}")).chain([format!("--{}", switch.0)]).collect()
}

/// What `-h` prints below the version.
pub fn help() -> String {
    let mut text = "The ipvsadm of xlvs: the same commands, carried out by the xlvs daemon instead of the \
         kernel.\n\nUsage:\n"
        .to_owned();
    SYNOPSIS.iter().for_each(|line| text += &format!("  {line}\n"));
    text += "\nCommands:\n";
    commands().for_each(|(switch, _)| text += &line(switch));
    for group in Group::ALL {
        text += &format!("\n{}:\n", group.title());
        group.switches().for_each(|switch| text += &line(switch));
    }
    text
}

fn line(switch: &Switch) -> String {
    let about = switch.3.about();
    // What follows a command are options and plain words, which the usage shows.
    let value = if switch.2 == Takes::Nothing { "" } else { about.value };
    let indent = if switch.1.is_none() { "    " } else { "" };
    let typed = format!("{indent}{} {value}", ways(switch).join(", "));
    format!("  {typed:<32} {}\n", about.brief)
}
