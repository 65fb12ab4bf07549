//! `load_monitor`: what is run, how it is read, and what becomes of the weight (piranha.md 2.6).

use std::net::IpAddr;

use xlvs::director::member::load::{command, read, weight};
use xlvs::director::{Command, Effect};
use xlvs::ipvs::edit::Edit;

use super::by_hand::{FIRST, article_service, by_weight, server_id};
use super::{ARTICLE, Site};

#[test]
fn what_is_run_depends_on_the_monitor() {
    let server: IpAddr = "10.8.8.33".parse().unwrap();
    for (monitor, rsh, expected) in [
        (None, "rsh", None),
        (Some("none"), "rsh", None),
        (Some(""), "rsh", None),
        (Some("uptime"), "rsh", Some("rsh 10.8.8.33 uptime")),
        (Some("uptime"), "ssh", Some("ssh 10.8.8.33 uptime")),
        (Some("uptime"), "/usr/bin/ssh", Some("/usr/bin/ssh 10.8.8.33")),
        (Some("rup"), "ssh", Some("rup 10.8.8.33")),
        (Some("ruptime"), "ssh", Some("ruptime 10.8.8.33")),
        (Some("/usr/bin/load -1"), "ssh", Some("/usr/bin/load -1 10.8.8.33")),
    ] {
        let words = command(monitor, rsh, server).map(|words| words.join(" "));
        assert_eq!(words.as_deref(), expected, "{monitor:?}");
    }
}

#[test]
fn the_load_is_read_out_of_what_such_programs_print() {
    for (printed, expected) in [
        (" 10:11:12 up 3 days,  2:01,  1 user,  load average: 0.52, 0.58, 0.59\n", Some(0.52)),
        ("    10.8.8.33    up  1 day,  3:04,    load average: 12.00, 3.10, 0.05\n", Some(12.0)),
        ("lvs-03      up   1+02:03,     2 users,  load 0.12, 0.10, 0.05\n", Some(0.12)),
        ("load: 3 of 4\n", Some(3.0)),
        ("load: 1", Some(1.0)),
        ("load average: \n", None),
        ("load average: high\n", None),
        ("load average: -1.0, 0.0\n", None),
        ("load average: nan\n", None),
        ("load average: inf\n", None),
        ("load average: 1e400\n", None),
        ("0.52\n", None),
        ("", None),
    ] {
        assert_eq!(read(printed), expected, "{printed:?}");
    }
}

/// By the formula of the reference, reckoned by hand.
#[test]
fn the_weight_follows_the_load() {
    for (last, full, load, expected) in [
        (100, 100, 0.0, 150),
        (100, 100, 0.875, 125),
        (100, 100, 0.9, 100), // 123 would be less than a quarter more
        (100, 100, 1.0, 100),
        (980, 100, 0.0, 980), // 1000 would be less than a quarter more
        (970, 100, 0.0, 1000),
        (1000, 100, 0.0, 1000),
        (150, 100, 2.0, 100),
        (130, 100, 9.0, 100),
        (300, 100, 9.0, 200),
        (300, 100, 1.001, 300),
        (100, 100, 50.0, 100),
        (1, 1, 0.0, 1),
        (2, 2, 0.0, 3),
        (3, 3, 0.0, 4),
    ] {
        assert_eq!(weight(last, full, load), expected, "{last} of {full} with load {load}");
    }
}

/// The article's site with weight 4 and a load program; both servers are up.
fn site() -> Site {
    let mut site = Site::new();
    site.configure(&text());
    site.started().iter().for_each(|check| site.health(check, true));
    site.effects.clear();
    site
}

fn text() -> String {
    let text = ARTICLE.replace("weight = 1\n", "weight = 4\n").replace("timeout = 6", "timeout = 10");
    text.replace("load_monitor = none", "load_monitor = \"/usr/bin/load -1\"")
}

impl Site {
    /// How often the load of the first server was asked for since this was called last.
    fn asked(&mut self) -> usize {
        let asks = |effect: &Effect| match effect {
            Effect::ReadLoad { server, words, .. } => {
                *server == server_id(FIRST) && words.join(" ") == "/usr/bin/load -1 10.8.8.33"
            }
            _ => false,
        };
        let asked = self.effects.iter().filter(|effect| asks(effect)).count();
        self.effects.retain(|effect| !asks(effect));
        asked
    }

    fn load(&mut self, printed: Result<&str, &str>) {
        let printed = printed.map(str::to_owned).map_err(str::to_owned);
        self.command(Command::Load { service: article_service(), server: server_id(FIRST), printed });
    }
}

const IDLE: Result<&str, &str> = Ok("load average: 0.00, 0.0, 0.0\n");

#[test]
fn it_is_asked_for_once_the_weight_is_full_and_one_at_a_time() {
    let mut site = site();
    site.pass(20);
    assert_eq!((site.weight(), site.asked()), (Some(2), 0));
    site.pass(20);
    assert_eq!((site.weight(), site.asked()), (Some(4), 0));
    site.pass(20);
    assert_eq!((site.weight(), site.asked()), (Some(4), 1));
    site.pass(200);
    assert_eq!(site.asked(), 0, "the answer is not there yet");
    site.load(IDLE);
    assert_eq!(site.weight(), Some(6));
    site.pass(20);
    assert_eq!(site.asked(), 1);
    site.load(Ok("load average: 2.00"));
    assert_eq!(site.weight(), Some(4));
}

#[test]
fn a_reload_that_does_not_concern_it_leaves_it_the_weight_of_its_load() {
    let mut site = site();
    site.pass(60);
    site.load(IDLE);
    site.configure(&text());
    assert_eq!(site.weight(), Some(6));
    assert_eq!(site.differences(), Vec::<String>::new());
    site.configure(&text().replace("weight = 4", "weight = 5"));
    assert_eq!(site.weight(), Some(5));
    site.configure(&text().replace("weight = 4", "weight = 5").replace("\"/usr/bin/load -1\"", "none"));
    assert_eq!(site.weight(), Some(5));
    site.asked();
    site.pass(60);
    assert_eq!(site.asked(), 0);
}

#[test]
fn an_answer_that_comes_too_late_changes_nothing() {
    let mut site = site();
    site.pass(60);
    site.by_hand(Edit::EditServer(article_service(), by_weight(FIRST, 9)));
    site.load(IDLE);
    assert_eq!(site.weight(), Some(9), "the hand wins");
    site.by_hand(Edit::DeleteServer(article_service(), server_id(FIRST)));
    site.load(IDLE);
    assert_eq!(site.weight(), None);
}

#[test]
fn what_cannot_be_read_is_told_once_and_changes_nothing() {
    let mut site = site();
    site.pass(60);
    site.load(Err("/usr/bin/load -1 10.8.8.33 took longer than 10 s"));
    site.pass(20);
    site.load(Err("/usr/bin/load -1 10.8.8.33 took longer than 10 s"));
    site.pass(20);
    site.load(Ok("no such host\nreally"));
    site.pass(20);
    site.load(Ok("load average: 1.00"));
    site.pass(20);
    site.load(Ok("no such host"));
    assert_eq!(site.weight(), Some(4));
    let told: Vec<String> = site.told().into_iter().filter(|line| line.contains("load")).collect();
    let fields = "virtual=http_server server=lvs-03 endpoint=10.8.8.33:80";
    let bad = format!("bad load average returned: no such host {fields}");
    let slow = "reason=\"/usr/bin/load -1 10.8.8.33 took longer than 10 s\"";
    assert_eq!(told, [format!("failed to read remote load {fields} {slow}"), bad.clone(), bad]);
}
