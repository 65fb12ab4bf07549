//! ipvsadm(8).

use super::page::{Page, placeholders, sentence};
use crate::admin::about::About;
use crate::admin::client::{DEFAULT_SOCKET, SOCKET_VARIABLE};
use crate::admin::help::{Group, SYNOPSIS, SYNOPSIS_WORDS, commands, ways};
use crate::admin::options::{Choice, Command, Rule, SWITCHES, Switch};
use crate::ipvs::scheduler;

/// The page.
pub fn page() -> String {
    let mut page = Page::new("IPVSADM", "8", "ipvsadm", "list and edit the tables of the xlvs load balancer");
    page.section("SYNOPSIS").usage(SYNOPSIS.iter().copied()).paragraph(SYNOPSIS_WORDS);
    page.usage(["ipvsadm-save [-n] > FILE", "ipvsadm-restore [--compat] < FILE"]);
    page.section("DESCRIPTION").paragraph(
        "A virtual service is an address and a port, or a firewall mark, whose connections are shared out \
         among real servers. `ipvsadm` says which services and servers there are. It stands in for version \
         1.31 of the program of that name: commands, options, listings, messages and exit status are the \
         same. What it says is carried out by the daemon of `xlvs`(8), not by the kernel.",
    );
    page.paragraph("The command comes first. Without any word the services are listed.");
    list_commands(&mut page);
    list_options(&mut page);
    page.section("SCHEDULERS").paragraph("For `-s`. Servers of weight 0 and overloaded ones are left out.");
    for entry in scheduler::ENTRIES {
        page.item(&format!("`{}`", entry.name), entry.about);
    }
    differences(&mut page);
    surroundings(&mut page);
    page.section("EXAMPLES")
        .paragraph(
            "A web service of two servers behind NAT, where a client stays with its server for ten minutes:",
        )
        .example(
            "ipvsadm -A -t 192.0.2.1:80 -s wlc -p 600\n\
             ipvsadm -a -t 192.0.2.1:80 -r 10.8.8.33 -m\n\
             ipvsadm -a -t 192.0.2.1:80 -r 10.8.8.34 -m -w 2",
        )
        .paragraph("A server gets no new clients; mind the -m:")
        .example("ipvsadm -e -t 192.0.2.1:80 -r 10.8.8.33 -m -w 0")
        .paragraph("Keep the table over a restart:")
        .example("ipvsadm-save -n > FILE\nipvsadm-restore < FILE");
    page.section("SEE ALSO").paragraph("`xlvs`(8), `lvs.cf`(5)");
    page.render()
}

fn list_commands(page: &mut Page) {
    page.section("COMMANDS");
    for (switch, command) in commands() {
        let text = described(switch.3.about()) + &options_of(command);
        page.item(&heading(switch), &text);
    }
}

fn list_options(page: &mut Page) {
    page.section("OPTIONS").paragraph(
        "Short ones can be written as one word, and values with or without a blank: `-At` <HOST>, `-w3`, \
         `--weight=3`, `--weight 3`. What a command needs and takes stands with the command.",
    );
    for group in Group::ALL {
        page.subsection(group.title());
        for switch in group.switches() {
            page.item(&heading(switch), &described(switch.3.about()));
        }
    }
}

/// The ways to type a switch and what follows it.
fn heading(switch: &Switch) -> String {
    let typed: Vec<String> = ways(switch).iter().map(|way| format!("`{way}`")).collect();
    let value = match switch.3.about().value {
        "" => String::new(),
        value => format!(" {}", placeholders(value)),
    };
    typed.join(", ") + &value
}

fn described(about: About) -> String {
    let end = if about.detail.is_empty() { "" } else { " " };
    sentence(about.brief) + end + about.detail
}

/// Which options a command needs and which it takes, the service apart.
fn options_of(command: Command) -> String {
    let with = |wanted: &[Rule]| {
        let is_wanted = |switch: &&Switch| {
            let choice = switch.3.choice().filter(|choice| *choice != Choice::ServiceAddress);
            choice.is_some_and(|choice| wanted.contains(&command.rule(choice)))
        };
        let names = SWITCHES.iter().filter(is_wanted).map(|(long, short, ..)| match short {
            Some(letter) => format!("`-{letter}`"),
            None => format!("`--{long}`"),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let mut text = String::new();
    for (verb, rules) in [("Needs", &[Rule::Required][..]), ("Takes", &[Rule::Optional, Rule::Exclusive])] {
        let names = with(rules);
        if !names.is_empty() {
            text += &format!(" {verb} {names}.");
        }
    }
    text
}

fn differences(page: &mut Page) {
    page.section("DIFFERENCES")
        .paragraph("What is other than in the ipvsadm that this one stands in for:")
        .item(
            "`-R`, `ipvsadm-restore`",
            "All lines or none: a line that is wrong or refused is named with its number, and nothing has \
             been changed. `--compat` gives the original's way back.",
        )
        .item("`--json`", "Is new, with `-L`.")
        .item("`--start-daemon`", "Notes the daemon and starts nothing.")
        .item(
            "`ipvsadm-restore`",
            "Refuses options that it does not know. The original removed all \
             services whatever it was asked.",
        )
        .item(
            "without a daemon",
            "`-h` and `-v` do not need one. Other commands say what the original says without the kernel's \
             module, then the reason.",
        );
}

fn surroundings(page: &mut Page) {
    page.section("EXIT STATUS")
        .item("0", "Done.")
        .item(
            "1",
            "A listing was refused, such as one of a service that there is not, or could not be written.",
        )
        .item("2", "The command line is wrong, or the daemon does not answer.")
        .item(
            "255",
            "The change was refused, the first word is no command, an option is unknown or lacks its value.",
        )
        .item("141", "Who read the output has gone.");
    page.section("ENVIRONMENT").item(&format!("`{SOCKET_VARIABLE}`"), "Path of the daemon's socket.");
    page.section("FILES").item(
        &format!("`{DEFAULT_SOCKET}`"),
        "The daemon's socket, if the environment names no other. It is for root.",
    );
}
