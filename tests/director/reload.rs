//! What a reload of Piranha's damaged (reference piranha.md, section 3.2), each row of the table by itself; and the order of things.

use std::time::Duration;

use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{Command, Effect, Level};
use xlvs::nanny::{Check, Method};

use super::live::Live;
use super::{ARTICLE, Site};

const HEAD: &str = "primary = 10.10.1.1\n";

fn server(name: &str, address: &str) -> String {
    format!(" server {name} {{\n  address = {address}\n  active = 1\n }}\n")
}

fn block(name: &str, lines: &str, servers: &[String]) -> String {
    format!(
        "virtual {name} {{\n active = 1\n address = 10.10.1.30 eth0:1\n vip_nmask = 255.255.255.255\n{lines}{}}}\n",
        servers.concat()
    )
}

fn web() -> String {
    block("web", " port = 80\n", &[server("one", "10.8.8.33"), server("two", "10.8.8.34")])
}

fn mail() -> String {
    block("mail", " port = 25\n", &[server("three", "10.8.8.35")])
}

fn dns() -> String {
    let lines = " port = 53\n protocol = udp\n send = \"?\"\n expect = \"!\"\n";
    block("dns", lines, &[server("four", "10.8.8.36")])
}

fn site(blocks: &[String]) -> String {
    format!("{HEAD}{}", blocks.concat())
}

/// A site of these blocks with a few connections of web, and of mail if that is there.
fn running(blocks: &[String]) -> (Live, Vec<super::live::Flow>) {
    let mut live = Live::with("", &site(blocks));
    let mut flows = live.open(10, "tcp", "10.10.1.30:80");
    if blocks.contains(&mail()) {
        flows.extend(live.open(10, "tcp", "10.10.1.30:25"));
    }
    (live, flows)
}

fn listing(live: &mut Live) -> Vec<String> {
    live.world().into_iter().filter(|line| line.starts_with("se")).collect()
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let (mut live, flows) = running(&[web()]);
    let before = live.world();
    assert!(live.reload(&site(&[web().replace("port = 80", "port = eighty")])).is_err());
    assert_eq!(live.world(), before);
    assert!(live.effects.is_empty() && live.broken(&flows).is_empty());
}

#[test]
fn timeouts_follow() {
    let (mut live, flows) = running(&[web()]);
    live.reload(&format!("tcp_timeout = 700\nudp_timeout = 9\n{}", site(&[web()]))).unwrap();
    let reply = live.ask(Request::GetTimeouts);
    assert!(
        matches!(&reply, Reply::Timeouts(set) if (set.tcp, set.tcp_fin, set.udp) == (700, 120, 9)),
        "{reply:?}"
    );
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn a_virtual_server_that_comes_gets_its_address_too() {
    let (mut live, flows) = running(&[web()]);
    let moved = mail().replace("10.10.1.30", "10.10.1.50");
    live.reload(&site(&[web(), moved])).unwrap();
    let added = live.effects.iter().any(
        |effect| matches!(effect, Effect::AddAddress(address) if address.address.to_string() == "10.10.1.50"),
    );
    assert!(added, "{:#?}", live.effects);
    live.heal();
    assert!(live.open_one("tcp", "10.10.1.50:25").is_some());
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn those_that_change_places_are_not_mixed_up() {
    let (mut live, flows) = running(&[web(), mail(), dns()]);
    let before = listing(&mut live);
    live.reload(&site(&[dns(), web(), mail()])).unwrap();
    assert_eq!(listing(&mut live), before, "only the order in the file is another");
    live.reload(&site(&[block("new", " port = 81\n", &[server("five", "10.8.8.37")]), mail(), web()]))
        .unwrap();
    live.heal();
    let after = listing(&mut live).join("\n");
    assert!(after.contains("service TCP 10.10.1.30:81") && !after.contains(":53"), "{after}");
    assert_eq!(after.matches("\nserver").count() + 1, 4, "{after}");
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn a_virtual_server_that_goes_takes_nothing_along() {
    let (mut live, mut flows) = running(&[web(), mail()]);
    live.reload(&site(&[web()])).unwrap();
    assert!(live.broken(&flows).is_empty(), "its connections go on for a while");
    assert!(live.open_one("tcp", "10.10.1.30:25").is_none(), "but nothing new comes");
    live.pass(302);
    let kept = flows.split_off(10);
    assert_eq!(live.broken(&kept).len(), 10);
    assert!(live.broken(&flows).is_empty());
    assert!(!listing(&mut live).join("\n").contains(":25"));
}

#[test]
fn an_active_flag_of_a_virtual_server_works_both_ways() {
    let inactive = mail().replacen("active = 1", "active = 0", 1);
    let (mut live, flows) = running(&[web(), inactive.clone()]);
    live.reload(&site(&[web(), mail()])).unwrap();
    live.heal();
    assert!(live.open_one("tcp", "10.10.1.30:25").is_some());
    live.reload(&site(&[web(), inactive])).unwrap();
    assert!(live.open_one("tcp", "10.10.1.30:25").is_none());
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn a_server_that_comes_is_checked_and_enters() {
    let (mut live, flows) = running(&[web()]);
    let three = web().replace("}\n}\n", &format!("}}\n{}}}\n", server("three", "10.8.8.35")));
    live.reload(&site(&[three])).unwrap();
    assert!(!listing(&mut live).join("\n").contains("10.8.8.35"), "not before its check");
    live.heal();
    assert!(listing(&mut live).join("\n").contains("10.8.8.35:80"));
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn a_server_that_is_made_inactive_or_removed_goes_alone() {
    let inactive = web().replace("address = 10.8.8.34\n  active = 1", "address = 10.8.8.34\n  active = 0");
    let removed = web().replace(&server("two", "10.8.8.34"), "");
    for file in [inactive, removed] {
        let (mut live, flows) = running(&[web(), mail()]);
        live.reload(&site(&[file, mail()])).unwrap();
        assert!(live.broken(&flows).is_empty(), "connections of all servers go on");
        for _ in 0..4 {
            let flow = live.open_one("tcp", "10.10.1.30:80").expect("the virtual server is still there");
            assert_eq!(flow.server.ip().to_string(), "10.8.8.33");
        }
        live.pass(302);
        let gone = live.broken(&flows);
        assert!(
            gone.iter().all(|flow| flow.server.ip().to_string() == "10.8.8.34") && gone.len() == 5,
            "{gone:?}"
        );
        assert!(!listing(&mut live).join("\n").contains("10.8.8.34"));
    }
}

#[test]
fn weight_scheduler_persistence_and_check_follow() {
    let (mut live, flows) = running(&[web()]);
    let other = web()
        .replace(
            " port = 80\n",
            " port = 80\n scheduler = wrr\n persistent = 50\n timeout = 3\n send = \"?\"\n",
        )
        .replace("address = 10.8.8.34\n", "address = 10.8.8.34\n  weight = 9\n");
    live.reload(&site(&[other])).unwrap();
    let world = listing(&mut live);
    assert!(world.contains(&"service TCP 10.10.1.30:80: wrr persistent 50".into()), "{world:#?}");
    assert!(world.contains(&"server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 9".into()), "{world:#?}");
    let is_other = |check: &Check| {
        let asks = matches!(&check.method, Method::Tcp { send, .. } if send == b"?");
        asks && check.timing.interval == Duration::from_secs(3)
    };
    assert!(live.running().iter().all(|check| is_other(check)));
    assert_eq!(live.running().len(), 2);
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn two_that_differ_by_their_mark_alone_are_two() {
    let by_mark = |name: &str, mark: u32, server: String| {
        block(name, &format!(" fwmark = {mark}\n persistent = 60\n"), &[server])
            .replace("10.10.1.30 eth0:1", "10.10.1.40 eth0:1")
    };
    let (one, two) =
        (by_mark("one", 7, server("a", "10.8.8.33")), by_mark("two", 8, server("b", "10.8.8.34")));
    let mut live = Live::with("", &site(&[one.clone(), two.clone()]));
    let flows = [live.open(3, "tcp", "10.10.1.40:8000"), live.open(3, "tcp", "10.10.1.40:9000")].concat();
    assert_eq!(flows[5].server.ip().to_string(), "10.8.8.34");
    live.reload(&site(&[two.replace("persistent = 60", "persistent = 90"), one])).unwrap();
    let world = listing(&mut live);
    assert!(world.contains(&"service FWM 7: wlc persistent 60".into()), "{world:#?}");
    assert!(world.contains(&"service FWM 8: wlc persistent 90".into()), "{world:#?}");
    assert!(live.broken(&flows).is_empty());
}

#[test]
fn health_outlives_a_reload() {
    let (mut live, _) = running(&[web()]);
    let check = live.check("10.8.8.34:80");
    live.health(&check, false);
    let renumbered = web().replace("port = 80\n", "port = 80\n scheduler = rr\n");
    live.reload(&site(&[renumbered])).unwrap();
    let world = listing(&mut live).join("\n");
    assert!(world.contains("10.8.8.33:80") && !world.contains("10.8.8.34"), "{world}");
    let health: Vec<String> = live.status().checks.iter().map(|check| check.health.clone()).collect();
    assert_eq!(health, ["up", "down"]);
}

#[test]
fn what_is_known_of_a_server_counts_where_the_same_check_is_for_it() {
    let by_mark =
        web().replace(" port = 80\n", " fwmark = 7\n persistent = 9\n").replace(".30 eth0:1", ".40 eth0:1");
    let mut live = Live::with("", &site(std::slice::from_ref(&by_mark)));
    live.effects.clear();
    live.reload(&site(&[by_mark.replace("fwmark = 7", "fwmark = 8")])).unwrap();
    let checks = |effect: &&Effect| matches!(effect, Effect::StartCheck(_) | Effect::StopCheck(_));
    assert_eq!(live.effects.iter().filter(checks).count(), 0, "the same checks go on");
    assert!(live.open_one("tcp", "10.10.1.40:9000").is_some(), "clients of the new mark need not wait");
    assert!(live.open_one("tcp", "10.10.1.40:8000").is_none(), "nobody takes the old one any more");
}

/// The place of an effect.
fn at(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(wanted).unwrap_or_else(|| panic!("not among {effects:#?}"))
}

#[test]
fn an_address_comes_when_its_packets_find_a_service_and_goes_when_nobody_needs_it() {
    let mut site = Site::new();
    let text = ARTICLE.replace("10.10.1.30", "10.10.1.77").replace("fwmark = 80\n", "");
    site.configure(&text);
    let steered = at(&site.effects, |effect| match effect {
        Effect::Steer(steering) => {
            steering.destinations.iter().any(|(to, _)| to.to_string() == "10.10.1.77/32")
        }
        _ => false,
    });
    let added = at(&site.effects, |effect| matches!(effect, Effect::AddAddress(_)));
    assert!(steered < added, "the packets of an address come up before it attracts any: {:#?}", site.effects);
    site.effects.clear();
    site.configure(&ARTICLE.replace("active = 1", "active = 0"));
    let ended = at(
        &site.effects,
        |effect| matches!(effect, Effect::Log(Level::Info, text) if text == "virtual service http_server has ended"),
    );
    let removed = at(&site.effects, |effect| matches!(effect, Effect::RemoveAddress(_)));
    assert!(ended < removed, "{:#?}", site.effects);
}

#[test]
fn at_the_end_addresses_go_while_the_table_is_still_there() {
    let (mut live, flows) = running(&[web()]);
    live.command(Command::Withdraw);
    assert!(live.effects.iter().any(|effect| matches!(effect, Effect::RemoveAddress(_))));
    assert!(live.broken(&flows).is_empty());
    live.effects.clear();
    live.command(Command::Stop);
    assert!(!live.effects.iter().any(|effect| matches!(effect, Effect::RemoveAddress(_))), "once is enough");
    assert!(listing(&mut live).is_empty());
}

#[test]
fn an_address_moves_without_a_gap_and_one_that_is_needed_stays() {
    let (mut live, flows) = running(&[web()]);
    live.reload(&site(&[web().replace("eth0:1", "eth1:1")])).unwrap();
    let moved = live.effects.iter().filter_map(|effect| match effect {
        Effect::MoveAddress(from, to) => Some((from.interface.clone(), to.interface.clone())),
        _ => None,
    });
    assert_eq!(moved.collect::<Vec<_>>(), [("eth0".to_owned(), "eth1".to_owned())]);
    live.effects.clear();
    live.reload(&site(&[web().replace("10.10.1.30 eth0:1", "10.10.1.50 eth0:1")])).unwrap();
    let removed = |live: &Live| live.effects.iter().any(|effect| matches!(effect, Effect::RemoveAddress(_)));
    assert!(!removed(&live), "its connections need it for ARP");
    live.pass(100);
    assert!(live.broken(&flows).is_empty() && !removed(&live));
    live.pass(205);
    assert!(removed(&live));
    assert_eq!(live.broken(&flows).len(), flows.len());
}

#[test]
fn an_address_of_a_mark_goes_with_its_connections_not_with_its_service() {
    let marked = |address: &str| {
        let lines = " fwmark = 7\n persistent = 9\n";
        site(&[block("bundle", lines, &[server("one", "10.8.8.33")]).replace("10.10.1.30", address)])
    };
    let mut live = Live::with("", &marked("10.10.1.40"));
    let old = live.open(4, "tcp", "10.10.1.40:8000");
    live.reload(&marked("10.10.1.41")).unwrap();
    let new = live.open(4, "tcp", "10.10.1.41:8000");
    assert!(live.open_one("tcp", "10.10.1.40:8000").is_none(), "nobody may come to an address that is to go");
    live.pass(200);
    assert!(live.broken(&[old.clone(), new.clone()].concat()).is_empty());
    let made = live.pass(103);
    assert_eq!(made.iter().filter(|line| line.contains(" RA ")).count(), 8, "both ends are told: {made:#?}");
    assert_eq!(live.broken(&old).len(), 4);
    assert!(live.broken(&new).is_empty());
    let removed = live.effects.iter().filter(|effect| matches!(effect, Effect::RemoveAddress(_)));
    assert_eq!(removed.count(), 1);
}

#[test]
fn a_former_gateway_address_stays_for_as_long_as_a_drain() {
    let with = |gateway: &str| format!("nat_router = {gateway} eth1:9\n{}", site(&[web()]));
    let mut live = Live::with("", &with("10.8.8.20"));
    let flows = live.open(3, "tcp", "10.10.1.30:80");
    live.reload(&with("10.8.8.21")).unwrap();
    let removed = |live: &Live| live.effects.iter().any(|effect| matches!(effect, Effect::RemoveAddress(_)));
    live.pass(290);
    assert!(!removed(&live), "servers go on using it");
    live.pass(20);
    assert!(removed(&live));
    assert!(live.broken(&flows).is_empty(), "they may have been told of the new one");
}
