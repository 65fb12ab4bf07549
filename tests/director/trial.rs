//! `xlvs apply --confirm`: the way there, and the way back.

use std::sync::Arc;
use std::time::Duration;

use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Effect};

use super::live::Live;
use crate::support::device::Device as _;

const SITE: &str = "primary = 10.10.1.1
tcp_timeout = 600
virtual web {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 scheduler = wlc
 server one {
  address = 10.8.8.33
  active = 1
 }
 server two {
  address = 10.8.8.34
  active = 1
 }
 server three {
  address = 10.8.8.35
  active = 1
 }
}
virtual bundle {
 active = 1
 address = 10.10.1.40 eth0:2
 vip_nmask = 255.255.255.255
 fwmark = 7
 persistent = 300
 server four {
  address = 10.8.8.36
  active = 1
 }
}
";

/// Everything is other in it: weights, scheduler, a server less, one more, a virtual server less, one more, timeouts.
const OTHER: &str = "primary = 10.10.1.1
tcp_timeout = 500
virtual web {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 scheduler = rr
 persistent = 60
 server one {
  address = 10.8.8.33
  active = 1
  weight = 9
 }
 server five {
  address = 10.8.8.37
  active = 1
 }
}
virtual mail {
 active = 1
 address = 10.10.1.50 eth0:3
 vip_nmask = 255.255.255.255
 port = 25
 server six {
  address = 10.8.8.38
  active = 1
 }
}
";

fn apply(live: &mut Live, lvs: &str, confirm: Option<u64>) -> Reply {
    live.apply(lvs, confirm)
}

fn listing(live: &mut Live) -> String {
    ["ipvsadm -Ln --nosort", "ipvsadm -L --timeout"].map(|command| live.router.run(command).stdout).concat()
}

/// A site with things changed by hand, a server that is down and one that is drained.
fn worn() -> Live {
    let mut live = Live::with("", SITE);
    for command in [
        "ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.34 -m -w 5 -x 100 -y 50",
        "ipvsadm -E -f 7 -s sh -p 200",
        "ipvsadm -A -t 10.10.1.30:8080 -s rr",
        "ipvsadm -a -t 10.10.1.30:8080 -r 10.8.8.39 -m",
        "ipvsadm --set 0 77 0",
    ] {
        let output = live.router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    let down = live.check("10.8.8.35:80");
    live.health(&down, false);
    let drained = Request::DrainServer { server: "four".into(), service: None, deadline: None };
    assert!(matches!(live.ask(drained), Reply::Drains(_)));
    live
}

#[test]
fn the_way_back_brings_everything_back() {
    let mut live = worn();
    let flows = [live.open(30, "tcp", "10.10.1.30:80"), live.open(5, "tcp", "10.10.1.30:8080")].concat();
    let (before, drains) = (listing(&mut live), live.drains());
    let reply = apply(&mut live, OTHER, Some(60));
    assert!(matches!(&reply, Reply::Text(text) if text.contains("60 s")), "{reply:?}");
    live.heal();
    assert!(live.status().source.as_deref() == Some("/tmp/new.cf") && live.status().trial == Some(60));
    let new = [live.open(4, "tcp", "10.10.1.30:80"), live.open(4, "tcp", "10.10.1.50:25")].concat();
    assert!(
        new.iter()
            .all(|flow| ["10.8.8.33", "10.8.8.37", "10.8.8.38"].contains(&&*flow.server.ip().to_string()))
    );
    live.pass(59);
    assert!(live.broken(&flows).is_empty(), "nothing is lost that could not come back");
    live.pass(2);
    assert!(live.effects.contains(&Effect::TrialEnded(false)));
    assert_eq!((live.status().source, live.status().trial), (None, None));
    let after: Vec<String> = live.drains().into_iter().filter(|line| !line.contains("(removed)")).collect();
    assert_eq!(after, drains);
    assert!(live.broken(&flows).is_empty());
    assert!(live.broken(&new).is_empty(), "what came meanwhile goes on for a while");
    live.pass(302);
    assert!(live.broken(&flows).is_empty());
    assert_eq!(live.broken(&new).len(), new.iter().filter(|flow| flow.server.ip().octets()[3] > 36).count());
    // Counts aside: there are connections more.
    let bare = |text: &str| {
        let weights = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        text.lines().map(weights).collect::<Vec<_>>()
    };
    assert_eq!(bare(&listing(&mut live)), bare(&before));
}

#[test]
fn back_at_once_the_listing_is_the_same_to_the_byte() {
    let mut live = worn();
    let flows = live.open(30, "tcp", "10.10.1.30:80");
    let before = listing(&mut live);
    apply(&mut live, OTHER, Some(60));
    assert_ne!(listing(&mut live), before);
    let removed = live.effects.iter().filter(|effect| matches!(effect, Effect::RemoveAddress(_)));
    assert_eq!(removed.count(), 0, "no address goes on trial");
    assert!(matches!(live.ask(Request::Abort), Reply::Text(_)));
    live.pass(1);
    assert_eq!(listing(&mut live), before);
    assert!(live.broken(&flows).is_empty());
    let text = Reply::Failed("no configuration is on trial".into());
    assert_eq!((live.ask(Request::Abort), live.ask(Request::Confirm)), (text.clone(), text));
}

#[test]
fn once_confirmed_what_was_removed_is_drained() {
    let mut live = Live::with("", SITE);
    let flows = live.open(30, "tcp", "10.10.1.30:80");
    apply(&mut live, OTHER, Some(60));
    live.heal();
    let on_trial = "10.8.8.34:80 of TCP 10.10.1.30:80 (removed on trial): 10 connections left";
    assert!(live.drains().contains(&on_trial.to_owned()), "{:#?}", live.drains());
    live.pass(50);
    assert_eq!(live.ask(Request::Confirm), Reply::Text("confirmed /tmp/new.cf".into()));
    assert_eq!((live.status().source.as_deref(), live.status().trial), (Some("/tmp/new.cf"), None));
    live.pass(290);
    assert!(live.broken(&flows).is_empty());
    live.pass(12);
    assert_eq!(live.broken(&flows).len(), 20);
    let gone = live.effects.iter().any(
        |effect| matches!(effect, Effect::RemoveAddress(address) if address.address.to_string() == "10.10.1.40"),
    );
    assert!(gone, "{:#?}", live.drains());
}

#[test]
fn templates_of_what_is_on_trial_are_there_again() {
    let mut live = Live::with("", SITE);
    let flow = live.open_one("tcp", "10.10.1.40:8000").unwrap();
    let without = SITE.replace("address = 10.8.8.36\n  active = 1", "address = 10.8.8.36\n  active = 0");
    apply(&mut live, &without, Some(60));
    live.pass(61);
    let templates = live.router.tables().templates.len();
    assert_eq!(templates, 1);
    let again = std::net::SocketAddrV4::new(*flow.client.ip(), 55_000);
    assert_eq!(live.open_from(again, "tcp", "10.10.1.40:8443").unwrap().server.ip(), flow.server.ip());
}

#[test]
fn nothing_else_is_applied_or_reloaded_meanwhile() {
    let mut live = Live::with("", SITE);
    apply(&mut live, OTHER, Some(60));
    let world = live.world();
    let told = "the configuration of /tmp/new.cf is on trial for 60 s still: say xlvs confirm or xlvs apply --abort first";
    assert_eq!(apply(&mut live, SITE, None), Reply::Failed(told.into()));
    live.reload(SITE).unwrap();
    assert_eq!(live.world(), world, "the daemon asks before it reads, and the director refuses by itself");
}

#[test]
fn health_and_hands_of_the_meantime_count() {
    let mut live = worn();
    apply(&mut live, OTHER, Some(60));
    live.heal();
    let down = live.check("10.8.8.33:80");
    live.health(&down, false);
    live.router.run("ipvsadm -e -t 10.10.1.30:8080 -r 10.8.8.39 -m -w 8");
    live.ask(Request::Abort);
    let after = listing(&mut live);
    assert!(!after.contains("10.8.8.33:80"), "it is down: {after}");
    assert!(after.contains("10.8.8.39:8080               Masq    8"), "{after}");
    assert!(after.contains("10.8.8.34:80                 Masq    5"), "{after}");
    live.health(&down, true);
    assert!(listing(&mut live).contains("10.8.8.33:80                 Masq    1"));
}

#[test]
fn for_good_at_once_without_confirm_and_a_reload_follows_the_site_again() {
    let mut live = Live::with("", SITE);
    assert!(matches!(apply(&mut live, OTHER, None), Reply::Text(_)));
    assert_eq!(live.status().source.as_deref(), Some("/tmp/new.cf"));
    live.pass(600);
    assert_eq!(live.status().source.as_deref(), Some("/tmp/new.cf"));
    live.reload(SITE).unwrap();
    assert_eq!(live.status().source, None);
}

#[test]
fn what_cannot_be_run_is_not_applied() {
    let mut live = Live::with("", SITE);
    let world = live.world();
    let reply = apply(&mut live, &OTHER.replace("port = 25", "fwmark = 99"), Some(60));
    assert!(
        matches!(&reply, Reply::Failed(text) if text.contains("no saved iptables rule gives mark 99")),
        "{reply:?}"
    );
    assert_eq!(live.world(), world);
    assert_eq!(live.status().trial, None);
}

#[test]
fn marks_go_there_and_back_too() {
    let mut live = Live::with("", SITE);
    let flow = live.open_one("tcp", "10.10.1.40:8000");
    assert!(flow.is_some());
    let marks =
        "*mangle\n-A PREROUTING -d 10.10.1.40/32 -p tcp -m tcp --dport 1234 -j MARK --set-mark 7\nCOMMIT\n";
    let marks = Some(Arc::new(parse_marks(marks, Names::NONE).unwrap()));
    let lvs = Box::new(load(SITE, Names::NONE).unwrap());
    let confirm = Some(Duration::from_secs(60));
    live.command(Command::Apply { client: ClientId(7), lvs, marks, source: "x".into(), confirm });
    assert!(live.open_one("tcp", "10.10.1.40:1234").is_some());
    assert!(live.open_one("tcp", "10.10.1.40:8000").is_none());
    live.ask(Request::Abort);
    assert!(live.open_one("tcp", "10.10.1.40:1234").is_none());
    assert!(live.open_one("tcp", "10.10.1.40:8000").is_some());
}

/// Steps of the slow start, and places of servers that are down.
#[test]
fn weights_on_their_way_and_quiesced_servers_come_back_as_they_were() {
    let quiescing = SITE.replace("scheduler = wlc", "scheduler = wlc\n quiesce_server = 1");
    let site = quiescing.replace("address = 10.8.8.33\n", "address = 10.8.8.33\n  weight = 100\n");
    let mut live = Live::with("", &site);
    let flows = live.open(30, "tcp", "10.10.1.30:80");
    live.pass(25);
    let down = live.check("10.8.8.35:80");
    live.health(&down, false);
    let before = listing(&mut live);
    assert!(before.contains("10.8.8.33:80                 Masq    6"), "slow start: {before}");
    assert!(before.contains("10.8.8.35:80                 Masq    0"), "quiesced: {before}");
    for other in
        [SITE.to_owned(), site.replace("weight = 100", "weight = 4").replace("quiesce_server = 1", "")]
    {
        apply(&mut live, &other, Some(60));
        assert_ne!(listing(&mut live), before);
        live.ask(Request::Abort);
        assert_eq!(listing(&mut live), before);
        assert!(live.broken(&flows).is_empty());
    }
}
