//! The tables of ipvsadm.

use super::{array, case_function};
use crate::admin::args::TUNNEL_TYPES;
use crate::admin::help::{commands, ways};
use crate::admin::options::{CHOICES, Choice, Meaning, Rule, SWITCHES, Switch, Takes};
use crate::ipvs::edit::ENGINES;
use crate::ipvs::edit::{FLAG_NAMES, flag_names};
use crate::ipvs::scheduler::ENTRIES;

/// What the script needs to know.
pub fn tables() -> String {
    let lists = [
        array("commands", commands().flat_map(|(switch, _)| ways(switch))),
        array("schedulers", ENTRIES.iter().map(|entry| entry.name)),
        array("tunnels", TUNNEL_TYPES.iter().map(|(name, _)| name)),
        array("engines", ENGINES),
    ];
    let lists = format!("\n_ipvsadm_tables() {{\n  {}\n}}\n", lists.join("\n  "));
    lists + &switches() + &options() + &flags()
}

/// What the script calls a switch.
fn name(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Command(command) => command.name(),
        Meaning::Ipv6 => "ipv6",
        Meaning::Sort => "sort",
        meaning => meaning.choice().map_or("", Choice::name),
    }
}

fn switches() -> String {
    // -L and -l are two switches of one meaning, which must not stand in two arms.
    let arms = SWITCHES.iter().filter(|switch| switch.1 != Some('l')).map(|switch| {
        let ways = ways(switch);
        let what = if switch.3.choice().is_some() { "option" } else { "command" };
        let takes = match switch.2 {
            Takes::Nothing => "nothing",
            Takes::Value => "value",
            Takes::MaybeValue => "maybe",
        };
        let (name, way) = (name(switch.3), &ways[0]);
        (ways.join(" | "), format!("what={what} name={name} switch={way} takes={takes}"))
    });
    let unknown = ("*".to_owned(), "what='' name='' switch='' takes=nothing".to_owned());
    case_function("What a switch is.", "_ipvsadm_switch", arms.chain([unknown]))
}

fn options() -> String {
    let arms = commands().map(|(_, command)| {
        let taken =
            |switch: &&Switch| switch.3.choice().is_some_and(|choice| command.rule(choice) != Rule::Illegal);
        let options = SWITCHES
            .iter()
            .filter(taken)
            .flat_map(|switch| ways(switch).into_iter().map(|way| format!("{}:{way}", name(switch.3))));
        let exclusive = CHOICES.iter().filter(|(choice, _)| command.rule(*choice) == Rule::Exclusive);
        let lists = [array("options", options), array("exclusive", exclusive.map(|(_, name)| name))];
        (command.name().to_owned(), lists.join(" "))
    });
    case_function("Which options a command takes, and which of them only one of.", "_ipvsadm_options", arms)
}

fn flags() -> String {
    let special = ENTRIES.iter().filter(|entry| flag_names(entry.name) != FLAG_NAMES);
    let arms = special.map(|entry| (entry.name.to_owned(), array("flags", flag_names(entry.name))));
    let others = ("*".to_owned(), array("flags", FLAG_NAMES));
    case_function("The flags of a scheduler.", "_ipvsadm_flags", arms.chain([others]))
}
