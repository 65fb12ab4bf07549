//! One check, many users.

use std::fmt::Write as _;

use super::*;

/// Two virtual servers on one address and port each, with these servers; `10.8.8.33` in both is one check.
fn two(first: &[&str], second: &[&str]) -> String {
    let mut text = String::new();
    for (name, port, servers) in [("web", 80, first), ("alt", 8080, second)] {
        let _ = writeln!(text, "virtual {name} {{\nactive = 1\naddress = 10.10.1.30 eth0:1\nport = {port}");
        for server in servers {
            let _ =
                writeln!(text, "server {server} {{\naddress = 10.8.8.{server}\nport = 80\nactive = 1\n}}");
        }
        text.push_str("}\n");
    }
    // Otherwise one of them is checked as a web server.
    text.replace("active = 1\naddress = 10.10", "active = 1\nsend = x\nexpect = y\naddress = 10.10")
}

fn per_service(site: &mut Site) -> Vec<String> {
    let servers = |service: &ServiceView| {
        let ids = service.servers.iter().map(|server| server.spec.id.address.to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<_> = site.services().iter().map(servers).collect();
    lines.sort();
    lines
}

#[test]
fn a_server_of_two_virtual_servers_is_checked_once() {
    let mut site = Site::new();
    site.configure(&two(&["33", "34"], &["33"]));
    let checks = site.started();
    assert_eq!(checks.len(), 2, "{checks:?}");
    site.health(&checks[0], true);
    assert_eq!(per_service(&mut site), ["10.8.8.33", "10.8.8.33"], "it enters both");
    for name in ["web", "alt"] {
        let line = format!("[ active ] making 10.8.8.33:80 available virtual={name} server=33");
        assert!(site.told().iter().any(|told| told.starts_with(&line)), "{:#?}", site.told());
    }
    site.health(&checks[0], false);
    assert_eq!(per_service(&mut site), ["", ""], "and leaves both");
}

#[test]
fn a_check_runs_until_its_last_user_has_gone() {
    let mut site = Site::new();
    site.configure(&two(&["33"], &["33"]));
    let check = site.started().remove(0);
    site.health(&check, true);
    site.effects.clear();
    site.configure(&two(&["34"], &["33"]));
    assert_eq!(
        (site.started().len(), site.stopped()),
        (1, 0),
        "the new server's begins, the other one goes on"
    );
    site.configure(&two(&["34"], &[]));
    assert_eq!(site.stopped(), 1);
    site.health(&check, false);
    assert_eq!(per_service(&mut site), ["", ""], "it says no more");
}

/// A running check says nothing until something changes, so a new user is told what it has said last.
#[test]
fn a_new_user_of_a_running_check_knows_its_health() {
    let mut site = Site::new();
    site.configure(&two(&["33", "34"], &[]));
    let checks = site.started();
    site.health(&checks[0], true);
    site.health(&checks[1], false);
    site.effects.clear();
    site.configure(&two(&["33", "34"], &["33", "34"]));
    assert_eq!(site.started().len(), 0);
    assert_eq!(per_service(&mut site), ["10.8.8.33", "10.8.8.33"]);
    let line = "[inactive] 10.8.8.34:80 is not available virtual=alt server=34 reason=";
    assert!(site.told().iter().any(|told| told.starts_with(line)), "{:#?}", site.told());
}

/// Also when the virtual server that it ran for goes in the same breath.
#[test]
fn a_check_is_handed_on() {
    let mut site = Site::new();
    site.configure(&two(&["33"], &[]));
    let check = site.started().remove(0);
    site.health(&check, true);
    site.effects.clear();
    let text =
        two(&["33"], &[]).replace("port = 80\n", "port = 8888\n").replacen("port = 8888\n", "port = 81\n", 1);
    let text = text.replace("port = 8888\n", "port = 80\n");
    site.configure(&text);
    assert_eq!((site.started().len(), site.stopped()), (0, 0));
    assert_eq!(per_service(&mut site), ["", "10.8.8.33"]);
}

#[test]
fn the_start_of_a_check_is_told_for_each_user() {
    let mut site = Site::new();
    site.configure(&two(&["33"], &["33"]));
    for name in ["web", "alt"] {
        let line = format!("starting LVS client monitor for {name} -> 10.8.8.33:80 (33)");
        assert!(site.logged(Level::Info, &line), "{:#?}", site.effects);
    }
    let mut site = Site::new();
    site.configure(&two(&["33"], &[]).replace("send = x\nexpect = y\n", ""));
    let line = "nanny: no monitor configured, assuming web service on port 80: 10.8.8.33:80";
    assert!(site.logged(Level::Info, line), "{:#?}", site.effects);
}
