//! `xlvs server down|up|auto`.

use xlvs::director::member::{Override, State};
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{Command, Effect, Level, OverrideRecord};
use xlvs::ipvs::edit::Edit;

use super::by_hand::{FIRST, article_service, by_weight, server_id};
use super::{ARTICLE, Site};

impl Site {
    /// What was answered, which must be no refusal.
    fn server(&mut self, to: Override, server: &str) -> String {
        match self.ask(Request::Override { server: server.into(), virtual_server: None, to }) {
            Reply::Text(text) => text,
            other => panic!("refused: {other:?}"),
        }
    }

    /// What is kept over a restart.
    fn kept(&self) -> Vec<OverrideRecord> {
        let kept = |effect: &Effect| match effect {
            Effect::KeepOverrides(records) => Some(records.clone()),
            _ => None,
        };
        self.effects.iter().rev().find_map(kept).unwrap_or_default()
    }
}

#[test]
fn a_server_goes_and_comes_by_its_name_address_or_endpoint() {
    for name in ["lvs-03", "10.8.8.33", "10.8.8.33:80"] {
        let mut site = Site::article();
        let answer = site.server(Override::Down, name);
        assert_eq!(answer, "server lvs-03 10.8.8.33:80 of http_server: down by hand; not in the table");
        assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
        let answer = site.server(Override::Auto, name);
        let expected = "server lvs-03 10.8.8.33:80 of http_server: its check decides, and says up; in the table \
                        with weight 1";
        assert_eq!(answer, expected);
        assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
    }
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let mut site = Site::article();
    let request = |server: &str, of: Option<&str>| Request::Override {
        server: server.into(),
        virtual_server: of.map(str::to_owned),
        to: Override::Down,
    };
    let known = "it has lvs-03 10.8.8.33:80 of http_server, lvs-04 10.8.8.34:80 of http_server";
    let expected = format!("lvs.cf has no active server lvs-05; {known}");
    assert_eq!(site.ask(request("lvs-05", None)), Reply::Failed(expected));
    let expected = format!("lvs.cf has no active server lvs-03 of a virtual server ftp; {known}");
    assert_eq!(site.ask(request("lvs-03", Some("ftp"))), Reply::Failed(expected));
    assert!(matches!(site.ask(request("lvs-03", Some("http_server"))), Reply::Text(_)));
    assert!(site.kept().len() == 1 && site.servers().len() == 1);
}

#[test]
fn down_outlives_health_and_a_reload() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.server(Override::Down, "lvs-03");
    site.health(&check, false);
    site.health(&check, true);
    site.configure(&ARTICLE.replace("timeout = 6", "timeout = 7"));
    site.configure(&ARTICLE.replace("fwmark = 80", "fwmark = 0"));
    let check = site.started().into_iter().rev().find(|check| check.endpoint.to_string() == FIRST);
    site.health(&check.expect("its check"), true);
    assert_eq!(site.servers(), Vec::<String>::new(), "another mark, and the same server of the same name");
    let standing = site.standing();
    assert_eq!((standing.state, standing.check, standing.forced), (State::Down, State::Up, Override::Down));
    site.server(Override::Auto, "lvs-03");
    assert_eq!(site.servers(), ["10.8.8.33:80 1"]);
}

#[test]
fn up_is_full_weight_at_once_whatever_the_checks_say() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("weight = 1\n", "weight = 100\n"));
    let check = site.started()[0].clone();
    site.health(&check, true);
    assert_eq!(site.weight(), Some(3));
    site.server(Override::Up, "lvs-03");
    assert_eq!(site.weight(), Some(100));
    site.health(&check, false);
    site.pass(600);
    assert_eq!(site.weight(), Some(100));
    assert_eq!(site.standing().check, State::Down);
    site.server(Override::Auto, "lvs-03");
    assert_eq!(site.weight(), None, "its check decides again");
    site.server(Override::Up, "lvs-03");
    assert_eq!(site.weight(), Some(100));
    site.health(&check, true);
    site.server(Override::Auto, "lvs-03");
    assert_eq!(site.weight(), Some(100), "it is in already");
}

#[test]
fn the_last_word_of_a_hand_counts() {
    let mut site = Site::article();
    site.by_hand(Edit::DeleteServer(article_service(), server_id(FIRST)));
    let answer = site.server(Override::Auto, "lvs-03");
    assert!(answer.ends_with("not in the table: it was deleted by hand, a reload restores it"), "{answer}");
    site.server(Override::Up, "lvs-03");
    assert_eq!(site.weight(), Some(1), "up comes after the deletion");
    site.by_hand(Edit::EditServer(article_service(), by_weight(FIRST, 0)));
    assert_eq!(site.weight(), Some(0), "and the edit after that");
    site.server(Override::Up, "lvs-03");
    assert_eq!(site.weight(), Some(1));
    site.server(Override::Down, "lvs-03");
    site.by_hand(Edit::AddServer(article_service(), by_weight(FIRST, 5)));
    assert_eq!(site.weight(), Some(5));
    site.server(Override::Down, "lvs-03");
    assert_eq!(site.weight(), None);
}

#[test]
fn down_quiesces_where_a_failure_would() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("quiesce_server = 0", "quiesce_server = 1"));
    site.started().iter().for_each(|check| site.health(check, true));
    site.server(Override::Down, "lvs-03");
    assert_eq!(site.weight(), Some(0));
}

#[test]
fn overrides_and_what_follows_are_told() {
    let mut site = Site::article();
    site.pass(12);
    site.server(Override::Down, "lvs-03");
    site.pass(5);
    site.server(Override::Up, "lvs-03");
    site.server(Override::Up, "lvs-03");
    site.server(Override::Auto, "lvs-03");
    let fields = "virtual=http_server server=lvs-03";
    assert_eq!(
        site.told(),
        [
            format!("opaque glasses on: 10.8.8.33:80 is down by hand {fields}"),
            format!("[inactive] shutting down 10.8.8.33:80 by hand {fields} reason=\"by hand\" up_for=12s"),
            format!("rose-colored glasses on: 10.8.8.33:80 is up by hand {fields}"),
            format!("[ active ] making 10.8.8.33:80 available {fields} reason=\"by hand\" down_for=5s"),
            format!("removing glasses: the checks of 10.8.8.33:80 decide again {fields}"),
        ]
    );
}

#[test]
fn overrides_outlive_the_daemon() {
    let mut site = Site::article();
    site.server(Override::Down, "lvs-03");
    site.command(Command::Stop);
    let kept = site.kept();
    assert_eq!(kept.len(), 1, "the end of the daemon is not theirs");

    let mut next = Site::new();
    next.command(Command::Overrides(kept));
    next.configure(ARTICLE);
    next.started().iter().for_each(|check| next.health(check, true));
    assert_eq!(next.servers(), ["10.8.8.34:80 1"]);
    assert_eq!(next.kept().len(), 0, "nothing new to keep");
}

#[test]
fn overrides_wait_for_a_server_that_leaves_the_file() {
    let mut site = Site::article();
    site.server(Override::Down, "lvs-03");
    let without = ARTICLE.replace("10.8.8.33", "10.8.8.35");
    site.configure(&without);
    let told = "server 10.8.8.33:80 of http_server is not active in lvs.cf any more; if it comes back, it is down by \
                hand still";
    assert!(site.logged(Level::Warn, told), "{:#?}", site.effects);
    site.effects.clear();
    site.configure(ARTICLE);
    let told = "opaque glasses on: 10.8.8.33:80 is down by hand virtual=http_server server=lvs-03";
    assert!(site.logged(Level::Info, told), "{:#?}", site.effects);
    site.started().iter().for_each(|check| site.health(check, true));
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    site.configure(&without);
    let answer = site.server(Override::Auto, "10.8.8.33");
    let expected =
        "server 10.8.8.33:80 of http_server: not active in lvs.cf; if it comes back, its check decides";
    assert_eq!(answer, expected);
    assert!(site.kept().is_empty());
}

#[test]
fn a_reload_says_what_an_override_makes_different_from_the_file() {
    let mut site = Site::article();
    assert_eq!(site.differences(), Vec::<String>::new());
    site.server(Override::Down, "lvs-03");
    let difference = "server 10.8.8.33:80 of FWM 80: not in the table, Masq weight 1 in lvs.cf";
    assert_eq!(site.differences(), [difference]);
}
