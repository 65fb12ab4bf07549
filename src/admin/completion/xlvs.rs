//! The tables of `xlvs`.

use super::{array, case_function};
use crate::admin::print::proc::ProcFile;
use crate::admin::subcommands::{JSON, Offer, SUBCOMMANDS, Subcommand};
use crate::ipvs::{beyond, sysctl};

/// What the script needs to know.
pub fn tables() -> String {
    let names = array("commands", SUBCOMMANDS.iter().map(|subcommand| subcommand.name));
    let options = SUBCOMMANDS.iter().map(|subcommand| {
        let json = Some(JSON).filter(|_| subcommand.json);
        let flags = array("options", subcommand.flags.iter().map(|flag| flag.name).chain(json));
        (subcommand.name.to_owned(), flags)
    });
    let values = SUBCOMMANDS.iter().flat_map(values).collect::<Vec<_>>();
    let awaiting = values.iter().filter(|(pattern, _)| pattern.contains(" -"));
    let awaiting = awaiting.map(|(pattern, _)| pattern.as_str()).collect::<Vec<_>>().join(" | ");
    let options_are_left = ("*".to_owned(), "_xlvs_offer \"${options[@]}\"".to_owned());
    let awaiting = [(awaiting, "return 0".to_owned()), ("*".to_owned(), "return 1".to_owned())];
    format!("\n_xlvs_tables() {{\n  {names}\n}}\n")
        + &case_function("The options of a command.", "_xlvs_options", options)
        + &case_function("Whether an option of a command has a value.", "_xlvs_takes_value", awaiting)
        + &case_function(
            "Offers the values of an option of a command, or its words, counted from 0; after the last \
             word its options.",
            "_xlvs_value",
            values.into_iter().chain([options_are_left]),
        )
}

fn values(subcommand: &Subcommand) -> Vec<(String, String)> {
    let name = subcommand.name;
    let of_flags = subcommand.flags.iter().filter_map(|flag| {
        let (_, offer) = flag.value?;
        Some((format!("'{name} {}'", flag.name), offered(offer)))
    });
    let of_words = subcommand.offers.iter().enumerate().map(|(index, offer)| {
        let is_repeated =
            index + 1 == subcommand.offers.len() && subcommand.words.trim_end_matches(']').ends_with("...");
        let pattern = if is_repeated { format!("'{name} '[0-9]*") } else { format!("'{name} {index}'") };
        (pattern, offered(*offer))
    });
    of_flags.chain(of_words).collect()
}

/// What the script does to offer such words.
fn offered(offer: Offer) -> String {
    match offer {
        Offer::Nothing => "true".to_owned(),
        Offer::File => "_xlvs_offer_files".to_owned(),
        Offer::Interface => "_xlvs_offer_interfaces".to_owned(),
        Offer::OneOf(words) => format!("_xlvs_offer {}", words.join(" ")),
        Offer::ProcFile => {
            format!("_xlvs_offer {}", ProcFile::ALL.map(ProcFile::name).join(" "))
        }
        Offer::Setting => {
            let settings = sysctl::names().into_iter().map(|name| format!("net.ipv4.vs.{name}"));
            let switches = beyond::NAMES.iter().map(|name| (*name).to_owned());
            format!("_xlvs_offer {}", settings.chain(switches).collect::<Vec<_>>().join(" "))
        }
        Offer::Service => "_xlvs_offer_running -A \"${plain[0]}\"".to_owned(),
        Offer::Server => "_xlvs_offer_running -a \"${plain[0]}\" \"${plain[1]}\"".to_owned(),
    }
}
