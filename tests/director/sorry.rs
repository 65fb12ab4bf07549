//! `sorry_server`: what stands in while no server is up (piranha.md 3.5).

use xlvs::director::member::Override;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{Edit, Forward};

use super::by_hand::{FIRST, article_service, by_weight, server_id};
use super::live::Live;
use super::{ARTICLE, Site};

fn sorry_text() -> String {
    ARTICLE.replace("fwmark = 80\n", "fwmark = 80\n sorry_server = 10.8.8.99\n")
}

/// The article's site with a sorry server; nothing is known of its servers.
fn site() -> Site {
    let mut site = Site::new();
    site.configure(&sorry_text());
    site
}

const SORRY: &str = "10.8.8.99:80 1";

#[test]
fn it_enters_when_the_last_server_leaves_and_leaves_when_one_is_back() {
    let mut site = site();
    let checks = site.started();
    assert_eq!(site.servers(), Vec::<String>::new(), "there is hope still");
    checks.iter().for_each(|check| site.health(check, true));
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
    site.pass(30);
    site.effects.clear();
    site.health(&checks[0], false);
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    site.health(&checks[1], false);
    assert_eq!(site.servers(), [SORRY]);
    site.pass(7);
    site.health(&checks[0], true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1"]);
    let words: Vec<String> =
        site.told().into_iter().filter(|line| line.starts_with("Virtual Server")).collect();
    assert_eq!(
        words,
        [
            "Virtual Server http_server: No real servers; activate sorry_server 10.8.8.99 virtual=http_server \
             up_for=30s",
            "Virtual Server http_server: 1 real servers; deactivate sorry_server 10.8.8.99 virtual=http_server \
             down_for=7s",
        ]
    );
    assert_eq!(site.differences(), Vec::<String>::new());
}

#[test]
fn it_has_the_method_of_all_and_the_virtual_port() {
    let mut site = Site::new();
    let text = sorry_text().replace("network = nat", "network = direct").replace("port = 80", "port = 8080");
    site.configure(&text);
    site.started().iter().for_each(|check| site.health(check, false));
    let services = site.services();
    let spec = &services[0].servers[0].spec;
    assert_eq!((spec.forward, spec.weight, spec.id), (Forward::Route, 1, server_id("10.8.8.99:8080")));
}

#[test]
fn it_enters_at_the_start_once_all_checks_have_failed_or_after_five_seconds() {
    let mut site = site();
    let checks = site.started();
    site.health(&checks[0], false);
    site.pass(4);
    assert_eq!(site.servers(), Vec::<String>::new(), "the other may be well");
    site.health(&checks[1], false);
    assert_eq!(site.servers(), [SORRY]);

    let mut site = self::site();
    site.pass(4);
    assert_eq!(site.servers(), Vec::<String>::new());
    site.pass(1);
    assert_eq!(site.servers(), [SORRY]);
    let check = site.started()[0].clone();
    site.health(&check, true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1"]);
}

#[test]
fn quiesced_servers_stay_beside_it() {
    let mut site = Site::new();
    site.configure(&sorry_text().replace("quiesce_server = 0", "quiesce_server = 1"));
    let checks = site.started();
    checks.iter().for_each(|check| site.health(check, true));
    checks.iter().for_each(|check| site.health(check, false));
    assert_eq!(site.servers(), ["10.8.8.33:80 0", "10.8.8.34:80 0", SORRY]);
    site.health(&checks[1], true);
    assert_eq!(site.servers(), ["10.8.8.33:80 0", "10.8.8.34:80 1"]);
}

/// lvsd counted the servers that are up, whatever their weight.
#[test]
fn servers_with_weight_0_that_are_well_keep_it_out() {
    let mut site = site();
    let checks = site.started();
    checks.iter().for_each(|check| site.health(check, true));
    for server in [FIRST, "10.8.8.34:80"] {
        site.by_hand(Edit::EditServer(article_service(), by_weight(server, 0)));
    }
    site.pass(60);
    assert_eq!(site.servers(), ["10.8.8.33:80 0", "10.8.8.34:80 0"]);
}

#[test]
fn servers_that_are_down_by_hand_make_room_for_it() {
    let mut site = site();
    site.started().iter().for_each(|check| site.health(check, true));
    let to = |server: &str, to| Request::Override { server: server.into(), virtual_server: None, to };
    site.ask(to("lvs-03", Override::Down));
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    site.ask(to("lvs-04", Override::Down));
    assert_eq!(site.servers(), [SORRY]);
    site.ask(to("lvs-04", Override::Auto));
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
}

#[test]
fn a_reload_changes_adds_and_removes_it() {
    let mut site = site();
    site.started().iter().for_each(|check| site.health(check, false));
    assert_eq!(site.servers(), [SORRY]);
    site.configure(&sorry_text().replace("10.8.8.99", "10.8.8.98"));
    assert_eq!(site.servers(), ["10.8.8.98:80 1"]);
    site.configure(ARTICLE);
    assert_eq!(site.servers(), Vec::<String>::new());
    site.configure(&sorry_text());
    assert_eq!(site.servers(), [SORRY]);
    site.by_hand(Edit::DeleteServer(article_service(), server_id("10.8.8.99:80")));
    assert_eq!(site.differences().len(), 1, "{:?}", site.differences());
    site.configure(&sorry_text());
    assert_eq!(site.servers(), [SORRY], "a reload brings back what was deleted by hand");
}

#[test]
fn one_that_was_put_there_by_hand_is_left_alone() {
    let mut site = site();
    let checks = site.started();
    site.by_hand(Edit::AddServer(article_service(), by_weight("10.8.8.99:80", 9)));
    checks.iter().for_each(|check| site.health(check, false));
    assert_eq!(site.servers(), ["10.8.8.99:80 9"]);
    site.health(&checks[0], true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.99:80 9"]);
}

#[test]
fn a_sorry_server_that_is_one_of_the_servers_is_not_used() {
    let mut site = Site::new();
    site.configure(&sorry_text().replace("sorry_server = 10.8.8.99", "sorry_server = 10.8.8.33"));
    site.started().iter().for_each(|check| site.health(check, false));
    assert_eq!(site.servers(), Vec::<String>::new());
}

#[test]
fn without_one_the_loss_of_the_last_server_is_told_all_the_same() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.health(&check, false);
    site.by_hand(Edit::DeleteServer(article_service(), server_id("10.8.8.34:80")));
    let told = |site: &Site| site.told().iter().any(|line| line.contains("No real servers virtual="));
    assert!(!told(&site), "one is well, and was deleted by hand");
    let down = Request::Override { server: "lvs-04".into(), virtual_server: None, to: Override::Down };
    assert!(matches!(site.ask(down), Reply::Text(_)));
    assert!(told(&site), "{:#?}", site.told());
}

/// One server, and one that stands in for it.
fn live_text(server: &str, sorry: &str) -> String {
    format!(
        "primary = 10.10.1.1\nvirtual web {{\n active = 1\n address = 10.10.1.30 eth0:1\n vip_nmask = 255.255.255.255\n \
         {sorry}\n server one {{\n  address = {server}\n  active = 1\n }}\n}}\n"
    )
}

fn weights(live: &mut Live) -> Vec<String> {
    let world = live.world();
    let servers = world.iter().filter_map(|line| line.strip_prefix("server "));
    servers.map(|line| line.replace(" of TCP 10.10.1.30:80: Masq weight", "")).collect()
}

#[test]
fn one_that_the_file_replaces_is_drained_like_a_server() {
    let mut live = Live::with("", &live_text("10.8.8.33", "sorry_server = 10.8.8.42"));
    let check = live.check("10.8.8.33:80");
    live.health(&check, false);
    let flows = live.open(5, "tcp", "10.10.1.30:80");
    live.reload(&live_text("10.8.8.33", "sorry_server = 10.8.8.43")).unwrap();
    assert!(live.broken(&flows).is_empty(), "{:#?}", live.drains());
    assert_eq!(
        live.drains(),
        ["10.8.8.42:80 of TCP 10.10.1.30:80 (removed): 5 connections left, which end in 300 s"]
    );
    let new = live.open(4, "tcp", "10.10.1.30:80");
    assert!(new.iter().all(|flow| flow.server.ip().octets()[3] == 43));
    live.reload(&live_text("10.8.8.33", "")).unwrap();
    assert!(live.broken(&new).is_empty());
    live.pass(302);
    assert_eq!((live.broken(&flows).len(), live.broken(&new).len()), (5, 4));
    assert_eq!(weights(&mut live), Vec::<String>::new());
}

#[test]
fn a_server_becomes_the_sorry_server_and_the_other_way_round() {
    for quiesce in ["quiesce_server = 0", "quiesce_server = 1"] {
        let mut live = Live::with("", &live_text("10.8.8.33", quiesce));
        let check = live.check("10.8.8.33:80");
        live.health(&check, false);
        live.reload(&live_text("10.8.8.34", &format!("{quiesce}\n sorry_server = 10.8.8.33"))).unwrap();
        live.pass(6);
        assert_eq!(weights(&mut live), ["10.8.8.33:80 1"], "{quiesce}: nobody else is up");
        let flows = live.open(3, "tcp", "10.10.1.30:80");
        live.reload(&live_text("10.8.8.33", quiesce)).unwrap();
        assert!(live.broken(&flows).is_empty(), "{quiesce}: it stays in the table");
        let check = live.check("10.8.8.33:80");
        live.health(&check, true);
        live.pass(600);
        assert!(live.broken(&flows).is_empty(), "{quiesce}");
        assert_eq!(weights(&mut live), ["10.8.8.33:80 1"], "{quiesce}");
    }
}
