//! Servers that are drained: by order, and because a file does not name them any more.

use xlvs::director::member::Override;
use xlvs::director::protocol::{DrainCause, DrainStatus, Reply, Request};
use xlvs::ipvs::edit::{Edit, ServerId, ServerSpec};

use super::live::{Flow, Live};
use crate::support::device::{Device as _, Side};

const SITE: &str = "primary = 10.10.1.1
virtual web {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 persistent = 300
 scheduler = rr
 server one {
  address = 10.8.8.33
  active = 1
  weight = 3
 }
 server two {
  address = 10.8.8.34
  active = 1
 }
}
virtual tls {
 active = 1
 address = 10.10.1.30 eth0:1
 vip_nmask = 255.255.255.255
 port = 443
 server one {
  address = 10.8.8.33
  active = 1
 }
 server two {
  address = 10.8.8.34
  active = 1
 }
}
";

fn without_one() -> String {
    let one = " server one {\n  address = 10.8.8.33\n  active = 1\n  weight = 3\n }\n";
    assert!(SITE.contains(one));
    SITE.replace(one, "")
}

fn drain(live: &mut Live, server: &str, deadline: Option<u32>) -> Vec<DrainStatus> {
    match live.ask(Request::DrainServer { server: server.into(), service: None, deadline }) {
        Reply::Drains(drains) => drains,
        other => panic!("{server}: {other:?}"),
    }
}

fn undo(live: &mut Live, server: &str) -> Reply {
    live.ask(Request::UndoDrain { server: server.into(), service: None })
}

fn at(flows: &[Flow], server: &str) -> Vec<Flow> {
    flows.iter().copied().filter(|flow| flow.server.ip().to_string() == server).collect()
}

/// Seconds in which every server here has got its full weight.
const SLOW_START: u64 = 60;

fn weights(live: &mut Live) -> Vec<i32> {
    let Reply::Services { services, .. } = live.ask(Request::ListServices) else { panic!("no services") };
    let mut servers: Vec<_> = services.iter().flat_map(|service| &service.servers).collect();
    servers.sort_by_key(|server| server.spec.id.address);
    servers.iter().map(|server| server.spec.weight).collect()
}

#[test]
fn a_server_is_drained_in_all_its_services_by_name_or_address() {
    for name in ["one", "10.8.8.33"] {
        let mut live = Live::with("", SITE);
        let flows = [live.open(6, "tcp", "10.10.1.30:80"), live.open(6, "tcp", "10.10.1.30:443")].concat();
        let begun = drain(&mut live, name, Some(300));
        assert_eq!(begun.iter().map(|drain| drain.left).collect::<Vec<_>>(), [3, 3], "{name}");
        assert!(begun.iter().all(|drain| drain.cause == DrainCause::Order && drain.ends_in == Some(300)));
        let new = [live.open(4, "tcp", "10.10.1.30:80"), live.open(4, "tcp", "10.10.1.30:443")].concat();
        assert_eq!(at(&new, "10.8.8.33"), [], "{name}: nothing new");
        assert!(live.broken(&flows).is_empty(), "{name}: the old ones go on");
        live.pass(301);
        assert_eq!(live.broken(&flows).into_iter().collect::<Vec<_>>().len(), 6);
        assert!(live.broken(&at(&flows, "10.8.8.34")).is_empty());
    }
    let mut live = Live::with("", SITE);
    assert_eq!(drain(&mut live, "10.8.8.33:443", None).len(), 1);
    let reply = live.ask(Request::DrainServer { server: "three".into(), service: None, deadline: None });
    let text =
        "there is no server three: neither one of that name in lvs.cf nor one of that address in the table";
    assert_eq!(reply, Reply::Failed(text.into()));
}

#[test]
fn an_order_outlives_reloads_and_health_and_ends_when_it_is_undone() {
    let mut live = Live::with("", SITE);
    drain(&mut live, "one", None);
    assert_eq!(weights(&mut live), [0, 0, 1, 1]);
    live.reload(&SITE.replace("scheduler = rr", "scheduler = wlc")).unwrap();
    assert_eq!(weights(&mut live), [0, 0, 1, 1]);
    let check = live.check("10.8.8.33:443");
    live.health(&check, false);
    assert_eq!(weights(&mut live), [0, 1, 1]);
    live.health(&check, true);
    assert_eq!(weights(&mut live), [0, 0, 1, 1]);
    assert_eq!(live.drains().len(), 2);
    assert!(matches!(undo(&mut live, "one"), Reply::Text(_)));
    live.pass(SLOW_START);
    let mut all = weights(&mut live);
    all.sort();
    assert_eq!(all, [1, 1, 1, 3]);
    assert_eq!(live.drains(), Vec::<String>::new());
    assert!(matches!(undo(&mut live, "one"), Reply::Failed(_)));
}

#[test]
fn a_server_that_is_down_can_be_drained_and_a_weight_by_hand_ends_that() {
    let mut live = Live::with("", SITE);
    let check = live.check("10.8.8.33:443");
    live.health(&check, false);
    drain(&mut live, "10.8.8.33:443", None);
    live.health(&check, true);
    let tls = live.status().drains[0].clone();
    assert_eq!(tls.server.port, 443);
    let reply = live.router.run("ipvsadm -e -t 10.10.1.30:443 -r 10.8.8.33 -m -w 4");
    assert_eq!(reply.code, 0, "{}", reply.stderr);
    assert_eq!(live.drains(), Vec::<String>::new());
    live.health(&check, false);
    live.health(&check, true);
    live.pass(SLOW_START);
    assert!(weights(&mut live).contains(&4), "the hand's weight holds");
}

#[test]
fn at_the_deadline_both_ends_are_reset_with_the_numbers_that_they_await() {
    let mut live = Live::with("", SITE);
    let flow = at(&live.open(2, "tcp", "10.10.1.30:80"), "10.8.8.33")[0];
    drain(&mut live, "one", Some(60));
    live.goes(flow);
    let made = live.pass(61);
    let Flow { client, server, .. } = flow;
    let tail = "win=0 ttl=64 DF id=0 iplen=40 ipsum=ok l4sum=ok";
    assert_eq!(
        made,
        [
            format!("c tcp 10.10.1.30:80 > {client} RA seq=5001 ack=1001 {tail}"),
            format!("s tcp {client} > {server} RA seq=1001 ack=5001 {tail}"),
        ]
    );
}

#[test]
fn connections_that_took_the_shortcut_are_told_alike() {
    let mut live = Live::shortened(SITE);
    let flows = live.open(4, "tcp", "10.10.1.30:80");
    assert!(live.broken(&flows).is_empty());
    let taken = live.router.fast_path().taken();
    assert!(live.broken(&flows).is_empty() && live.router.fast_path().taken() == taken + 8, "all are lent");
    drain(&mut live, "one", Some(60));
    assert!(live.broken(&flows).is_empty());
    let made = live.pass(61);
    assert_eq!(made.iter().filter(|line| line.contains(" RA ")).count(), 4, "{made:#?}");
    assert_eq!(made.iter().filter(|line| line.contains(" A ")).count(), 0, "nobody need be asked: {made:#?}");
    // And so are those of a server that is removed.
    let mut live = Live::shortened(SITE);
    let flows = live.open(4, "tcp", "10.10.1.30:80");
    assert!(live.broken(&flows).is_empty());
    live.reload(&without_one()).unwrap();
    assert!(live.broken(&flows).is_empty());
    let made = live.pass(301);
    assert_eq!(made.iter().filter(|line| line.contains(" RA ")).count(), 4, "{made:#?}");
}

#[test]
fn idle_ends_are_asked_before_and_then_reset() {
    let mut live = Live::with("", SITE);
    let flow = at(&live.open(2, "tcp", "10.10.1.30:80"), "10.8.8.33")[0];
    drain(&mut live, "one", Some(60));
    let asked = live.pass(60);
    let Flow { client, server, .. } = flow;
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(asked[0].starts_with(&format!("c tcp 10.10.1.30:80 > {client} A seq=0 ack=0 ")), "{asked:#?}");
    assert!(asked[1].starts_with(&format!("s tcp {client} > {server} A seq=0 ack=0 ")), "{asked:#?}");
    // So do they answer: with what they await and send next. The packets of the flow are just that.
    let mut live = Live::with("", SITE);
    let flow = at(&live.open(2, "tcp", "10.10.1.30:80"), "10.8.8.33")[0];
    drain(&mut live, "one", Some(60));
    live.pass(59);
    live.router.pass(std::time::Duration::from_millis(500), std::time::Duration::from_millis(100));
    assert!(live.goes(flow));
    let made = live.pass(2);
    assert_eq!(made.iter().filter(|line| line.contains(" RA ")).count(), 2, "{made:#?}");
}

#[test]
fn what_comes_after_the_end_is_answered_by_a_reset() {
    let mut live = Live::with("", SITE);
    let flow = at(&live.open(2, "tcp", "10.10.1.30:80"), "10.8.8.33")[0];
    drain(&mut live, "one", Some(10));
    live.pass(12);
    let to_server = live.answers(Side::Server, flow);
    assert_eq!(to_server.len(), 1);
    let Flow { client, server, .. } = flow;
    assert!(to_server[0].starts_with(&format!("s tcp {client} > {server} R seq=1001 ")), "{to_server:?}");
    let to_client = live.answers(Side::Client, flow);
    assert!(
        to_client[0].starts_with(&format!("c tcp 10.10.1.30:80 > {client} R seq=5001 ")),
        "{to_client:?}"
    );
    live.pass(30);
    let leaked = live.answers(Side::Server, flow);
    assert!(leaked[0].starts_with("c tcp 10.8.8.33:80 "), "as with IPVS after a while: {leaked:?}");
}

#[test]
fn a_client_may_come_back_by_the_same_port_at_once() {
    let mut live = Live::with("", SITE);
    let flow = at(&live.open(2, "tcp", "10.10.1.30:80"), "10.8.8.33")[0];
    drain(&mut live, "one", Some(0));
    live.pass(2);
    let again = live.open_from(flow.client, "tcp", "10.10.1.30:80").expect("a new connection");
    assert_eq!(again.server.ip().to_string(), "10.8.8.34");
    assert!(live.goes(again));
}

#[test]
fn a_removed_server_takes_nothing_new_and_leaves_when_it_is_idle_or_late() {
    let mut live = Live::with("", SITE);
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    let mine = at(&flows, "10.8.8.33");
    live.reload(&without_one()).unwrap();
    assert_eq!(
        live.drains(),
        ["10.8.8.33:80 of TCP 10.10.1.30:80 (removed): 4 connections left, which end in 300 s"]
    );
    let listed = live.router.run("ipvsadm -Ln").stdout;
    assert!(
        listed.contains("10.8.8.33:80                 Masq    0      4"),
        "to be seen there, too: {listed}"
    );
    // The same clients, who had templates.
    for flow in &mine {
        let client = std::net::SocketAddrV4::new(*flow.client.ip(), flow.client.port() + 20_000);
        let new = live.open_from(client, "tcp", "10.10.1.30:80").unwrap();
        assert_eq!(new.server.ip().to_string(), "10.8.8.34");
    }
    assert!(live.broken(&flows).is_empty());
    live.pass(301);
    assert_eq!(live.broken(&flows).into_iter().collect::<Vec<_>>(), mine);
    assert_eq!(live.drains(), Vec::<String>::new());
    // Without connections it leaves at once.
    live.reload(SITE).unwrap();
    live.heal();
    live.reload(&without_one()).unwrap();
    let listed = live.router.run("ipvsadm -Ln -t 10.10.1.30:80").stdout;
    assert!(!listed.contains("10.8.8.33"), "{listed}");
}

#[test]
fn a_removed_server_that_comes_back_has_its_connections_and_counters() {
    let mut live = Live::with("", SITE);
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    live.pass(3);
    let counters = |live: &mut Live| live.router.run("ipvsadm -Ln --stats --exact -t 10.10.1.30:80").stdout;
    let before = counters(&mut live);
    live.reload(&without_one()).unwrap();
    live.pass(100);
    live.reload(SITE).unwrap();
    assert_eq!(live.drains(), Vec::<String>::new());
    let mut all = weights(&mut live);
    all.sort();
    assert_eq!(all, [1, 1, 1, 3], "active again at once, since it was healthy");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&counters(&mut live)), sorted(&before));
    live.pass(400);
    assert!(live.broken(&flows).is_empty(), "the deadline is forgotten");
    assert!(!at(&live.open(4, "tcp", "10.10.1.30:80"), "10.8.8.33").is_empty());
}

#[test]
fn a_virtual_server_that_comes_back_is_as_it_was() {
    let only_tls = format!("primary = 10.10.1.1\nvirtual tls{}", SITE.split("virtual tls").nth(1).unwrap());
    let mut live = Live::with("", SITE);
    live.pass(SLOW_START);
    let before = live.world();
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    live.reload(&only_tls).unwrap();
    assert!(live.open_one("tcp", "10.10.1.30:80").is_none());
    assert_eq!(live.drains().len(), 2);
    live.reload(SITE).unwrap();
    assert_eq!(live.world(), before);
    live.pass(400);
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn without_a_time_removed_connections_end_at_once() {
    let mut live = Live::with("drain_removed = 0", SITE);
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    live.reload(&without_one()).unwrap();
    let made = live.pass(2);
    assert_eq!(live.broken(&flows).len(), 4);
    assert_eq!(
        made.iter().filter(|line| line.contains(" A ")).count(),
        8,
        "asked within a second: {made:#?}"
    );
}

#[test]
fn schedulers_that_go_by_hashes_do_not_see_who_leaves() {
    for scheduler in ["sh", "dh", "lblc", "lblcr", "wrr", "lc"] {
        let with = |text: &str| {
            text.replace("scheduler = rr", &format!("scheduler = {scheduler}"))
                .replace("persistent = 300", "persistent = 0")
        };
        let mut live = Live::with("", &with(SITE));
        let flows = live.open(40, "tcp", "10.10.1.30:80");
        assert!(!flows.is_empty());
        live.reload(&with(&without_one())).unwrap();
        let new = live.open(40, "tcp", "10.10.1.30:80");
        assert_eq!(at(&new, "10.8.8.33"), [], "{scheduler}");
        assert!(live.broken(&flows).is_empty(), "{scheduler}");
    }
}

#[test]
fn the_difference_to_the_file_shows_what_is_drained() {
    let mut live = Live::with("", SITE);
    live.open(4, "tcp", "10.10.1.30:80");
    live.reload(&without_one()).unwrap();
    drain(&mut live, "10.8.8.34:443", Some(50));
    let Reply::Differences(differences) = live.ask(Request::Diff) else { panic!("no differences") };
    let lines: Vec<String> =
        differences.iter().map(|it| format!("{}: {}", it.subject, it.change())).collect();
    assert_eq!(
        lines,
        [
            "server 10.8.8.34:443 of TCP 10.10.1.30:443: drained (by order), 0 connections left in the table, Masq \
             weight 1 in lvs.cf",
            "server 10.8.8.33:80 of TCP 10.10.1.30:80: drained (removed), 2 connections left, which end in 300 s in \
             the table, not in lvs.cf",
        ]
    );
}

#[test]
fn an_edit_by_hand_takes_back_who_leaves() {
    let mut live = Live::with("", SITE);
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    live.reload(&without_one()).unwrap();
    let output = live.router.run("ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33 -m -w 2");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(live.drains(), Vec::<String>::new());
    assert!(!at(&live.open(4, "tcp", "10.10.1.30:80"), "10.8.8.33").is_empty());
    live.pass(400);
    assert!(live.broken(&flows).is_empty());
    // And one that deletes it ends it as ever.
    live.reload(SITE).unwrap();
    live.reload(&without_one()).unwrap();
    live.router.run("ipvsadm -d -t 10.10.1.30:80 -r 10.8.8.33");
    assert_eq!(live.drains(), Vec::<String>::new());
    assert_eq!(live.broken(&flows).len(), 4);
}

#[test]
fn a_file_that_gives_weight_0_takes_a_leaving_server_back_all_the_same() {
    let mut live = Live::with("", SITE);
    let flows = live.open(8, "tcp", "10.10.1.30:80");
    live.reload(&without_one()).unwrap();
    live.reload(&SITE.replace("weight = 3", "weight = 0")).unwrap();
    assert_eq!(live.drains(), Vec::<String>::new());
    live.pass(400);
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn a_service_by_hand_beside_the_file_is_left_alone() {
    let mut live = Live::with("", SITE);
    let other: ServerSpec = serde_json::from_value(serde_json::json!({
        "id": {"address": "10.8.8.40", "port": 80}, "forward": "masquerade", "weight": 1,
        "upper_threshold": 0, "lower_threshold": 0
    }))
    .unwrap();
    let tls = live.status().checks.len();
    assert_eq!(tls, 4);
    let Reply::Services { services, .. } = live.ask(Request::ListServices) else { panic!("no services") };
    let web = services.iter().find(|service| service.spec.persistence.is_some()).unwrap().spec.id;
    assert_eq!(live.ask(Request::Edit(Edit::AddServer(web, other.clone()))), Reply::Done);
    live.reload(&without_one()).unwrap();
    let listed = live.router.run("ipvsadm -Ln -t 10.10.1.30:80").stdout;
    assert!(listed.contains("10.8.8.40:80"), "{listed}");
    assert_eq!(other.id, ServerId { address: "10.8.8.40".parse().unwrap(), port: 80 });
}

#[test]
fn a_sorry_server_leaves_and_comes_back_with_its_virtual_server() {
    let site = SITE.replacen(" persistent = 300\n", " sorry_server = 10.8.8.40\n", 1);
    let only_tls = format!("primary = 10.10.1.1\nvirtual tls{}", SITE.split("virtual tls").nth(1).unwrap());
    let mut live = Live::with("", &site);
    for server in ["10.8.8.33:80", "10.8.8.34:80"] {
        let check = live.check(server);
        live.health(&check, false);
    }
    let flows = live.open(4, "tcp", "10.10.1.30:80");
    assert_eq!(at(&flows, "10.8.8.40").len(), 4, "it stands in");
    live.reload(&only_tls).unwrap();
    assert_eq!(live.drains().len(), 1);
    assert!(live.broken(&flows).is_empty(), "its connections go on");
    live.reload(&site).unwrap();
    // The checks of servers that were down are new, and are waited for.
    live.pass(6);
    assert_eq!(live.drains(), Vec::<String>::new());
    assert_eq!(at(&live.open(4, "tcp", "10.10.1.30:80"), "10.8.8.40").len(), 4, "no check has succeeded");
    live.pass(400);
    assert!(live.broken(&flows).is_empty(), "the deadline is forgotten");
}

#[test]
fn an_earlier_deadline_by_order_holds_when_the_file_removes_the_server_too() {
    for on_trial in [false, true] {
        let mut live = Live::with("", SITE);
        let flows = live.open(8, "tcp", "10.10.1.30:80");
        let mine = at(&flows, "10.8.8.33");
        drain(&mut live, "one", Some(60));
        live.pass(10);
        if on_trial {
            live.apply(&without_one(), Some(60));
            assert_eq!(live.ask(Request::Confirm), Reply::Text("confirmed /tmp/new.cf".into()));
        } else {
            live.reload(&without_one()).unwrap();
        }
        live.pass(48);
        assert!(live.broken(&flows).is_empty(), "{:#?}", live.drains());
        live.pass(4);
        assert_eq!(live.broken(&flows).into_iter().collect::<Vec<_>>(), mine, "{:#?}", live.drains());
    }
}

#[test]
fn a_server_that_is_put_up_by_hand_is_no_longer_drained() {
    let mut live = Live::with("", SITE);
    let over = |to| Request::Override { server: "one".into(), virtual_server: Some("web".into()), to };
    live.pass(SLOW_START);
    drain(&mut live, "10.8.8.33:80", None);
    let told = |reply| match reply {
        Reply::Text(text) => text,
        other => panic!("refused: {other:?}"),
    };
    let text = told(live.ask(over(Override::Auto)));
    assert!(text.ends_with("says up; in the table with weight 0, since it is drained by order"), "{text}");
    let text = told(live.ask(over(Override::Up)));
    assert!(text.ends_with("up by hand; in the table with weight 3"), "{text}");
    assert_eq!(live.drains(), Vec::<String>::new());
    let mut all = weights(&mut live);
    all.sort();
    assert_eq!(all, [1, 1, 1, 3]);
}
