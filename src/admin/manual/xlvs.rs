//! xlvs(8).

use super::page::{Page, placeholders, sentence};
use crate::admin::client::{DEFAULT_SOCKET, SOCKET_VARIABLE};
use crate::admin::subcommands::{Flag, JSON, JSON_BRIEF, SUBCOMMANDS, Subcommand, usage, with_json};
use crate::ipvs::{beyond, sysctl};

/// The page.
pub fn page() -> String {
    let mut page = Page::new(
        "XLVS",
        "8",
        "xlvs",
        "load balancer that does the work of IPVS without the kernel's module",
    );
    let lines: Vec<String> =
        SUBCOMMANDS.iter().map(|subcommand| format!("xlvs {}", usage(subcommand))).collect();
    page.section("SYNOPSIS").usage(lines.iter().map(String::as_str));
    page.section("DESCRIPTION").paragraph(
        "On a router `xlvs run` takes the packets for virtual services from the network cards, before the \
         kernel's stack sees them, and shares them out among real servers, as IPVS does. `lvs.cf`(5) says \
         which services and servers there are, and saved iptables rules say which packets have a firewall \
         mark. Servers are checked, and those that fail get no connections. The other commands speak to \
         that daemon, as `ipvsadm`(8) does.",
    );
    page.paragraph("Packets that are not for a virtual service are left to the kernel.");
    page.section("COMMANDS");
    for subcommand in SUBCOMMANDS {
        page.item(&heading(subcommand.name, subcommand.words), &described(subcommand));
    }
    page.section("OPTIONS").item(
        &format!("`{JSON}`"),
        &format!("Behind {}: {JSON_BRIEF}. Names of fields stay; there may be more of them.", with_json()),
    );
    for subcommand in SUBCOMMANDS.iter().filter(|subcommand| !subcommand.flags.is_empty()) {
        page.subsection(&format!("xlvs {}", subcommand.name));
        for Flag { name, value, brief } in subcommand.flags {
            page.item(&heading(name, value.map_or("", |(value, _)| value)), &sentence(brief));
        }
    }
    page.section("SETTINGS").paragraph("IPVS settings, each behind net.ipv4.vs.:");
    page.paragraph(&(sysctl::names().join(", ") + "."));
    page.paragraph(&format!("Settings beyond IPVS, all of them 0 at first: {}.", beyond::NAMES.join(", ")));
    surroundings(&mut page);
    page.render()
}

fn heading(name: &str, value: &str) -> String {
    if value.is_empty() { format!("`{name}`") } else { format!("`{name}` {}", placeholders(value)) }
}

fn described(subcommand: &Subcommand) -> String {
    let end = if subcommand.detail.is_empty() { "" } else { " " };
    sentence(subcommand.brief) + end + subcommand.detail
}

fn surroundings(page: &mut Page) {
    page.section("DIFFERENCES").paragraph(
        "Balanced packets pass the router beside its kernel: its iptables rules and connection tracking do \
         not see them. Only the marks of mangle's PREROUTING are evaluated, by `xlvs` itself. Connections \
         are not yet synchronised between two routers.",
    );
    page.section("EXIT STATUS")
        .item("0", "Done.")
        .item(
            "1",
            "It did not work, and the reason is on standard error; a checked file has errors; \
             `diff` has found a difference, `doctor` something bad; a plan breaks more connections than it may.",
        )
        .item("2", "The command line is wrong, or there is no plan.");
    page.section("ENVIRONMENT").item(&format!("`{SOCKET_VARIABLE}`"), "Path of the daemon's socket.");
    page.section("FILES")
        .item("`/etc/sysconfig/ha/lvs.cf`", "Virtual services and real servers.")
        .item("`/etc/sysconfig/iptables`, `/etc/sysconfig/ip6tables`", "Saved rules, for their marks.")
        .item(
            "`/etc/xlvs/xlvs.toml`",
            "What neither says: interfaces, queues, paths, settings to start with. It need not exist.",
        )
        .item(&format!("`{DEFAULT_SOCKET}`"), "The daemon's socket.")
        .item("`/run/xlvs/control.overrides.json`", "What `server` has decided, for the next start.");
    page.section("EXAMPLES")
        .paragraph("See what there is to know about the files, then start:")
        .example("xlvs check /etc/sysconfig/ha/lvs.cf /etc/sysconfig/iptables\nxlvs run")
        .paragraph("What slows it down, or stands in its way:")
        .example("xlvs doctor")
        .paragraph("What was changed by hand:")
        .example("xlvs diff")
        .paragraph(
            "Take a server out of service within five minutes, in all its services, and see how far it is:",
        )
        .example("xlvs drain web-3 --deadline 5m --wait")
        .paragraph("See what another lvs.cf would do, try it, and keep it:")
        .example("xlvs plan new.cf\nxlvs apply new.cf --confirm 60s --install\nxlvs confirm")
        .paragraph("Keep a server out, whatever its checks say, and let them decide again:")
        .example("xlvs server down 10.8.8.33\nxlvs server auto 10.8.8.33")
        .paragraph("See servers come and go:")
        .example("xlvs events --follow")
        .paragraph("Forget connections of servers that are deleted:")
        .example("xlvs sysctl net.ipv4.vs.expire_nodest_conn=1");
    page.section("SEE ALSO").paragraph("`ipvsadm`(8), `lvs.cf`(5), `sysctl`(8)");
}
